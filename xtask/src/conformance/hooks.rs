//! What tests do to the mock through its sysfs files, done to the machine through its API.

use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The way to one machine.
pub struct Hooks {
    daxvisor: PathBuf,
    socket: PathBuf,
}

/// What `daxvisor ctl --json nvdimm list` prints, as far as it matters here.
#[derive(Deserialize)]
struct List {
    dimms: Vec<Dimm>,
}

#[derive(Deserialize)]
struct Dimm {
    id: String,
    handle: u32,
}

impl Hooks {
    /// For a machine whose sockets lie in `private`.
    pub fn new(daxvisor: &Path, private: &Path) -> Self {
        Self {
            daxvisor: daxvisor.to_owned(),
            socket: private.join("api"),
        }
    }

    /// Flags of `daxvisor run` that open the way.
    pub fn args(&self) -> Vec<String> {
        vec![format!("--api-socket={}", self.socket.display())]
    }

    /// Does what a line of the guest asks for. The guest is not trusted to ask for anything else.
    pub fn serve(&self, request: &str) -> Result<(), String> {
        match request.split_once(' ') {
            Some(("lock", handle)) => {
                let handle = parse(handle).ok_or_else(|| format!("'{handle}' is no device handle"))?;
                self.ctl(&["nvdimm", "lock", &self.dimm(handle)?]).map(drop)
            }
            _ => Err(format!("there is no request '{request}'")),
        }
    }

    /// The DIMM's name.
    fn dimm(&self, handle: u32) -> Result<String, String> {
        let text = self.ctl(&["--json", "nvdimm", "list"])?;
        let list: List = serde_json::from_str(&text).map_err(|e| format!("the list of NVDIMMs cannot be read: {e}"))?;
        let dimm = list.dimms.into_iter().find(|dimm| dimm.handle == handle);
        dimm.map(|dimm| dimm.id)
            .ok_or_else(|| format!("no DIMM has handle {handle:#x}"))
    }

    fn ctl(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.daxvisor);
        command.arg("ctl").arg("--api-socket").arg(&self.socket).args(words);
        let done = command.stdin(Stdio::null()).output();
        let done = done.map_err(|e| format!("cannot run {}: {e}", self.daxvisor.display()))?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            return Err(format!(
                "`ctl {}` failed ({}): {}",
                words.join(" "),
                done.status,
                said.trim()
            ));
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
}

/// A number as sysfs (hexadecimal) or ndctl (decimal) writes it.
fn parse(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_checked_before_anything_is_done() {
        let hooks = Hooks::new(Path::new("/nonexistent/daxvisor"), Path::new("/nonexistent"));
        assert!(hooks.serve("format disk").unwrap_err().contains("no request"));
        assert!(hooks.serve("lock").unwrap_err().contains("no request"));
        assert!(hooks.serve("lock 1; reboot").unwrap_err().contains("no device handle"));
        assert!(
            hooks
                .serve("lock 0x100")
                .unwrap_err()
                .contains("cannot run /nonexistent/daxvisor")
        );
        assert_eq!(
            (parse("0x101"), parse("257"), parse("-1")),
            (Some(257), Some(257), None)
        );
    }
}

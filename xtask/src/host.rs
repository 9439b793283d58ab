//! Where guests run: on this machine's KVM, or in the nested host. daxvisor decides; this asks it.

use crate::workspace;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Deserialize;
use std::{
    path::Path,
    process::{Command, Stdio},
};

/// Exit code of `daxvisor host run` when the nested host failed, and not the command.
pub const HOST_FAILED: i32 = 125;

/// What the user asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// /dev/kvm when it can, else the nested host
    #[default]
    Auto,
    /// /dev/kvm here
    Kvm,
    /// The nested host
    Nested,
}

/// Where a thing runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Here.
    Here,
    /// In the nested host.
    Nested,
}

/// What `daxvisor host check --json` says that matters here.
#[derive(Debug, Clone, Deserialize)]
pub struct Check {
    /// `hardware`, `nested`, `paravirtual`, `absent`, `no-permission` or `broken`.
    pub kind: String,
    #[serde(rename = "runs-kernels")]
    runs_kernels: bool,
}

/// Asks daxvisor what this machine's KVM is.
pub fn check(daxvisor: &Path) -> Result<Check> {
    let mut command = Command::new(daxvisor);
    let output = command.args(["host", "check", "--json"]).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}", daxvisor.display()))?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!(
            "`{} host check --json` failed ({}): {}",
            daxvisor.display(),
            output.status,
            said.trim()
        )
    })
}

impl Check {
    /// Where guests with an unmodified kernel run, and a line that says so.
    pub fn for_kernels(&self, choice: Choice) -> Result<(Place, String)> {
        let (kind, runs) = (&self.kind, self.runs_kernels);
        match choice {
            Choice::Kvm | Choice::Auto if runs => Ok((Place::Here, format!("/dev/kvm ({kind}) runs the guests"))),
            Choice::Kvm => {
                bail!("/dev/kvm is {kind} and runs no kernel; hint: `--host nested` brings a host that does")
            }
            Choice::Auto => Ok((
                Place::Nested,
                format!("/dev/kvm is {kind} and runs no kernel: the nested host (QEMU TCG with SVM) runs the guests"),
            )),
            Choice::Nested => Ok((
                Place::Nested,
                "the nested host (QEMU TCG with SVM) runs the guests".to_owned(),
            )),
        }
    }

    /// Where payload guests run, which ask less of a KVM, and a line that says so.
    pub fn for_payloads(&self, choice: Choice) -> (Place, String) {
        let usable = ["hardware", "nested", "paravirtual"].contains(&self.kind.as_str());
        let kind = &self.kind;
        match choice {
            Choice::Nested => (Place::Nested, "in the nested host, as asked".to_owned()),
            Choice::Auto if !usable => (Place::Nested, format!("in the nested host: /dev/kvm is {kind}")),
            _ => (Place::Here, format!("on /dev/kvm ({kind})")),
        }
    }
}

/// Folders that the nested host hides behind its own.
const HIDDEN: [&str; 4] = ["/tmp", "/var/tmp", "/run", "/dev/shm"];

/// A command that runs `program` there. A checkout in a place that the nested host hides is shared as a whole, since what
/// runs there needs more of it than the program. Folders of `shares` can be written to.
/// `flags` are more of `daxvisor host run`.
pub fn command(
    place: Place,
    daxvisor: &Path,
    flags: &[&str],
    shares: &[&Path],
    timeout: u64,
    program: &Path,
) -> Command {
    if place == Place::Here {
        return Command::new(program);
    }
    let mut command = Command::new(daxvisor);
    command
        .args(["host", "run", "--timeout", &timeout.to_string()])
        .args(flags);
    let root = workspace::root();
    let hidden = HIDDEN.iter().any(|place| root.starts_with(place));
    for share in shares.iter().copied().chain(hidden.then_some(root)) {
        command.arg("--share").arg(share);
    }
    command.arg("--").arg(program);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kvm(text: &str) -> Check {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn host_follows_what_kvm_can_do() {
        let good = kvm(r#"{"kind":"hardware","runs-kernels":true,"loop-rate":7e8}"#);
        let poor = kvm(r#"{"kind":"paravirtual","runs-kernels":false}"#);
        let none = kvm(r#"{"kind":"absent","runs-kernels":false}"#);
        assert_eq!(good.for_kernels(Choice::Auto).unwrap().0, Place::Here);
        assert_eq!(good.for_kernels(Choice::Nested).unwrap().0, Place::Nested);
        let (place, line) = poor.for_kernels(Choice::Auto).unwrap();
        assert!(
            place == Place::Nested && line.starts_with("/dev/kvm is paravirtual"),
            "{line}"
        );
        assert!(
            poor.for_kernels(Choice::Kvm)
                .unwrap_err()
                .to_string()
                .contains("hint: `--host nested`")
        );
        assert_eq!(poor.for_payloads(Choice::Auto).0, Place::Here);
        assert_eq!(none.for_payloads(Choice::Auto).0, Place::Nested);
        assert_eq!(none.for_payloads(Choice::Kvm).0, Place::Here);
    }

    #[test]
    fn nested_command_shares_and_limits() {
        let program = Path::new("/p");
        let nested = command(
            Place::Nested,
            Path::new("/dv"),
            &["--no-stdin"],
            &[Path::new("/s")],
            9,
            program,
        );
        let line = crate::process::line_of(&nested);
        assert_eq!(line, "/dv host run --timeout 9 --no-stdin --share /s -- /p");
        assert_eq!(
            crate::process::line_of(&command(Place::Here, Path::new("/dv"), &[], &[], 9, program)),
            "/p"
        );
    }
}

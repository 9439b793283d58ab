//! Kernel modules named by the image, loaded in the image's order.

use crate::cmdline::Options;
use rustix::{io::Errno, system::finit_module};
use std::{ffi::CString, fs::File, io, path::Path};

/// Where the image says what to load: one absolute path of an uncompressed module per line, `#` starts a comment.
pub const LIST: &str = "/etc/daxvisor-agent.modules";

/// Paths of a list, in order.
pub fn parse_list(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
}

/// The kernel's name of the module in a file: dashes are underscores to it.
fn module_name(path: &str) -> String {
    let stem = Path::new(path).file_stem().unwrap_or_default();
    stem.to_string_lossy().replace('-', "_")
}

fn load(path: &str, parameters: &str) -> io::Result<()> {
    let file = File::open(path)?;
    match finit_module(&file, &CString::new(parameters)?, 0) {
        Err(e) if e != Errno::EXIST => Err(e.into()),
        _ => Ok(()),
    }
}

/// Loads every module of `list`; says which did not load. A module for hardware that is not there (`ENODEV`) is no problem.
pub fn load_all(list: &str, options: &Options) -> Vec<String> {
    let mut problems = Vec::new();
    for path in parse_list(list) {
        match load(path, &options.parameters_of(&module_name(path))) {
            Err(e) if e.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {}
            Err(e) => problems.push(format!("cannot load module {path}: {e}")),
            Ok(()) => {}
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_in_order_without_comments() {
        let list = "# first\n/lib/b.ko\n\n  /lib/a.ko # why\n";
        assert_eq!(parse_list(list).collect::<Vec<_>>(), ["/lib/b.ko", "/lib/a.ko"]);
    }

    #[test]
    fn module_names_are_spelt_as_the_kernel_does() {
        assert_eq!(module_name("/lib/modules/6.1/kvm-amd.ko"), "kvm_amd");
    }
}

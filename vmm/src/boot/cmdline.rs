//! The kernel command line: what is always there, and what the user appends.

use super::BootError;
use crate::layout::CMDLINE_MAX;

/// What daxvisor puts before the user's own options, each for a reason:
///
/// - `panic=-1`: a panic resets at once, so that a run ends and is reported.
/// - `pci=conf1,noearly`: there is no PCI bus, but with `pci=off` the kernel never puts soft-reserved, reserved and persistent
///   ranges of the memory map into `/proc/iomem`, and makes no devices of them. So it is told to believe the configuration
///   ports, without a look for devices.
/// - `tsc=reliable`: KVM keeps the counters of the vCPUs in step; the kernel need not test each pair for 20 ms, nor declare
///   the counter unstable because a loaded host delayed the test.
/// - `cryptomgr.notests`: the kernel's self tests of its ciphers are half of the boot of a distribution's kernel, and test
///   nothing that this machine could change. `cryptomgr.notests=0` after it brings them back.
/// - `reboot=acpi`: on hardware-reduced ACPI Linux prefers EFI for a reset, without any EFI here, and then falls back to the
///   BIOS's entry, where there is nothing. The FADT's reset register works.
const ALWAYS: &str = "panic=-1 pci=conf1,noearly tsc=reliable reboot=acpi cryptomgr.notests";
/// The first serial port; only with a console, since each character costs the guest an exit.
const CONSOLE: &str = "console=ttyS0";

/// The default kernel command line; `console`: whether the first serial port goes anywhere.
///
/// Left out because the kernel does it by itself here: `no_timer_check` (KVM's signature implies it), `i8042.noprobe` (the FADT
/// says that there is none). `quiet` is the user's choice.
pub fn default_cmdline(console: bool) -> String {
    if console {
        format!("{CONSOLE} {ALWAYS}")
    } else {
        ALWAYS.to_owned()
    }
}

/// What Linux has to be told when it does not know that it is a guest (`--cpu -hypervisor`): without KVM's clock, and without
/// any timer of the chipset to compare with, it cannot find out how fast the time stamp counter is.
pub fn without_hypervisor(tsc_khz: u32) -> String {
    format!("tsc_early_khz={tsc_khz}")
}

/// `default` and then `user`, so that the user's options win where the last one does.
pub fn join(default: &str, user: Option<&str>) -> String {
    [Some(default), user]
        .into_iter()
        .flatten()
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// `cmdline` with its NUL, checked against the place for it and against `kernel_limit`, the kernel's own (without NUL).
pub(super) fn terminated(cmdline: &str, kernel_limit: Option<u32>) -> Result<Vec<u8>, BootError> {
    if let Some(at) = cmdline.find('\0') {
        return Err(BootError::CmdlineNul { at });
    }
    let ours = CMDLINE_MAX - 1;
    let max = kernel_limit
        .filter(|limit| *limit > 0)
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(ours)
        .min(ours);
    if cmdline.len() > max {
        return Err(BootError::CmdlineTooLong {
            len: cmdline.len(),
            max,
        });
    }
    Ok([cmdline.as_bytes(), &[0]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_options_come_last() {
        assert_eq!(
            join(&default_cmdline(true), Some(" quiet panic=5 ")),
            "console=ttyS0 panic=-1 pci=conf1,noearly tsc=reliable reboot=acpi cryptomgr.notests quiet panic=5"
        );
        assert_eq!(
            join(&default_cmdline(false), None),
            "panic=-1 pci=conf1,noearly tsc=reliable reboot=acpi cryptomgr.notests"
        );
        assert_eq!(join("", Some("")), "");
    }

    #[test]
    fn a_command_line_has_to_fit() {
        assert_eq!(terminated("a", None).unwrap(), b"a\0");
        assert!(terminated(&"x".repeat(2047), Some(2047)).is_ok());
        assert!(matches!(
            terminated(&"x".repeat(2048), Some(4096)),
            Err(BootError::CmdlineTooLong { len: 2048, max: 2047 })
        ));
        assert!(matches!(
            terminated("xxxxx", Some(4)),
            Err(BootError::CmdlineTooLong { len: 5, max: 4 })
        ));
        assert!(terminated("xxxxx", Some(0)).is_ok());
        assert!(matches!(terminated("a\0b", None), Err(BootError::CmdlineNul { at: 1 })));
    }
}

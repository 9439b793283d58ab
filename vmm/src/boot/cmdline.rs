//! The kernel command line: what is always there, and what the user appends.

use super::BootError;
use crate::{config::Limits, layout::CMDLINE_MAX};
use devices::units::ByteSize;

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

/// What Xen is told before the user's own options: its console is the first serial port, and there is no BIOS to call.
pub fn xen_cmdline(console: bool) -> String {
    const ALWAYS: &str = "no-real-mode";
    match console {
        true => format!("com1=115200,8n1 console=com1 {ALWAYS}"),
        false => format!("console=none {ALWAYS}"),
    }
}

/// Xen's `dom0_mem=` for limits of the first domain's memory.
pub fn dom0_memory(limits: &Limits, static_max_given: bool) -> String {
    // Xen takes a number without suffix for kilobytes; whole ones always have a suffix here.
    let size = |size: ByteSize| match size.0.is_multiple_of(1 << 20) {
        true => format!("{}M", size.0 >> 20),
        false => format!("{}K", size.0 >> 10),
    };
    let mut text = format!("dom0_mem={},min:{}", size(limits.target), size(limits.static_min));
    if static_max_given {
        text = format!("{text},max:{}", size(limits.static_max));
    }
    text
}

/// What Xen's first domain is told before the user's own options; see [`default_cmdline`].
pub fn dom0_cmdline() -> String {
    "console=hvc0 panic=-1 pci=conf1,noearly cryptomgr.notests".to_owned()
}

/// A command line as boot loaders write it for multiboot images: the name of the file comes first, and is not read.
pub fn after_name(name: &str, text: &str) -> String {
    join(name, Some(text))
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
    fn dom0_has_the_limits_of_the_machine() {
        let limits = Limits {
            static_max: ByteSize::mib(768),
            dynamic_max: ByteSize::mib(768),
            target: ByteSize::gib(1),
            dynamic_min: ByteSize::mib(64),
            static_min: ByteSize(ByteSize::mib(64).0 + 4096),
        };
        assert_eq!(dom0_memory(&limits, true), "dom0_mem=1024M,min:65540K,max:768M");
        assert_eq!(dom0_memory(&limits, false), "dom0_mem=1024M,min:65540K");
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

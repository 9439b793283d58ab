//! What is said of virtio devices.

use super::{VmConfig, net};
use crate::{
    config::{ConfigError, DiskConfig, DiskThrottle, NvdimmBacking, VirtioMemConfig, VirtioPmemConfig},
    layout::MAX_VIRTIO,
};
use devices::units::ByteSize;
use std::collections::BTreeSet;

/// Granularity in which Linux maps persistent memory with page structures.
const PMEM_UNIT: u64 = ByteSize::mib(2).0;
/// As for NVDIMMs.
const PMEM_SIZES: std::ops::RangeInclusive<ByteSize> = ByteSize::mib(16)..=ByteSize::gib(1 << 10);
/// A memory section of Linux, the least it can take.
const SECTION: ByteSize = ByteSize::mib(128);
/// Addresses that a guest may have; the last word stands for any.
const VSOCK_CIDS: std::ops::RangeInclusive<u32> = 3..=u32::MAX - 1;
const SECTOR_SIZE: u64 = 512;
const DISK_MAX: ByteSize = ByteSize::gib(64 << 10);
const MEM_MAX: ByteSize = ByteSize::gib(16 << 10);
const BLOCKS: std::ops::RangeInclusive<ByteSize> = ByteSize::mib(2)..=ByteSize::gib(2);

impl VmConfig {
    pub(super) fn check_virtio(&self, problems: &mut Vec<ConfigError>) {
        let mut names = BTreeSet::new();
        let pmem = (0..self.virtio_pmem.len()).map(|at| self.virtio_pmem_name(at));
        let mem = (0..self.virtio_mem.len()).map(|at| self.virtio_mem_name(at));
        let disks = (0..self.disk.len()).map(|at| self.disk_name(at));
        let nets = (0..self.net.len()).map(|at| self.net_name(at));
        let shares = (0..self.share.len()).map(|at| self.share_tag(at));
        for name in pmem.chain(mem).chain(disks).chain(nets).chain(shares) {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            if !(1..=32).contains(&name.len()) || !name.bytes().all(plain) {
                let why = "is no name: expected 1 to 32 letters, digits, '-', '_' and '.'".to_owned();
                problems.push(virtio(format!("id '{name}'"), why));
            }
            if !names.insert(name.clone()) {
                problems.push(virtio(
                    name,
                    "is the name of two virtio devices; hint: give one of them another id=".to_owned(),
                ));
            }
        }
        for (index, device) in self.virtio_pmem.iter().enumerate() {
            let id = self.virtio_pmem_name(index);
            problems.extend(self.unknown_node(device.node, || id.clone()));
            check_pmem(&id, device, problems);
        }
        for (index, device) in self.virtio_mem.iter().enumerate() {
            let id = self.virtio_mem_name(index);
            problems.extend(self.unknown_node(device.node, || id.clone()));
            check_mem(&id, device, problems);
        }
        let (boot, requested) = (self.boot_ram(), self.requested_memory());
        if let Ok(limits) = self.limits()
            && requested.0 != 0
            && boot.0.saturating_add(requested.0) > limits.static_max.0
        {
            let why = format!(
                "with {requested} in virtio-mem devices is above static-max={}; hint: less requested=, or a higher static-max",
                limits.static_max
            );
            problems.push(virtio(format!("the boot RAM of {boot}"), why));
        }
        for (index, disk) in self.disk.iter().enumerate() {
            check_disk(&self.disk_name(index), disk, problems);
        }
        for fault in &self.disk_fault {
            let what = || format!("a fault of disk '{}'", fault.disk);
            let known = (0..self.disk.len()).any(|at| self.disk_name(at) == fault.disk);
            if !known {
                let why = "has no disk of that name; hint: name the disk by its id=".to_owned();
                problems.push(virtio(what(), why));
            }
            let problem = fault.fault().problem();
            problems.extend(problem.map(|why| virtio(what(), why.to_owned())));
        }
        net::check(self, problems);
        if let Some(vsock) = &self.vsock
            && !VSOCK_CIDS.contains(&vsock.cid)
        {
            let why = format!(
                "has cid={}: expected 3 to {}; hint: 0 to 2 are the hypervisor, the machine itself and its host",
                vsock.cid,
                VSOCK_CIDS.end()
            );
            problems.push(virtio("the vsock device".to_owned(), why));
        }
        let count = self.virtio_devices().len();
        if count > MAX_VIRTIO {
            let why = format!(
                "are more than the {MAX_VIRTIO} that a machine has places for, the entropy source among them; hint: leave some out"
            );
            problems.push(virtio(format!("{count} virtio devices"), why));
        }
    }
}

pub(super) fn virtio(what: String, why: String) -> ConfigError {
    ConfigError::Virtio { what, why }
}

fn check_pmem(id: &str, device: &VirtioPmemConfig, problems: &mut Vec<ConfigError>) {
    let mut bad = |why: String| problems.push(virtio(id.to_owned(), why));
    match (device.backing, &device.file) {
        (NvdimmBacking::Memfd, Some(_)) => {
            bad("has backing=memfd and a file; hint: leave out file=, or backing=".to_owned());
        }
        (NvdimmBacking::File | NvdimmBacking::Hugetlbfs | NvdimmBacking::Devdax, None) => {
            bad("has no file for its backing; hint: add file=PATH".to_owned());
        }
        (_, None) if device.readonly => {
            bad("has readonly=on and no file; hint: add file=PATH".to_owned());
        }
        _ => {}
    }
    match device.size {
        None if device.file.is_none() => bad("has no size; hint: add size=SIZE, such as size=512M".to_owned()),
        Some(size) if !PMEM_SIZES.contains(&size) || !size.0.is_multiple_of(PMEM_UNIT) => {
            bad(format!("has size={size}: expected 16M to 1T, a multiple of 2M"));
        }
        _ => {}
    }
}

/// What is wrong with limits, if anything is.
pub fn throttle_problem(throttle: &DiskThrottle) -> Option<String> {
    match throttle {
        DiskThrottle {
            bandwidth: Some(rate), ..
        } if rate.0 < SECTOR_SIZE => Some(format!(
            "has bandwidth={rate}: expected {SECTOR_SIZE} or more bytes a second"
        )),
        DiskThrottle { iops: Some(0), .. } => {
            Some("has iops=0: expected 1 or more; hint: hang=on stops a disk".to_owned())
        }
        _ => None,
    }
}

fn check_disk(id: &str, disk: &DiskConfig, problems: &mut Vec<ConfigError>) {
    let mut bad = |why: String| problems.push(virtio(id.to_owned(), why));
    if let Some(size) = disk.size
        && (size.0 < SECTOR_SIZE || size.0 > DISK_MAX.0 || !size.0.is_multiple_of(SECTOR_SIZE))
    {
        bad(format!(
            "has size={size}: expected 512 bytes to {DISK_MAX}, a multiple of 512"
        ));
    }
    if let Some(serial) = &disk.serial
        && (serial.len() > 20 || !serial.bytes().all(|b| (0x21..0x7f).contains(&b)))
    {
        bad(format!(
            "has serial={serial}: expected at most 20 printable characters without blanks"
        ));
    }
    throttle_problem(&disk.throttle()).into_iter().for_each(bad);
}

fn check_mem(id: &str, device: &VirtioMemConfig, problems: &mut Vec<ConfigError>) {
    let VirtioMemConfig {
        size, block, requested, ..
    } = device;
    let mut bad = |why: String| problems.push(virtio(id.to_owned(), why));
    if !block.0.is_power_of_two() || !BLOCKS.contains(block) {
        return bad(format!("has block={block}: expected a power of two, 2M to 2G"));
    }
    if !(SECTION..=MEM_MAX).contains(size) || !size.0.is_multiple_of(SECTION.max(*block).0) {
        let unit = SECTION.max(*block);
        bad(format!(
            "has size={size}: expected {SECTION} to {MEM_MAX}, a multiple of {unit}"
        ));
    }
    if requested > size || !requested.0.is_multiple_of(block.0) {
        bad(format!(
            "has requested={requested}: expected at most size={size}, a multiple of block={block}"
        ));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::flags;

    pub fn problems(args: &[(&str, &str)]) -> Vec<String> {
        let texts = |flag: &str| -> &'static [String] {
            let mine = args.iter().filter(|(f, _)| *f == flag);
            mine.map(|(_, text)| (*text).to_owned()).collect::<Vec<_>>().leak()
        };
        let mut config = VmConfig::default();
        flags::apply(&mut config, texts).unwrap();
        let found = config.validate().err().unwrap_or_default();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_problem_of_a_virtio_device_is_one_sentence() {
        for (flag, text, why) in [
            ("virtio-pmem", "size=16M,id=a b", "id 'a b' is no name"),
            (
                "virtio-pmem",
                "size=15M",
                "virtio-pmem0 has size=15M: expected 16M to 1T, a multiple of 2M",
            ),
            ("virtio-pmem", "size=17M", "virtio-pmem0 has size=17M"),
            ("virtio-pmem", "node=0", "virtio-pmem0 has no size"),
            (
                "virtio-pmem",
                "size=16M,readonly=on",
                "virtio-pmem0 has readonly=on and no file",
            ),
            (
                "virtio-pmem",
                "size=16M,backing=file",
                "virtio-pmem0 has no file for its backing",
            ),
            (
                "virtio-pmem",
                "x,size=16M,backing=memfd",
                "virtio-pmem0 has backing=memfd and a file",
            ),
            ("virtio-pmem", "size=16M,node=9", "node 9"),
            (
                "virtio-mem",
                "size=64M",
                "virtio-mem0 has size=64M: expected 128M to 16T",
            ),
            (
                "virtio-mem",
                "size=1G,block=1M",
                "virtio-mem0 has block=1M: expected a power of two, 2M to 2G",
            ),
            ("virtio-mem", "size=1G,block=3M", "virtio-mem0 has block=3M"),
            (
                "virtio-mem",
                "size=1152M,block=256M",
                "virtio-mem0 has size=1152M: expected 128M to 16T, a multiple of 256M",
            ),
            (
                "virtio-mem",
                "size=1G,requested=2G",
                "virtio-mem0 has requested=2G: expected at most size=1G",
            ),
            ("virtio-mem", "size=1G,requested=3M", "virtio-mem0 has requested=3M"),
            ("disk", "x,size=100", "disk0 has size=100"),
            ("disk", "x,serial=012345678901234567890", "disk0 has serial="),
            ("disk", "x,iops=0", "disk0 has iops=0"),
            ("disk", "x,bandwidth=100", "disk0 has bandwidth=100"),
            (
                "disk-fault",
                "disk=x,error=on",
                "a fault of disk 'x' has no disk of that name",
            ),
        ] {
            let found = problems(&[(flag, text)]);
            assert!(matches!(&found[..], [one] if one.contains(why)), "{text}: {found:?}");
        }
        let faults = problems(&[("disk", "x"), ("disk-fault", "disk=disk0,op=read")]);
        assert!(
            matches!(&faults[..], [one] if one.contains("does nothing")),
            "{faults:?}"
        );
        for cid in ["0", "1", "2", "4294967295"] {
            let found = problems(&[("vsock", &format!("cid={cid},socket=/s"))]);
            assert!(
                matches!(&found[..], [one] if one.contains(&format!("has cid={cid}: expected 3 to"))),
                "{found:?}"
            );
        }
        assert_eq!(problems(&[("vsock", "cid=3,socket=/s")]), [""; 0]);
        let tag = problems(&[("share", "/usr,tag=a b")]);
        assert!(
            matches!(&tag[..], [one] if one.contains("id 'a b' is no name")),
            "{tag:?}"
        );
        let tags = problems(&[("share", "/usr,tag=a"), ("share", "/etc,tag=a")]);
        assert!(
            matches!(&tags[..], [one] if one.contains("a is the name of two")),
            "{tags:?}"
        );
        let twice = problems(&[("disk", "x,id=a"), ("virtio-mem", "size=1G,id=a")]);
        assert!(matches!(&twice[..], [one] if one.contains("name of two")), "{twice:?}");
        let limit = problems(&[("limits", "static-max=1G"), ("virtio-mem", "size=1G,requested=128M")]);
        assert!(
            matches!(&limit[..], [one] if one.contains("above static-max=1G")),
            "{limit:?}"
        );
    }

    #[test]
    fn a_machine_has_places_for_sixteen_devices() {
        let ids: Vec<_> = (0..16).map(|n| format!("/x{n}")).collect();
        let disks = |n: usize| ids.iter().take(n).map(|id| ("disk", id.as_str())).collect::<Vec<_>>();
        assert_eq!(problems(&disks(15)), [""; 0]);
        let found = problems(&disks(16));
        assert!(
            matches!(&found[..], [one] if one.starts_with("17 virtio devices are more than the 16")),
            "{found:?}"
        );
    }
}

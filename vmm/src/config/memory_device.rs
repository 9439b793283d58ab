//! Hot-pluggable memory devices: what is wrong with one, its slot, its name, its backing.

use super::{ConfigError, MemoryConfig, NvdimmBacking, NvdimmConfig, VmConfig, probe::BackingFacts};
use devices::{
    acpi::memory_hotplug::{MAX_SLOTS, MemoryBacking, MemoryDeviceConfig},
    units::ByteSize,
};
use std::collections::BTreeSet;

const PAGE: u64 = 4096;
/// Most bytes of a device: 46 address bits.
const MAX_SIZE: ByteSize = ByteSize::gib(64 << 10);
/// Smallest memory block of Linux on x86-64. What the guest's is, is known when its RAM is placed.
const SMALLEST_BLOCK: ByteSize = ByteSize::mib(128);
/// Huge pages that a device has unless it says otherwise.
const HUGE_PAGE: ByteSize = ByteSize::mib(2);

impl VmConfig {
    /// The slots of the memory devices, in their order: those that are asked for, then the lowest that are free.
    pub fn memory_device_slots(&self) -> Vec<u16> {
        let mut taken: BTreeSet<u16> = self.memory_device.iter().filter_map(|device| device.slot).collect();
        let mut next = |own: Option<u16>| {
            own.unwrap_or_else(|| {
                let free = (0..u16::MAX).find(|slot| !taken.contains(slot)).unwrap_or(u16::MAX);
                taken.insert(free);
                free
            })
        };
        self.memory_device.iter().map(|device| next(device.slot)).collect()
    }

    /// Slots of the machine: as many as it is told to have, or as its devices need.
    pub fn memory_slot_count(&self) -> u16 {
        let used = self.memory_device_slots().into_iter().max();
        let used = used.map_or(0, |slot| slot.saturating_add(1));
        if self.memory_slots == 0 {
            used
        } else {
            self.memory_slots
        }
    }

    /// Memory devices with their slots and names.
    pub fn memory_devices(&self) -> impl Iterator<Item = (u16, String, &MemoryDeviceConfig)> {
        let slots = self.memory_device_slots().into_iter();
        slots
            .zip(&self.memory_device)
            .map(|(slot, device)| (slot, device.name(slot), device))
    }

    /// Writes each device's slot down, so that it keeps it when others come and go.
    pub fn fix_memory_slots(&mut self) {
        self.memory_slots = self.memory_slot_count();
        let slots = self.memory_device_slots();
        for (device, slot) in self.memory_device.iter_mut().zip(slots) {
            device.slot = Some(slot);
        }
    }

    pub(super) fn check_memory_devices(&self, problems: &mut Vec<ConfigError>) {
        let count = self.memory_slot_count();
        let mut bad = |what: String, why: String| problems.push(ConfigError::MemoryDevice { what, why });
        if self.memory_slots > MAX_SLOTS {
            let why = format!("are asked for: expected at most {MAX_SLOTS}");
            bad(format!("{} memory slots", self.memory_slots), why);
        }
        let (mut ids, mut slots) = (BTreeSet::new(), BTreeSet::new());
        for (slot, id, device) in self.memory_devices() {
            let what = format!("memory device {id}");
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            if !(1..=32).contains(&id.len()) || !id.bytes().all(plain) {
                let why = "has no usable id: expected 1 to 32 letters, digits, '-', '_' or '.'";
                bad(what.clone(), why.to_owned());
            }
            if !ids.insert(id.clone()) {
                let why =
                    "has the id of another; hint: ids must differ, and a device without one is called memN by its slot";
                bad(what.clone(), why.to_owned());
            }
            if (0..self.virtio_mem.len()).any(|index| self.virtio_mem_name(index) == id) {
                let why = "has the name of a virtio-mem device; hint: give one of them another id=";
                bad(what.clone(), why.to_owned());
            }
            if slot >= count.min(MAX_SLOTS) {
                let why = format!(
                    "has slot {slot}, but there are only {}, from 0 on; hint: use a larger --memory-slots, up to {MAX_SLOTS}",
                    count.min(MAX_SLOTS)
                );
                bad(what.clone(), why);
            } else if !slots.insert(slot) {
                let why = format!("has slot {slot}, as another; hint: leave slot= out of one of them");
                bad(what.clone(), why);
            }
            if device.cold == Some(false) {
                let why = "has cold=off, but a device of the configuration is there at boot; hint: leave cold= out, or add it later \
                           with `daxvisor ctl memory add`";
                bad(what.clone(), why.to_owned());
            }
            check_values(device).into_iter().for_each(|why| bad(what.clone(), why));
        }
        for (_, id, device) in self.memory_devices() {
            problems.extend(self.unknown_node(device.node, || format!("memory device {id}")));
        }
    }
}

/// What is wrong with one device by itself.
fn check_values(device: &MemoryDeviceConfig) -> Vec<String> {
    use MemoryBacking::{Anonymous, Auto, Devdax, File, Hugetlb, Memfd};
    let mut problems = Vec::new();
    let mut bad = |why: String| problems.push(why);
    let file = device.file.is_some();
    match device.size {
        None if !matches!(device.backing, Auto | Devdax) || !file => {
            bad("has no size; hint: add size=SIZE, such as size=1G".to_owned());
        }
        Some(size) if size < SMALLEST_BLOCK || size > MAX_SIZE || !size.0.is_multiple_of(SMALLEST_BLOCK.0) => {
            bad(format!("has size {size}: expected 128M to 64T, a multiple of 128M"));
        }
        _ => {}
    }
    let backing = device.backing.name();
    match device.backing {
        Anonymous | Memfd if file => bad(format!(
            "has backing={backing} and a file; hint: leave one of the two out"
        )),
        File | Devdax if !file => bad(format!("has backing={backing} and no file; hint: add file=PATH")),
        _ => {}
    }
    if let Some(page) = device.hugepages {
        if device.backing != Hugetlb || file {
            bad(format!(
                "has hugepages={page}, which is for backing=hugetlb without a file; hint: leave hugepages= out, or add backing=hugetlb"
            ));
        }
        if ![ByteSize::mib(2), ByteSize::gib(1)].contains(&page) {
            bad(format!("has hugepages={page}: expected 2M or 1G"));
        } else if device.size.is_some_and(|size| !size.0.is_multiple_of(page.0)) {
            let size = device.size.unwrap_or_default();
            bad(format!("has size {size}, no multiple of its huge pages of {page}"));
        }
    }
    match (device.shared, device.backing) {
        (Some(true), Auto | Anonymous) if !file => {
            bad("has shared=on and no file; hint: add backing=memfd".to_owned());
        }
        (Some(false), Memfd) => bad("has backing=memfd and shared=off; hint: leave both out".to_owned()),
        (Some(false), Hugetlb) if !file => {
            bad("has backing=hugetlb and shared=off; hint: leave shared= out".to_owned());
        }
        (Some(false), Devdax) => {
            bad("has shared=off, but device-dax has no private mappings; hint: leave shared= out".to_owned());
        }
        _ => {}
    }
    if let Some(offset) = device.offset {
        if !file {
            bad(format!("has offset={offset} and no file; hint: add file=PATH"));
        }
        if !offset.0.is_multiple_of(PAGE) || offset > MAX_SIZE {
            bad(format!("has offset={offset}: expected a multiple of 4K, up to 64T"));
        }
    }
    problems
}

/// The file of a device, in the terms of an NVDIMM without labels, which it is to the host.
pub fn file_of(device: &MemoryDeviceConfig) -> Option<NvdimmConfig> {
    Some(NvdimmConfig {
        file: Some(device.file.clone()?),
        size: device.size,
        offset: device.offset,
        backing: match device.backing {
            MemoryBacking::Hugetlb => NvdimmBacking::Hugetlbfs,
            MemoryBacking::File => NvdimmBacking::File,
            MemoryBacking::Devdax => NvdimmBacking::Devdax,
            MemoryBacking::Auto | MemoryBacking::Anonymous | MemoryBacking::Memfd => NvdimmBacking::Auto,
        },
        label: ByteSize(0),
        ..NvdimmConfig::default()
    })
}

/// The memory of a device without a file.
pub fn memory_of(device: &MemoryDeviceConfig) -> MemoryConfig {
    MemoryConfig {
        size: device.size,
        hugepages: (device.backing == MemoryBacking::Hugetlb).then(|| device.hugepages.unwrap_or(HUGE_PAGE)),
        shared: device.backing == MemoryBacking::Memfd,
    }
}

/// What is known of a device without a file.
pub(super) fn facts_of_memory(device: &MemoryDeviceConfig) -> BackingFacts {
    let page = memory_of(device).hugepages.unwrap_or(ByteSize(PAGE));
    let size = device.size.unwrap_or_default();
    BackingFacts { size, page }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flags;

    fn device(text: &str) -> MemoryDeviceConfig {
        flags::memory_device(text).unwrap()
    }

    fn problems(slots: u16, texts: &[&str]) -> Vec<String> {
        let config = VmConfig {
            memory_slots: slots,
            memory_device: texts.iter().map(|text| device(text)).collect(),
            ..VmConfig::default()
        };
        let problems = config.validate().err().unwrap_or_default();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_devices_have_no_problems() {
        for text in [
            "size=128M",
            "1G,id=a,node=0,slot=3,cold=on",
            "1G,backing=memfd",
            "1G,backing=hugetlb,hugepages=1G",
            "1G,backing=hugetlb,file=/dev/hugepages/x,shared=off",
            "1G,file=/x,offset=4K,shared=off",
            "file=/dev/dax0.0",
            "1G,file=/dev/dax0.0,offset=2M,backing=devdax",
        ] {
            assert_eq!(problems(8, &[text]), Vec::<String>::new(), "{text}");
        }
        assert_eq!(problems(256, &[]), Vec::<String>::new());
    }

    #[test]
    fn bad_devices_are_told_with_their_value() {
        for (slots, texts, expected) in [
            (257, &[][..], "257 memory slots are asked for: expected at most 256"),
            (
                1,
                &["128M", "128M"],
                "memory device mem1 has slot 1, but there are only 1",
            ),
            (0, &["128M,slot=256"], "has slot 256, but there are only 256"),
            (
                4,
                &["128M,slot=2", "128M,slot=2,id=x"],
                "memory device x has slot 2, as another",
            ),
            (4, &["128M,id=x", "128M,id=x"], "has the id of another"),
            (4, &["128M,id=a b"], "has no usable id"),
            (
                4,
                &["128M,node=9"],
                "memory device mem0 names node 9, which is not defined",
            ),
            (4, &["128M,cold=off"], "has cold=off"),
            (4, &["id=x"], "has no size"),
            (4, &["64M"], "has size 64M: expected 128M to 64T"),
            (4, &["192M"], "has size 192M"),
            (4, &["128M,backing=file"], "has backing=file and no file"),
            (
                4,
                &["128M,backing=anonymous,file=/x"],
                "has backing=anonymous and a file",
            ),
            (
                4,
                &["128M,hugepages=2M"],
                "has hugepages=2M, which is for backing=hugetlb",
            ),
            (4, &["128M,backing=hugetlb,hugepages=4M"], "expected 2M or 1G"),
            (
                4,
                &["128M,backing=hugetlb,hugepages=1G"],
                "no multiple of its huge pages of 1G",
            ),
            (4, &["128M,shared=on"], "has shared=on and no file"),
            (
                4,
                &["128M,backing=memfd,shared=off"],
                "has backing=memfd and shared=off",
            ),
            (
                4,
                &["128M,backing=devdax,file=/x,shared=off"],
                "device-dax has no private mappings",
            ),
            (4, &["128M,offset=4K"], "has offset=4K and no file"),
            (4, &["128M,file=/x,offset=1"], "has offset=1: expected a multiple of 4K"),
        ] {
            let found = problems(slots, texts);
            assert!(found.iter().any(|p| p.contains(expected)), "{texts:?}: {found:?}");
        }
    }

    #[test]
    fn names_are_not_those_of_virtio_mem() {
        let mut config = VmConfig {
            memory_device: vec![device("128M,id=grow")],
            ..VmConfig::default()
        };
        let grow = ["size=1G,id=grow".to_owned()];
        flags::apply(&mut config, |name| if name == "virtio-mem" { &grow } else { &[] }).unwrap();
        let problems = config.validate().unwrap_err();
        let taken = "memory device grow has the name of a virtio-mem device";
        assert!(problems.iter().any(|p| p.to_string().contains(taken)), "{problems:?}");
    }

    #[test]
    fn slots_are_those_asked_for_and_the_lowest_free_ones() {
        let mut config = VmConfig {
            memory_device: ["128M", "128M,slot=0", "128M,slot=5", "128M"].map(device).into(),
            ..VmConfig::default()
        };
        assert_eq!(config.memory_device_slots(), [1, 0, 5, 2]);
        assert_eq!(config.memory_slot_count(), 6);
        config.fix_memory_slots();
        config.memory_device.remove(0);
        assert_eq!((config.memory_device_slots(), config.memory_slots), (vec![0, 5, 2], 6));
        let none = VmConfig::default();
        assert_eq!(none.memory_slot_count(), 0);
    }

    #[test]
    fn sizes_may_stand_first_and_unknown_keys_are_told() {
        assert_eq!(device("2G").size, Some(ByteSize::gib(2)));
        let error = flags::memory_device("2G,sise=1").unwrap_err();
        assert!(error.to_string().contains("sise"), "{error}");
    }
}

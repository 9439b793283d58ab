//! What is said of NVDIMMs, their buses, sets and virtual disks.

use super::{MAX_NVDIMMS, VmConfig};
use crate::{
    config::{ConfigError, NvdimmBacking, NvdimmConfig},
    layout::MAX_NVDIMM_BUSES,
};
use devices::{
    nvdimm::{FlushMode, ars::MAX_RECORDS, plan::PersistenceDomain},
    units::{ByteSize, Hex},
};
use std::collections::{BTreeMap, BTreeSet};

const PAGE: u64 = 4096;
/// Handles have 28 bits. ACPI 6.5 5.2.25.3.
const HANDLES: u32 = 1 << 28;
/// Most DIMMs of a set.
const MAX_WAYS: usize = 8;

impl VmConfig {
    pub(super) fn check_nvdimms(&self, problems: &mut Vec<ConfigError>) {
        if self.nvdimm.len() > MAX_NVDIMMS {
            problems.push(ConfigError::NvdimmCount(self.nvdimm.len()));
        }
        let mut ids = BTreeSet::new();
        let mut files = BTreeMap::new();
        for (slot, nvdimm) in self.nvdimm.iter().enumerate() {
            let id = self.nvdimm_name(slot);
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            if !(1..=32).contains(&id.len()) || !id.bytes().all(plain) {
                problems.push(ConfigError::NvdimmIdText(id.clone()));
            }
            if let Some(path) = &nvdimm.file
                && nvdimm.offset.is_none()
                && let Some(first) = files.insert(path, id.clone())
            {
                problems.push(ConfigError::SameFile {
                    path: path.clone(),
                    first,
                    second: id.clone(),
                });
            }
            problems.extend(self.unknown_node(nvdimm.node, || id.clone()));
            check_nvdimm(&id, nvdimm, problems);
            if !ids.insert(id.clone()) {
                problems.push(ConfigError::NvdimmId(id));
            }
        }
    }

    /// Handles, numbers and sets.
    pub(super) fn check_nvdimm_buses(&self, problems: &mut Vec<ConfigError>) {
        let mut bad = |what: String, why: String| problems.push(ConfigError::Nvdimm { what, why });
        let records = self.ars.records;
        if !(1..=MAX_RECORDS).contains(&records) {
            let why = format!("is out of range: expected 1 to {MAX_RECORDS}");
            bad(format!("records={records} of ars"), why);
        }
        for number in self.nvdimm_buses() {
            if number >= MAX_NVDIMM_BUSES {
                let last = MAX_NVDIMM_BUSES - 1;
                bad(
                    format!("nvdimm bus {number}"),
                    format!("does not exist: expected 0 to {last}"),
                );
            }
        }
        let mut numbers = BTreeSet::new();
        for bus in self.nvdimm_bus.iter().filter(|bus| !numbers.insert(bus.number)) {
            bad(
                format!("nvdimm bus {}", bus.number),
                "is described twice; hint: describe it once".to_owned(),
            );
        }
        for bus in &self.nvdimm_bus {
            let mut dimms = self
                .nvdimm
                .iter()
                .enumerate()
                .filter(|(_, dimm)| dimm.bus == bus.number);
            let flushed = dimms.find(|(_, dimm)| dimm.flush_mode() != FlushMode::None);
            if let Some((slot, _)) = flushed.filter(|_| bus.persistence == Some(PersistenceDomain::CpuCache)) {
                let id = self.nvdimm_name(slot);
                let why = format!(
                    "has persistence=cpu-cache, with which no guest uses the flush hint of {id}; hint: leave out persistence=, or \
                     give {id} flush=none"
                );
                bad(format!("nvdimm bus {}", bus.number), why);
            }
        }
        let mut handles = BTreeMap::new();
        for (slot, nvdimm) in self.nvdimm.iter().enumerate() {
            let id = self.nvdimm_name(slot);
            let handle = self.nvdimm_handle(slot);
            if handle >= HANDLES {
                bad(
                    id.clone(),
                    format!("has handle {handle:#x}: expected less than {HANDLES:#x}"),
                );
            }
            if let Some(first) = handles.insert((nvdimm.bus, handle), id.clone()) {
                let why =
                    format!("has handle {handle:#x}, as {first} has on the same bus; hint: give one of them handle=");
                bad(id.clone(), why);
            }
            for (key, value, limit) in numbers_of(nvdimm) {
                if value.is_some_and(|value| value.0 > limit) {
                    let value = value.unwrap_or_default();
                    bad(id.clone(), format!("has {key}={value}: expected at most {limit:#x}"));
                }
            }
            if nvdimm.mapped == Some(true) && !self.has_own_range(slot) {
                let why = "has mapped=on, but is in an interleave set; hint: a set of one DIMM shows the rest of it";
                bad(id, why.to_owned());
            }
        }
        self.check_sets(problems);
        self.check_disks(problems);
    }

    fn check_sets(&self, problems: &mut Vec<ConfigError>) {
        let mut ids = BTreeSet::new();
        let mut indexes = BTreeSet::new();
        for (position, set) in self.interleave_set.iter().enumerate() {
            let id = set.id.clone().unwrap_or_else(|| format!("set{position}"));
            problems.extend(self.unknown_node(set.node, || id.clone()));
            let mut bad = |why: String| {
                let what = format!("interleave set {id}");
                problems.push(ConfigError::Nvdimm { what, why });
            };
            if !ids.insert(id.clone()) {
                bad("has the name of another; hint: names must differ".to_owned());
            }
            if !(1..=MAX_WAYS).contains(&set.dimms.len()) {
                bad(format!("has {} DIMMs: expected 1 to {MAX_WAYS}", set.dimms.len()));
            }
            let mut slots = BTreeSet::new();
            for dimm in &set.dimms {
                match self.nvdimm_slot(dimm) {
                    None => bad(format!(
                        "has '{dimm}', which is no nvdimm; hint: name nvdimms by their id="
                    )),
                    Some(slot) if !slots.insert(slot) => bad(format!("has '{dimm}' twice; hint: name it once")),
                    Some(_) => {}
                }
            }
            let buses: BTreeSet<_> = slots
                .iter()
                .filter_map(|slot| Some(self.nvdimm.get(*slot)?.bus))
                .collect();
            if buses.len() > 1 {
                bad("has DIMMs of several buses: expected one".to_owned());
            }
            if set.size.0 == 0 || !set.size.0.is_multiple_of(PAGE) {
                bad(format!("has size={}: expected a multiple of 4K, not 0", set.size));
            }
            let odd = |line: &ByteSize| !line.0.is_power_of_two() || line.0 < PAGE || line.0 > 1 << 31;
            if let Some(line) = set.line.filter(odd) {
                bad(format!("has line={line}: expected a power of two, 4K to 2G"));
            }
            let own = set.range_index.map(|index| index.0);
            let mut fits =
                |index: &u32| (1..=0xffff).contains(index) && indexes.insert((buses.first().copied(), *index));
            if let Some(index) = own.filter(|index| !fits(index)) {
                bad(format!(
                    "has range-index={index:#x}: expected 1 to 0xffff, each once on a bus"
                ));
            }
            let offsets: BTreeSet<_> = set.region_offset.iter().map(|offset| offset.0).collect();
            if !set.region_offset.is_empty()
                && (offsets.len(), set.region_offset.len()) != (set.dimms.len(), set.dimms.len())
            {
                bad(format!(
                    "has {} different region-offset values: expected one for each of its {} DIMMs",
                    offsets.len(),
                    set.dimms.len()
                ));
            }
        }
    }

    fn check_disks(&self, problems: &mut Vec<ConfigError>) {
        for (position, disk) in self.virtual_disk.iter().enumerate() {
            let what = format!("virtual disk {position}");
            problems.extend(self.unknown_node(disk.node, || what.clone()));
            let fits = (PAGE..=1 << 40).contains(&disk.size.0) && disk.size.0.is_multiple_of(PAGE);
            if !fits {
                let why = format!("has size={}: expected 4K to 1T, a multiple of 4K", disk.size);
                problems.push(ConfigError::Nvdimm { what, why });
            }
        }
    }
}

/// Numbers of a DIMM that its control region or mapping has fewer bits for.
fn numbers_of(nvdimm: &NvdimmConfig) -> Vec<(&'static str, Option<Hex>, u32)> {
    const SHORT: u32 = 0xffff;
    let mut numbers = vec![
        ("physical-id", nvdimm.physical_id, SHORT),
        ("vendor", nvdimm.vendor, SHORT),
        ("device", nvdimm.device, SHORT),
        ("revision", nvdimm.revision, SHORT),
        ("subsystem-vendor", nvdimm.subsystem_vendor, SHORT),
        ("subsystem-device", nvdimm.subsystem_device, SHORT),
        ("subsystem-revision", nvdimm.subsystem_revision, SHORT),
        ("location", nvdimm.location, 0xff),
        ("date", nvdimm.date, SHORT),
    ];
    numbers.extend(nvdimm.format.iter().map(|format| ("format", Some(*format), SHORT)));
    numbers
}

fn check_nvdimm(id: &str, nvdimm: &NvdimmConfig, problems: &mut Vec<ConfigError>) {
    use NvdimmBacking::{Auto, Devdax, File, Hugetlbfs, Memfd};
    let id = || id.to_owned();
    let backing = |backing, found, hint| ConfigError::NvdimmBacking {
        id: id(),
        backing,
        found,
        hint,
    };
    match (nvdimm.backing, &nvdimm.file) {
        (Memfd, Some(_)) => problems.push(backing("memfd", "a file", "leave out file=, or backing=")),
        (File, None) => problems.push(backing("file", "no file", "add file=PATH")),
        (Hugetlbfs, None) => problems.push(backing("hugetlbfs", "no file", "add file=PATH on a hugetlbfs mount")),
        (Devdax, None) => problems.push(backing("devdax", "no file", "add file=/dev/daxX.Y")),
        (Auto | Memfd, None) if nvdimm.readonly => {
            problems.push(backing(
                "memfd",
                "readonly=on",
                "memory that starts empty must be writable; add file=PATH",
            ));
        }
        _ => {}
    }
    if let Some(offset) = nvdimm.offset {
        let why = match &nvdimm.file {
            None => Some(format!("has offset={offset} and no file; hint: add file=PATH")),
            Some(_) if nvdimm.encrypt => Some(format!(
                "has encrypt=on and offset={offset}: an encrypted DIMM has its file to itself; hint: leave out one of them"
            )),
            Some(_) if !offset.0.is_multiple_of(PAGE) => {
                Some(format!("has offset={offset}: expected a multiple of 4K"))
            }
            Some(_) => None,
        };
        problems.extend(why.map(|why| ConfigError::Nvdimm { what: id(), why }));
    }
    if nvdimm.encrypt
        && let Some(with) = unencryptable(nvdimm)
    {
        problems.push(ConfigError::Nvdimm {
            what: id(),
            why: format!(
                "has encrypt=on and {with}: expected a regular file that is written; hint: leave out one of them"
            ),
        });
    }
    if nvdimm.flush == Some(FlushMode::Msync)
        && let Some(with) = unflushable(nvdimm)
    {
        problems.push(ConfigError::Nvdimm {
            what: id(),
            why: format!(
                "has flush=msync and {with}: expected storage that stores can reach; hint: use flush=count, or leave out flush="
            ),
        });
    }
    let percents = [
        ("health-spares", nvdimm.health_spares),
        ("health-life-used", nvdimm.health_life_used),
        ("health-spares-threshold", nvdimm.health_spares_threshold),
    ];
    for (key, value) in percents {
        if let Some(value) = value.filter(|value| *value > 100) {
            let why = format!("has {key}={value}: expected 0 to 100 percent");
            problems.push(ConfigError::Nvdimm { what: id(), why });
        }
    }
    let Some(size) = nvdimm.size else {
        if nvdimm.file.is_none() || matches!(nvdimm.backing, Memfd | File | Hugetlbfs) {
            problems.push(ConfigError::NvdimmNoSize {
                id: id(),
                hint: "add size=SIZE, such as size=512M".to_owned(),
            });
        }
        return;
    };
    check_size(&id(), size, nvdimm.label, problems);
}

/// Why there is nothing that the contents of a DIMM could be flushed to.
fn unflushable(nvdimm: &NvdimmConfig) -> Option<&'static str> {
    match (nvdimm.backing, &nvdimm.file) {
        _ if nvdimm.readonly => Some("readonly=on"),
        (_, None) => Some("no file="),
        (NvdimmBacking::Hugetlbfs, _) => Some("backing=hugetlbfs"),
        (NvdimmBacking::Memfd, _) => Some("backing=memfd"),
        (NvdimmBacking::Auto | NvdimmBacking::File | NvdimmBacking::Devdax, Some(_)) => None,
    }
}

/// What keeps the contents of a DIMM from being encrypted.
fn unencryptable(nvdimm: &NvdimmConfig) -> Option<&'static str> {
    match (nvdimm.backing, &nvdimm.file) {
        _ if nvdimm.readonly => Some("readonly=on"),
        (_, None) => Some("no file="),
        (NvdimmBacking::Hugetlbfs, _) => Some("backing=hugetlbfs"),
        (NvdimmBacking::Devdax, _) => Some("backing=devdax"),
        (NvdimmBacking::Memfd, _) => Some("backing=memfd"),
        (NvdimmBacking::Auto | NvdimmBacking::File, Some(_)) => None,
    }
}

/// The limits of a DIMM's size and label area; also for sizes that only the host knows.
pub(in crate::config) fn check_size(id: &str, size: ByteSize, label: ByteSize, problems: &mut Vec<ConfigError>) {
    if !(ByteSize::mib(16)..=ByteSize::gib(1 << 10)).contains(&size) || !size.0.is_multiple_of(PAGE) {
        problems.push(ConfigError::NvdimmSize {
            id: id.to_owned(),
            size,
        });
    }
    // QEMU refuses a label area below 128 KiB; a file must serve under both monitors.
    let fits = (ByteSize::kib(128)..=ByteSize::mib(64)).contains(&label) && label.0 <= size.0 / 2;
    if label.0 != 0 && (!fits || !label.0.is_multiple_of(PAGE)) {
        problems.push(ConfigError::NvdimmLabel {
            id: id.to_owned(),
            label,
        });
    }
}

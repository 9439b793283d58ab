//! The table of configuration flags: the only place that ties `--flag TEXT` to a field.
//!
//! The command line takes its flags and their help from [`FLAGS`], [`apply`] puts their texts over a configuration (the
//! default one or that of `--config`), and [`to_args`] writes the flags that make a configuration.
//!
//! A flag with keys changes the keys it names and keeps the others (`--memory shared=on` leaves the file's size alone). An
//! entry of a repeatable flag replaces the file's entry of the same identity (an nvdimm's id, a node's number, a distance's
//! pair of nodes) whole, and is appended when the file has none.

mod table;

pub use table::FLAGS;
use table::{KEYS, MEMORY, NVDIMM};

use super::{
    BootConfig, ConfigError, DiskConfig, DiskFault, DiskFaultConfig, DiskThrottle, DistanceConfig, InterleaveSetConfig,
    LimitsConfig, MemoryDeviceConfig, MemoryRangeConfig, ModuleConfig, NetConfig, NumaConfig, NvdimmBusConfig,
    NvdimmConfig, ShareConfig, VirtioMemConfig, VirtioPmemConfig, VmConfig, VsockConfig,
    kv::{self, Shape},
};
use crate::control::DaxRange;
use devices::units::ByteSize;
use serde::{Serialize, de::DeserializeOwned};
use std::path::PathBuf;

/// One flag of the virtual machine.
pub struct Flag {
    /// Name without dashes.
    pub name: &'static str,
    /// What stands behind it, for the help.
    pub value: &'static str,
    /// The help's text.
    pub help: &'static str,
    /// Whether it may be given more than once.
    pub repeatable: bool,
    read: fn(&mut VmConfig, &[String]) -> Result<(), Mistake>,
    write: fn(&VmConfig) -> Result<Vec<String>, kv::Error>,
}

/// A text that does not read, and why.
type Mistake = (String, kv::Error);

/// Puts the texts of flags over `config`; `given` yields a flag's texts in the order of the command line. Reports every
/// text that does not read.
pub fn apply<'a>(config: &mut VmConfig, given: impl Fn(&str) -> &'a [String]) -> Result<(), Vec<ConfigError>> {
    let mut problems = Vec::new();
    for flag in FLAGS {
        let result = (flag.read)(config, given(flag.name));
        let wrong = |(text, source)| ConfigError::Flag {
            flag: flag.name,
            text,
            source,
        };
        problems.extend(result.err().map(wrong));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// The arguments that make `config` from nothing, for `daxvisor run`.
pub fn to_args(config: &VmConfig) -> Result<Vec<String>, kv::Error> {
    let mut args = Vec::new();
    for flag in FLAGS {
        let texts = (flag.write)(config)?;
        args.extend(
            texts
                .into_iter()
                .filter(|t| !t.is_empty())
                .map(|text| format!("--{}={text}", flag.name)),
        );
    }
    Ok(args)
}

fn set<T: DeserializeOwned>(field: &mut T, texts: &[String]) -> Result<(), Mistake> {
    for text in texts {
        *field = kv::scalar(text).map_err(|e| (text.clone(), e))?;
    }
    Ok(())
}

fn merge<T: Serialize + DeserializeOwned>(field: &mut T, texts: &[String], shape: Shape) -> Result<(), Mistake> {
    for text in texts {
        *field = kv::merge(field, text, shape).map_err(|e| (text.clone(), e))?;
    }
    Ok(())
}

/// Replaces or appends. `same` is asked with the position of the old entry, and only of entries that were there before.
fn entries<T: DeserializeOwned>(
    list: &mut Vec<T>,
    texts: &[String],
    shape: Shape,
    same: fn(usize, &T, &T) -> bool,
) -> Result<(), Mistake> {
    let mut old: Vec<usize> = (0..list.len()).collect();
    for text in texts {
        let entry = kv::from_str(text, shape).map_err(|e| (text.clone(), e))?;
        let place = old
            .iter()
            .position(|at| list.get(*at).is_some_and(|o| same(*at, o, &entry)));
        match place.and_then(|place| list.get_mut(old.swap_remove(place))) {
            Some(field) => *field = entry,
            None => list.push(entry),
        }
    }
    Ok(())
}

/// A fault of a disk from its text.
pub fn disk_fault(text: &str) -> Result<DiskFault, kv::Error> {
    kv::from_str(text, KEYS)
}

/// Limits of a disk from their text.
pub fn disk_throttle(text: &str) -> Result<DiskThrottle, kv::Error> {
    kv::from_str(text, KEYS)
}

/// Limits from the text of their flag.
pub fn limits(text: &str) -> Result<LimitsConfig, kv::Error> {
    kv::from_str(text, KEYS)
}

/// An NVDIMM from the text of its flag.
pub fn nvdimm(text: &str) -> Result<NvdimmConfig, kv::Error> {
    kv::from_str(text, NVDIMM)
}

/// A range of a device-dax node from its text.
pub fn dax_range(text: &str) -> Result<DaxRange, kv::Error> {
    kv::from_str(text, NVDIMM)
}

/// A memory device from the text of its flag.
pub fn memory_device(text: &str) -> Result<MemoryDeviceConfig, kv::Error> {
    kv::from_str(text, MEMORY)
}

fn same_memory_device(_: usize, old: &MemoryDeviceConfig, new: &MemoryDeviceConfig) -> bool {
    (new.id.is_some() && old.id == new.id) || (new.slot.is_some() && old.slot == new.slot)
}

/// Whether an entry is the one that another names; one without a name is called by its position.
fn same_name(position: usize, kind: &str, old: Option<&str>, new: Option<&str>) -> bool {
    new.is_some_and(|new| old.map_or_else(|| format!("{kind}{position}") == new, |old| old == new))
}

fn same_nvdimm(position: usize, old: &NvdimmConfig, new: &NvdimmConfig) -> bool {
    let named = |id: &str| {
        old.id
            .as_deref()
            .map_or_else(|| format!("nvdimm{position}") == id, |o| o == id)
    };
    new.id.as_deref().is_some_and(named)
}

fn same_range(position: usize, old: &MemoryRangeConfig, new: &MemoryRangeConfig) -> bool {
    let name = old.id.clone().unwrap_or_else(|| format!("range{position}"));
    new.id.as_deref() == Some(&name)
}

fn ends(d: &DistanceConfig) -> (u32, u32) {
    (d.from.min(d.to), d.from.max(d.to))
}

/// A value that is the whole text; nothing when it is absent.
fn show<T: Serialize>(field: &T) -> Result<Vec<String>, kv::Error> {
    let json = serde_json::to_value(field).map_err(|e| kv::Error::Unwritable(e.to_string()))?;
    match json {
        serde_json::Value::Null => Ok(Vec::new()),
        serde_json::Value::String(text) => Ok(vec![text]),
        other => Err(kv::Error::Unwritable(other.to_string())),
    }
}

fn pairs<T: Serialize + Default>(field: &T, shape: Shape) -> Result<Vec<String>, kv::Error> {
    Ok(vec![kv::to_string(field, Some(&T::default()), shape)?])
}

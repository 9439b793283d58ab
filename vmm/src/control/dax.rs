//! A range of a device-dax node of the host, shown to the guest as what is asked for.

use super::{ControlError, ErrorKind, MemoryRequest, NvdimmRequest};
use crate::config::{MemoryDeviceConfig, MemoryRangeConfig, NvdimmBacking, NvdimmConfig, RangeKind};
use devices::{acpi::memory_hotplug::MemoryBacking, units::ByteSize};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use utoipa::ToSchema;

/// What can be asked about ranges of device-dax nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DaxRequest {
    /// Give the guest one; answered by [`super::Response::Operation`].
    Add(Box<DaxRange>),
}

/// A range of a device-dax node of the host, and what the guest gets it as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DaxRange {
    /// The node, such as `/dev/dax0.0`.
    #[schema(value_type = String)]
    pub file: PathBuf,
    /// What the guest gets.
    #[serde(rename = "as")]
    pub presented: Presented,
    /// Where in the node the range begins; none: all of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<ByteSize>,
    /// Bytes of the range; none: all of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<ByteSize>,
    /// Node of the guest that the memory belongs to; none: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u32>,
    /// What the device or the range is called; none: a name by its slot or position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// What a guest gets a range as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Presented {
    /// An NVDIMM: persistent, with a label area that is part of the range.
    Nvdimm,
    /// A memory device (PNP0C80): volatile, RAM as soon as the guest puts it online.
    Memory,
    /// A soft-reserved range of the memory map, from the next boot on.
    SoftReserved,
}

/// A range that comes with the next boot.
// Its fields are some of those of `MemoryDeviceInfo`, as those of `MemoryRemoved` are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RangePlanned {
    /// Its name.
    pub id: String,
    /// First address that it has then, unless more is added before.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Proximity domain.
    pub node: Option<u32>,
}

/// What is done with a range, in the terms of what it becomes.
#[derive(Debug, PartialEq, Eq)]
pub enum DaxPlan {
    /// Added as an NVDIMM.
    Nvdimm(NvdimmRequest),
    /// Added as a memory device.
    Memory(MemoryRequest),
    /// Kept for the next boot.
    NextBoot(Box<MemoryRangeConfig>),
}

impl DaxRange {
    /// What it comes to.
    pub fn plan(&self) -> Result<DaxPlan, ControlError> {
        let Self {
            file, offset, size, id, ..
        } = self.clone();
        let file = Some(file);
        let node = self.node.unwrap_or(0);
        Ok(match self.presented {
            Presented::Nvdimm => DaxPlan::Nvdimm(NvdimmRequest::Add(Box::new(NvdimmConfig {
                id,
                file,
                offset,
                size,
                node,
                backing: NvdimmBacking::Devdax,
                label: NvdimmConfig::default_label(),
                ..NvdimmConfig::default()
            }))),
            Presented::Memory => DaxPlan::Memory(MemoryRequest::Add(Box::new(MemoryDeviceConfig {
                id,
                file,
                offset,
                size,
                node,
                backing: MemoryBacking::Devdax,
                ..MemoryDeviceConfig::default()
            }))),
            Presented::SoftReserved => {
                let size = size.ok_or_else(|| {
                    let why = "a soft-reserved range has no size";
                    let error = ControlError::new(ErrorKind::InvalidRequest, why).field("size");
                    error.hint("add size=SIZE, such as size=512M")
                })?;
                DaxPlan::NextBoot(Box::new(MemoryRangeConfig {
                    id,
                    file,
                    offset,
                    size,
                    start: None,
                    kind: RangeKind::SoftReserved,
                    node: Some(node),
                    mirror: false,
                }))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn range(presented: &str) -> DaxRange {
        let value = json!({"file": "/dev/dax0.0", "as": presented, "offset": "2M", "size": "1G", "node": 3, "id": "r"});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_range_becomes_what_is_asked_for() {
        let DaxPlan::Nvdimm(NvdimmRequest::Add(nvdimm)) = range("nvdimm").plan().unwrap() else {
            panic!("no NVDIMM")
        };
        let expected =
            json!({"file": "/dev/dax0.0", "offset": "2M", "size": "1G", "node": 3, "id": "r", "backing": "devdax"});
        assert_eq!(*nvdimm, serde_json::from_value(expected.clone()).unwrap());
        let DaxPlan::Memory(MemoryRequest::Add(device)) = range("memory").plan().unwrap() else {
            panic!("no memory device")
        };
        assert_eq!(*device, serde_json::from_value(expected).unwrap());
        let DaxPlan::NextBoot(later) = range("soft-reserved").plan().unwrap() else {
            panic!("not for the next boot")
        };
        let expected =
            json!({"file": "/dev/dax0.0", "offset": "2M", "size": "1G", "node": 3, "id": "r", "type": "soft-reserved"});
        assert_eq!(*later, serde_json::from_value(expected).unwrap());
    }

    #[test]
    fn a_soft_reserved_range_needs_a_size_and_the_others_can_be_the_whole_node() {
        for presented in ["nvdimm", "memory", "soft-reserved"] {
            let whole = DaxRange {
                size: None,
                offset: None,
                ..range(presented)
            };
            let problem = whole.plan().err().map(|error| error.field);
            let expected = (presented == "soft-reserved").then(|| Some("size".into()));
            assert_eq!(problem, expected, "{presented}");
        }
    }
}

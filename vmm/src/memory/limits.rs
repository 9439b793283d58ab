//! What may be added to, taken from or resized in a machine within its [`Limits`]. Pure.
//!
//! | change | rule | refused with |
//! |---|---|---|
//! | [`Change::Add`]: a memory device | RAM with it stays at or below `static-max` | `static-max` |
//! | [`Change::Remove`]: a memory device | RAM without it stays at or above `static-min` | `static-min` |
//! | [`Change::Resize`]: a virtio-mem device's requested size | RAM with it stays within the dynamic limits when it grows above, or shrinks below, them | the dynamic limit |
//!
//! RAM is what the guest can use as such ([`MemoryUse`]): boot RAM, whole memory devices, and what virtio-mem devices are
//! asked to have. NVDIMMs and soft-reserved ranges are not RAM, whatever the guest makes of them.

use crate::config::Limits;
use devices::units::ByteSize;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// RAM of a machine by where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct MemoryUse {
    /// Of the nodes and of ranges of RAM, there since the start.
    pub boot: ByteSize,
    /// Memory devices (PNP0C80), each with its whole size from the request to add it to its eject.
    pub devices: ByteSize,
    /// What virtio-mem devices are asked to have.
    pub resizable: ByteSize,
}

impl MemoryUse {
    /// All of it.
    pub fn total(&self) -> ByteSize {
        ByteSize(
            self.boot
                .0
                .saturating_add(self.devices.0)
                .saturating_add(self.resizable.0),
        )
    }
}

/// Memory of a Xen domain. Both together are `static-max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainMemory {
    /// What the domain has.
    pub current: ByteSize,
    /// What it could take.
    pub ballooned: ByteSize,
}

/// A change of the machine's RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A memory device of this size is added.
    Add(ByteSize),
    /// A memory device of this size goes.
    Remove(ByteSize),
    /// The requested size of a virtio-mem device changes.
    Resize {
        /// Before; 0 for one that is added.
        from: ByteSize,
        /// After.
        to: ByteSize,
    },
}

/// A change that a limit forbids: the limit, and the numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} would make the machine's RAM {would} ({boot} at boot, {devices} in memory devices, {resizable} in virtio-mem), \
     {side} {name}={limit}; hint: {hint}",
    boot = .used.boot, devices = .used.devices, resizable = .used.resizable
)]
pub struct LimitExceeded {
    /// The change.
    what: String,
    /// RAM now.
    used: MemoryUse,
    /// RAM after it.
    would: ByteSize,
    side: &'static str,
    /// Name of the limit.
    name: &'static str,
    /// Its value.
    limit: ByteSize,
    hint: &'static str,
}

/// Whether `limits` allow `change` of a machine with the RAM `used`; the RAM afterwards.
pub fn admit(limits: &Limits, used: &MemoryUse, change: Change) -> Result<ByteSize, LimitExceeded> {
    let now = used.total().0;
    let refuse = |what, would, side, name, limit, hint| LimitExceeded {
        what,
        used: *used,
        would: ByteSize(would),
        side,
        name,
        limit,
        hint,
    };
    match change {
        Change::Add(size) => {
            let would = now.saturating_add(size.0);
            if would > limits.static_max.0 {
                let what = format!("a memory device of {size}");
                let hint = "static-max is fixed while the machine runs; add less, or unplug something first";
                return Err(refuse(what, would, "above", "static-max", limits.static_max, hint));
            }
            Ok(ByteSize(would))
        }
        Change::Remove(size) => {
            let would = now.saturating_sub(size.0);
            if would < limits.static_min.0 {
                let what = format!("taking away a memory device of {size}");
                let hint = "static-min is fixed while the machine runs; add memory first";
                return Err(refuse(what, would, "below", "static-min", limits.static_min, hint));
            }
            Ok(ByteSize(would))
        }
        Change::Resize { from, to } => {
            let would = now.saturating_sub(from.0).saturating_add(to.0);
            let what = || format!("{to} in a virtio-mem device that is asked for {from}");
            if to > from && would > limits.static_max.0 {
                let hint = "static-max is fixed while the machine runs; ask for less";
                return Err(refuse(what(), would, "above", "static-max", limits.static_max, hint));
            }
            if to > from && would > limits.dynamic_max.0 {
                let hint = "ask for less, or raise dynamic-max";
                return Err(refuse(what(), would, "above", "dynamic-max", limits.dynamic_max, hint));
            }
            if to < from && would < limits.dynamic_min.0 {
                let hint = "ask for more, or lower dynamic-min";
                return Err(refuse(what(), would, "below", "dynamic-min", limits.dynamic_min, hint));
            }
            Ok(ByteSize(would))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const M: fn(u64) -> ByteSize = ByteSize::mib;

    fn limits() -> Limits {
        Limits {
            static_max: M(4096),
            dynamic_max: M(3072),
            target: M(2048),
            dynamic_min: M(1024),
            static_min: M(512),
        }
    }

    fn used(boot: u64, devices: u64, resizable: u64) -> MemoryUse {
        MemoryUse {
            boot: M(boot),
            devices: M(devices),
            resizable: M(resizable),
        }
    }

    #[test]
    fn a_device_fits_up_to_static_max_and_not_a_block_further() {
        let used = used(1024, 1024, 512);
        let add = |mib| admit(&limits(), &used, Change::Add(M(mib)));
        assert_eq!(add(1536 - 128), Ok(M(4096 - 128)));
        assert_eq!(add(1536), Ok(M(4096)));
        assert_eq!(
            add(1536 + 128).unwrap_err().to_string(),
            "a memory device of 1664M would make the machine's RAM 4224M (1G at boot, 1G in memory devices, 512M in \
             virtio-mem), above static-max=4G; hint: static-max is fixed while the machine runs; add less, or unplug \
             something first"
        );
        assert!(add(u64::MAX >> 20).is_err());
    }

    #[test]
    fn a_device_goes_down_to_static_min_and_not_a_block_further() {
        let used = used(256, 1024, 0);
        let remove = |mib| admit(&limits(), &used, Change::Remove(M(mib)));
        assert_eq!(remove(768 - 128), Ok(M(512 + 128)));
        assert_eq!(remove(768), Ok(M(512)));
        assert!(
            remove(768 + 128)
                .unwrap_err()
                .to_string()
                .contains("below static-min=512M")
        );
    }

    #[test]
    fn a_resize_stays_within_the_dynamic_limits() {
        let used = used(1024, 0, 1024);
        let resize = |to| {
            admit(
                &limits(),
                &used,
                Change::Resize {
                    from: M(1024),
                    to: M(to),
                },
            )
            .map_err(|e| e.name)
        };
        for (to, expected) in [
            (2048 - 2, Ok(M(3072 - 2))),
            (2048, Ok(M(3072))),
            (2048 + 2, Err("dynamic-max")),
            (3072, Err("dynamic-max")),
            (3072 + 2, Err("static-max")),
            (0, Ok(M(1024))),
        ] {
            assert_eq!(resize(to), expected, "{to}");
        }
        let small = MemoryUse { boot: M(512), ..used };
        let resize = |to| {
            admit(
                &limits(),
                &small,
                Change::Resize {
                    from: M(1024),
                    to: M(to),
                },
            )
            .map_err(|e| e.name)
        };
        assert_eq!((resize(512), resize(510)), (Ok(M(1024)), Err("dynamic-min")));
    }

    #[test]
    fn a_resize_towards_the_limits_is_always_allowed() {
        let used = used(1024, 3072, 1024);
        let down = admit(
            &limits(),
            &used,
            Change::Resize {
                from: M(1024),
                to: M(512),
            },
        );
        assert_eq!(down, Ok(M(4608)), "still above every limit, but less so");
    }

    proptest! {
        #[test]
        fn nothing_admitted_is_beyond_its_limit(boot in 0u64..5000, devices in 0u64..5000, size in 0u64..5000) {
            let (limits, used) = (limits(), used(boot, devices, 0));
            if let Ok(after) = admit(&limits, &used, Change::Add(M(size))) {
                prop_assert!(after <= limits.static_max);
            }
            if let Ok(after) = admit(&limits, &used, Change::Remove(M(size))) {
                prop_assert!(after >= limits.static_min);
            }
        }
    }
}

//! Limits of a domain's memory in the Xen style: what the user says of them.
//!
//! ```text
//! static-min <= dynamic-min <= target <= dynamic-max <= static-max
//! ```
//! [`Limits`] is the complete set; every limit that is not given follows from the others ([`Limits::new`]). What may be
//! added or resized within them is decided by `memory::limits`. Definitions are in docs/xen.md.

use super::{ConfigError, VmConfig, validate::MIN_RAM};
use devices::units::ByteSize;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The unit of all limits, as of boot RAM.
pub const LIMIT_UNIT: ByteSize = ByteSize::mib(2);
/// What `static-max` is when it is not given: more than any machine can have.
pub const UNLIMITED: ByteSize = ByteSize::gib(64 << 10);

/// An address above which the guest's kernel is to use no RAM that it finds at boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MemoryLimitConfig {
    /// First address above it.
    pub size: ByteSize,
    /// Who sees to it.
    #[serde(default)]
    pub by: LimitBy,
}

/// How RAM above the memory limit is kept from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitBy {
    /// The kernel is told by `mem=`: the memory map is whole.
    #[default]
    Parameter,
    /// The memory map ends there, and the kernel knows of no limit.
    Map,
}

/// Limits as they are given, at the start or to a running machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LimitsConfig {
    /// Most RAM the machine ever has; fixed while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub static_max: Option<ByteSize>,
    /// Highest target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_max: Option<ByteSize>,
    /// RAM the machine should have now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<ByteSize>,
    /// Lowest target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_min: Option<ByteSize>,
    /// Least RAM the machine ever has; fixed while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub static_min: Option<ByteSize>,
}

impl LimitsConfig {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether each limit alone is one.
    fn check(&self) -> Result<(), LimitsError> {
        for (name, size) in self.named() {
            let Some(size) = size else { continue };
            if !size.0.is_multiple_of(LIMIT_UNIT.0) {
                let rounded = ByteSize(size.0.saturating_add(LIMIT_UNIT.0 - 1) / LIMIT_UNIT.0 * LIMIT_UNIT.0);
                return Err(LimitsError::Unit { name, size, rounded });
            }
            if !(MIN_RAM..=UNLIMITED).contains(&size) {
                return Err(LimitsError::Range { name, size });
            }
        }
        Ok(())
    }

    /// Every limit with its name, highest first.
    pub fn named(&self) -> [(&'static str, Option<ByteSize>); 5] {
        [
            ("static-max", self.static_max),
            ("dynamic-max", self.dynamic_max),
            ("target", self.target),
            ("dynamic-min", self.dynamic_min),
            ("static-min", self.static_min),
        ]
    }
}

/// A complete, ordered set of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Most RAM the machine ever has.
    pub static_max: ByteSize,
    /// Highest target.
    pub dynamic_max: ByteSize,
    /// RAM the machine should have now.
    pub target: ByteSize,
    /// Lowest target.
    pub dynamic_min: ByteSize,
    /// Least RAM the machine ever has.
    pub static_min: ByteSize,
}

/// What is wrong with limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// No whole units.
    #[error("limit {name}={size} is no multiple of {LIMIT_UNIT}; hint: {name}={rounded}")]
    Unit {
        /// Which.
        name: &'static str,
        /// Bytes.
        size: ByteSize,
        /// Next size that fits.
        rounded: ByteSize,
    },
    /// Outside what a machine can have.
    #[error("limit {name}={size} is out of range: expected {MIN_RAM} to {UNLIMITED}")]
    Range {
        /// Which.
        name: &'static str,
        /// Bytes.
        size: ByteSize,
    },
    /// A memory limit that no kernel boots with.
    #[error("memory limit {0} is out of range: expected {MIN_RAM} to {UNLIMITED}, a multiple of {LIMIT_UNIT}")]
    MemoryLimit(ByteSize),
    /// Two in the wrong order.
    #[error(
        "limit {upper}={above} is below {lower}={below}; hint: static-min <= dynamic-min <= target <= dynamic-max <= static-max"
    )]
    Order {
        /// The one that should be higher.
        upper: &'static str,
        /// Its bytes.
        above: ByteSize,
        /// The one that should be lower.
        lower: &'static str,
        /// Its bytes.
        below: ByteSize,
    },
    /// More boot RAM than the machine may ever have.
    #[error("the boot RAM of {ram} is above static-max={max}; hint: less --memory, or a higher static-max")]
    BootAbove {
        /// RAM of all nodes and ranges.
        ram: ByteSize,
        /// Limit.
        max: ByteSize,
    },
    /// Less boot RAM than the machine may ever have.
    #[error("the boot RAM of {ram} is below static-min={min}; hint: more --memory, or a lower static-min")]
    BootBelow {
        /// RAM of all nodes and ranges.
        ram: ByteSize,
        /// Limit.
        min: ByteSize,
    },
}

impl Limits {
    /// Fills in what is not given: `static-max` is [`UNLIMITED`], `dynamic-max` is `static-max`, `static-min` the least RAM of
    /// a machine, `dynamic-min` is `static-min`, and `target` is the boot RAM, moved between the dynamic limits.
    pub fn new(given: &LimitsConfig, ram: ByteSize) -> Result<Self, LimitsError> {
        given.check()?;
        let static_max = given.static_max.unwrap_or(UNLIMITED);
        let dynamic_max = given.dynamic_max.unwrap_or(static_max);
        let static_min = given.static_min.unwrap_or(MIN_RAM);
        let dynamic_min = given.dynamic_min.unwrap_or(static_min);
        let target = given.target.unwrap_or_else(|| ram.min(dynamic_max).max(dynamic_min));
        let limits = Self {
            static_max,
            dynamic_max,
            target,
            dynamic_min,
            static_min,
        };
        limits.check()?;
        Ok(limits)
    }

    /// These limits with those of `change` in their place.
    pub fn with(&self, change: &LimitsConfig) -> Result<Self, LimitsError> {
        change.check()?;
        let changed = Self {
            static_max: change.static_max.unwrap_or(self.static_max),
            dynamic_max: change.dynamic_max.unwrap_or(self.dynamic_max),
            target: change.target.unwrap_or(self.target),
            dynamic_min: change.dynamic_min.unwrap_or(self.dynamic_min),
            static_min: change.static_min.unwrap_or(self.static_min),
        };
        changed.check()?;
        Ok(changed)
    }

    /// Every limit with its name, highest first.
    pub fn named(&self) -> [(&'static str, ByteSize); 5] {
        [
            ("static-max", self.static_max),
            ("dynamic-max", self.dynamic_max),
            ("target", self.target),
            ("dynamic-min", self.dynamic_min),
            ("static-min", self.static_min),
        ]
    }

    fn check(&self) -> Result<(), LimitsError> {
        let named = self.named();
        for (upper, lower) in named.iter().zip(named.iter().skip(1)) {
            if upper.1 < lower.1 {
                return Err(LimitsError::Order {
                    upper: upper.0,
                    above: upper.1,
                    lower: lower.0,
                    below: lower.1,
                });
            }
        }
        Ok(())
    }
}

impl VmConfig {
    /// RAM at boot: of the nodes, and ranges of RAM.
    pub fn boot_ram(&self) -> ByteSize {
        let ranges = self.memory_range.iter().filter(|r| r.kind == super::RangeKind::Ram);
        ByteSize(ranges.fold(self.ram().0, |sum, range| sum.saturating_add(range.size.0)))
    }

    /// The limits of the machine's memory, checked.
    pub fn limits(&self) -> Result<Limits, LimitsError> {
        let ram = self.boot_ram();
        let mut asked = self.limits;
        if self.xen.is_some() {
            // A domain has what its toolstack gave it, and no more unless that said so.
            let whole = ByteSize(ram.0.next_multiple_of(LIMIT_UNIT.0));
            asked.static_max.get_or_insert(whole);
        }
        let limits = Limits::new(&asked, ram)?;
        let given = |limit: Option<ByteSize>| limit.is_some();
        // Under a hypervisor the limits are those of its first domain, which has a part of the machine's RAM.
        if self.is_multiboot() {
            return Ok(limits);
        }
        if ram > limits.static_max && given(self.limits.static_max) {
            let max = limits.static_max;
            return Err(LimitsError::BootAbove { ram, max });
        }
        if ram < limits.static_min && given(self.limits.static_min) {
            let min = limits.static_min;
            return Err(LimitsError::BootBelow { ram, min });
        }
        Ok(limits)
    }

    pub(super) fn check_limits(&self, problems: &mut Vec<ConfigError>) {
        let limit = self.memory_limit.map(|limit| limit.size);
        let odd = |size: &ByteSize| !(MIN_RAM..=UNLIMITED).contains(size) || !size.0.is_multiple_of(LIMIT_UNIT.0);
        problems.extend(limit.filter(odd).map(|size| LimitsError::MemoryLimit(size).into()));
        // Without limits there is nothing to say; memory that is out of range is reported as such.
        if !self.limits.is_empty() {
            problems.extend(self.limits().err().map(ConfigError::from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn given(text: &str) -> LimitsConfig {
        crate::config::kv::from_str(text, crate::config::kv::Shape::default()).unwrap()
    }

    fn of(text: &str, ram: u64) -> Result<[u64; 5], String> {
        let limits = Limits::new(&given(text), ByteSize::mib(ram)).map_err(|e| e.to_string())?;
        Ok(limits.named().map(|(_, size)| size.0 >> 20))
    }

    #[test]
    fn what_is_not_given_follows_from_the_rest() {
        let all = 64 << 20;
        assert_eq!(of("", 1024), Ok([all, all, 1024, 64, 64]));
        assert_eq!(of("static-max=4G", 1024), Ok([4096, 4096, 1024, 64, 64]));
        assert_eq!(of("static-max=4G,dynamic-max=512M", 1024), Ok([4096, 512, 512, 64, 64]));
        assert_eq!(of("dynamic-min=2G", 1024), Ok([all, all, 2048, 2048, 64]));
        assert_eq!(of("static-min=1G", 1024), Ok([all, all, 1024, 1024, 1024]));
        assert_eq!(
            of(
                "static-max=5G,dynamic-max=4G,target=3G,dynamic-min=2G,static-min=1G",
                1024
            ),
            Ok([5120, 4096, 3072, 2048, 1024])
        );
    }

    #[test]
    fn the_order_is_kept_and_the_offending_pair_named() {
        for (text, why) in [
            (
                "static-max=1G,dynamic-max=2G",
                "limit static-max=1G is below dynamic-max=2G",
            ),
            ("dynamic-max=1G,target=2G", "limit dynamic-max=1G is below target=2G"),
            ("target=1G,dynamic-min=2G", "limit target=1G is below dynamic-min=2G"),
            (
                "dynamic-min=1G,static-min=2G",
                "limit dynamic-min=1G is below static-min=2G",
            ),
            ("static-max=1G,static-min=2G", "limit dynamic-max=1G is below target=2G"),
        ] {
            let error = of(text, 1024).unwrap_err();
            assert!(error.starts_with(why), "{text}: {error}");
            assert!(error.contains("; hint: "), "{error}");
        }
    }

    #[test]
    fn a_limit_at_each_boundary_of_its_unit_and_range() {
        assert!(of("static-max=1G", 1024).is_ok());
        let error = of("static-max=1073741825", 1024).unwrap_err();
        assert!(error.ends_with("no multiple of 2M; hint: static-max=1026M"), "{error}");
        assert!(of("static-max=64T", 1024).is_ok());
        assert!(of("static-max=67108866M", 1024).unwrap_err().contains("out of range"));
        assert!(of("static-min=64M", 1024).is_ok());
        assert!(of("static-min=62M", 1024).unwrap_err().contains("out of range"));
        assert!(of("target=18446744073709551615", 1024).is_err());
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let limits = Limits::new(&given("static-max=4G"), ByteSize::gib(1)).unwrap();
        let changed = limits.with(&given("target=2G,dynamic-min=1G")).unwrap();
        assert_eq!(changed.named().map(|(_, s)| s.0 >> 20), [4096, 4096, 2048, 1024, 64]);
        assert!(limits.with(&given("target=5G")).is_err());
    }

    proptest! {
        #[test]
        fn limits_are_ordered_or_refused(sizes in proptest::array::uniform5(proptest::option::of(0u64..40)), ram in 1u64..40) {
            let [a, b, c, d, e] = sizes.map(|n| n.map(|n| ByteSize(n * ByteSize::mib(63).0)));
            let config = LimitsConfig { static_max: a, dynamic_max: b, target: c, dynamic_min: d, static_min: e };
            if let Ok(limits) = Limits::new(&config, ByteSize::mib(64 * ram)) {
                prop_assert!(limits.named().windows(2).all(|w| w[0].1 >= w[1].1));
                for ((_, asked), (_, got)) in config.named().into_iter().zip(limits.named()) {
                    prop_assert!(asked.is_none_or(|asked| asked == got));
                }
            }
        }
    }
}

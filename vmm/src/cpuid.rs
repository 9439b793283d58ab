//! What CPUID says: a pure function from what KVM offers, the model and one vCPU's place to the entries of that vCPU.
//!
//! KVM offers the host's numbers where they are not features (topology, caches, ids); `FIXES` lists every leaf that is
//! rewritten and is all there is. Everything else, KVM's own leaves at 0x4000_0000 among them, passes through; [`show_xen`] puts Xen's in their place. Features that
//! the model takes away go last, so that they win over a fix.

mod features;
mod fixes;
mod xen;

pub use features::{Bit, Feature, Register, feature};

use crate::config::CpuModelConfig;
pub use fixes::Vendor;
use fixes::{Context, FIXES};
pub use xen::{XenLeaves, show_xen};

/// Flag of an entry that counts for one subleaf only (`KVM_CPUID_FLAG_SIGNIFCANT_INDEX`).
pub const SIGNIFICANT_INDEX: u32 = 1;

/// One answer, as `struct kvm_cpuid_entry2` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuidEntry {
    /// Leaf.
    pub function: u32,
    /// Subleaf.
    pub index: u32,
    /// [`SIGNIFICANT_INDEX`] or 0.
    pub flags: u32,
    /// Register.
    pub eax: u32,
    /// Register.
    pub ebx: u32,
    /// Register.
    pub ecx: u32,
    /// Register.
    pub edx: u32,
}

/// What KVM can do that its list of entries does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostLimits {
    /// `KVM_CAP_TSC_DEADLINE_TIMER`: the in-kernel local APIC has the deadline mode.
    pub tsc_deadline_timer: bool,
}

/// One vCPU's place, in the terms of CPUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VcpuShape {
    /// x2APIC id; its low 8 bits are the initial APIC id.
    pub apic_id: u32,
    /// APIC id bits that number the threads of a core.
    pub thread_bits: u32,
    /// APIC id bits that number the threads of a package; at least `thread_bits`, at most 8.
    pub package_bits: u32,
    /// Threads a core has.
    pub threads_per_core: u32,
    /// Threads a package has.
    pub threads_per_package: u32,
}

/// Why there is no such model.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CpuidError {
    /// Not a vendor id.
    #[error("'{0}' is not a CPU vendor id; expected 12 ASCII characters such as GenuineIntel or AuthenticAMD")]
    Vendor(String),
    /// Not a feature.
    #[error(
        "'{name}' is not a CPU feature that can be removed{}; hint: use the names of the flags line in /proc/cpuinfo",
        close_names(close)
    )]
    UnknownFeature {
        /// What was asked for.
        name: String,
        /// Names like it.
        close: Vec<&'static str>,
    },
    /// A feature that the host must have.
    #[error(
        "CPU feature '{0}' cannot be added; expected one of {list}, which need nothing of the host's processor",
        list = ADDABLE.join(", ")
    )]
    NotAddable(String),
}

/// Features that a vCPU has whatever the host's processor says: any processor does what they promise.
pub const ADDABLE: [&str; 1] = ["erms"];

fn close_names(close: &[&str]) -> String {
    if close.is_empty() {
        String::new()
    } else {
        format!("; close names: {}", close.join(", "))
    }
}

/// A checked CPU model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuModel {
    vendor: Option<[u8; 12]>,
    add: Vec<&'static Feature>,
    remove: Vec<&'static Feature>,
}

impl CpuModel {
    /// Checks vendor and feature names; needs no host.
    pub fn new(config: &CpuModelConfig) -> Result<Self, CpuidError> {
        let vendor = config.vendor.as_ref().map(|text| {
            let bytes = text.as_bytes().try_into().ok().filter(|id: &[u8; 12]| id.is_ascii());
            bytes.ok_or_else(|| CpuidError::Vendor(text.clone()))
        });
        let addable = |name: &String| {
            let found = feature(name)?;
            let free = ADDABLE.contains(&found.name);
            free.then_some(found)
                .ok_or_else(|| CpuidError::NotAddable(name.clone()))
        };
        Ok(Self {
            vendor: vendor.transpose()?,
            add: config.add.iter().map(addable).collect::<Result<_, _>>()?,
            remove: config
                .remove
                .iter()
                .map(|name| feature(name))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whose processor the guest sees.
    pub fn vendor(&self, supported: &[CpuidEntry]) -> Vendor {
        let mut cpuid = Cpuid(supported.to_vec());
        if let Some(vendor) = self.vendor {
            cpuid.set_vendor(vendor);
        }
        cpuid.vendor()
    }

    /// The entries of the vCPU at `vcpu`, from what `KVM_GET_SUPPORTED_CPUID` returned.
    pub fn entries(&self, supported: &[CpuidEntry], host: &HostLimits, vcpu: &VcpuShape) -> Vec<CpuidEntry> {
        let mut cpuid = Cpuid(supported.to_vec());
        let before = cpuid.vendor();
        if let Some(vendor) = self.vendor {
            cpuid.set_vendor(vendor);
        }
        let vendor = cpuid.vendor();
        let context = Context {
            vendor,
            overridden: vendor != before,
            host,
            vcpu,
        };
        for fix in FIXES {
            tracing::trace!(apic_id = vcpu.apic_id, fix = fix.name, "cpuid");
            (fix.apply)(&mut cpuid, &context);
        }
        for feature in &self.add {
            cpuid.set(feature.bit);
        }
        for feature in &self.remove {
            cpuid.clear(feature.bit);
        }
        cpuid.0
    }
}

/// Entries of one vCPU.
struct Cpuid(Vec<CpuidEntry>);

impl Cpuid {
    fn get(&self, function: u32, index: u32) -> Option<&CpuidEntry> {
        self.0
            .iter()
            .find(|e| e.function == function && (e.index == index || e.flags & SIGNIFICANT_INDEX == 0))
    }

    fn get_mut(&mut self, function: u32, index: u32) -> Option<&mut CpuidEntry> {
        self.0
            .iter_mut()
            .find(|e| e.function == function && (e.index == index || e.flags & SIGNIFICANT_INDEX == 0))
    }

    fn remove(&mut self, function: u32) {
        self.0.retain(|e| e.function != function);
    }

    /// The entry, made if it is not there.
    fn entry(&mut self, function: u32) -> &mut CpuidEntry {
        let at = self
            .0
            .iter()
            .position(|e| e.function == function)
            .unwrap_or(self.0.len());
        if at == self.0.len() {
            self.0.push(CpuidEntry {
                function,
                ..CpuidEntry::default()
            });
        }
        &mut self.0[at]
    }

    /// Replaces every subleaf of `function`.
    fn replace(&mut self, function: u32, subleaves: impl IntoIterator<Item = [u32; 4]>) {
        self.remove(function);
        let entries = (0..).zip(subleaves).map(|(index, [eax, ebx, ecx, edx])| CpuidEntry {
            function,
            index,
            flags: SIGNIFICANT_INDEX,
            eax,
            ebx,
            ecx,
            edx,
        });
        self.0.extend(entries);
    }

    fn set(&mut self, bit: Bit) {
        match self.get_mut(bit.function, bit.index) {
            Some(entry) => *bit.register.of(entry) |= 1 << bit.bit,
            None => *bit.register.of(self.entry(bit.function)) |= 1 << bit.bit,
        }
    }

    fn clear(&mut self, bit: Bit) {
        if let Some(entry) = self.get_mut(bit.function, bit.index) {
            *bit.register.of(entry) &= !(1 << bit.bit);
        }
    }

    fn vendor(&self) -> Vendor {
        let Some(leaf) = self.get(0, 0) else {
            return Vendor::Other;
        };
        match [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).as_flattened() {
            b"GenuineIntel" => Vendor::Intel,
            b"AuthenticAMD" | b"HygonGenuine" => Vendor::Amd,
            _ => Vendor::Other,
        }
    }

    /// Both places of the vendor id have it in EBX, EDX, ECX.
    fn set_vendor(&mut self, id: [u8; 12]) {
        let (words, _) = id.as_chunks::<4>();
        for function in [0, 0x8000_0000] {
            if let (Some(entry), [b, d, c]) = (self.get_mut(function, 0), words) {
                (entry.ebx, entry.edx, entry.ecx) =
                    (u32::from_le_bytes(*b), u32::from_le_bytes(*d), u32::from_le_bytes(*c));
            }
        }
    }
}

#[cfg(test)]
mod tests;

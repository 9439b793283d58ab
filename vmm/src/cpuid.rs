//! What CPUID says: a pure function from what KVM offers, the model and one vCPU's place to the entries of that vCPU.
//!
//! KVM offers the host's numbers where they are not features (topology, caches, ids); [`FIXES`] lists every leaf that is
//! rewritten and is all there is. Everything else, KVM's own leaves at 0x4000_0000 among them, passes through. Features that
//! the model takes away go last, so that they win over a fix.

mod features;

pub use features::{Bit, Feature, Register, feature};

use crate::config::CpuModelConfig;

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
}

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
    remove: Vec<&'static Feature>,
}

impl CpuModel {
    /// Checks vendor and feature names; needs no host.
    pub fn new(config: &CpuModelConfig) -> Result<Self, CpuidError> {
        let vendor = config.vendor.as_ref().map(|text| {
            let bytes = text.as_bytes().try_into().ok().filter(|id: &[u8; 12]| id.is_ascii());
            bytes.ok_or_else(|| CpuidError::Vendor(text.clone()))
        });
        Ok(Self {
            vendor: vendor.transpose()?,
            remove: config
                .remove
                .iter()
                .map(|name| feature(name))
                .collect::<Result<_, _>>()?,
        })
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
            (fix.apply)(&mut cpuid, &context);
        }
        for feature in &self.remove {
            cpuid.clear(feature.bit);
        }
        cpuid.0
    }
}

/// Whose leaves a guest reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vendor {
    /// Leaves 4 and 0xb.
    Intel,
    /// Leaves 0x8000_001d, 0x8000_001e and 0xb.
    Amd,
    /// Zhaoxin and the like follow Intel; an invented id gets both.
    Other,
}

impl Vendor {
    fn reads_intel(self) -> bool {
        self != Self::Amd
    }
    fn reads_amd(self) -> bool {
        self != Self::Intel
    }
}

/// What a fix may look at.
struct Context<'a> {
    vendor: Vendor,
    /// The guest is told another vendor than the host's.
    overridden: bool,
    host: &'a HostLimits,
    vcpu: &'a VcpuShape,
}

/// One rewritten leaf.
struct Fix {
    /// What and why, for documentation and tests.
    name: &'static str,
    apply: fn(&mut Cpuid, &Context<'_>),
}

/// Every rewritten leaf, in the order of application. SDM 2A "CPUID", APM 3 appendix E.
const FIXES: &[Fix] = &[
    Fix {
        name: "0: leaf 0xb is within the range of leaves",
        apply: basic_range,
    },
    Fix {
        name: "1: APIC id, threads of the package, hypervisor, x2APIC and deadline timer",
        apply: leaf_1,
    },
    Fix {
        name: "4 and 0x8000_001d: caches, in the vendor's leaf, shared as the topology says",
        apply: caches,
    },
    Fix {
        name: "0xa and its AMD kin: no performance counters under another vendor's name",
        apply: performance_counters,
    },
    Fix {
        name: "0xb and 0x1f: threads and cores",
        apply: extended_topology,
    },
    Fix {
        name: "0x8000_0001: topology extensions are AMD's",
        apply: amd_features,
    },
    Fix {
        name: "0x8000_0008: threads of the package and APIC id size are AMD's",
        apply: leaf_8000_0008,
    },
    Fix {
        name: "0x8000_001e: AMD's ids",
        apply: leaf_8000_001e,
    },
    Fix {
        name: "0x8000_0026: left to 0xb",
        apply: leaf_8000_0026,
    },
];

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

fn set_bit(register: &mut u32, bit: u32, on: bool) {
    *register = *register & !(1 << bit) | u32::from(on) << bit;
}

fn set_field(register: &mut u32, shift: u32, width: u32, value: u32) {
    let mask = u32::MAX >> (32 - width);
    *register = *register & !(mask << shift) | (value & mask) << shift;
}

fn basic_range(cpuid: &mut Cpuid, _: &Context<'_>) {
    let max = &mut cpuid.entry(0).eax;
    *max = (*max).max(0xb);
}

fn leaf_1(cpuid: &mut Cpuid, context: &Context<'_>) {
    let VcpuShape {
        apic_id,
        package_bits,
        threads_per_package,
        ..
    } = *context.vcpu;
    let leaf = cpuid.entry(1);
    // Intel counts APIC ids set aside, AMD counts threads.
    let threads = if context.vendor == Vendor::Amd {
        threads_per_package
    } else {
        1 << package_bits
    };
    set_field(&mut leaf.ebx, 16, 8, threads.min(255));
    set_field(&mut leaf.ebx, 24, 8, apic_id);
    set_bit(&mut leaf.edx, 28, threads_per_package > 1);
    set_bit(&mut leaf.ecx, 21, true);
    set_bit(&mut leaf.ecx, 31, true);
    set_bit(&mut leaf.ecx, 24, context.host.tsc_deadline_timer);
    if context.overridden {
        // The performance capabilities MSR is Intel's; see `performance_counters`.
        set_bit(&mut leaf.ecx, 15, false);
    }
}

/// The two leaves have one format, except that AMD reserves the number of cores in EAX[31:26].
fn caches(cpuid: &mut Cpuid, context: &Context<'_>) {
    const INTEL: u32 = 4;
    const AMD: u32 = 0x8000_001d;
    let VcpuShape {
        thread_bits,
        package_bits,
        ..
    } = *context.vcpu;
    let described = |e: &&CpuidEntry| e.eax & 0x1f != 0;
    let of = |function| {
        cpuid
            .0
            .iter()
            .filter(move |e| e.function == function)
            .filter(described)
            .copied()
            .collect::<Vec<_>>()
    };
    let (intel, amd) = (of(INTEL), of(AMD));
    let source = if context.vendor == Vendor::Amd && !amd.is_empty() || intel.is_empty() {
        amd
    } else {
        intel
    };
    let shared = |cores: u32| {
        let subleaf = |mut e: CpuidEntry| {
            let bits = if e.eax >> 5 & 7 >= 3 { package_bits } else { thread_bits };
            set_field(&mut e.eax, 14, 12, (1 << bits) - 1);
            set_field(&mut e.eax, 26, 6, cores);
            [e.eax, e.ebx, e.ecx, e.edx]
        };
        // The list ends with a subleaf of type 0.
        source.iter().copied().map(subleaf).chain([[0; 4]]).collect::<Vec<_>>()
    };
    let no_caches = source.is_empty();
    let (for_intel, for_amd) = (shared((1 << (package_bits - thread_bits)) - 1), shared(0));
    for (function, wanted, subleaves) in [
        (INTEL, context.vendor.reads_intel(), for_intel),
        (AMD, context.vendor.reads_amd(), for_amd),
    ] {
        if wanted && !no_caches {
            cpuid.replace(function, subleaves);
        } else {
            cpuid.remove(function);
        }
    }
    if context.vendor.reads_amd() {
        let max = &mut cpuid.entry(0x8000_0000).eax;
        *max = (*max).max(0x8000_001e);
    }
}

fn performance_counters(cpuid: &mut Cpuid, context: &Context<'_>) {
    if !context.overridden {
        return;
    }
    // Each vendor's driver would touch MSRs that the host's KVM does not have.
    cpuid.remove(0xa);
    cpuid.remove(0x8000_0022);
    if let Some(leaf) = cpuid.get_mut(0x8000_0001, 0) {
        for bit in [23, 24, 28] {
            set_bit(&mut leaf.ecx, bit, false);
        }
    }
}

fn extended_topology(cpuid: &mut Cpuid, context: &Context<'_>) {
    const THREAD: u32 = 1 << 8;
    const CORE: u32 = 2 << 8;
    let VcpuShape {
        apic_id,
        thread_bits,
        package_bits,
        threads_per_core,
        threads_per_package,
    } = *context.vcpu;
    let levels = [
        [thread_bits, threads_per_core, THREAD, apic_id],
        [package_bits, threads_per_package, CORE | 1, apic_id],
        [0, 0, 2, apic_id],
    ];
    cpuid.replace(0xb, levels);
    cpuid.remove(0x1f);
    if context.vendor.reads_intel() && cpuid.get(0, 0).is_some_and(|leaf| leaf.eax >= 0x1f) {
        cpuid.replace(0x1f, levels);
    }
}

fn amd_features(cpuid: &mut Cpuid, context: &Context<'_>) {
    let leaf = cpuid.entry(0x8000_0001);
    // cmp_legacy: the threads that leaf 1 counts are cores.
    let cores_only = context.vcpu.threads_per_core == 1 && context.vcpu.threads_per_package > 1;
    set_bit(&mut leaf.ecx, 1, context.vendor == Vendor::Amd && cores_only);
    set_bit(&mut leaf.ecx, 22, context.vendor.reads_amd());
}

fn leaf_8000_0008(cpuid: &mut Cpuid, context: &Context<'_>) {
    let VcpuShape {
        package_bits,
        threads_per_package,
        ..
    } = *context.vcpu;
    if let Some(leaf) = cpuid.get_mut(0x8000_0008, 0) {
        // EAX, the address widths, and EBX, features, pass through. ECX: threads - 1 and APIC id bits.
        leaf.ecx = if context.vendor.reads_amd() {
            (threads_per_package - 1) & 0xff | package_bits << 12
        } else {
            0
        };
    }
}

fn leaf_8000_001e(cpuid: &mut Cpuid, context: &Context<'_>) {
    const LEAF: u32 = 0x8000_001e;
    cpuid.remove(LEAF);
    if !context.vendor.reads_amd() {
        return;
    }
    let VcpuShape {
        apic_id,
        thread_bits,
        package_bits,
        threads_per_core,
        ..
    } = *context.vcpu;
    let core = (apic_id & ((1 << package_bits) - 1)) >> thread_bits;
    let leaf = cpuid.entry(LEAF);
    leaf.eax = apic_id;
    leaf.ebx = core & 0xff | (threads_per_core - 1) << 8;
    // One node in each package, of the package's number.
    leaf.ecx = apic_id >> package_bits & 0xff;
}

fn leaf_8000_0026(cpuid: &mut Cpuid, _: &Context<'_>) {
    cpuid.remove(0x8000_0026);
}

#[cfg(test)]
mod tests;

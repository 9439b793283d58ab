//! Every leaf that is rewritten: one table, one function for each row.

use super::{Cpuid, CpuidEntry, HostLimits, VcpuShape};

/// Whose leaves a guest reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
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
pub struct Context<'a> {
    pub vendor: Vendor,
    /// The guest is told another vendor than the host's.
    pub overridden: bool,
    pub host: &'a HostLimits,
    pub vcpu: &'a VcpuShape,
}

/// One rewritten leaf.
pub struct Fix {
    /// What and why, for the log.
    pub name: &'static str,
    pub apply: fn(&mut Cpuid, &Context<'_>),
}

/// Every rewritten leaf, in the order of application. SDM 2A "CPUID", APM 3 appendix E.
pub const FIXES: &[Fix] = &[
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
        name: "0x8000_0007: AMD's processors go on after a memory error that a program has met",
        apply: error_recovery,
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

/// The two leaves have one format, except that AMD reserves the number of cores in bits 31:26 of EAX.
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

fn error_recovery(cpuid: &mut Cpuid, context: &Context<'_>) {
    if context.vendor == Vendor::Amd {
        let leaf = cpuid.entry(0x8000_0007);
        // Recovery from an overflow of the banks; poison is contained until it is consumed. Both are daxvisor's doing.
        set_bit(&mut leaf.ebx, 0, true);
        set_bit(&mut leaf.ebx, 1, true);
    }
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

//! Names of CPU features, as the flags line of `/proc/cpuinfo` has them, and the bits they are.

use super::{CpuidEntry, CpuidError};

/// A register of CPUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

impl Register {
    /// This register of `entry`.
    pub(super) fn of(self, entry: &mut CpuidEntry) -> &mut u32 {
        match self {
            Self::Eax => &mut entry.eax,
            Self::Ebx => &mut entry.ebx,
            Self::Ecx => &mut entry.ecx,
            Self::Edx => &mut entry.edx,
        }
    }
}

/// One bit of CPUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bit {
    /// Leaf.
    pub function: u32,
    /// Subleaf.
    pub index: u32,
    /// Register.
    pub register: Register,
    /// 0 to 31.
    pub bit: u8,
}

/// A named feature.
#[derive(Debug, PartialEq, Eq)]
pub struct Feature {
    /// Name in `/proc/cpuinfo`.
    pub name: &'static str,
    /// Where it is.
    pub bit: Bit,
}

macro_rules! features {
    ($($function:literal . $index:literal $register:ident { $($bit:literal $name:literal),+ $(,)? })+) => {
        &[$($(Feature {
            name: $name,
            bit: Bit { function: $function, index: $index, register: Register::$register, bit: $bit },
        }),+),+]
    };
}

/// Features of the kernel's `cpufeatures.h` that are one bit of CPUID, by leaf. Names the kernel makes up itself are not here.
#[rustfmt::skip]
const FEATURES: &[Feature] = features! {
    0x1 . 0 Edx {
        0 "fpu", 1 "vme", 2 "de", 3 "pse", 4 "tsc", 5 "msr", 6 "pae", 7 "mce", 8 "cx8", 9 "apic", 11 "sep", 12 "mtrr",
        13 "pge", 14 "mca", 15 "cmov", 16 "pat", 17 "pse36", 18 "pn", 19 "clflush", 21 "dts", 22 "acpi", 23 "mmx",
        24 "fxsr", 25 "sse", 26 "sse2", 27 "ss", 28 "ht", 29 "tm", 31 "pbe",
    }
    0x1 . 0 Ecx {
        0 "pni", 1 "pclmulqdq", 2 "dtes64", 3 "monitor", 4 "ds_cpl", 5 "vmx", 6 "smx", 7 "est", 8 "tm2", 9 "ssse3",
        10 "cid", 11 "sdbg", 12 "fma", 13 "cx16", 14 "xtpr", 15 "pdcm", 17 "pcid", 18 "dca", 19 "sse4_1", 20 "sse4_2",
        21 "x2apic", 22 "movbe", 23 "popcnt", 24 "tsc_deadline_timer", 25 "aes", 26 "xsave", 28 "avx", 29 "f16c",
        30 "rdrand", 31 "hypervisor",
    }
    0x6 . 0 Eax {
        0 "dtherm", 1 "ida", 2 "arat", 4 "pln", 6 "pts", 7 "hwp",
    }
    0x7 . 0 Ebx {
        0 "fsgsbase", 1 "tsc_adjust", 2 "sgx", 3 "bmi1", 4 "hle", 5 "avx2", 7 "smep", 8 "bmi2", 9 "erms",
        10 "invpcid", 11 "rtm", 12 "cqm", 14 "mpx", 15 "rdt_a", 16 "avx512f", 17 "avx512dq", 18 "rdseed", 19 "adx",
        20 "smap", 21 "avx512ifma", 23 "clflushopt", 24 "clwb", 25 "intel_pt", 26 "avx512pf", 27 "avx512er",
        28 "avx512cd", 29 "sha_ni", 30 "avx512bw", 31 "avx512vl",
    }
    0x7 . 0 Ecx {
        1 "avx512vbmi", 2 "umip", 3 "pku", 5 "waitpkg", 6 "avx512_vbmi2", 8 "gfni", 9 "vaes", 10 "vpclmulqdq",
        11 "avx512_vnni", 12 "avx512_bitalg", 13 "tme", 14 "avx512_vpopcntdq", 16 "la57", 22 "rdpid",
        24 "bus_lock_detect", 25 "cldemote", 27 "movdiri", 28 "movdir64b", 29 "enqcmd", 30 "sgx_lc",
    }
    0x7 . 0 Edx {
        2 "avx512_4vnniw", 3 "avx512_4fmaps", 4 "fsrm", 8 "avx512_vp2intersect", 10 "md_clear", 14 "serialize",
        16 "tsxldtrk", 18 "pconfig", 19 "arch_lbr", 20 "ibt", 22 "amx_bf16", 23 "avx512_fp16", 24 "amx_tile",
        25 "amx_int8", 28 "flush_l1d", 29 "arch_capabilities",
    }
    0x7 . 1 Eax {
        4 "avx_vnni", 5 "avx512_bf16", 17 "fred", 26 "lam",
    }
    0xd . 1 Eax {
        0 "xsaveopt", 1 "xsavec", 2 "xgetbv1", 3 "xsaves",
    }
    0x8000_0001 . 0 Edx {
        11 "syscall", 19 "mp", 20 "nx", 22 "mmxext", 25 "fxsr_opt", 26 "pdpe1gb", 27 "rdtscp", 29 "lm", 30 "3dnowext",
        31 "3dnow",
    }
    0x8000_0001 . 0 Ecx {
        0 "lahf_lm", 1 "cmp_legacy", 2 "svm", 3 "extapic", 4 "cr8_legacy", 5 "abm", 6 "sse4a", 7 "misalignsse",
        8 "3dnowprefetch", 9 "osvw", 10 "ibs", 11 "xop", 12 "skinit", 13 "wdt", 15 "lwp", 16 "fma4", 17 "tce",
        19 "nodeid_msr", 21 "tbm", 22 "topoext", 23 "perfctr_core", 24 "perfctr_nb", 26 "bpext", 27 "ptsc",
        28 "perfctr_llc", 29 "mwaitx",
    }
    0x8000_0007 . 0 Ebx {
        0 "overflow_recov", 1 "succor", 3 "smca",
    }
    0x8000_0007 . 0 Edx {
        8 "constant_tsc", 8 "nonstop_tsc", 9 "cpb",
    }
    0x8000_0008 . 0 Ebx {
        0 "clzero", 1 "irperf", 2 "xsaveerptr", 4 "rdpru", 9 "wbnoinvd", 14 "amd_ibrs", 15 "amd_stibp", 24 "amd_ssbd",
        25 "virt_ssbd",
    }
    0x8000_000a . 0 Edx {
        0 "npt", 1 "lbrv", 2 "svm_lock", 3 "nrip_save", 4 "tsc_scale", 5 "vmcb_clean", 6 "flushbyasid",
        7 "decodeassists", 10 "pausefilter", 12 "pfthreshold", 13 "avic", 15 "v_vmsave_vmload", 16 "vgif",
    }
};

/// The feature called `name`.
pub fn feature(name: &str) -> Result<&'static Feature, CpuidError> {
    FEATURES
        .iter()
        .find(|f| f.name == name)
        .ok_or_else(|| CpuidError::UnknownFeature {
            name: name.to_owned(),
            close: close(name),
        })
}

/// Up to five names like `name`: mistyped, or the beginning or a part of it.
fn close(name: &str) -> Vec<&'static str> {
    let name = name.to_ascii_lowercase();
    let flat = |text: &str| text.replace(['_', '-', '.'], "");
    let rank = |f: &'static Feature| {
        let (theirs, ours) = (flat(f.name), flat(&name));
        let distance = distance(&theirs, &ours);
        let part = ours.len() >= 3 && (theirs.contains(&ours) || theirs.len() >= 3 && ours.contains(&theirs));
        // Two letters' difference is a lot in a name of three.
        (part || distance * 3 <= ours.len()).then_some((distance, f.name))
    };
    let mut ranked: Vec<_> = FEATURES.iter().filter_map(rank).collect();
    ranked.sort_unstable();
    ranked.into_iter().take(5).map(|(_, name)| name).collect()
}

/// Insertions, removals and replacements from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for (to, pair) in b.iter().zip(row.windows(2)) {
            let [diagonal, above] = *pair else { continue };
            left = (diagonal + usize::from(from != *to)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_bits_exist() {
        let names: BTreeSet<_> = FEATURES.iter().map(|f| f.name).collect();
        assert_eq!(names.len(), FEATURES.len());
        assert!(FEATURES.len() > 150 && FEATURES.iter().all(|f| f.bit.bit < 32));
    }

    #[test]
    fn names_lead_to_bits() {
        let bit = |function, index, register, bit| Bit {
            function,
            index,
            register,
            bit,
        };
        assert_eq!(feature("x2apic").unwrap().bit, bit(1, 0, Register::Ecx, 21));
        assert_eq!(feature("avx512f").unwrap().bit, bit(7, 0, Register::Ebx, 16));
        assert_eq!(feature("avx512_bf16").unwrap().bit, bit(7, 1, Register::Eax, 5));
        assert_eq!(feature("xsaves").unwrap().bit, bit(0xd, 1, Register::Eax, 3));
        assert_eq!(feature("succor").unwrap().bit, bit(0x8000_0007, 0, Register::Ebx, 1));
    }

    #[test]
    fn an_unknown_name_brings_close_ones() {
        let close = |name: &str| match feature(name) {
            Err(CpuidError::UnknownFeature { close, .. }) => close,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(close("x2apci")[0], "x2apic");
        assert_eq!(close("tsc_deadline")[0], "tsc_deadline_timer");
        assert_eq!(close("AVX512F")[0], "avx512f");
        assert_eq!(close("sse4.1")[0], "sse4_1");
        assert_eq!(close("avx512").len(), 5);
        assert_eq!(close("zzzzzzzz"), [""; 0]);
        assert!(
            feature("erm").unwrap_err().to_string().contains("close names: erms"),
            "{}",
            feature("erm").unwrap_err()
        );
    }

    #[test]
    fn distance_counts_edits() {
        for (a, b, expected) in [
            ("", "", 0),
            ("abc", "", 3),
            ("erms", "erm", 1),
            ("x2apic", "x2apci", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}

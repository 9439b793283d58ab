//! Golden values: what guests of both vendors read, for one vCPU, for 2 cores of 2 threads, and for shapes with gaps.

use super::*;
use proptest::prelude::*;

const INTEL: &[u8; 12] = b"GenuineIntel";
const AMD: &[u8; 12] = b"AuthenticAMD";
const X2APIC: u32 = 1 << 21;
const DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
const HTT: u32 = 1 << 28;

fn plain(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> CpuidEntry {
    CpuidEntry {
        function,
        index: 0,
        flags: 0,
        eax,
        ebx,
        ecx,
        edx,
    }
}

fn sub(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> CpuidEntry {
    CpuidEntry {
        function,
        index,
        flags: SIGNIFICANT_INDEX,
        eax,
        ebx,
        ecx,
        edx,
    }
}

fn vendor_leaf(function: u32, max: u32, id: &[u8; 12]) -> CpuidEntry {
    let word = |at: usize| u32::from_le_bytes(id[at..at + 4].try_into().unwrap());
    plain(function, [max, word(0), word(8), word(4)])
}

/// L1 data, L1 instruction, L2 and L3, as a large host describes them; AMD leaves the number of cores out.
fn cache_leaves(function: u32, cores: u32) -> Vec<CpuidEntry> {
    let eax = |sharing: u32, level_and_type: u32| cores << 26 | sharing << 14 | 0x100 | level_and_type;
    let rows = [
        (eax(1, 0x21), 0x1c0_003f, 63),
        (eax(1, 0x22), 0x1c0_003f, 63),
        (eax(1, 0x43), 0x1c0_003f, 2047),
        (eax(127, 0x63), 0x3c0_003f, 0x7fff),
    ];
    let entries = (0..)
        .zip(rows)
        .map(|(i, (eax, ebx, ecx))| sub(function, i, [eax, ebx, ecx, 0]));
    entries.chain([sub(function, 4, [0; 4])]).collect()
}

fn intel_host() -> Vec<CpuidEntry> {
    let mut entries = vec![
        vendor_leaf(0, 0x1f, INTEL),
        plain(1, [0x806f8, 0x2a80_0800, 0x7780_8203 & !X2APIC, 0x1f8b_fbff]),
        sub(7, 0, [1, 0xf1bf_07ab, 0, 0]),
        sub(7, 1, [0x30, 0, 0, 0]),
        plain(0xa, [0x0730_0805, 0, 0, 0x8604]),
        sub(0xb, 0, [1, 2, 0x100, 42]),
        sub(0xb, 1, [7, 128, 0x201, 42]),
        sub(0x1f, 0, [1, 2, 0x100, 42]),
        plain(0x4000_0000, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
        plain(0x4000_0001, [0x0100_7efb, 0, 0, 0]),
        vendor_leaf(0x8000_0000, 0x8000_0008, INTEL),
        plain(0x8000_0001, [0, 0, 0x121, 0x2c10_0800]),
        plain(0x8000_0008, [0x3934, 0, 0, 0]),
    ];
    entries.extend(cache_leaves(4, 63));
    entries
}

fn amd_host() -> Vec<CpuidEntry> {
    let mut entries = vec![
        vendor_leaf(0, 0x10, AMD),
        plain(1, [0x00a1_0f11, 0x2a80_0800, 0x76f8_320b & !X2APIC, 0x178b_fbff]),
        sub(7, 0, [1, 0xf1bf_07ab, 0, 0]),
        sub(0xb, 0, [0; 4]),
        plain(0x4000_0000, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
        plain(0x4000_0001, [0x0100_7efb, 0, 0, 0]),
        vendor_leaf(0x8000_0000, 0x8000_0022, AMD),
        plain(0x8000_0001, [0x00a1_0f11, 0x4000_0000, 0x75c2_37ff, 0x2fd3_fbff]),
        plain(0x8000_0008, [0x3030, 0x111e_d205, 0x707f, 0x10007]),
        plain(0x8000_001e, [42, 0x0100 | 21, 0x0000, 0]),
        plain(0x8000_0022, [1, 6, 0, 0]),
        sub(0x8000_0026, 0, [1, 2, 0x100, 42]),
    ];
    entries.extend(cache_leaves(0x8000_001d, 0));
    entries
}

fn host(id: &[u8; 12]) -> Vec<CpuidEntry> {
    if id == INTEL { intel_host() } else { amd_host() }
}

/// `cores` of `threads` in each package, numbered with bit fields of the least width.
fn shape(apic_id: u32, cores: u32, threads: u32) -> VcpuShape {
    let bits = |n: u32| n.next_power_of_two().trailing_zeros();
    VcpuShape {
        apic_id,
        thread_bits: bits(threads),
        package_bits: bits(threads) + bits(cores),
        threads_per_core: threads,
        threads_per_package: cores * threads,
    }
}

const ONE: VcpuShape = VcpuShape {
    apic_id: 0,
    thread_bits: 0,
    package_bits: 0,
    threads_per_core: 1,
    threads_per_package: 1,
};

fn model(vendor: Option<&str>, remove: &[&str]) -> CpuModel {
    let remove = remove.iter().map(|name| (*name).to_owned()).collect();
    CpuModel::new(&CpuModelConfig {
        vendor: vendor.map(str::to_owned),
        remove,
        ..CpuModelConfig::default()
    })
    .unwrap()
}

/// The entries as the guest sees them: what is not there reads as zero.
struct Seen(Vec<CpuidEntry>);

impl Seen {
    fn new(host_id: &[u8; 12], claimed: Option<&str>, vcpu: &VcpuShape) -> Self {
        Self(model(claimed, &[]).entries(
            &host(host_id),
            &HostLimits {
                tsc_deadline_timer: true,
            },
            vcpu,
        ))
    }
    fn at(&self, function: u32, index: u32) -> [u32; 4] {
        let mut found = self
            .0
            .iter()
            .filter(|e| e.function == function && (e.index == index || e.flags == 0));
        let entry = found.next().copied().unwrap_or_default();
        assert_eq!(found.next(), None, "{function:#x}.{index} is there twice");
        [entry.eax, entry.ebx, entry.ecx, entry.edx]
    }
    /// EAX of the four cache subleaves: cores - 1 of the package, and threads - 1 that share L1 and L3.
    fn caches(&self, function: u32) -> Vec<(u32, u32)> {
        (0..4)
            .map(|i| self.at(function, i)[0])
            .map(|eax| (eax >> 26, eax >> 14 & 0xfff))
            .collect()
    }
}

#[test]
fn one_vcpu_is_one_core_of_one_thread_on_both_vendors() {
    for id in [INTEL, AMD] {
        let seen = Seen::new(id, None, &ONE);
        let [_, ebx, ecx, edx] = seen.at(1, 0);
        assert_eq!(ebx, 0x0001_0800);
        assert_eq!(ecx & (X2APIC | DEADLINE | HYPERVISOR), X2APIC | DEADLINE | HYPERVISOR);
        assert_eq!(edx & HTT, 0);
        assert_eq!(seen.at(0xb, 0), [0, 1, 0x100, 0]);
        assert_eq!(seen.at(0xb, 1), [0, 1, 0x201, 0]);
        assert_eq!(seen.at(0xb, 2), [0, 0, 2, 0]);
    }
    assert_eq!(Seen::new(INTEL, None, &ONE).caches(4), [(0, 0); 4]);
    let amd = Seen::new(AMD, None, &ONE);
    assert_eq!(amd.caches(0x8000_001d), [(0, 0); 4]);
    assert_eq!(amd.at(0x8000_001e, 0), [0, 0, 0, 0]);
    assert_eq!(amd.at(0x8000_0008, 0), [0x3030, 0x111e_d205, 0, 0x10007]);
}

#[test]
fn two_cores_of_two_threads_on_intel() {
    let seen = Seen::new(INTEL, None, &shape(3, 2, 2));
    assert_eq!(seen.at(1, 0)[1], 0x0304_0800);
    assert_eq!(seen.at(1, 0)[3] & HTT, HTT);
    assert_eq!(seen.caches(4), [(1, 1), (1, 1), (1, 1), (1, 3)]);
    assert_eq!(seen.at(4, 3)[1..], [0x3c0_003f, 0x7fff, 0]);
    assert_eq!(seen.at(4, 4), [0; 4]);
    for leaf in [0xb, 0x1f] {
        assert_eq!(
            [0, 1, 2].map(|i| seen.at(leaf, i)),
            [[1, 2, 0x100, 3], [2, 4, 0x201, 3], [0, 0, 2, 3]]
        );
    }
    assert_eq!(seen.at(0x8000_0008, 0), [0x3934, 0, 0, 0]);
    assert_eq!([seen.at(0x8000_001d, 0), seen.at(0x8000_001e, 0)], [[0; 4]; 2]);
    assert_eq!(
        seen.at(0xa, 0)[0],
        0x0730_0805,
        "the host's own vendor keeps its counters"
    );
}

#[test]
fn two_cores_of_two_threads_on_amd() {
    let seen = Seen::new(AMD, None, &shape(3, 2, 2));
    assert_eq!(seen.at(1, 0)[1], 0x0304_0800);
    assert_eq!(seen.at(4, 0), [0; 4]);
    assert_eq!(seen.caches(0x8000_001d), [(0, 1), (0, 1), (0, 1), (0, 3)]);
    assert_eq!(
        [0, 1, 2].map(|i| seen.at(0xb, i)),
        [[1, 2, 0x100, 3], [2, 4, 0x201, 3], [0, 0, 2, 3]]
    );
    assert_eq!(seen.at(0x1f, 0), [0; 4]);
    // 4 threads, 2 bits; core 1 of 2 threads, node 0.
    assert_eq!(seen.at(0x8000_0008, 0)[2], 0x2003);
    assert_eq!(seen.at(0x8000_001e, 0), [3, 0x101, 0, 0]);
    let ecx = seen.at(0x8000_0001, 0)[2];
    assert_eq!(
        (ecx >> 1 & 1, ecx >> 22 & 1),
        (0, 1),
        "cmp_legacy is for single threads, topoext is on"
    );
    assert_eq!(seen.at(0x8000_0026, 0), [0; 4], "the host's ids must not shine through");
    assert_eq!(seen.at(0x8000_0022, 0), [1, 6, 0, 0]);
}

#[test]
fn the_second_package_has_its_own_ids() {
    // Package 1 of 2 cores x 2 threads: ids 4 to 7.
    let seen = Seen::new(AMD, None, &shape(6, 2, 2));
    assert_eq!(seen.at(1, 0)[1] >> 24, 6);
    assert_eq!(seen.at(0x8000_001e, 0), [6, 0x101, 1, 0]);
    assert_eq!(seen.at(0xb, 1), [2, 4, 0x201, 6]);
}

#[test]
fn shapes_with_gaps_round_ids_up_and_counts_not() {
    // 3 cores of 1 thread: 2 bits, of which id 3 is unused. Package 1, core 2 is id 6.
    let intel = Seen::new(INTEL, None, &shape(6, 3, 1));
    assert_eq!(intel.at(1, 0)[1], 0x0604_0800, "Intel counts ids");
    assert_eq!(intel.at(0xb, 0), [0, 1, 0x100, 6]);
    assert_eq!(intel.at(0xb, 1), [2, 3, 0x201, 6]);
    assert_eq!(intel.caches(4), [(3, 0), (3, 0), (3, 0), (3, 3)]);
    let amd = Seen::new(AMD, None, &shape(6, 3, 1));
    assert_eq!(amd.at(1, 0)[1], 0x0603_0800, "AMD counts threads");
    assert_eq!(amd.at(0x8000_0008, 0)[2], 0x2002);
    assert_eq!(amd.at(0x8000_001e, 0), [6, 0x002, 1, 0]);
    assert_eq!(
        amd.at(0x8000_0001, 0)[2] & 2,
        2,
        "cmp_legacy: the threads of leaf 1 are cores"
    );
    // 3 cores of 3 threads: 2 + 2 bits.
    let seen = Seen::new(AMD, None, &shape(0b1001, 3, 3));
    assert_eq!([seen.at(0xb, 0), seen.at(0xb, 1)], [[2, 3, 0x100, 9], [4, 9, 0x201, 9]]);
    assert_eq!(seen.at(0x8000_001e, 0), [9, 0x202, 0, 0]);
    assert_eq!(seen.caches(0x8000_001d), [(0, 3), (0, 3), (0, 3), (0, 15)]);
}

#[test]
fn an_amd_host_can_claim_to_be_intel() {
    let seen = Seen::new(AMD, Some("GenuineIntel"), &shape(3, 2, 2));
    for leaf in [0, 0x8000_0000] {
        let [_, ebx, ecx, edx] = seen.at(leaf, 0);
        assert_eq!([ebx, edx, ecx].map(u32::to_le_bytes).as_flattened(), INTEL);
    }
    assert_eq!(seen.caches(4), [(1, 1), (1, 1), (1, 1), (1, 3)]);
    assert_eq!(seen.at(4, 3)[1..], [0x3c0_003f, 0x7fff, 0]);
    assert_eq!(seen.at(0xb, 1), [2, 4, 0x201, 3]);
    for leaf in [0x8000_001d, 0x8000_001e, 0x8000_0022, 0xa] {
        assert_eq!(seen.at(leaf, 0), [0; 4], "{leaf:#x}");
    }
    assert_eq!(seen.at(0x8000_0008, 0), [0x3030, 0x111e_d205, 0, 0x10007]);
    let ecx = seen.at(0x8000_0001, 0)[2];
    assert_eq!(ecx & (1 << 22 | 1 << 23 | 1 << 24 | 1 << 28 | 1 << 1), 0);
}

#[test]
fn an_intel_host_can_claim_to_be_amd() {
    let seen = Seen::new(INTEL, Some("AuthenticAMD"), &shape(3, 2, 2));
    let [max, ebx, ecx, edx] = seen.at(0x8000_0000, 0);
    assert_eq!([ebx, edx, ecx].map(u32::to_le_bytes).as_flattened(), AMD);
    assert_eq!(max, 0x8000_001e);
    assert_eq!(seen.caches(0x8000_001d), [(0, 1), (0, 1), (0, 1), (0, 3)]);
    assert_eq!(seen.at(0x8000_001e, 0), [3, 0x101, 0, 0]);
    assert_eq!(seen.at(0x8000_0008, 0)[2], 0x2003);
    assert_eq!(seen.at(0x8000_0001, 0)[2] >> 22 & 1, 1);
    assert_eq!(seen.at(1, 0)[2] >> 15 & 1, 0, "no performance capabilities MSR");
    assert_eq!([seen.at(4, 0), seen.at(0xa, 0), seen.at(0x1f, 0)], [[0; 4]; 3]);
}

#[test]
fn an_invented_vendor_gets_both_kinds_of_leaves() {
    let seen = Seen::new(AMD, Some("daxvisorTest"), &shape(1, 2, 1));
    assert_eq!(seen.caches(4)[3], (1, 1));
    assert_eq!(seen.caches(0x8000_001d)[3], (0, 1));
    assert_eq!(seen.at(0x8000_001e, 0), [1, 1, 0, 0]);
}

#[test]
fn the_hosts_own_vendor_named_is_no_override() {
    let vcpu = shape(1, 2, 1);
    assert_eq!(
        Seen::new(INTEL, Some("GenuineIntel"), &vcpu).0,
        Seen::new(INTEL, None, &vcpu).0
    );
}

#[test]
fn kvms_leaves_and_features_pass_through() {
    let seen = Seen::new(AMD, Some("GenuineIntel"), &ONE);
    assert_eq!(seen.at(0x4000_0000, 0), [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]);
    assert_eq!(seen.at(0x4000_0001, 0), [0x0100_7efb, 0, 0, 0]);
    assert_eq!(seen.at(7, 0), [1, 0xf1bf_07ab, 0, 0]);
}

#[test]
fn the_deadline_timer_is_there_when_kvm_has_it() {
    let without = model(None, &[]).entries(&intel_host(), &HostLimits::default(), &ONE);
    assert_eq!(Seen(without).at(1, 0)[2] & DEADLINE, 0);
}

#[test]
fn removed_features_are_gone_even_if_a_fix_sets_them() {
    let remove = [
        "x2apic",
        "tsc_deadline_timer",
        "hypervisor",
        "mce",
        "avx512f",
        "avx512_bf16",
        "svm",
    ];
    let entries = model(None, &remove).entries(
        &intel_host(),
        &HostLimits {
            tsc_deadline_timer: true,
        },
        &ONE,
    );
    let seen = Seen(entries);
    assert_eq!(seen.at(1, 0)[2] & (X2APIC | DEADLINE | HYPERVISOR), 0);
    assert_eq!(seen.at(1, 0)[3], 0x1f8b_fbff & !HTT & !(1 << 7));
    assert_eq!(seen.at(7, 0)[1], 0xf1bf_07ab & !(1 << 16));
    assert_eq!(seen.at(7, 1)[0], 0x10);
}

#[test]
fn features_that_need_nothing_of_the_host_can_be_added_and_no_others() {
    let model = |add: &[&str]| {
        CpuModel::new(&CpuModelConfig {
            add: add.iter().map(|name| (*name).to_owned()).collect(),
            ..CpuModelConfig::default()
        })
    };
    let offered = [plain(7, [0; 4])];
    let entries = model(&["erms"])
        .unwrap()
        .entries(&offered, &HostLimits::default(), &shape(0, 1, 1));
    assert_eq!(Seen(entries).at(7, 0)[1], 1 << 9);
    let refused = model(&["avx512f"]).unwrap_err();
    assert_eq!(refused, CpuidError::NotAddable("avx512f".to_owned()));
    assert!(refused.to_string().contains("expected one of erms,"), "{refused}");
    assert!(matches!(model(&["ermz"]), Err(CpuidError::UnknownFeature { .. })));
}

#[test]
fn amds_processors_recover_and_others_do_not_say_so() {
    let recovery = |vendor: &str| {
        let entries = model(Some(vendor), &[]).entries(&[plain(0, [0; 4])], &HostLimits::default(), &shape(0, 1, 1));
        let leaf = entries.iter().find(|entry| entry.function == 0x8000_0007);
        leaf.map_or(0, |leaf| leaf.ebx & 3)
    };
    assert_eq!((recovery("AuthenticAMD"), recovery("GenuineIntel")), (3, 0));
}

#[test]
fn a_model_is_checked_without_a_host() {
    let error = |vendor: Option<&str>, remove: &[&str]| {
        let remove = remove.iter().map(|name| (*name).to_owned()).collect();
        CpuModel::new(&CpuModelConfig {
            vendor: vendor.map(str::to_owned),
            remove,
            ..CpuModelConfig::default()
        })
        .unwrap_err()
    };
    assert_eq!(error(Some("Intel"), &[]), CpuidError::Vendor("Intel".to_owned()));
    assert_eq!(
        error(Some("Genuine\u{00cd}ntel"), &[]),
        CpuidError::Vendor("Genuine\u{00cd}ntel".to_owned())
    );
    assert!(matches!(error(None, &["mce", "nosuch"]), CpuidError::UnknownFeature { name, .. } if name == "nosuch"));
}

proptest! {
    #[test]
    fn ids_agree_in_every_leaf(cores in 1u32..=16, threads in 1u32..=4, socket in 0u32..4, core in 0u32..16, thread in 0u32..4, amd: bool) {
        let empty = shape(0, cores, threads);
        let (core, thread) = (core % cores, thread % threads);
        let vcpu = VcpuShape { apic_id: socket << empty.package_bits | core << empty.thread_bits | thread, ..empty };
        let seen = Seen::new(if amd { AMD } else { INTEL }, None, &vcpu);
        prop_assert_eq!(seen.at(1, 0)[1] >> 24, vcpu.apic_id & 0xff);
        prop_assert_eq!(seen.at(0xb, 0)[3], vcpu.apic_id);
        prop_assert_eq!(vcpu.apic_id >> seen.at(0xb, 1)[0], socket);
        prop_assert!(seen.at(0xb, 1)[1] <= 1 << seen.at(0xb, 1)[0]);
        if amd {
            let [id, ebx, node, _] = seen.at(0x8000_001e, 0);
            prop_assert_eq!((id, ebx & 0xff, (ebx >> 8) + 1, node), (vcpu.apic_id, core, threads, socket));
        }
    }

    #[test]
    fn arbitrary_offers_are_transformed(words in proptest::collection::vec(any::<[u32; 4]>(), 0..20), intel: bool) {
        let functions = [0, 1, 4, 4, 7, 0xa, 0xb, 0x1f, 0x8000_0000, 0x8000_0001, 0x8000_0008, 0x8000_001d, 0x8000_001e];
        let offered: Vec<_> = words.iter().zip(functions).map(|(w, f)| plain(f, *w)).collect();
        let claimed = if intel { "GenuineIntel" } else { "AuthenticAMD" };
        let entries = model(Some(claimed), &["avx"]).entries(&offered, &HostLimits::default(), &shape(5, 3, 2));
        prop_assert!(entries.len() <= offered.len() + 16);
    }
}

//! Xen's leaves, in the place of KVM's own.

use super::{CpuidEntry, SIGNIFICANT_INDEX};

/// First of the leaves that hypervisors have.
const BASE: u32 = 0x4000_0000;
/// What is between it and the end is some hypervisor's.
const END: u32 = 0x4fff_ffff;

/// What Xen's leaves say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XenLeaves {
    /// Version, as Xen itself has it in one word.
    pub version: u32,
    /// vCPUs can have a vector of their own for events.
    pub own_vectors: bool,
    /// Register that takes the address of the hypercall page.
    pub msr: u32,
    /// Number of the vCPU in hypercalls.
    pub vcpu: u32,
}

/// Replaces whatever hypervisor's leaves there are in `entries` (`arch-x86/cpuid.h`): a kernel takes the last hypervisor it finds.
pub fn show_xen(entries: &mut Vec<CpuidEntry>, leaves: &XenLeaves) {
    /// The number of the vCPU is in leaf 4.
    const VCPU_ID_PRESENT: u32 = 1 << 3;
    /// Events can come by a vector of each vCPU's own.
    const UPCALL_VECTOR: u32 = 1 << 6;
    let features = VCPU_ID_PRESENT | if leaves.own_vectors { UPCALL_VECTOR } else { 0 };
    entries.retain(|entry| !(BASE..=END).contains(&entry.function));
    let [b, c, d] = [*b"XenV", *b"MMXe", *b"nVMM"].map(u32::from_le_bytes);
    let leaf = |n: u32, [eax, ebx, ecx, edx]: [u32; 4]| CpuidEntry {
        function: BASE + n,
        eax,
        ebx,
        ecx,
        edx,
        ..CpuidEntry::default()
    };
    let time = |index| CpuidEntry {
        index,
        flags: SIGNIFICANT_INDEX,
        ..leaf(3, [0; 4])
    };
    entries.extend([
        leaf(0, [BASE + 4, b, c, d]),
        leaf(1, [leaves.version, 0, 0, 0]),
        // One hypercall page.
        leaf(2, [1, leaves.msr, 0, 0]),
        // KVM fills in how fast time goes.
        time(0),
        time(1),
        time(2),
        leaf(4, [features, leaves.vcpu, 0, 0]),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xen_is_the_only_hypervisor() {
        let entry = |function| CpuidEntry {
            function,
            eax: 7,
            ..CpuidEntry::default()
        };
        let mut entries = vec![
            entry(1),
            entry(BASE),
            entry(BASE + 1),
            entry(BASE + 0x100),
            entry(0x8000_0000),
        ];
        let leaves = XenLeaves {
            version: 0x0004_0011,
            own_vectors: true,
            msr: 0x4000_0000,
            vcpu: 3,
        };
        show_xen(&mut entries, &leaves);
        let of = |n: u32| {
            entries
                .iter()
                .filter(move |e| e.function == BASE + n)
                .collect::<Vec<_>>()
        };
        let signature = [of(0)[0].ebx, of(0)[0].ecx, of(0)[0].edx]
            .map(u32::to_le_bytes)
            .concat();
        assert_eq!(
            (of(0).len(), &signature[..], of(0)[0].eax),
            (1, &b"XenVMMXenVMM"[..], BASE + 4)
        );
        assert_eq!(
            (of(1)[0].eax, of(2)[0].ebx, of(4)[0].ebx),
            (0x0004_0011, 0x4000_0000, 3)
        );
        assert_eq!(of(4)[0].eax, 0x48);
        let mut without = vec![];
        let leaves = XenLeaves {
            own_vectors: false,
            ..leaves
        };
        show_xen(&mut without, &leaves);
        assert_eq!(without.last().map(|leaf| leaf.eax), Some(8));
        assert_eq!(of(3).iter().map(|e| e.index).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(of(0x100).is_empty());
        let kept = entries.iter().filter(|e| !(BASE..=END).contains(&e.function)).count();
        assert_eq!(kept, 2);
    }
}

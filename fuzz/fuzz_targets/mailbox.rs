//! Any bytes are a mailbox: ringing the doorbell must neither panic nor write outside of it, and the label areas keep
//! their sizes.
#![no_main]

use devices::{
    BusDevice, Clock, Effect, GuestMemory,
    nvdimm::{
        LabelStore, MailboxPlan, NfitHandle, NfitPlan, NvdimmBus, NvdimmBusPlan, NvdimmPlan, RootPlan,
        guid::{HPE1_DIMM_DSM, INTEL_BUS_DSM, INTEL_DIMM_DSM, METHODS, ROOT_DSM},
        mailbox::ROOT_HANDLE,
        plan::{DimmFamily, InterleavePlan, MappingPlan, SpaKind, SpaPlan},
    },
    units::{Gpa, GpaRange},
};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryMmap};

const PAGE: usize = 0x1000;
const MAILBOX: GpaRange = GpaRange {
    start: Gpa(0x1000),
    len: 0x1_0000,
};
const FENCE: [u8; PAGE] = [0x5a; PAGE];

/// Bytes of each DIMM.
const DIMM: u64 = 1 << 24;

/// A known GUID, handle or address is not to be found by chance: the first byte chooses among them.
fn make_plausible(page: &mut [u8], choice: u8) {
    let guids = [INTEL_DIMM_DSM, METHODS, ROOT_DSM, INTEL_BUS_DSM, HPE1_DIMM_DSM];
    if let Some(guid) = guids.get(usize::from(choice & 3 | choice >> 5 & 4)) {
        page[16..32].copy_from_slice(&guid.0);
    }
    if let Some(handle) = [ROOT_HANDLE, 1, 2].get(usize::from(choice >> 2 & 3)) {
        page[..4].copy_from_slice(&handle.to_le_bytes());
    }
    if choice & 16 == 0 {
        page[4..8].copy_from_slice(&[1 + (choice >> 5 & 1), 0, 0, 0]);
        page[9..12].fill(0);
    }
    if choice & 32 != 0 {
        // An SPA in or around the set, and a length that is not astronomical.
        page[67..72].copy_from_slice(&[0, 1, 0, 0, 0]);
        page[76..80].fill(0);
    }
}

/// Two DIMMs, and the lines of both in turns at 4 GiB.
fn nfit() -> NfitPlan {
    let dimm =
        |slot: u8, labels: u32, read_only| NvdimmPlan::plain(slot, format!("nvdimm{slot}"), DIMM, labels, read_only);
    let mut second = dimm(1, 0x1000, true);
    second.family = DimmFamily::Hpe1;
    let mapping = |slot: u8| MappingPlan {
        slot,
        region_id: 0,
        len: DIMM,
        offset: u64::from(slot) * 256,
        dpa: 0,
    };
    NfitPlan {
        dimms: vec![dimm(0, 0x2000, false), second],
        spas: vec![SpaPlan {
            index: 1,
            kind: SpaKind::Persistent,
            range: GpaRange::new(Gpa(1 << 32), 2 * DIMM),
            proximity: 0,
            interleave: Some(InterleavePlan { index: 1, line: 256 }),
            mappings: vec![mapping(0), mapping(1)],
        }],
        ..NfitPlan::default()
    }
}

fn bus(memory: &GuestMemory, clock: &Clock) -> NvdimmBus {
    let nfit = nfit();
    let store = |plan: &NvdimmPlan| Box::new(vec![0u8; plan.label_size as usize]) as Box<dyn LabelStore>;
    let labels = nfit.dimms.iter().map(store).collect();
    let plan = NvdimmBusPlan {
        number: 0,
        mailbox: MailboxPlan {
            memory: MAILBOX,
            doorbell: 0xa18,
        },
        slots: vec![],
        nfit,
        root: RootPlan::default(),
    };
    NvdimmBus::new(memory.clone(), plan, labels, (), clock)
}

/// One call after the other: a byte that chooses, one that says how many follow, and those.
fn calls(mut data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[choice, len], rest) = data.split_first_chunk()?;
        let (bytes, rest) = rest.split_at(rest.len().min(len.into()));
        data = rest;
        Some((choice, bytes))
    })
}

fuzz_target!(|data: &[u8]| {
    let end = usize::try_from(MAILBOX.end().0).expect("64-bit host");
    let mmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), end + PAGE)]).expect("host memory");
    let memory = GuestMemory::new(mmap);
    let fences = [GuestAddress(0), GuestAddress(MAILBOX.end().0)];
    for fence in fences {
        memory.memory().write_slice(&FENCE, fence).expect("in memory");
    }
    let clock = Clock::manual();
    let bus = bus(&memory, &clock);

    for (choice, bytes) in calls(data) {
        let mut page = vec![0; 0x2000];
        page.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        make_plausible(&mut page, choice);
        memory
            .memory()
            .write_slice(&page, GuestAddress(MAILBOX.start.0))
            .expect("in memory");
        assert_eq!(bus.write(0, &[1, 0, 0, 0]), Effect::None);
        clock.advance(Duration::from_millis(u64::from(choice)));
    }

    for fence in fences {
        let mut found = [0; PAGE];
        memory.memory().read_slice(&mut found, fence).expect("in memory");
        assert!(found == FENCE, "the page at {fence:?} was written");
    }
    let sizes: Vec<u32> = [1, 2]
        .into_iter()
        .filter_map(|handle| bus.with(|state| Some(state.dimm(NfitHandle(handle))?.labels.size())))
        .collect();
    assert_eq!(sizes, [0x2000, 0x1000]);
});

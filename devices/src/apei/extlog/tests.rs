use super::*;
use crate::apei::{MemoryError, Severity};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryMmap};

const START: u64 = 0x1d_0000;
/// Bytes of the entry of a memory error; 20 are before the first one.
const ENTRY: usize = 64 + 80;
const BANK: u8 = 4;

/// The log, and what a guest sees of it.
struct Guest {
    memory: GuestMemory,
    log: ExtendedLog,
}

fn guest(processors: &[u32]) -> Guest {
    let len = usize::try_from(ExtlogPlan::LEN).unwrap();
    let memory = GuestMemory::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(START), len)]).unwrap());
    let plan = ExtlogPlan {
        memory: GpaRange::new(Gpa(START), ExtlogPlan::LEN),
        processors: processors.to_vec(),
        banks: 10,
    };
    let log = ExtendedLog::new(memory.clone(), plan).unwrap();
    Guest { memory, log }
}

fn error(gpa: u64, severity: Severity) -> Cper {
    let error = MemoryError {
        gpa: Gpa(gpa),
        granule: 64,
        node: Some(1),
        module: Some(0x1101),
    };
    let mut error = Cper::memory(severity, error);
    error.fru_text = Some("RAM".into());
    error
}

fn corrected(gpa: u64) -> Cper {
    error(gpa, Severity::Corrected)
}

fn word(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(block::word(bytes, offset))
}

fn long(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(block::word(bytes, offset))
}

impl Guest {
    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.memory().read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    fn store(&self, at: u64, bytes: &[u8]) {
        self.memory.memory().write_slice(bytes, GuestAddress(at)).unwrap();
    }

    /// Where the guest's driver looks: the entry by APIC id and bank, its valid bit, the status word of its block.
    fn look(&self, apic_id: u64, bank: u64) -> Option<u64> {
        let header = self.bytes(START, 64);
        let index = apic_id * u64::from(word(&header, 48)) + bank;
        assert!(64 + 8 * index < long(&header, 8), "beyond the directory");
        let entry = long(&self.bytes(START + 64 + 8 * index, 8), 0);
        let at = entry & ((1 << 52) - 1);
        let base = long(&header, 16);
        assert!(
            entry >> 63 == 0 || at >= base && at + 4096 <= base + long(&header, 24),
            "{entry:#x}"
        );
        (entry >> 63 == 1 && word(&self.bytes(at, 4), 0) != 0).then_some(at)
    }

    /// Status word, severity and addresses of a block.
    fn said(&self, at: u64) -> (u32, u32, Vec<u64>) {
        let block = self.bytes(at, 4096);
        let (status, len) = (word(&block, 0), word(&block, 12) as usize);
        assert_eq!(len, (status >> 4) as usize * ENTRY, "whole entries");
        let addresses = block[20..20 + len].chunks(ENTRY).map(|entry| long(entry, 64 + 16));
        (status, word(&block, 16), addresses.collect())
    }

    /// Reads what is there, and clears it.
    fn take(&self, apic_id: u64) -> Option<(u32, u32, Vec<u64>)> {
        let at = self.look(apic_id, BANK.into())?;
        let said = self.said(at);
        self.store(at, &[0; 4]);
        Some(said)
    }

    fn counts(&self) -> [u64; 4] {
        let info = self.log.info();
        [info.logged, info.read, info.waiting, info.lost]
    }
}

#[test]
fn the_directory_has_an_entry_for_each_bank_of_each_apic_id() {
    let guest = guest(&[0, 1, 4]);
    let header = guest.bytes(START, 64);
    // Version, header length, total length, log base and length, flags, entries of a processor.
    assert_eq!((word(&header, 0), word(&header, 4)), (1, 64));
    assert_eq!(long(&header, 8), 64 + 5 * 10 * 8);
    assert_eq!((long(&header, 16), long(&header, 24)), (START + 0x8000, 0x1_1000));
    assert_eq!((word(&header, 32), word(&header, 48)), (0, 10));
    assert_eq!((&header[36..48], &header[52..]), (&[0; 12][..], &[0; 12][..]));
    for bank in 0..10 {
        assert_eq!(guest.look(4, bank), None);
    }
}

#[test]
fn an_error_is_in_the_entry_of_its_processor_and_bank_alone() {
    let guest = guest(&[0, 1, 4]);
    let logged = guest
        .log
        .log(4, BANK, &error(0x1234_5640, Severity::Recoverable))
        .unwrap();
    assert_eq!(logged, Logged::Told);
    for (apic_id, bank) in (0..5).flat_map(|id| (0..10).map(move |bank| (id, bank))) {
        assert_eq!(guest.look(apic_id, bank).is_some(), (apic_id, bank) == (4, 4));
    }
    let at = guest.look(4, 4).unwrap();
    // What the sources of the HEST say of it, but for the revision, and the time stamp that is not there.
    let block = error(0x1234_5640, Severity::Recoverable).block();
    let logged = guest.bytes(at, 20 + ENTRY);
    assert_eq!((word(&block, 12), word(&logged, 12)), (72 + 80, 64 + 80));
    assert_eq!((&block[40..42], &logged[40..42]), (&[0, 3][..], &[1, 2][..]));
    for (dated, undated) in [(0..12, 0..12), (16..40, 16..40), (42..84, 42..84), (92..172, 84..164)] {
        assert_eq!(block[dated], logged[undated]);
    }
    assert_eq!(guest.said(at), (0x11, 0, vec![0x1234_5640]));
    assert_eq!(guest.counts(), [1, 0, 1, 0]);
    assert!(guest.take(4).is_some() && guest.take(4).is_none());
    assert_eq!(guest.counts(), [1, 1, 0, 0]);
}

#[test]
fn errors_that_are_not_read_are_told_together_in_the_other_block() {
    let guest = guest(&[0]);
    guest.log.log(0, BANK, &corrected(0x1000)).unwrap();
    let first = guest.look(0, 4).unwrap();
    let before = guest.bytes(first, 0x200);
    guest.log.log(0, BANK, &error(0x2000, Severity::Recoverable)).unwrap();
    assert_eq!(guest.bytes(first, 0x200), before, "the guest may be reading it");
    assert_ne!(guest.look(0, 4), Some(first));
    // One of each kind; then two of one. The worst of them is the block's severity.
    assert_eq!(guest.said(guest.look(0, 4).unwrap()), (0x23, 0, vec![0x1000, 0x2000]));
    guest.log.log(0, BANK, &corrected(0x3000)).unwrap();
    assert_eq!(guest.counts(), [3, 0, 3, 0]);
    assert_eq!(guest.take(0), Some((0x3b, 0, vec![0x1000, 0x2000, 0x3000])));
    guest.log.log(0, BANK, &corrected(0x4000)).unwrap();
    assert_eq!(guest.take(0), Some((0x12, 2, vec![0x4000])), "what was read is gone");
    assert_eq!(guest.counts(), [4, 4, 0, 0]);
}

#[test]
fn the_oldest_corrected_error_makes_room_and_the_block_says_that_there_were_more() {
    let guest = guest(&[0]);
    guest.log.log(0, BANK, &error(0x1000, Severity::Recoverable)).unwrap();
    for gpa in [0x2000, 0x3000] {
        assert_eq!(guest.log.log(0, BANK, &corrected(gpa)).unwrap(), Logged::Told);
    }
    let lost = |gpa, severity| Logged::Lost(Box::new(error(gpa, severity)));
    let logged = guest.log.log(0, BANK, &corrected(0x4000)).unwrap();
    assert_eq!(logged, lost(0x2000, Severity::Corrected));
    for gpa in [0x5000, 0x6000] {
        guest.log.log(0, BANK, &error(gpa, Severity::Fatal)).unwrap();
    }
    assert_eq!(guest.counts(), [6, 0, 3, 3]);
    let logged = guest.log.log(0, BANK, &corrected(0x7000)).unwrap();
    assert_eq!(logged, lost(0x7000, Severity::Corrected), "less than what waits");
    let logged = guest.log.log(0, BANK, &error(0x8000, Severity::Recoverable)).unwrap();
    assert_eq!(logged, lost(0x1000, Severity::Recoverable));
    assert_eq!(guest.take(0), Some((0x3f, 1, vec![0x5000, 0x6000, 0x8000])));
    assert_eq!(guest.counts(), [8, 3, 0, 5]);
    assert_eq!(MAX_LOGGED, 3);
}

#[test]
fn a_processor_or_a_bank_that_there_is_not_is_refused() {
    let guest = guest(&[0, 2]);
    for (apic_id, bank) in [(1, 4), (3, 4), (u32::MAX, 4), (0, 10), (0, 255)] {
        let refused = guest.log.log(apic_id, bank, &corrected(64)).unwrap_err();
        let wanted = format!("the extended error log has no entry for bank {bank} of processor {apic_id}");
        assert_eq!(refused.to_string(), wanted);
    }
    assert_eq!(guest.counts(), [0; 4]);
}

#[test]
fn the_largest_machine_has_room() {
    let ids: Vec<u32> = (191..255).collect();
    let guest = guest(&ids);
    for (n, id) in ids.iter().enumerate() {
        for error in 0..4u64 {
            guest.log.log(*id, 9, &corrected(0x10_0000 * n as u64 + error)).unwrap();
        }
    }
    let mut places = vec![];
    for (n, id) in ids.iter().enumerate() {
        let at = guest.look((*id).into(), 9).unwrap();
        let first = 0x10_0000 * n as u64;
        assert_eq!(guest.said(at).2, [first + 1, first + 2, first + 3], "processor {id}");
        places.push(at);
    }
    assert_eq!(guest.log.info().lost, 64);
    places.dedup();
    assert_eq!(places.len(), 64);
}

#[test]
fn the_guest_says_that_it_uses_the_log() {
    let guest = guest(&[0]);
    for (flags, wanted) in [(0u32, false), (1, true), (!1, false), (!0, true)] {
        guest.store(START + 32, &flags.to_le_bytes());
        assert_eq!(guest.log.info().opted_in, wanted);
    }
}

proptest! {
    /// Whatever the guest writes there, what it finds next is what was logged, and nothing is miscounted.
    #[test]
    fn what_the_guest_writes_is_not_believed(
        writes in proptest::collection::vec((0..ExtlogPlan::LEN - 8, any::<u64>(), any::<bool>()), 1..60),
    ) {
        let guest = guest(&[0, 3]);
        let mut logged = 0u64;
        for (offset, value, log) in writes {
            guest.store(START + offset, &value.to_le_bytes());
            if log {
                logged += 1;
                guest.log.log(3, 9, &corrected(logged << 12)).unwrap();
                let entry = long(&guest.bytes(START + 64 + 8 * 39, 8), 0);
                prop_assert_eq!(entry >> 63, 1);
                let (status, severity, addresses) = guest.said(entry & !(1 << 63));
                prop_assert_eq!(severity, 2);
                prop_assert_eq!((status & 0xf) | 8, 0xa);
                prop_assert_eq!(addresses.last(), Some(&(logged << 12)));
            }
            let info = guest.log.info();
            prop_assert_eq!(info.logged, logged);
            prop_assert_eq!(info.read + info.waiting + info.lost, logged);
        }
    }
}

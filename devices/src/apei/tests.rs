use super::*;
use crate::line::CountingLine;
use proptest::prelude::*;
use std::{io, sync::Arc};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryMmap};

const PLAN: ApeiPlan = ApeiPlan {
    memory: GpaRange {
        start: Gpa(0x1c_0000),
        len: ApeiPlan::LEN,
    },
    port: 0xa60,
    poll_ms: 5000,
};

/// The interfaces, and what a guest sees of them.
struct Guest {
    memory: GuestMemory,
    apei: Apei,
    line: Arc<CountingLine>,
    /// What the last write came to.
    effect: std::cell::Cell<Effect>,
}

fn guest(kept: ApeiKept) -> Guest {
    let start = GuestAddress(PLAN.memory.start.0);
    let len = usize::try_from(ApeiPlan::LEN).unwrap();
    let memory = GuestMemory::new(GuestMemoryMmap::from_ranges(&[(start, len)]).unwrap());
    let line = Arc::new(CountingLine::default());
    let apei = Apei::new(memory.clone(), PLAN, line.clone(), kept).unwrap();
    let effect = Effect::None.into();
    Guest {
        memory,
        apei,
        line,
        effect,
    }
}

fn word_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(block::word(bytes, offset))
}

impl Guest {
    fn bytes(&self, gpa: Gpa, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .memory()
            .read_slice(&mut bytes, GuestAddress(gpa.0))
            .unwrap();
        bytes
    }

    fn cell(&self, gpa: Gpa) -> u64 {
        word_at(&self.bytes(gpa, 8), 0)
    }

    fn store(&self, gpa: Gpa, bytes: &[u8]) {
        self.memory.memory().write_slice(bytes, GuestAddress(gpa.0)).unwrap();
    }

    /// Reads and acknowledges a block as the guest's driver does: the address from its cell.
    fn take(&self, source: Source) -> Option<Vec<u8>> {
        let at = Gpa(self.cell(PLAN.address_cell(source)));
        let block = self.bytes(at, 512);
        if block[..4] == [0; 4] {
            return None;
        }
        self.store(at, &[0; 4]);
        let port = u64::from(PLAN.ack_port(source) - PLAN.port);
        let mut ack = [0xff; 4];
        self.apei.read(port, &mut ack);
        assert_eq!(ack, [0; 4], "not read yet");
        assert_eq!(self.apei.write(port, &[1, 0, 0, 0]), Effect::Progress);
        Some(block)
    }

    /// Runs an instruction list of a table, as ACPI's interpreter of it does.
    fn run(&self, table: &[u8], action: u8, operand: u64) -> Option<u64> {
        let mut value = None;
        for entry in table[12..].chunks(32).filter(|entry| entry[0] == action) {
            let (instruction, space, address) = (entry[1], entry[4], word_at(entry, 8));
            let (constant, mask) = (word_at(entry, 16), word_at(entry, 24));
            let width = usize::from(entry[5] / 8);
            let word = match instruction {
                0 => {
                    value = Some(self.cell(Gpa(address)) & mask);
                    continue;
                }
                2 => operand & mask,
                3 => constant & mask,
                other => panic!("instruction {other}"),
            };
            let bytes = &word.to_le_bytes()[..width];
            match space {
                0 => self.store(Gpa(address), bytes),
                _ => self.effect.set(self.apei.write(address - u64::from(PLAN.port), bytes)),
            }
        }
        value
    }

    fn ask(&self, table: &[u8], action: u8) -> u64 {
        self.run(table, action, 0).expect("an answer")
    }

    /// As Linux injects.
    fn inject(&self, kind: u32, flags: u32, address: u64, mask: u64) -> Effect {
        let einj = tables::einj(&PLAN);
        self.run(&einj, 0, 0);
        self.run(&einj, 8, kind.into());
        let at = |offset| Gpa(PLAN.parameters().0 + offset);
        self.store(at(8), &flags.to_le_bytes());
        self.store(at(16), &address.to_le_bytes());
        self.store(at(24), &mask.to_le_bytes());
        self.run(&einj, 5, 0);
        self.effect.get()
    }
}

fn memory_error(gpa: u64) -> Cper {
    let gpa = Gpa(gpa);
    let (granule, node, module) = (64, Some(3), Some(0x1203));
    let error = MemoryError {
        gpa,
        granule,
        node,
        module,
    };
    Cper::memory(Severity::Recoverable, error)
}

#[test]
fn a_memory_error_is_told_once_and_the_next_when_it_was_read() {
    let guest = guest(ApeiKept::default());
    for gpa in [0x1000, 0x2000, 0x3000] {
        guest.apei.report(Source::Notified, &memory_error(gpa)).unwrap();
    }
    assert_eq!(guest.line.count(), 1, "one at a time");
    for (n, gpa) in [(2, 0x1000), (3, 0x2000), (3, 0x3000)] {
        let block = guest.take(Source::Notified).unwrap();
        // Status with one entry, severity, section, then the address of the memory section.
        assert_eq!(block[..4], 0x11u32.to_le_bytes());
        assert_eq!(block[16..20], 0u32.to_le_bytes());
        assert_eq!(block[20..24], 0xa5bc_1114u32.to_le_bytes());
        assert_eq!(word_at(&block, 20 + 72 + 16), gpa);
        assert_eq!(word_at(&block, 20 + 72 + 24), !63);
        assert_eq!(block[20 + 72 + 32], 3, "node");
        assert_eq!(word_at(&block, 20 + 72) >> 17 & 1, 1, "the module has a handle");
        assert_eq!(block[20 + 72 + 78..20 + 72 + 80], 0x1203u16.to_le_bytes());
        assert_eq!(guest.line.count(), n);
    }
    assert_eq!(guest.take(Source::Notified), None);
    let info = guest.apei.sources()[0];
    assert_eq!((info.reported, info.acknowledged, info.waiting), (3, 3, 0));
}

#[test]
fn a_polled_source_interrupts_nobody() {
    let guest = guest(ApeiKept::default());
    let mut error = Cper::processor(Severity::Corrected, 7);
    error.fru_text = Some("a name that is far too long for it".into());
    guest.apei.report(Source::Polled, &error).unwrap();
    assert_eq!(guest.line.count(), 0);
    assert_eq!(guest.take(Source::Notified), None);
    let block = guest.take(Source::Polled).unwrap();
    assert_eq!(block[..4], 0x12u32.to_le_bytes());
    assert_eq!(&block[20 + 44..20 + 64], b"anamethatisfartoolo\0");
    assert_eq!(word_at(&block, 20 + 72 + 8 + 8 + 8 + 128), 7, "APIC id");
}

#[test]
fn a_guest_that_reads_nothing_is_told_no_more_than_there_is_room_for() {
    let guest = guest(ApeiKept::default());
    for n in 0..MAX_WAITING {
        assert_eq!(guest.apei.room(Source::Notified), MAX_WAITING - n);
        guest.apei.report(Source::Notified, &memory_error(64)).unwrap();
    }
    assert_eq!(guest.apei.report(Source::Notified, &memory_error(64)), Err(ReportsFull));
    assert_eq!(guest.line.count(), 1);
    // What was not told does not count as told.
    assert_eq!(guest.apei.sources()[0].reported, MAX_WAITING as u64);
}

#[test]
fn an_acknowledgement_of_nothing_changes_nothing() {
    let guest = guest(ApeiKept::default());
    assert_eq!(guest.apei.write(0, &[1, 0, 0, 0]), Effect::None);
    guest.apei.report(Source::Notified, &memory_error(64)).unwrap();
    assert_eq!(guest.apei.write(0, &[0xfe, 0, 0, 0]), Effect::None, "bit 0 is clear");
    assert_eq!(guest.apei.sources()[0].waiting, 1);
}

#[test]
fn a_fatal_error_is_found_by_the_next_boot_and_only_by_that() {
    let first = guest(ApeiKept::default());
    let mut error = memory_error(0x5000);
    error.severity = Severity::Fatal;
    first.apei.report(Source::Notified, &error).unwrap();
    let second = guest(first.apei.keep());
    let bert = tables::bert(&PLAN);
    let (len, at) = (u32::from_le_bytes(block::word(&bert, 0)), word_at(&bert, 4));
    assert_eq!(len, 0x1000);
    let block = second.bytes(Gpa(at), 256);
    assert_eq!(block[16..20], 1u32.to_le_bytes());
    assert_eq!(word_at(&block, 20 + 72 + 16), 0x5000);
    assert_eq!(second.apei.keep().fatal, None);
    assert_eq!(guest(second.apei.keep()).bytes(Gpa(at), 4), [0; 4]);
}

#[test]
fn an_injected_error_is_busy_until_it_is_there_and_told_when_it_is_triggered() {
    let guest = guest(ApeiKept::default());
    let einj = tables::einj(&PLAN);
    assert_eq!(guest.ask(&einj, 3), u64::from(einj::TYPES));
    assert_eq!(guest.inject(1 << 4, 1 << 1, 0x12_3456, !0xfff), Effect::InjectError);
    assert_eq!(guest.ask(&einj, 6), 1, "busy");
    let injection = guest.apei.take_injection().unwrap();
    let page = GpaRange::new(Gpa(0x12_3000), 0x1000);
    assert_eq!(injection.target, Target::Memory(page));
    assert_eq!(injection.spoils(), Some(page));
    assert_eq!(guest.apei.take_injection(), None);
    guest.apei.injected(InjectionStatus::Success).unwrap();
    assert_eq!((guest.ask(&einj, 6), guest.ask(&einj, 7)), (0, 0));

    let table = guest.bytes(Gpa(guest.ask(&einj, 1)), 64);
    assert_eq!(table[..16], [16, 1, 48, 1].map(u32::to_le_bytes).concat());
    assert_eq!(guest.line.count(), 0);
    guest.run(&table[4..48], 0xff, 0);
    assert_eq!(guest.line.count(), 1);
    let block = guest.take(Source::Notified).unwrap();
    assert_eq!(word_at(&block, 20 + 72 + 16), 0x12_3000);
    guest.run(&table[4..48], 0xff, 0);
    assert_eq!(guest.take(Source::Notified), None, "triggered once");
}

#[test]
fn a_refused_injection_triggers_nothing() {
    let guest = guest(ApeiKept::default());
    let einj = tables::einj(&PLAN);
    assert_eq!(guest.inject(1 << 4, 1 << 1, 0x1000, !0xfff), Effect::InjectError);
    guest.apei.take_injection().unwrap();
    guest.apei.injected(InjectionStatus::Invalid).unwrap();
    assert_eq!((guest.ask(&einj, 6), guest.ask(&einj, 7)), (0, 2));
    assert_eq!(
        guest.apei.write(EINJ.into(), &einj::action::TRIGGER.to_le_bytes()),
        Effect::None
    );
    assert_eq!(guest.take(Source::Notified), None);
}

#[test]
fn injections_that_make_no_sense_are_refused_at_once() {
    let guest = guest(ApeiKept::default());
    let einj = tables::einj(&PLAN);
    for (kind, address, mask) in [
        (0, 0, !0xfff),
        (3, 0, !0xfff),
        (1 << 6, 0, !0xfff),
        (1 << 31, 0, !0xfff),
        (1 << 4, 0x1000, 0),
        (1 << 4, 0x1000, 0xf0f0),
        (1 << 4, 0x1000, !0x3f_ffff),
    ] {
        assert_eq!(
            guest.inject(kind, 1 << 1, address, mask),
            Effect::None,
            "{kind:#x} {mask:#x}"
        );
        assert_eq!((guest.ask(&einj, 6), guest.ask(&einj, 7)), (0, 2));
        assert_eq!(guest.apei.take_injection(), None);
    }
    // Of memory, and nobody says where.
    for kind in [1 << 3, 1 << 4, 1 << 5] {
        assert_eq!(guest.inject(kind, 0, 0x1000, !0xfff), Effect::None);
        assert_eq!((guest.ask(&einj, 6), guest.ask(&einj, 7)), (0, 2));
    }
}

#[test]
fn errors_of_processors_and_corrected_ones_spoil_nothing() {
    let guest = guest(ApeiKept::default());
    for (kind, flags) in [(1 << 1, 1), (1 << 0, 0), (1 << 3, 1 << 1)] {
        assert_eq!(guest.inject(kind, flags, 0x1000, !0xfff), Effect::InjectError);
        assert_eq!(guest.apei.take_injection().unwrap().spoils(), None);
        guest.apei.injected(InjectionStatus::Success).unwrap();
    }
}

/// A record with an id and `len` bytes.
fn record(id: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xa5; len];
    bytes[..4].copy_from_slice(b"CPER");
    bytes[20..24].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
    bytes[96..104].copy_from_slice(&id.to_le_bytes());
    bytes
}

impl Guest {
    fn erst(&self, begin: u8, id: u64) -> u64 {
        let erst = tables::erst(&PLAN);
        self.run(&erst, begin, 0);
        self.run(&erst, 4, 0);
        self.run(&erst, 9, id);
        self.run(&erst, 5, 0);
        assert_eq!(self.ask(&erst, 6), 0);
        let status = self.ask(&erst, 7);
        self.run(&erst, 3, 0);
        status
    }

    fn write(&self, record: &[u8]) -> u64 {
        self.store(PLAN.exchange(), record);
        self.erst(0, 0)
    }

    fn ids(&self) -> Vec<u64> {
        let erst = tables::erst(&PLAN);
        let next = || self.ask(&erst, 8);
        std::iter::from_fn(|| Some(next()).filter(|id| *id != u64::MAX)).collect()
    }
}

#[test]
fn records_are_written_listed_read_and_cleared() {
    let guest = guest(ApeiKept::default());
    let erst = tables::erst(&PLAN);
    assert_eq!(guest.ask(&erst, 13), PLAN.exchange().0);
    assert_eq!(guest.ask(&erst, 14), ApeiPlan::EXCHANGE);
    assert_eq!(guest.erst(1, 5), 4, "empty");
    for id in [5, 9] {
        assert_eq!(guest.write(&record(id, 200)), 0);
    }
    assert_eq!(guest.write(&record(5, 300)), 0);
    assert_eq!((guest.ask(&erst, 10), guest.ids()), (2, vec![5, 9]));
    guest.store(PLAN.exchange(), &[0; 512]);
    assert_eq!(guest.erst(1, 5), 0);
    assert_eq!(guest.bytes(PLAN.exchange(), 300), record(5, 300));
    assert_eq!(guest.erst(1, 6), 5, "not found");
    assert_eq!(guest.erst(2, 6), 5);
    let next = self::guest(guest.apei.keep());
    assert_eq!(next.ids(), [5, 9], "they outlast a reset");
    assert_eq!(next.erst(2, 5), 0);
    assert_eq!(next.ids(), [9]);
}

/// Keeps records while it is not full.
#[derive(Debug, Default)]
struct Shelf(Mutex<(bool, Vec<u8>)>);

impl RecordStore for Shelf {
    fn keep(&self, records: &Records) -> io::Result<()> {
        let mut shelf = self.0.lock().unwrap();
        if shelf.0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        shelf.1 = records.write();
        Ok(())
    }
}

#[test]
fn a_record_is_written_when_it_is_kept() {
    let shelf = Arc::new(Shelf::default());
    let guest = guest(ApeiKept {
        store: Some(shelf.clone()),
        ..ApeiKept::default()
    });
    assert_eq!(guest.write(&record(5, 200)), 0);
    assert_eq!(shelf.0.lock().unwrap().1, record(5, 200));
    // What cannot be kept is not there, and what cannot be taken away is.
    shelf.0.lock().unwrap().0 = true;
    assert_eq!((guest.write(&record(6, 200)), guest.ids()), (3, vec![5]));
    assert_eq!((guest.erst(2, 5), guest.ids()), (3, vec![5]));
    shelf.0.lock().unwrap().0 = false;
    assert_eq!((guest.erst(2, 5), guest.ids()), (0, vec![]));
    assert!(shelf.0.lock().unwrap().1.is_empty());
    // A reset changes nobody who keeps them.
    assert!(guest.apei.keep().store.is_some());
}

#[test]
fn records_have_bounds() {
    let guest = guest(ApeiKept::default());
    for bad in [record(0, 200), record(u64::MAX, 200), vec![0; 200], {
        let mut long = record(3, 200);
        long[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
        long
    }] {
        assert_eq!(guest.write(&bad), 3);
    }
    let most = usize::try_from(ApeiPlan::EXCHANGE).unwrap();
    for id in 1..=MAX_RECORDS_BYTES / most {
        assert_eq!(guest.write(&record(id as u64, most)), 0);
    }
    assert_eq!(guest.write(&record(1000, 200)), 1, "no space");
    assert_eq!(guest.write(&record(1, 200)), 0, "in the place of its older self");
}

#[test]
fn records_lie_one_after_the_other() {
    let bytes = [record(1, 128), record(2, 200)].concat();
    let records = Records::read(&bytes).unwrap();
    assert_eq!((records.len(), records.write()), (2, bytes.clone()));
    assert!(Records::read(&[]).unwrap().is_empty());
    let error = Records::read(&bytes[..300]).unwrap_err();
    assert!(
        error.to_string().starts_with("the error record at byte 128 is none"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn any_guest_is_survived(
        memory in proptest::collection::vec(any::<u8>(), 0x400),
        accesses in proptest::collection::vec((0u64..20, 0u32..20, any::<u32>(), 1usize..9), 0..64),
    ) {
        let guest = guest(ApeiKept::default());
        guest.store(PLAN.memory.start, &memory);
        for (offset, small, word, len) in accesses {
            let value = if len % 2 == 0 { small } else { word };
            let bytes = u64::from(value).to_le_bytes();
            let _ = guest.apei.write(offset, &bytes[..len.min(4)]);
            guest.apei.read(offset, &mut [0; 8][..len.min(8)]);
            if guest.apei.take_injection().is_some() {
                guest.apei.injected(InjectionStatus::Failure).unwrap();
            }
        }
        prop_assert!(guest.apei.keep().records.write().len() <= MAX_RECORDS_BYTES);
    }
}

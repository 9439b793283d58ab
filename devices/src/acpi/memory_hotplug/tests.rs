use super::*;
use crate::{line::CountingLine, units::Gpa};
use proptest::prelude::*;
use std::sync::Arc;

const GIB: u64 = 1 << 30;

fn block(slots: u16) -> (Arc<CountingLine>, MemoryHotplug) {
    let line = Arc::new(CountingLine::default());
    (line.clone(), MemoryHotplug::new(slots, line))
}

fn range(n: u64) -> GpaRange {
    GpaRange::new(Gpa((4 + n) * GIB), GIB / 2)
}

fn read(block: &MemoryHotplug, offset: u64) -> u32 {
    let mut data = [0xee; 4];
    block.read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn write(block: &MemoryHotplug, offset: u64, value: u32) -> Effect {
    block.write(offset, &value.to_le_bytes())
}

fn select(block: &MemoryHotplug, slot: u32) {
    assert_eq!(write(block, 0, slot), Effect::None);
}

fn say(block: &MemoryHotplug, event: u32, status: u32) -> Effect {
    assert_eq!(write(block, OST_EVENT, event), Effect::None);
    write(block, OST_STATUS, status)
}

fn view(block: &MemoryHotplug, slot: u16) -> Option<GuestView> {
    block.slot(slot).map(|info| info.guest)
}

#[test]
fn registers_tell_of_the_selected_slot() {
    let (_, block) = block(4);
    block
        .plug_cold(2, GpaRange::new(Gpa(0x12_3456_7000_0000), 0x5_4000_0000), 7)
        .unwrap();
    select(&block, 2);
    let words: Vec<_> = (0..6).map(|n| read(&block, n * 4)).collect();
    assert_eq!(words, [0x7000_0000, 0x12_3456, 0x4000_0000, 0x5, 7, 1]);
    for other in [0, 1, 3, 4, 255, 256, u32::MAX] {
        select(&block, other);
        assert!((0..6).all(|n| read(&block, n * 4) == 0), "slot {other}");
    }
}

#[test]
fn hot_plug_is_announced_found_and_taken() {
    let (line, block) = block(8);
    block.plug(5, range(5), 1).unwrap();
    block.plug(3, range(3), 1).unwrap();
    assert_eq!((line.count(), view(&block, 3)), (2, Some(GuestView::Announced)));
    for slot in [3, 5] {
        assert_eq!(read(&block, NEXT), slot);
        assert_eq!(read(&block, FLAGS), 0b011);
        assert_eq!(write(&block, FLAGS, u32::from(INSERT)), Effect::None);
    }
    assert_eq!(read(&block, NEXT), u32::MAX);
    assert_eq!(view(&block, 5), Some(GuestView::Noticed));
    // Nothing pending leaves the selection alone.
    assert_eq!(say(&block, 1, 0), Effect::Progress);
    assert_eq!(
        (view(&block, 5), view(&block, 3)),
        (Some(GuestView::Taken), Some(GuestView::Noticed))
    );
    select(&block, 3);
    assert_eq!(say(&block, 1, 1), Effect::Progress);
    assert_eq!(view(&block, 3), Some(GuestView::Refused));
}

#[test]
fn unplug_is_asked_refused_asked_again_and_done() {
    let (line, block) = block(1);
    block.plug_cold(0, range(0), 0).unwrap();
    assert!(block.request_unplug(0));
    assert_eq!((read(&block, NEXT), read(&block, FLAGS), line.count()), (0, 0b101, 1));
    assert_eq!(write(&block, FLAGS, u32::from(REMOVE)), Effect::None);
    assert_eq!(view(&block, 0), Some(GuestView::UnplugNoticed));
    assert_eq!(say(&block, 3, 0x84), Effect::Progress);
    assert_eq!(view(&block, 0), Some(GuestView::UnplugUnderWay));
    assert_eq!(say(&block, 3, 0x82), Effect::Progress);
    let info = block.slot(0).unwrap();
    assert_eq!(info.guest, GuestView::UnplugRefused);
    assert_eq!(info.ost, Some(Ost { event: 3, status: 0x82 }));
    assert!(block.request_unplug(0));
    assert_eq!(block.slot(0).unwrap().ost, None);
    assert_eq!(write(&block, FLAGS, u32::from(EJECT)), Effect::MemoryEjected(0));
    assert_eq!((block.slot(0), read(&block, FLAGS)), (None, 0));
    // The kernel's last word comes after the ejection, and a second ejection finds nothing.
    assert_eq!(say(&block, 3, 0), Effect::None);
    assert_eq!(write(&block, FLAGS, u32::from(EJECT)), Effect::None);
    assert!(!block.request_unplug(0));
}

#[test]
fn last_word_of_an_ejection_says_nothing_of_the_next_device_in_the_slot() {
    let (_, block) = block(1);
    let first = block.plug(0, range(0), 0).unwrap();
    select(&block, 0);
    assert_eq!(write(&block, FLAGS, u32::from(EJECT)), Effect::MemoryEjected(0));
    let second = block.plug(0, range(1), 0).unwrap();
    assert_ne!(first, second);
    assert_eq!(say(&block, 3, 0), Effect::None);
    assert_eq!(view(&block, 0), Some(GuestView::Announced));
}

#[test]
fn a_device_in_a_slot_that_was_just_ejected_is_announced_when_the_guest_has_looked() {
    type End = fn(&MemoryHotplug);
    let ends: [End; 2] = [
        |block| assert_eq!(read(block, FLAGS), 0, "the ejection is complete"),
        |block| assert_eq!(say(block, 3, 0), Effect::None),
    ];
    for end in ends {
        let (line, block) = block(2);
        block.plug(0, range(0), 0).unwrap();
        select(&block, 0);
        assert_eq!(write(&block, FLAGS, u32::from(INSERT)), Effect::None);
        assert_eq!(write(&block, FLAGS, u32::from(EJECT)), Effect::MemoryEjected(0));
        block.plug(0, range(1), 0).unwrap();
        // Nothing of it is there yet, and another slot's events are told meanwhile.
        assert_eq!((read(&block, NEXT), block.has_pending()), (u32::MAX, false));
        block.plug(1, range(2), 0).unwrap();
        assert_eq!(read(&block, NEXT), 1);
        select(&block, 0);
        assert_eq!((read(&block, BASE_LOW), read(&block, BASE_LOW + 4)), (0, 0));
        assert_eq!(write(&block, FLAGS, u32::from(INSERT | EJECT)), Effect::None);
        let before = line.count();
        end(&block);
        assert_eq!(line.count(), before + 1);
        assert_eq!(read(&block, NEXT), 0);
        assert_eq!(read(&block, FLAGS), u32::from(PRESENT | INSERT));
        assert_eq!(view(&block, 0), Some(GuestView::Announced));
        // Once: reads of the status afterwards are what they are.
        assert_eq!(
            (read(&block, FLAGS), line.count()),
            (u32::from(PRESENT | INSERT), before + 1)
        );
    }
}

#[test]
fn a_guest_that_does_not_look_has_the_device_later_and_a_reset_forgets_ejections() {
    let (_, block) = block(1);
    block.plug(0, range(0), 0).unwrap();
    select(&block, 0);
    assert_eq!(write(&block, FLAGS, u32::from(EJECT)), Effect::MemoryEjected(0));
    block.plug(0, range(1), 0).unwrap();
    assert!(!block.has_pending());
    std::thread::sleep(LOOK);
    assert!(block.has_pending());
    assert_eq!(read(&block, NEXT), 0);
    assert_eq!(write(&block, FLAGS, u32::from(EJECT)), Effect::MemoryEjected(0));
    block.plug(0, range(1), 0).unwrap();
    block.reset();
    select(&block, 0);
    assert_eq!(read(&block, FLAGS), u32::from(PRESENT));
}

#[test]
fn only_what_the_guest_has_not_seen_is_taken_back() {
    let (_, block) = block(2);
    block.plug(0, range(0), 0).unwrap();
    assert!(block.retract(0));
    assert_eq!(block.slot(0), None);
    block.plug(0, range(0), 0).unwrap();
    select(&block, 0);
    read(&block, BASE_LOW);
    assert!(!block.retract(0) && block.slot(0).is_some());
    block.plug_cold(1, range(1), 0).unwrap();
    assert!(!block.retract(1));
    assert!(block.request_unplug(1) && block.withdraw_unplug(1));
    assert_eq!(view(&block, 1), Some(GuestView::Taken));
    assert!(!block.withdraw_unplug(1));
    select(&block, 1);
    assert!(block.request_unplug(1));
    assert_eq!(write(&block, FLAGS, u32::from(REMOVE)), Effect::None);
    assert!(!block.withdraw_unplug(1));
}

#[test]
fn slots_are_taken_once_and_end() {
    let (line, block) = block(2);
    assert!(block.plug(2, range(0), 0).is_none() && block.plug(u16::MAX, range(0), 0).is_none());
    block.plug(1, range(0), 0).unwrap();
    assert!(block.plug(1, range(1), 0).is_none() && block.plug_cold(1, range(1), 0).is_none());
    assert_eq!(line.count(), 1);
    assert_eq!(MemoryHotplug::new(u16::MAX, ()).lock().slots.len(), 256);
}

#[test]
fn reset_keeps_devices_and_forgets_events() {
    let (line, block) = block(2);
    block.plug(0, range(0), 0).unwrap();
    block.plug(1, range(1), 0).unwrap();
    select(&block, 1);
    let _ = say(&block, 1, 0);
    assert!(block.request_unplug(1));
    block.reset();
    assert_eq!(
        (view(&block, 0), view(&block, 1)),
        (Some(GuestView::AtBoot), Some(GuestView::AtBoot))
    );
    assert_eq!(block.slot(1).unwrap().ost, None);
    assert_eq!(read(&block, NEXT), u32::MAX);
    let before = line.count();
    block.remind();
    assert_eq!(line.count(), before);
}

proptest! {
    #[test]
    fn any_access_is_survived_and_ejects_only_what_is_there(
        accesses in proptest::collection::vec((0u64..40, proptest::collection::vec(any::<u8>(), 0..9), any::<bool>()), 0..60)
    ) {
        let (_, block) = block(3);
        block.plug(0, range(0), 0).unwrap();
        block.plug_cold(2, range(2), 1).unwrap();
        let mut ejected = vec![];
        for (offset, data, store) in accesses {
            if store {
                if let Effect::MemoryEjected(slot) = block.write(offset, &data) {
                    ejected.push(slot);
                }
            } else {
                let mut read = data.clone();
                block.read(offset, &mut read);
            }
        }
        let count = ejected.len();
        ejected.sort_unstable();
        ejected.dedup();
        prop_assert!(count == ejected.len() && ejected.iter().all(|slot| [0, 2].contains(slot)));
        block.read(u64::MAX, &mut [0; 4]);
    }
}

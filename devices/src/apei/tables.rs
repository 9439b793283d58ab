//! HEST, BERT, EINJ and ERST: what the guest learns of the error interfaces, without the header that all tables have.

use super::{ApeiPlan, Source, einj, erst};
use crate::units::Gpa;
use zerocopy::{
    Immutable, IntoBytes,
    little_endian::{U16, U32, U64},
};

/// ACPI 6.5 5.2.3.2, Generic Address Structure.
#[derive(IntoBytes, Immutable, Clone, Copy)]
#[repr(C)]
struct Address {
    space: u8,
    width: u8,
    offset: u8,
    access: u8,
    address: U64,
}
const _: () = assert!(size_of::<Address>() == 12);

impl Address {
    /// 64 bits of memory.
    fn memory(gpa: Gpa) -> Self {
        let (space, width, offset, access) = (0, 64, 0, 4);
        let address = gpa.0.into();
        Self {
            space,
            width,
            offset,
            access,
            address,
        }
    }

    /// 32 bits of port space.
    fn port(port: u16) -> Self {
        let (space, width, offset, access) = (1, 32, 0, 3);
        let address = u64::from(port).into();
        Self {
            space,
            width,
            offset,
            access,
            address,
        }
    }
}

/// ACPI 6.5 18.3.2.9, Hardware Error Notification.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Notification {
    kind: u8,
    length: u8,
    write_enable: U16,
    poll_ms: U32,
    vector: U32,
    polling_threshold: U32,
    polling_window: U32,
    error_threshold: U32,
    error_window: U32,
}
const _: () = assert!(size_of::<Notification>() == 28);

/// ACPI 6.5 18.3.2.8, Generic Hardware Error Source version 2.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct GhesV2 {
    kind: U16,
    source: U16,
    related: U16,
    flags: u8,
    enabled: u8,
    records: U32,
    sections: U32,
    raw_len: U32,
    status_address: Address,
    notification: Notification,
    block_len: U32,
    read_ack: Address,
    ack_preserve: U64,
    ack_write: U64,
}
const _: () = assert!(size_of::<GhesV2>() == 92);

/// ACPI 6.5 18.6.2 and 18.5.1.2, one instruction of EINJ and of ERST.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Entry {
    action: u8,
    instruction: u8,
    flags: u8,
    reserved: u8,
    register: Address,
    value: U64,
    mask: U64,
}
const _: () = assert!(size_of::<Entry>() == 32);

/// Kind of an error source: GHESv2.
const GHES_V2: u16 = 10;
/// Kinds of notifications: polled, and through the hardware error device by an interrupt that is no SCI.
const POLLED: u8 = 0;
const GSIV: u8 = 10;
/// No source that is related.
const UNRELATED: u16 = 0xffff;

/// Instructions.
const READ: u8 = 0;
const WRITE: u8 = 2;
const WRITE_VALUE: u8 = 3;
/// EINJ's actions that are no writes to its port.
const GET_TRIGGER_TABLE: u8 = 1;
const SET_TYPE: u8 = 2;
const GET_TYPE: u8 = 3;
const CHECK_BUSY: u8 = 6;
const GET_STATUS: u8 = 7;
const SET_TYPE_WITH_ADDRESS: u8 = 8;

/// Body of the hardware error source table. ACPI 6.5 18.3.2.
pub fn hest(plan: &ApeiPlan) -> Vec<u8> {
    let count = u32::try_from(Source::ALL.len()).unwrap_or(u32::MAX);
    let mut body = count.to_le_bytes().to_vec();
    for source in Source::ALL {
        let (kind, poll_ms) = match source {
            Source::Notified => (GSIV, 0),
            Source::Polled => (POLLED, plan.poll_ms),
        };
        let ghes = GhesV2 {
            kind: GHES_V2.into(),
            source: source.id().into(),
            related: UNRELATED.into(),
            flags: 0,
            enabled: 1,
            records: 1.into(),
            sections: 1.into(),
            raw_len: 0.into(),
            status_address: Address::memory(plan.address_cell(source)),
            notification: Notification {
                kind,
                length: 28,
                write_enable: 0.into(),
                poll_ms: poll_ms.into(),
                vector: 0.into(),
                polling_threshold: 0.into(),
                polling_window: 0.into(),
                error_threshold: 0.into(),
                error_window: 0.into(),
            },
            block_len: low(ApeiPlan::BLOCK),
            read_ack: Address::port(plan.ack_port(source)),
            ack_preserve: (!1).into(),
            ack_write: 1.into(),
        };
        body.extend_from_slice(ghes.as_bytes());
    }
    body
}

/// Body of the boot error record table. ACPI 6.5 18.3.1.
pub fn bert(plan: &ApeiPlan) -> Vec<u8> {
    let len = low(ApeiPlan::BLOCK);
    [len.as_bytes(), &plan.boot_errors().0.to_le_bytes()].concat()
}

fn low(len: u64) -> U32 {
    u32::try_from(len)
        .unwrap_or_else(|_| unreachable!("a few pages"))
        .into()
}

fn entry(action: u8, instruction: u8, register: Address, value: u64, mask: u64) -> Entry {
    let (flags, reserved) = (0, 0);
    Entry {
        action,
        instruction,
        flags,
        reserved,
        register,
        value: value.into(),
        mask: mask.into(),
    }
}

/// What tells `port` of an action.
fn tell(action: u32, port: u16) -> Entry {
    let number = u8::try_from(action).unwrap_or(u8::MAX);
    entry(number, WRITE_VALUE, Address::port(port), action.into(), u32::MAX.into())
}

fn entries(head: &[u8], entries: &[Entry]) -> Vec<u8> {
    let mut body = head.to_vec();
    body.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
    entries
        .iter()
        .for_each(|entry| body.extend_from_slice(entry.as_bytes()));
    body
}

/// Body of the error injection table. ACPI 6.5 18.6.1.
pub fn einj(plan: &ApeiPlan) -> Vec<u8> {
    let (port, parameters) = (plan.einj_port(), Address::memory(plan.parameters()));
    let read = |action, cell| entry(action, READ, Address::memory(cell), 0, u64::MAX);
    // Of the block's first field, which has 32 bits.
    let kind = Address {
        width: 32,
        access: 3,
        ..parameters
    };
    let all = [
        tell(einj::action::BEGIN, port),
        read(GET_TRIGGER_TABLE, plan.trigger_cell()),
        entry(SET_TYPE, WRITE, kind, 0, u32::MAX.into()),
        entry(GET_TYPE, READ, Address::memory(plan.types_cell()), 0, u32::MAX.into()),
        tell(einj::action::END, port),
        tell(einj::action::EXECUTE, port),
        read(CHECK_BUSY, plan.busy_cell()),
        read(GET_STATUS, plan.einj_status_cell()),
        entry(SET_TYPE_WITH_ADDRESS, WRITE, kind, 0, u32::MAX.into()),
    ];
    // Length of the head with the common header, flags and reserved bytes.
    entries(&[48, 0, 0, 0, 0, 0, 0, 0], &all)
}

/// The trigger table: one write to the injection port. ACPI 6.5 18.6.4.
pub(super) fn trigger(plan: &ApeiPlan) -> Vec<u8> {
    const HEAD: u32 = 16;
    const REVISION: u32 = 1;
    let head = [HEAD, REVISION, HEAD + 32].map(u32::to_le_bytes).concat();
    entries(&head, &[tell(einj::action::TRIGGER, plan.einj_port())])
}

/// Body of the error record serialization table. ACPI 6.5 18.5.1.
pub fn erst(plan: &ApeiPlan) -> Vec<u8> {
    use erst::action;
    let port = plan.erst_port();
    let mut all = Vec::new();
    let commands = [
        action::BEGIN_WRITE,
        action::BEGIN_READ,
        action::BEGIN_CLEAR,
        action::END,
        action::EXECUTE,
        action::BEGIN_DUMMY,
    ];
    let told = [action::SET_OFFSET, action::SET_ID];
    let asked = [
        action::BUSY,
        action::STATUS,
        action::GET_ID,
        action::COUNT,
        action::RANGE,
        action::RANGE_LEN,
        action::RANGE_ATTRIBUTES,
        action::TIMINGS,
    ];
    for number in 0..=action::TIMINGS {
        let step = |instruction, cell, mask| {
            let action = u8::try_from(number).unwrap_or(u8::MAX);
            entry(action, instruction, Address::memory(cell), 0, mask)
        };
        if commands.contains(&number) {
            all.push(tell(number, port));
        } else if told.contains(&number) {
            all.push(step(WRITE, plan.erst_value(), u64::MAX));
            all.push(tell(number, port));
        } else if asked.contains(&number) {
            let mask = if number == action::BUSY { 1 } else { u64::MAX };
            all.push(tell(number, port));
            all.push(step(READ, plan.erst_result(), mask));
        }
    }
    entries(&[48, 0, 0, 0, 0, 0, 0, 0], &all)
}

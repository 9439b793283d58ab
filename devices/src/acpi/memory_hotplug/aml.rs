//! `\_SB.MEMC`: the memory devices in the ACPI namespace, and the methods they share.
//!
//! Everything selects a slot and then reads or writes its registers, so everything holds the mutex `MLCK` meanwhile.

use super::{FLAGS, LEN, MAX_SLOTS, NEXT, OST_EVENT, OST_STATUS};
use crate::acpi::memory_hotplug::{EJECT, INSERT, PRESENT, REMOVE};
use acpi_tables::{
    Aml, AmlSink,
    aml::{
        Acquire, Add, And, Arg, CreateQWordField, Device, EISAName, Else, Field, FieldAccessType, FieldEntry,
        FieldLockRule, FieldUpdateRule, If, LessThan, Local, Method, MethodCall, Mutex, Name, NotEqual, Notify, ONE,
        OpRegion, OpRegionSpace, Or, Path, Release, ResourceTemplate, Return, ShiftLeft, Store, Subtract, While, ZERO,
    },
};

/// Method that notifies the devices with pending events.
pub const SCAN_METHOD: &str = "\\_SB_.MEMC.MSCN";

/// `Notify` values of a device. ACPI 6.5 5.6.6.
const DEVICE_CHECK: u8 = 1;
const EJECT_REQUEST: u8 = 3;
/// `_STA`: present, enabled, shown, working.
const WORKING: u8 = 0xf;
/// Where the fields of a QWord address space descriptor are. ACPI 6.5 6.4.3.5.1.
const DESCRIPTOR_MIN: u8 = 14;
const DESCRIPTOR_MAX: u8 = 22;
const DESCRIPTOR_LEN: u8 = 38;
/// Tag and length; memory; consumer, minimum and maximum fixed; cacheable, read-write.
const DESCRIPTOR_HEAD: [u8; 6] = [0x8a, 43, 0, 0, 0b1101, 0b11];
const DESCRIPTOR_BODY: usize = 40;
/// No time limit.
const FOREVER: u16 = 0xffff;

/// `\_SB.MEMC` as AML for the scope `\_SB`.
#[derive(Debug, Clone, Copy)]
pub struct MemoryHotplugAml {
    /// First port of the block.
    pub port: u16,
    /// Slots.
    pub slots: u16,
}

impl Aml for MemoryHotplugAml {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let slots = self.slots.min(MAX_SLOTS);
        let mut parts = vec![
            bytes(&Name::new("_HID".into(), &EISAName::new("PNP0A06"))),
            bytes(&Name::new("_UID".into(), &"Memory devices")),
            self.registers(),
            bytes(&Mutex::new("MLCK".into(), 0)),
            status_method(),
            resources_method(),
            proximity_method(),
            report_method(),
            eject_method(),
            notify_method(slots),
            scan_method(),
        ];
        parts.extend((0..slots).map(device));
        Device::new("MEMC".into(), dynamic(&parts)).to_aml_bytes(sink);
    }
}

impl MemoryHotplugAml {
    /// The block twice: as it reads, and as it is written.
    fn registers(&self) -> Encoded {
        let region = OpRegion::new("MREG".into(), OpRegionSpace::SystemIO, &self.port, &LENGTH);
        let word = |name: &[u8; 4]| FieldEntry::Named(*name, 32);
        let field = |entries| {
            let (lock, update) = (FieldLockRule::NoLock, FieldUpdateRule::WriteAsZeroes);
            bytes(&Field::new(
                "MREG".into(),
                FieldAccessType::DWord,
                lock,
                update,
                entries,
            ))
        };
        let read = [b"MBSL", b"MBSH", b"MLNL", b"MLNH", b"MPRX"].map(word);
        let at = |offset: u64| usize::try_from(offset * 8).unwrap_or(0);
        let both = vec![FieldEntry::Reserved(at(FLAGS)), word(b"MFLG"), word(b"MNXT")];
        let write = vec![word(b"MSEL"), word(b"MOEV"), word(b"MOST")];
        const _: () = assert!(OST_EVENT == 4 && OST_STATUS == 8 && NEXT == FLAGS + 4);
        Encoded([bytes(&region).0, field(read.into()).0, field(both).0, field(write).0].concat())
    }
}

const LENGTH: u8 = {
    assert!(LEN < 256);
    #[expect(clippy::cast_possible_truncation, reason = "checked in the line above")]
    let len = LEN as u8;
    len
};

/// A serialized method that does `body` under the mutex with the slot of its first argument selected, and returns Local0.
fn locked(name: &str, args: u8, body: &[Encoded]) -> Encoded {
    let result = Local(0);
    let acquire = Acquire::new("MLCK".into(), FOREVER);
    let select = bytes(&Store::new(&Path::new("MSEL"), &Arg(0)));
    let release = Release::new("MLCK".into());
    let done = Return::new(&result);
    let clear = Store::new(&result, &ZERO);
    let mut all: Vec<&dyn Aml> = vec![&acquire, &select, &clear];
    all.extend(dynamic(body));
    all.extend([&release as &dyn Aml, &done]);
    bytes(&Method::new(name.into(), args, true, all))
}

/// `MSTA(slot)`: `_STA`.
fn status_method() -> Encoded {
    let present = bytes(&And::new(&ZERO, &Path::new("MFLG"), &PRESENT));
    let working = bytes(&Store::new(&Local(0), &WORKING));
    locked("MSTA", 1, &[bytes(&If::new(&present, vec![&working]))])
}

/// `MCRS(slot)`: `_CRS`, one QWord memory descriptor; of length 0 for a slot that was emptied meanwhile.
fn resources_method() -> Encoded {
    let (template, len) = (Path::new("MTPL"), Local(2));
    let descriptor = Encoded([&DESCRIPTOR_HEAD[..], &[0; DESCRIPTOR_BODY]].concat());
    let put_whole = |to: &dyn Aml, low: &str, high: &str| {
        let high = bytes(&ShiftLeft::new(&ZERO, &Path::new(high), &32u8));
        bytes(&Or::new(to, &high, &Path::new(low)))
    };
    let field = |name: &str, at: u8| {
        let (name, at) = (Path::new(name), at);
        bytes(&CreateQWordField::new(&name, &template, &at))
    };
    let has_memory = bytes(&NotEqual::new(&len, &ZERO));
    let put_last = {
        let end = bytes(&Add::new(&ZERO, &Path::new("MMIN"), &len));
        bytes(&Subtract::new(&Path::new("MMAX"), &end, &ONE))
    };
    let body = [
        bytes(&Name::new(
            "MTPL".into(),
            &ResourceTemplate::new(vec![&descriptor as &dyn Aml]),
        )),
        field("MMIN", DESCRIPTOR_MIN),
        field("MMAX", DESCRIPTOR_MAX),
        field("MLEN", DESCRIPTOR_LEN),
        put_whole(&len, "MLNL", "MLNH"),
        put_whole(&Path::new("MMIN"), "MBSL", "MBSH"),
        bytes(&Store::new(&Path::new("MLEN"), &len)),
        bytes(&If::new(&has_memory, vec![&put_last])),
        bytes(&Store::new(&Local(0), &template)),
    ];
    locked("MCRS", 1, &body)
}

/// `MPXM(slot)`: `_PXM`.
fn proximity_method() -> Encoded {
    locked("MPXM", 1, &[bytes(&Store::new(&Local(0), &Path::new("MPRX")))])
}

/// `MOSM(slot, event, status)`: `_OST`.
fn report_method() -> Encoded {
    let body = [
        bytes(&Store::new(&Path::new("MOEV"), &Arg(1))),
        bytes(&Store::new(&Path::new("MOST"), &Arg(2))),
    ];
    locked("MOSM", 3, &body)
}

/// `MEJM(slot)`: `_EJ0`.
fn eject_method() -> Encoded {
    locked("MEJM", 1, &[bytes(&Store::new(&Path::new("MFLG"), &EJECT))])
}

/// `MNTF(slot, value)`: notifies one device, found by halving.
fn notify_method(slots: u16) -> Encoded {
    fn choose(first: u16, end: u16) -> Encoded {
        let middle = first + (end - first) / 2;
        if middle == first {
            return bytes(&Notify::new(&Path::new(&name(first)), &Arg(1)));
        }
        let below = bytes(&LessThan::new(&Arg(0), &middle));
        let mut code = bytes(&If::new(&below, vec![&choose(first, middle)]));
        Else::new(vec![&choose(middle, end)]).to_aml_bytes(&mut code);
        code
    }
    let body = if slots == 0 { Encoded(vec![]) } else { choose(0, slots) };
    bytes(&Method::new("MNTF".into(), 2, true, vec![&body]))
}

/// `MSCN()`: takes every pending event and notifies its device. The guest's handlers run later, without the mutex.
fn scan_method() -> Encoded {
    let (slot, flags) = (Local(0), Local(1));
    let on = |bit: u8, value: u8| {
        let is_set = bytes(&And::new(&ZERO, &flags, &bit));
        let clear = bytes(&Store::new(&Path::new("MFLG"), &bit));
        let call = bytes(&MethodCall::new("MNTF".into(), vec![&slot, &value]));
        bytes(&If::new(&is_set, vec![&clear, &call]))
    };
    let next = bytes(&Store::new(&slot, &Path::new("MNXT")));
    let body = [
        bytes(&Store::new(&flags, &Path::new("MFLG"))),
        on(INSERT, DEVICE_CHECK),
        on(REMOVE, EJECT_REQUEST),
        Encoded(next.0.clone()),
    ];
    let all = [
        bytes(&Acquire::new("MLCK".into(), FOREVER)),
        next,
        bytes(&While::new(&NotEqual::new(&slot, &u32::MAX), dynamic(&body))),
        bytes(&Release::new("MLCK".into())),
    ];
    bytes(&Method::new("MSCN".into(), 0, true, dynamic(&all)))
}

/// `MSxx`, xx the slot in hex.
fn name(slot: u16) -> String {
    format!("MS{slot:02X}")
}

/// One slot's device.
fn device(slot: u16) -> Encoded {
    let call = |shared: &str, own: &[&dyn Aml]| {
        let args = std::iter::once(&slot as &dyn Aml).chain(own.iter().copied()).collect();
        bytes(&MethodCall::new(shared.into(), args))
    };
    let method = |name: &str, args, body: Encoded| bytes(&Method::new(name.into(), args, false, vec![&body]));
    let returning = |name, shared| method(name, 0, bytes(&Return::new(&call(shared, &[]))));
    let parts = [
        bytes(&Name::new("_HID".into(), &EISAName::new("PNP0C80"))),
        bytes(&Name::new("_UID".into(), &slot)),
        returning("_STA", "MSTA"),
        returning("_CRS", "MCRS"),
        returning("_PXM", "MPXM"),
        method("_EJ0", 1, call("MEJM", &[])),
        method("_OST", 3, call("MOSM", &[&Arg(0), &Arg(1)])),
    ];
    bytes(&Device::new(Path::new(&name(slot)), dynamic(&parts)))
}

/// AML that is already encoded.
struct Encoded(Vec<u8>);

impl Aml for Encoded {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

impl AmlSink for Encoded {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

fn bytes(aml: &dyn Aml) -> Encoded {
    let mut out = Vec::new();
    aml.to_aml_bytes(&mut out);
    Encoded(out)
}

fn dynamic(parts: &[Encoded]) -> Vec<&dyn Aml> {
    parts.iter().map(|part| part as &dyn Aml).collect()
}

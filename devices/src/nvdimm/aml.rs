//! ACPI devices of the NVDIMMs: the root `\_SB.NVDR` with `_DSM` and `_FIT`, one child per slot.
//!
//! Everything a guest asks goes through the one serialized method `NCAL`, which fills the mailbox, rings and copies the
//! reply out. Two things are deliberate:
//!
//! * The interpreter copies a whole field through the region handler, however little of it is needed. The data area is
//!   therefore declared several times with growing sizes ([`DATA_FIELDS`]) and the smallest that holds the length is used.
//! * Every result must be a Buffer, whatever its length: a field of up to 64 bits would read as an Integer, which Linux
//!   rejects. All data fields are larger than that, and `Mid` of a Buffer is a Buffer.

use super::{
    dsm::{dimm, root},
    events,
    guid::{Guid, METHODS},
    mailbox::{DATA, MailboxPlan, ROOT_HANDLE},
    plan::{NfitHandle, NvdimmBusPlan},
};
use acpi_tables::{
    Aml, AmlSink,
    aml::{
        Add, And, Arg, BufferData, Concat, DeRefOf, Device, Else, Equal, Field, FieldAccessType, FieldEntry,
        FieldLockRule, FieldUpdateRule, GreaterThan, If, Index, LessEqual, Local, Method, MethodCall, Mid, Name,
        NotEqual, Notify, ONE, ObjectType, OpRegion, OpRegionSpace, PackageBuilder, Path, Return, SizeOf, Store,
        Subtract, ToInteger, While, ZERO,
    },
};

/// Views of the data area: name and bytes; 0: all of it. Label transfers (4096 bytes and a few words) take the third.
const DATA_FIELDS: [(&str, u64); 4] = [("DT00", 64), ("DT01", 1024), ("DT02", 4096 + 64), ("DT03", 0)];

/// `ObjectType` of a Buffer. ACPI 6.5 19.6.97.
const TYPE_BUFFER: u8 = 3;
/// `ObjectType` of a Package.
const TYPE_PACKAGE: u8 = 4;

/// `Notify` value of the root: evaluate `_FIT` again. ACPI 6.5 5.6.6.
const NFIT_UPDATE: u8 = 0x80;
/// `Notify` value of the root: an uncorrectable error was found. ACPI 6.5 5.6.6.
const UNCORRECTABLE_ERROR: u8 = 0x81;
/// `Notify` value of a DIMM: its health changed. ACPI 6.5 5.6.6.
const HEALTH_EVENT: u8 = 0x81;

/// Name of the root's method that notifies the guest of what is pending.
pub const EVENTS_METHOD: &str = "NEVT";

/// A root device with its DIMMs as AML for the scope `\_SB`.
#[derive(Debug, Clone)]
pub struct NvdimmAml {
    name: String,
    uid: u8,
    mailbox: MailboxPlan,
    slots: Vec<(u8, NfitHandle)>,
}

impl NvdimmAml {
    /// The devices of `plan`.
    pub fn new(plan: &NvdimmBusPlan) -> Self {
        Self {
            name: plan.name(),
            uid: plan.number,
            mailbox: plan.mailbox,
            slots: plan.slots.clone(),
        }
    }
}

impl Aml for NvdimmAml {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let mut parts = vec![
            bytes(&Name::new("_HID".into(), &"ACPI0012")),
            bytes(&Name::new("_UID".into(), &self.uid)),
            bytes(&Name::new("_STA".into(), &0xfu8)),
            Bytes(regions(&self.mailbox)),
            Bytes(call_method()),
            Bytes(unpack_method()),
            Bytes(dsm_method(ROOT_HANDLE)),
            Bytes(fit_method()),
        ];
        parts.extend(self.slots.iter().map(|(slot, handle)| bytes(&DimmAml(*slot, *handle))));
        parts.push(Bytes(self.events_method()));
        Device::new(Path::new(&self.name), dynamic(&parts)).to_aml_bytes(sink);
    }
}

impl NvdimmAml {
    /// `NEVT()`: asks what is pending, which clears it, and notifies the devices concerned.
    fn events_method(&self) -> Vec<u8> {
        let (reply, root, dimms) = (Local(0), Local(1), Local(2));
        let me = Path::new(&format!("\\_SB_.{}", self.name));
        let on = |word: &dyn Aml, bit: u32, device: &Path, value: u8| {
            bytes(&If::new(
                &And::new(&ZERO, word, &bit),
                vec![&Notify::new(device, &value)],
            ))
        };
        let ask = own_call(root::TAKE_EVENTS, &BufferData::new(vec![]), ROOT_HANDLE);
        let mut body = vec![
            bytes(&Store::new(&reply, &ask)),
            bytes(&Store::new(&root, &word_at(&reply, 4))),
            bytes(&Store::new(&dimms, &word_at(&reply, 8))),
            on(&root, events::NFIT_UPDATE, &me, NFIT_UPDATE),
            on(&root, events::UNCORRECTABLE_ERROR, &me, UNCORRECTABLE_ERROR),
        ];
        let mut tell = Vec::new();
        for (slot, _) in &self.slots {
            let bit = 1u32.checked_shl((*slot).into()).unwrap_or(0);
            tell.push(on(&dimms, bit, &Path::new(&dimm_name(*slot)), HEALTH_EVENT));
        }
        // Most events concern the root alone.
        body.push(bytes(&If::new(&dimms, dynamic(&tell))));
        bytes(&Method::new(EVENTS_METHOD.into(), 0, true, dynamic(&body))).0
    }
}

fn dimm_name(slot: u8) -> String {
    format!("NV{slot:02X}")
}

/// AML that is already encoded.
struct Bytes(Vec<u8>);

impl Aml for Bytes {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

fn bytes(aml: &dyn Aml) -> Bytes {
    let mut out = Vec::new();
    aml.to_aml_bytes(&mut out);
    Bytes(out)
}

fn guid_buffer(guid: Guid) -> BufferData {
    BufferData::new(guid.0.to_vec())
}

/// Operation regions of doorbell and mailbox with their fields.
fn regions(plan: &MailboxPlan) -> Vec<u8> {
    let bits = |len: u64| usize::try_from(len * 8).unwrap_or_else(|_| unreachable!("a mailbox is far below 4 GiB"));
    let field = |region: &str, access, entries| {
        Field::new(
            region.into(),
            access,
            FieldLockRule::NoLock,
            FieldUpdateRule::Preserve,
            entries,
        )
    };
    let named = |name: &str, len| {
        let mut segment = [b'_'; 4];
        segment.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        FieldEntry::Named(segment, bits(len))
    };
    let mut out = Vec::new();
    let (start, len) = (plan.memory.start.0, plan.memory.len);
    OpRegion::new("MBXD".into(), OpRegionSpace::SystemIO, &plan.doorbell, &4u8).to_aml_bytes(&mut out);
    field("MBXD", FieldAccessType::DWord, vec![named("DBEL", 4)]).to_aml_bytes(&mut out);
    OpRegion::new("MBXM".into(), OpRegionSpace::SystemMemory, &start, &len).to_aml_bytes(&mut out);
    let header = [
        ("HNDL", 4),
        ("REVN", 4),
        ("FUNC", 4),
        ("ILEN", 4),
        ("GUID", 16),
        ("OLEN", 4),
    ];
    let header = header.into_iter().map(|(name, len)| named(name, len)).collect();
    field("MBXM", FieldAccessType::DWord, header).to_aml_bytes(&mut out);
    for (name, len) in DATA_FIELDS {
        let len = if len == 0 { plan.capacity() } else { len };
        let entries = vec![FieldEntry::Reserved(bits(DATA)), named(name, len)];
        field("MBXM", FieldAccessType::QWord, entries).to_aml_bytes(&mut out);
    }
    out
}

/// Runs `statement` for the smallest data field that holds `len` bytes.
fn for_smallest_field(len: &dyn Aml, statement: impl Fn(Path) -> Bytes) -> Bytes {
    let mut fields = DATA_FIELDS.into_iter().rev();
    let largest = fields.next().map(|(name, _)| statement(name.into()));
    let mut code = largest.unwrap_or(Bytes(vec![]));
    for (name, size) in fields {
        let mut either = bytes(&If::new(&LessEqual::new(len, &size), vec![&statement(name.into())]));
        Else::new(vec![&code]).to_aml_bytes(&mut either.0);
        code = either;
    }
    code
}

/// `NCAL(guid, revision, function, input Buffer, handle)`: one mailbox call; returns the reply as a Buffer.
fn call_method() -> Vec<u8> {
    let (input_len, output_len, output) = (Local(0), Local(1), Local(2));
    let put = for_smallest_field(&input_len, |field| bytes(&Store::new(&field, &Arg(3))));
    let get = for_smallest_field(&output_len, |field| bytes(&Store::new(&output, &field)));
    bytes(&Method::new(
        "NCAL".into(),
        5,
        true,
        vec![
            &Store::new(&Path::new("GUID"), &Arg(0)),
            &Store::new(&Path::new("REVN"), &Arg(1)),
            &Store::new(&Path::new("FUNC"), &Arg(2)),
            &Store::new(&Path::new("HNDL"), &Arg(4)),
            &Store::new(&input_len, &SizeOf::new(&Arg(3))),
            &Store::new(&Path::new("ILEN"), &input_len),
            &If::new(&GreaterThan::new(&input_len, &ZERO), vec![&put]),
            &Store::new(&Path::new("DBEL"), &ONE),
            &Store::new(&output_len, &Path::new("OLEN")),
            &get,
            &Return::new(&Mid::new(&output, &ZERO, &output_len, &ZERO)),
        ],
    ))
    .0
}

/// `NDSM(guid, revision, function, arguments, handle)`: a `_DSM` call, whose argument is a Package of one Buffer, or an
/// empty one for function 0.
fn unpack_method() -> Vec<u8> {
    let (input, element) = (Local(0), Local(1));
    bytes(&Method::new(
        "NDSM".into(),
        5,
        true,
        vec![
            &Store::new(&input, &BufferData::new(vec![])),
            &If::new(
                &Equal::new(&ObjectType::new(&Arg(3)), &TYPE_PACKAGE),
                vec![&If::new(
                    &GreaterThan::new(&SizeOf::new(&Arg(3)), &ZERO),
                    vec![
                        &Store::new(&element, &DeRefOf::new(&Index::new(&ZERO, &Arg(3), &ZERO))),
                        &If::new(
                            &Equal::new(&ObjectType::new(&element), &TYPE_BUFFER),
                            vec![&Store::new(&input, &element)],
                        ),
                    ],
                )],
            ),
            &Return::new(&MethodCall::new(
                "NCAL".into(),
                vec![&Arg(0), &Arg(1), &Arg(2), &input, &Arg(4)],
            )),
        ],
    ))
    .0
}

/// `_DSM(guid, revision, function, arguments)` of the device with `handle`.
fn dsm_method(handle: u32) -> Vec<u8> {
    let args: Vec<&dyn Aml> = vec![&Arg(0), &Arg(1), &Arg(2), &Arg(3), &handle];
    bytes(&Method::new(
        "_DSM".into(),
        4,
        false,
        vec![&Return::new(&MethodCall::new("NDSM".into(), args))],
    ))
    .0
}

/// One of our own calls. Two Integers concatenated are a Buffer of 16 bytes: the input all of them start with.
fn own_call(function: u32, input: &dyn Aml, handle: u32) -> Bytes {
    bytes(&MethodCall::new(
        "NCAL".into(),
        vec![&guid_buffer(METHODS), &ONE, &function, input, &handle],
    ))
}

/// The 32-bit word at `offset` of a Buffer.
fn word_at(buffer: &dyn Aml, offset: u8) -> Bytes {
    bytes(&ToInteger::new(&ZERO, &Mid::new(buffer, &offset, &4u8, &ZERO)))
}

/// `_FIT`: pieces until an empty one; from the start again when the FIT changed in between.
fn fit_method() -> Vec<u8> {
    let (fit, offset, generation, reply, status, piece) = (Local(0), Local(1), Local(2), Local(3), Local(4), Local(5));
    let restart = [
        bytes(&Store::new(&fit, &BufferData::new(vec![]))),
        bytes(&Store::new(&offset, &ZERO)),
        bytes(&Store::new(&generation, &ZERO)),
    ];
    let take = [
        bytes(&Store::new(&generation, &word_at(&reply, 4))),
        bytes(&Mid::new(
            &reply,
            &8u8,
            &Subtract::new(&ZERO, &SizeOf::new(&reply), &8u8),
            &piece,
        )),
        bytes(&If::new(
            &Equal::new(&SizeOf::new(&piece), &ZERO),
            vec![&Return::new(&fit)],
        )),
        bytes(&Concat::new(&fit, &fit, &piece)),
        bytes(&Add::new(&offset, &offset, &SizeOf::new(&piece))),
    ];
    let ask = own_call(root::READ_FIT, &Concat::new(&ZERO, &offset, &generation), ROOT_HANDLE);
    let failed = bytes(&If::new(
        &NotEqual::new(&status, &ZERO),
        vec![&Return::new(&BufferData::new(vec![]))],
    ));
    let otherwise: Vec<&dyn Aml> = std::iter::once(&failed).chain(&take).map(|b| b as &dyn Aml).collect();
    let body = [
        bytes(&Store::new(&reply, &ask)),
        bytes(&Store::new(&status, &word_at(&reply, 0))),
        bytes(&If::new(&Equal::new(&status, &root::FIT_CHANGED.0), dynamic(&restart))),
        bytes(&Else::new(otherwise)),
    ];
    let read = While::new(&ONE, dynamic(&body));
    bytes(&Method::new(
        "_FIT".into(),
        0,
        true,
        dynamic(&restart).into_iter().chain([&read as &dyn Aml]).collect(),
    ))
    .0
}

/// One DIMM: `\_SB.NVDR.NVxx`, xx the slot in hex.
struct DimmAml(u8, NfitHandle);

impl Aml for DimmAml {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let &Self(slot, NfitHandle(handle)) = self;
        let methods = [
            dsm_method(handle),
            lsi_method(handle),
            lsr_method(handle),
            lsw_method(handle),
        ]
        .map(Bytes);
        let address = bytes(&Name::new("_ADR".into(), &handle));
        let parts = std::iter::once(&address)
            .chain(&methods)
            .map(|b| b as &dyn Aml)
            .collect();
        Device::new(Path::new(&dimm_name(slot)), parts).to_aml_bytes(sink);
    }
}

/// `_LSI()`: Package of status, area size, largest transfer.
fn lsi_method(handle: u32) -> Vec<u8> {
    let (reply, result) = (Local(0), Local(1));
    let mut package = PackageBuilder::new();
    (0..3).for_each(|_| package.add_element(&ZERO));
    let word = |n: u8| bytes(&Store::new(&Index::new(&ZERO, &result, &n), &word_at(&reply, n * 4)));
    let status = word_at(&reply, 0);
    let ok = Equal::new(&status, &ZERO);
    bytes(&Method::new(
        "_LSI".into(),
        0,
        true,
        vec![
            &Store::new(&reply, &own_call(dimm::LSI, &BufferData::new(vec![]), handle)),
            &Store::new(&result, &package),
            &word(0),
            &If::new(&ok, vec![&word(1), &word(2)]),
            &Return::new(&result),
        ],
    ))
    .0
}

/// `_LSR(offset, length)`: Package of status and Buffer.
fn lsr_method(handle: u32) -> Vec<u8> {
    let (reply, result, data) = (Local(0), Local(1), Local(2));
    let mut package = PackageBuilder::new();
    package.add_element(&ZERO);
    package.add_element(&BufferData::new(vec![]));
    let input = Concat::new(&ZERO, &Arg(0), &Arg(1));
    bytes(&Method::new(
        "_LSR".into(),
        2,
        true,
        vec![
            &Store::new(&reply, &own_call(dimm::LSR, &input, handle)),
            &Store::new(&result, &package),
            &Store::new(&Index::new(&ZERO, &result, &ZERO), &word_at(&reply, 0)),
            &Mid::new(&reply, &4u8, &Subtract::new(&ZERO, &SizeOf::new(&reply), &4u8), &data),
            &Store::new(&Index::new(&ZERO, &result, &ONE), &data),
            &Return::new(&result),
        ],
    ))
    .0
}

/// `_LSW(offset, length, Buffer)`: status.
fn lsw_method(handle: u32) -> Vec<u8> {
    let range = Concat::new(&ZERO, &Arg(0), &Arg(1));
    let reply = own_call(dimm::LSW, &Concat::new(&ZERO, &range, &Arg(2)), handle);
    bytes(&Method::new(
        "_LSW".into(),
        3,
        true,
        vec![&Return::new(&word_at(&reply, 0))],
    ))
    .0
}

fn dynamic(parts: &[Bytes]) -> Vec<&dyn Aml> {
    parts.iter().map(|part| part as &dyn Aml).collect()
}

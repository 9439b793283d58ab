//! The layout inside a label area: two index blocks, then label slots. UEFI 2.10 13.19.
//!
//! The monitor serves the area as opaque bytes. This reader and writer of the format serves diagnostics, tests that verify
//! what a guest did, and the provisioning of fresh areas. The bytes come from guests: everything is checked.
//!
//! An update writes the older index block with the next sequence number (1, 2, 3, 1, ...), so one valid block survives a
//! torn write; [`Contents::read`] picks the newer valid one.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U16, U32, U64},
};

const SIGNATURE: [u8; 16] = *b"NAMESPACE_INDEX\0";
/// Index blocks are multiples of this.
const INDEX_ALIGN: usize = 256;

#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct IndexHeader {
    signature: [u8; 16],
    flags: [u8; 3],
    label_size_code: u8,
    sequence: U32,
    own_offset: U64,
    own_size: U64,
    other_offset: U64,
    labels_offset: U64,
    slots: U32,
    major: U16,
    minor: U16,
    checksum: U64,
}
const HEADER: usize = size_of::<IndexHeader>();
const _: () = assert!(HEADER == 72);
const INDEX_CHECKSUM: usize = 64;

#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawLabel {
    uuid: [u8; 16],
    name: [u8; 64],
    flags: U32,
    set_size: U16,
    position: U16,
    cookie: U64,
    lba_size: U64,
    dpa: U64,
    raw_size: U64,
    slot: U32,
    align: u8,
    reserved: [u8; 3],
    type_guid: [u8; 16],
    abstraction_guid: [u8; 16],
    reserved2: [u8; 88],
    checksum: U64,
}
const LABEL: usize = size_of::<RawLabel>();
const _: () = assert!(LABEL == 256);
const LABEL_CHECKSUM: usize = 248;

/// Label format: the version of the index blocks fixes the size of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelVersion {
    /// 128-byte labels without checksum.
    V1_1,
    /// 256-byte labels.
    V1_2,
}

impl LabelVersion {
    /// Bytes of one label.
    pub const fn label_size(self) -> usize {
        match self {
            Self::V1_1 => 128,
            Self::V1_2 => LABEL,
        }
    }
}

/// What is wrong with an area or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Not even two labels fit.
    #[error("an area of {0:#x} bytes is too small for two index blocks and two labels")]
    TooSmall(usize),
    /// No valid index block of either version.
    #[error("no valid index block: block 0 {0}; block 1 {1}")]
    NoIndex(IndexFault, IndexFault),
}

/// Why an index block does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IndexFault {
    /// Fresh or overwritten.
    #[error("has no signature")]
    Signature,
    /// Not a version with this label size.
    #[error("has version {0}.{1} with label size code {2}, which do not belong together")]
    Version(u16, u16, u8),
    /// Torn or corrupt.
    #[error("has checksum {found:#018x} where {expected:#018x} was expected")]
    Checksum {
        /// Stored.
        found: u64,
        /// Computed.
        expected: u64,
    },
    /// 0 is no sequence number.
    #[error("has sequence number 0")]
    Sequence,
    /// Offsets or sizes that do not fit the area.
    #[error("has offsets or sizes that do not fit the area")]
    Geometry,
}

/// Why a used slot holds no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LabelFault {
    /// The label names another slot.
    #[error("names slot {0}")]
    Slot(u32),
    /// Torn or corrupt.
    #[error("has checksum {found:#018x} where {expected:#018x} was expected")]
    Checksum {
        /// Stored.
        found: u64,
        /// Computed.
        expected: u64,
    },
}

/// One namespace label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Namespace UUID, bytes in RFC order.
    pub uuid: [u8; 16],
    /// Name, up to its NUL; bytes that are no text are replaced.
    pub name: String,
    /// 1 read-only, 2 local, 4 BTT, 8 updating.
    pub flags: u32,
    /// Labels in the set.
    pub set_size: u16,
    /// Position in the set.
    pub position: u16,
    /// Interleave-set cookie of the region.
    pub cookie: u64,
    /// First byte on the DIMM.
    pub dpa: u64,
    /// Bytes on the DIMM.
    pub size: u64,
}

/// Geometry of an area: where things are for a given version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Label format.
    pub version: LabelVersion,
    /// Bytes of one index block.
    pub index_size: usize,
    /// Label slots.
    pub slots: usize,
}

impl Geometry {
    /// Geometry of an area of `size` bytes; none when it is too small.
    pub fn new(size: usize, version: LabelVersion) -> Option<Self> {
        let label = version.label_size();
        let index_bytes = |slots: usize| (HEADER + slots.div_ceil(8)).next_multiple_of(INDEX_ALIGN);
        let slots = size.checked_sub(2 * index_bytes(size / label))? / label;
        (slots >= 2).then(|| Self {
            version,
            index_size: index_bytes(slots),
            slots,
        })
    }

    fn index<'a>(&self, area: &'a [u8], which: usize) -> Option<&'a [u8]> {
        area.get(which * self.index_size..)?.get(..self.index_size)
    }

    fn label<'a>(&self, area: &'a [u8], slot: usize) -> Option<&'a [u8]> {
        let size = self.version.label_size();
        area.get(2 * self.index_size + slot.checked_mul(size)?..)?.get(..size)
    }
}

/// The label area as the guest's kernel would understand it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Where things are.
    pub geometry: Geometry,
    /// Which index block counts.
    pub current_index: usize,
    /// Sequence number of that block, 1 to 3.
    pub sequence: u32,
    /// Used slots in slot order.
    pub labels: Vec<(usize, Result<Label, LabelFault>)>,
}

impl Contents {
    /// Reads an area, trying 128-byte labels first as Linux does.
    pub fn read(area: &[u8]) -> Result<Self, FormatError> {
        let mut error = FormatError::TooSmall(area.len());
        for version in [LabelVersion::V1_1, LabelVersion::V1_2] {
            let Some(geometry) = Geometry::new(area.len(), version) else {
                continue;
            };
            let (zero, one) = (check_index(area, &geometry, 0), check_index(area, &geometry, 1));
            let (current_index, sequence) = match (zero, one) {
                (Err(zero), Err(one)) => {
                    error = FormatError::NoIndex(zero, one);
                    continue;
                }
                (Ok(sequence), Err(_)) => (0, sequence),
                (Err(_), Ok(sequence)) => (1, sequence),
                (Ok(zero), Ok(one)) if one == zero || next_sequence(zero) == one => (1, one),
                (Ok(zero), Ok(_)) => (0, zero),
            };
            let labels = read_labels(area, &geometry, current_index);
            return Ok(Self {
                geometry,
                current_index,
                sequence,
                labels,
            });
        }
        Err(error)
    }
}

/// The sequence number after `sequence`: 1, 2, 3, 1, ...
fn next_sequence(sequence: u32) -> u32 {
    sequence % 3 + 1
}

/// Sequence number of index block `which`, when the block is valid.
fn check_index(area: &[u8], geometry: &Geometry, which: usize) -> Result<u32, IndexFault> {
    let block = geometry.index(area, which).ok_or(IndexFault::Geometry)?;
    let (header, _) = IndexHeader::read_from_prefix(block).map_err(|_| IndexFault::Geometry)?;
    if header.signature != SIGNATURE {
        return Err(IndexFault::Signature);
    }
    // The size code counts only from version 1.2 on; 1.1 always has 128-byte labels.
    let (major, minor, code) = (header.major.get(), header.minor.get(), header.label_size_code);
    let matches = match geometry.version {
        LabelVersion::V1_1 => major == 1 && (minor < 2 || code == 0),
        LabelVersion::V1_2 => major == 1 && minor >= 2 && code == 1,
    };
    if !matches {
        return Err(IndexFault::Version(major, minor, code));
    }
    let (found, expected) = (header.checksum.get(), checksum_without(block, INDEX_CHECKSUM));
    if found != expected {
        return Err(IndexFault::Checksum { found, expected });
    }
    let sequence = header.sequence.get() & 3;
    if sequence == 0 {
        return Err(IndexFault::Sequence);
    }
    let at = |n: usize| (n * geometry.index_size) as u64;
    let slots = u64::from(header.slots.get());
    let fits = header.own_offset.get() == at(which)
        && header.other_offset.get() == at(1 - which)
        && header.labels_offset.get() == at(2)
        && (HEADER as u64..=geometry.index_size as u64).contains(&header.own_size.get())
        && slots <= geometry.slots as u64;
    fits.then_some(sequence).ok_or(IndexFault::Geometry)
}

/// Every slot that the index block `which` (already checked) calls used.
fn read_labels(area: &[u8], geometry: &Geometry, which: usize) -> Vec<(usize, Result<Label, LabelFault>)> {
    let Some(block) = geometry.index(area, which) else {
        return Vec::new();
    };
    let Ok((header, free)) = IndexHeader::ref_from_prefix(block) else {
        return Vec::new();
    };
    let slots = usize::try_from(header.slots.get())
        .unwrap_or(usize::MAX)
        .min(geometry.slots);
    let used = |slot: &usize| free.get(slot / 8).is_some_and(|byte| byte & (1 << (slot % 8)) == 0);
    let read = |slot| Some((slot, read_label(geometry.label(area, slot)?, slot)));
    (0..slots).filter(used).filter_map(read).collect()
}

fn read_label(bytes: &[u8], slot: usize) -> Result<Label, LabelFault> {
    let mut padded = [0; LABEL];
    padded.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let raw = RawLabel::read_from_bytes(&padded).unwrap_or_else(|_| unreachable!("a label is {LABEL} bytes"));
    if usize::try_from(raw.slot.get()) != Ok(slot) {
        return Err(LabelFault::Slot(raw.slot.get()));
    }
    if bytes.len() == LABEL {
        let (found, expected) = (raw.checksum.get(), checksum_without(bytes, LABEL_CHECKSUM));
        if found != expected {
            return Err(LabelFault::Checksum { found, expected });
        }
    }
    let name = raw.name.split(|b| *b == 0).next().unwrap_or_default();
    Ok(Label {
        uuid: raw.uuid,
        name: String::from_utf8_lossy(name).into_owned(),
        flags: raw.flags.get(),
        set_size: raw.set_size.get(),
        position: raw.position.get(),
        cookie: raw.cookie.get(),
        dpa: raw.dpa.get(),
        size: raw.raw_size.get(),
    })
}

/// Writes the two index blocks of an area without labels, as the guest's kernel and `ndctl init-labels` do.
pub fn initialise(area: &mut [u8], version: LabelVersion) -> Result<Geometry, FormatError> {
    let too_small = FormatError::TooSmall(area.len());
    let geometry = Geometry::new(area.len(), version).ok_or_else(|| too_small.clone())?;
    // Block 0 is current: advancing its 3 does not give the other's 2, advancing 2 gives 3.
    for (which, sequence) in [(0, 3), (1, 2)] {
        let block = fresh_index(&geometry, which, sequence);
        let target = area
            .get_mut(which * geometry.index_size..)
            .and_then(|a| a.get_mut(..block.len()));
        target.ok_or_else(|| too_small.clone())?.copy_from_slice(&block);
    }
    Ok(geometry)
}

fn fresh_index(geometry: &Geometry, which: usize, sequence: u32) -> Vec<u8> {
    let at = |n: usize| U64::new((n * geometry.index_size) as u64);
    let (minor, label_size_code) = match geometry.version {
        LabelVersion::V1_1 => (1, 0),
        LabelVersion::V1_2 => (2, 1),
    };
    let header = IndexHeader {
        signature: SIGNATURE,
        flags: [0; 3],
        label_size_code,
        sequence: sequence.into(),
        own_offset: at(which),
        own_size: at(1),
        other_offset: at(1 - which),
        labels_offset: at(2),
        slots: u32::try_from(geometry.slots).unwrap_or(u32::MAX).into(),
        major: 1.into(),
        minor: minor.into(),
        checksum: 0.into(),
    };
    let mut block = header.as_bytes().to_vec();
    let full = geometry.slots / 8;
    block.resize(HEADER + full, 0xff);
    if !geometry.slots.is_multiple_of(8) {
        block.push((1 << (geometry.slots % 8)) - 1);
    }
    block.resize(geometry.index_size, 0);
    let sum = fletcher64(&block).to_le_bytes();
    block
        .iter_mut()
        .skip(INDEX_CHECKSUM)
        .zip(sum)
        .for_each(|(to, from)| *to = from);
    block
}

/// Fletcher's checksum over little-endian 32-bit words; a tail shorter than a word does not count.
pub fn fletcher64(bytes: &[u8]) -> u64 {
    checksum_without(bytes, usize::MAX)
}

/// [`fletcher64`] with the eight bytes at `hole` (a multiple of 4) taken as zero.
fn checksum_without(bytes: &[u8], hole: usize) -> u64 {
    let (mut low, mut high) = (0u32, 0u64);
    for (i, word) in bytes.as_chunks::<4>().0.iter().enumerate() {
        let at = i * 4;
        if at < hole || at - hole >= 8 {
            low = low.wrapping_add(u32::from_le_bytes(*word));
        }
        high = high.wrapping_add(u64::from(low));
    }
    (high << 32) | u64::from(low)
}

/// What one DIMM puts into the cookie of its interleave set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CookieMember {
    /// Offset within the set; the members are sorted by it.
    pub region_offset: u64,
    /// Serial number.
    pub serial: u32,
    /// Vendor id.
    pub vendor: u16,
    /// Manufacturing date.
    pub date: u16,
    /// Manufacturing location.
    pub location: u8,
}

/// Interleave-set cookie as Linux computes it: what binds labels to a set of DIMMs.
pub fn interleave_cookie(members: &[CookieMember], version: LabelVersion) -> u64 {
    let mut members = members.to_vec();
    members.sort();
    let mut bytes = Vec::new();
    for member in members {
        bytes.extend(member.region_offset.to_le_bytes());
        bytes.extend(member.serial.to_le_bytes());
        match version {
            LabelVersion::V1_1 => bytes.extend([0; 4]),
            LabelVersion::V1_2 => {
                bytes.extend(member.vendor.to_le_bytes());
                bytes.extend(member.date.to_le_bytes());
                bytes.push(member.location);
                bytes.extend([0; 31]);
            }
        }
    }
    fletcher64(&bytes)
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;

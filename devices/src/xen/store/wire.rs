//! Messages of the protocol (`io/xs_wire.h`), and the two rings that carry them.

use super::super::{Host, ring::Ring};

/// Bytes of a message's header: kind, request, transaction, bytes that follow; a word each.
pub const HEADER: usize = 16;
/// Most bytes behind it.
pub const MAX_PAYLOAD: usize = 4096;
/// Bytes of a ring.
const RING: u32 = 1024;
/// Where things are in the page.
const REQUESTS: u64 = 0;
const REPLIES: u64 = 1024;
const INDICES: u64 = 2048;

/// What a message is about.
pub mod kind {
    /// Names of children.
    pub const DIRECTORY: u32 = 1;
    /// A value.
    pub const READ: u32 = 2;
    /// Permissions.
    pub const GET_PERMISSIONS: u32 = 3;
    /// To be told of changes.
    pub const WATCH: u32 = 4;
    /// No more.
    pub const UNWATCH: u32 = 5;
    /// A transaction begins.
    pub const TRANSACTION_START: u32 = 6;
    /// It ends.
    pub const TRANSACTION_END: u32 = 7;
    /// Where a domain's nodes are.
    pub const GET_DOMAIN_PATH: u32 = 10;
    /// A new value.
    pub const WRITE: u32 = 11;
    /// A node without one.
    pub const MAKE: u32 = 12;
    /// No node.
    pub const REMOVE: u32 = 13;
    /// Other permissions.
    pub const SET_PERMISSIONS: u32 = 14;
    /// Something changed.
    pub const EVENT: u32 = 15;
    /// It failed.
    pub const ERROR: u32 = 16;
    /// Watches and transactions of an earlier kernel are to go.
    pub const RESET_WATCHES: u32 = 21;
}

/// What cannot be a message, whatever follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoMessage;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is about.
    pub kind: u32,
    /// Number that the reply has as well.
    pub request: u32,
    /// Transaction; 0: none.
    pub transaction: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
}

fn word(bytes: &[u8], n: usize) -> u32 {
    let word = bytes.get(4 * n..4 * n + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, u32::from_le_bytes)
}

impl Message {
    /// The message that `bytes` begin with, if it is all there, and how many bytes it has.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, NoMessage> {
        if bytes.len() < HEADER {
            return Ok(None);
        }
        let len = word(bytes, 3) as usize;
        if len > MAX_PAYLOAD {
            return Err(NoMessage);
        }
        let payload = bytes.get(HEADER..HEADER + len).map(<[u8]>::to_vec);
        let message = |payload| Self {
            kind: word(bytes, 0),
            request: word(bytes, 1),
            transaction: word(bytes, 2),
            payload,
        };
        Ok(payload.map(|payload| (message(payload), HEADER + len)))
    }

    /// As it goes over the ring.
    pub fn bytes(&self) -> Vec<u8> {
        let len = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let header = [self.kind, self.request, self.transaction, len].map(u32::to_le_bytes);
        [header.as_flattened(), &self.payload].concat()
    }
}

/// The page of the two rings.
#[derive(Debug, Clone, Copy)]
pub struct Rings {
    /// Number of the page.
    pub page: u64,
}

impl Rings {
    fn requests(self) -> Ring {
        Ring {
            page: self.page,
            bytes: REQUESTS,
            len: RING,
            indices: INDICES,
        }
    }

    fn replies(self) -> Ring {
        Ring {
            page: self.page,
            bytes: REPLIES,
            len: RING,
            indices: INDICES + 8,
        }
    }

    /// Takes what the guest has written, at most a ring full.
    pub fn take(self, host: &mut dyn Host) -> Vec<u8> {
        let bytes = self.requests().look(host);
        if !bytes.is_empty() {
            self.requests().advance(bytes.len(), host);
        }
        bytes
    }

    /// Puts as much of `bytes` into the guest's ring as there is room for; how much.
    pub fn put(self, bytes: &[u8], host: &mut dyn Host) -> usize {
        self.replies().put(bytes, host)
    }
}

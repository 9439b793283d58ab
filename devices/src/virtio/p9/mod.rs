//! A folder of the host for the guest to read: 9P2000.L over virtio (device 9; the transport is that of Linux's `9pnet_virtio`).
//!
//! ```text
//! chain --take: size, type, tag--> Order --worker: Server::answer, over a Tree--> Reply --> used ring
//! ```
//!
//! Slow storage of the host is waited for by the worker alone, which answers requests in their order.

pub mod config;
mod message;
mod server;
#[cfg(test)]
mod tests;
mod tree;

pub use server::{Counts, MAX_FIDS, MAX_MESSAGE, Request, Server, ShareStatus};
pub use tree::{Entry, Errno, Space, Stat, Tree};

use super::{
    Reader,
    deferred::{Deferred, Order, Reply, Requests, Taken},
};
use message::{Answer, HEADER, NO_TAG, kind};
use std::{io::Read, sync::Arc};
use virtio_bindings::virtio_ids::VIRTIO_ID_9P;

/// Entries of the queue: what Linux has for one request.
const QUEUE_SIZE: u16 = 128;
/// The configuration space has the mount tag.
const MOUNT_TAG: u64 = 1 << 0;
/// Bytes of the answer that says why there is none.
const REFUSAL: usize = HEADER + 4;
/// Most bytes of a request that are looked at: a walk of 16 long names has not half of that. Only the data of a write is longer.
const MAX_REQUEST: usize = 16 << 10;
/// Most bytes of a mount tag.
pub const MAX_TAG: usize = 32;

/// The device.
pub type P9 = Deferred<P9Requests>;
/// A request under way.
pub type P9Order = Order<P9Requests>;

/// What the device is and has done.
pub struct P9Requests {
    config: Vec<u8>,
    counts: Arc<Counts>,
}

impl P9 {
    /// The device that the guest mounts by `tag`, which is cut to [`MAX_TAG`] bytes.
    pub fn tagged(tag: &str, submit: Box<dyn Fn(P9Order) + Send + Sync>) -> Arc<Self> {
        let tag = tag.as_bytes().get(..MAX_TAG).unwrap_or(tag.as_bytes());
        let len = u16::try_from(tag.len()).unwrap_or(0);
        let requests = P9Requests {
            config: [&len.to_le_bytes()[..], tag].concat(),
            counts: Arc::default(),
        };
        Self::new(requests, submit)
    }
}

impl P9Requests {
    /// Where its server counts.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

fn refuse(tag: u16, why: Errno) -> Taken<Request> {
    Taken::Now(Reply {
        data: Answer::refusal(tag, why),
        last: None,
    })
}

impl Requests for P9Requests {
    type Work = Request;
    const DEVICE_TYPE: u32 = VIRTIO_ID_9P;
    const QUEUE: &'static [u16] = &[QUEUE_SIZE];

    fn features(&self) -> u64 {
        MOUNT_TAG
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn unreadable(&self) -> Reply {
        // Its tag is among what cannot be read. Linux knows its requests by their buffers.
        Reply {
            data: Answer::refusal(NO_TAG, Errno::IO),
            last: None,
        }
    }

    fn take(&self, from: &mut Reader<'_>, room: u64) -> Taken<Request> {
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        if room < REFUSAL {
            return Taken::Broken(format!(
                "a request has room for {room} bytes: expected {REFUSAL} or more"
            ));
        }
        let Ok(header) = from.read_obj::<[u8; HEADER]>() else {
            return Taken::Broken(format!("a request has less than {HEADER} bytes"));
        };
        let [s0, s1, s2, s3, kind, t0, t1] = header;
        let tag = u16::from_le_bytes([t0, t1]);
        let size = u32::from_le_bytes([s0, s1, s2, s3]);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let Some(len) = size.checked_sub(HEADER).filter(|len| *len <= from.available_bytes()) else {
            return refuse(tag, Errno::INVAL);
        };
        if len > MAX_REQUEST && kind != kind::WRITE {
            return refuse(tag, Errno::MSGSIZE);
        }
        let mut body = vec![0; len.min(MAX_REQUEST)];
        if let Err(error) = from.read_exact(&mut body) {
            return Taken::Broken(format!("a request cannot be read: {error}"));
        }
        let reads = matches!(kind, kind::READ | kind::READDIR);
        let answer = if reads { room.min(MAX_MESSAGE as usize) } else { 0 };
        let weight = answer + body.len();
        let request = Request { kind, tag, body, room };
        Taken::Work(request, weight)
    }
}

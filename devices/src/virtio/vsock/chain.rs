//! Packets in the driver's chains: a header, with its data behind it.

use super::packet::{HEADER, Header};
use crate::virtio::{Memory, Reader, queue::Virtqueue};
use std::io::{Read, Write};

/// Bytes behind the header that the next receive chain has room for.
pub(super) fn room(queue: &mut Virtqueue, mem: &Memory) -> Option<usize> {
    let chain = queue.pop(mem)?;
    let to = queue.writer(mem, chain)?;
    let bytes = to.available_bytes();
    match bytes.checked_sub(HEADER) {
        Some(room) => {
            queue.put_back();
            Some(room)
        }
        None => {
            queue.fail(format_args!(
                "a receive buffer has {bytes} bytes: expected {HEADER} or more"
            ));
            None
        }
    }
}

/// Puts a packet into the next receive chain.
pub(super) fn deliver(queue: &mut Virtqueue, mem: &Memory, header: &Header, data: &[u8]) {
    let Some(chain) = queue.pop(mem) else { return };
    let head = chain.head_index();
    let Some(mut to) = queue.writer(mem, chain) else { return };
    let written = to.write_all(&header.bytes()).and_then(|()| to.write_all(data));
    match written {
        Ok(()) => queue.complete(mem, head, HEADER + data.len()),
        Err(error) => queue.fail(format_args!("a receive buffer cannot be written: {error}")),
    }
}

/// The header of a chain, with its data in the buffer.
pub(super) fn take(from: &mut Reader<'_>, buffer: &mut [u8]) -> Result<Header, String> {
    let mut bytes = [0; HEADER];
    from.read_exact(&mut bytes)
        .map_err(|error| format!("has no whole header: {error}"))?;
    let header = Header::read(&bytes);
    let (there, most) = (from.available_bytes(), buffer.len());
    let len = usize::try_from(header.len).unwrap_or(usize::MAX);
    let data = buffer.get_mut(..len).filter(|_| len <= there);
    let data = data.ok_or_else(|| format!("says {len} bytes and has {there}: expected {most} at most"))?;
    from.read_exact(data)
        .map_err(|error| format!("cannot be read: {error}"))?;
    Ok(header)
}

//! What the guest's security commands do to a DIMM whose contents are not encrypted: they are hidden and shown, and really
//! overwritten; the file itself is as readable as its permissions let it be.

use super::{Window, backing::Source, encrypted::wipe};
use devices::nvdimm::security::{MediaControl, SecurityState, WrappingKey};
use std::{
    io,
    ops::Range,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};
use vm_memory::{Bytes, VolatileMemory};

/// Makes what security keeps durable.
pub type Keep = Box<dyn FnMut(&SecurityState) -> io::Result<()> + Send>;

/// The handle that security has on a DIMM.
pub struct PlainMedia {
    source: Source,
    data: u64,
    size: u64,
    windows: Vec<Arc<Window>>,
    shown: bool,
    keep: Keep,
    overwrite: Option<JoinHandle<io::Result<()>>>,
}

impl PlainMedia {
    /// The DIMM of `size` bytes in `source`, of which the first `data` are no labels. It has a closed lock in each of
    /// `windows`.
    pub fn new(source: Source, data: u64, size: u64, windows: Vec<Arc<Window>>, keep: Keep) -> Self {
        Self {
            source,
            data,
            size,
            windows,
            shown: false,
            keep,
            overwrite: None,
        }
    }

    fn show(&mut self) -> io::Result<()> {
        for (n, window) in self.windows.iter().enumerate() {
            if let Err(error) = window.open() {
                self.windows.iter().take(n).for_each(|window| window.close());
                return Err(io::Error::other(error));
            }
        }
        self.shown = true;
        Ok(())
    }

    fn hide(&mut self) {
        if std::mem::take(&mut self.shown) {
            self.windows.iter().for_each(|window| window.close());
        }
    }
}

/// Overwrites `range` with zeros, through a mapping where the file has no write.
fn destroy(source: &Source, range: Range<u64>) -> io::Result<()> {
    let offset = source.offset;
    if wipe(&source.file, range.start + offset..range.end + offset).is_ok() {
        return Ok(());
    }
    let length = |bytes: u64| usize::try_from(bytes).map_err(io::Error::other);
    let zeros = vec![0; 1 << 20];
    let mapping = source.map(range.end)?;
    let slice = mapping.get_slice(0, mapping.size()).map_err(io::Error::other)?;
    let (mut at, end) = (length(range.start)?, length(range.end)?);
    while at < end {
        let chunk = zeros.get(..zeros.len().min(end - at)).unwrap_or(&zeros);
        slice.write_slice(chunk, at).map_err(io::Error::other)?;
        at += chunk.len();
    }
    Ok(())
}

impl MediaControl for PlainMedia {
    fn random(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(io::Error::other)
    }

    fn store(&mut self, state: &SecurityState) -> io::Result<()> {
        (self.keep)(state)
    }

    fn protect(&mut self, state: &SecurityState, _: Option<&WrappingKey>, _: Option<&WrappingKey>) -> io::Result<()> {
        (self.keep)(state)
    }

    fn lock(&mut self) -> io::Result<()> {
        self.hide();
        Ok(())
    }

    fn unlock(&mut self, _: Option<&WrappingKey>) -> io::Result<()> {
        if self.shown { Ok(()) } else { self.show() }
    }

    fn erase(&mut self, state: &SecurityState, _: Option<&WrappingKey>) -> io::Result<()> {
        let was_shown = self.shown;
        self.hide();
        let erased = destroy(&self.source, 0..self.data).and_then(|()| (self.keep)(state));
        if erased.is_err() && was_shown {
            self.show()?;
        }
        erased
    }

    fn start_overwrite(&mut self, state: &SecurityState) -> io::Result<()> {
        let (source, all) = (self.source.clone(), 0..self.size);
        let (begin, begun) = mpsc::channel();
        // The thread first, because there may be none to be had.
        let worker = thread::Builder::new().name("overwrite".to_owned());
        let worker = worker.spawn(move || match begun.recv() {
            Ok(()) => destroy(&source, all),
            Err(_) => Ok(()),
        })?;
        (self.keep)(state)?;
        self.hide();
        // It waits for this.
        let _ = begin.send(());
        self.overwrite = Some(worker);
        Ok(())
    }

    fn overwritten(&mut self) -> Option<io::Result<()>> {
        let worker = self.overwrite.take_if(|worker| worker.is_finished())?;
        let died = |_| Err(io::Error::other("the thread that overwrites died"));
        Some(worker.join().unwrap_or_else(died))
    }

    fn resume(&mut self) -> io::Result<()> {
        self.show()
    }
}

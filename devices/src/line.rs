//! Interrupt lines: a device never learns its number.

use std::sync::atomic::{AtomicU64, Ordering};

/// An interrupt line as its device sees it.
pub trait Line: Send + Sync {
    /// One rising edge. Never blocks and never fails from the device's point of view.
    fn pulse(&self);
}

impl<L: Line + ?Sized> Line for std::sync::Arc<L> {
    fn pulse(&self) {
        (**self).pulse();
    }
}

/// A line that leads nowhere.
impl Line for () {
    fn pulse(&self) {}
}

/// A line for unit tests that counts its edges.
#[derive(Debug, Default)]
pub struct CountingLine(AtomicU64);

impl CountingLine {
    /// Edges seen so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Line for CountingLine {
    fn pulse(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

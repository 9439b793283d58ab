//! Consoles of the domain.
//!
//! `console_io` is the hypervisor's: what is written to it goes into the log, and nobody types. The domain's own one is two rings
//! in a page (`io/console.h`) and an event channel:
//!
//! ```text
//! guest: bytes into `out`, event --> attend --> Host::print, as much as its reader takes --> event, if there was no room before
//! host:  typed --> bytes into `in` --> event
//! ```
//! What the reader does not take stays in the ring, and so a guest that prints waits for it.

use super::{Call, Context, Domain, Done, Errno, Host, events::Bound, ring::Ring};

/// Bytes of a line.
const MAX_LINE: usize = 256;
/// Bytes that one call writes at most.
const MAX_WRITE: u64 = 4096;

/// A text as lines of the log.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    fn write(&mut self, text: &[u8]) {
        for byte in text {
            if *byte == b'\n' || self.0.len() >= MAX_LINE {
                let line = String::from_utf8_lossy(&self.0).into_owned();
                tracing::info!(line, "hypervisor console");
                self.0.clear();
            }
            if (b' '..0x7f).contains(byte) {
                self.0.push(*byte);
            }
        }
    }
}

/// Answers the call.
pub(super) fn serve(domain: &mut Domain, call: &Call, context: &mut Context<'_>) -> Done {
    const WRITE: u64 = 0;
    const READ: u64 = 1;
    let [operation, count, at, ..] = call.args;
    match operation {
        WRITE => {
            let len = usize::try_from(count.min(MAX_WRITE)).unwrap_or_default();
            let mut text = vec![0; len];
            context.guest.read(at, &mut text)?;
            domain.console.write(&text);
            Ok(0)
        }
        // Nothing was typed.
        READ if domain.is_initial() => Ok(0),
        _ => Err(Errno::NoCall),
    }
}

/// The domain's own console.
#[derive(Debug, Clone, Copy)]
pub(super) struct Console {
    /// Number of its page.
    pub page: u64,
    /// The guest's end of its event channel.
    pub port: u32,
}

impl Console {
    /// What is typed.
    fn input(self) -> Ring {
        Ring {
            page: self.page,
            bytes: 0,
            len: 1024,
            indices: 3072,
        }
    }

    /// What the guest prints.
    fn output(self) -> Ring {
        Ring {
            page: self.page,
            bytes: 1024,
            len: 2048,
            indices: 3080,
        }
    }
}

impl Domain {
    /// Hands what the guest has printed to its reader, as much as that takes.
    pub fn attend_console(&mut self, host: &mut dyn Host) {
        let Some(console) = self.own_console else { return };
        let bytes = console.output().look(host);
        if bytes.is_empty() {
            return;
        }
        // Only a guest that has seen a full ring can wait for room in it.
        let was_full = console.output().room(host) == 0;
        let taken = host.print(&bytes).min(bytes.len());
        if taken > 0 {
            console.output().advance(taken, host);
        }
        if taken > 0 && was_full {
            self.tell_console(console, host);
        }
    }

    /// Whether nothing that the guest has printed waits for its reader.
    pub fn has_printed_all(&self, host: &dyn Host) -> bool {
        self.own_console
            .is_none_or(|console| console.output().look(host).is_empty())
    }

    /// Bytes that can be typed now.
    pub fn room_to_type(&self, host: &dyn Host) -> usize {
        self.own_console.map_or(0, |console| console.input().room(host))
    }

    /// Types as much of `bytes` as there is room for; how much.
    pub fn typed(&mut self, bytes: &[u8], host: &mut dyn Host) -> usize {
        let Some(console) = self.own_console else { return 0 };
        let taken = console.input().put(bytes, host);
        if taken > 0 {
            self.tell_console(console, host);
        }
        taken
    }

    fn tell_console(&self, console: Console, host: &mut dyn Host) {
        if let Some((Bound::Console, vcpu)) = self.events.look(console.port) {
            host.raise(console.port, vcpu);
        }
    }
}

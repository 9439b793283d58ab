//! `console_io`: the hypervisor's console. What is written to it goes into the log, and nobody types.

use super::{Call, Context, Domain, Done, Errno};

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

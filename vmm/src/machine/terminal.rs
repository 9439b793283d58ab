//! The user's terminal in raw mode while an interactive guest runs, and back to what it was however the run ends.

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::{io, sync::OnceLock};

/// What the terminal was before; filled once a process.
static BEFORE: OnceLock<Termios> = OnceLock::new();

/// Raw mode for as long as this lives. Restored on drop, on a panic, and (through [`crate::hv::signal::on_crash`]) on a crash.
pub struct RawTerminal(());

impl RawTerminal {
    /// Makes standard input raw if it is a terminal.
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !isatty(&stdin) {
            return Ok(None);
        }
        let now = tcgetattr(&stdin)?;
        let before = BEFORE.get_or_init(|| now.clone());
        let mut raw = before.clone();
        raw.make_raw();
        // Output processing stays: the guest's lines end as the user's own do.
        raw.output_modes = before.output_modes;
        // Before the terminal changes: a signal that ends the process by its default would leave it raw.
        drop(crate::hv::signal::termination()?);
        crate::hv::signal::on_crash(restore)?;
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            hook(info);
        }));
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self(())))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// One ioctl: async-signal-safe.
fn restore() {
    if let Some(before) = BEFORE.get() {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
    }
}

/// Looks for Ctrl-A x in what the user types. Ctrl-A Ctrl-A is one Ctrl-A for the guest.
#[derive(Debug, Default)]
pub struct Escape {
    armed: bool,
}

/// The prefix key.
const CTRL_A: u8 = 1;

impl Escape {
    /// What of `typed` is for the guest, and whether the user wants to leave.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut guest = Vec::with_capacity(typed.len());
        for byte in typed {
            match (std::mem::take(&mut self.armed), *byte) {
                (true, b'x' | b'X') => return (guest, true),
                (true, CTRL_A) => guest.push(CTRL_A),
                (true, other) => guest.extend([CTRL_A, other]),
                (false, CTRL_A) => self.armed = true,
                (false, other) => guest.push(other),
            }
        }
        (guest, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_x_leaves_even_across_reads() {
        let mut escape = Escape::default();
        assert_eq!(escape.filter(b"ls\n"), (b"ls\n".to_vec(), false));
        assert_eq!(escape.filter(&[b'a', CTRL_A]), (b"a".to_vec(), false));
        assert_eq!(escape.filter(b"x"), (vec![], true));
    }

    #[test]
    fn other_keys_after_the_prefix_reach_the_guest() {
        let mut escape = Escape::default();
        assert_eq!(escape.filter(&[CTRL_A, CTRL_A]), (vec![CTRL_A], false));
        assert_eq!(escape.filter(&[CTRL_A, b'b', b'x']), (vec![CTRL_A, b'b', b'x'], false));
    }
}

//! The terminal in raw mode, so that every key reaches the command; always put back.

use rustix::{
    stdio::stdin,
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr},
};
use std::{
    io, panic,
    sync::{Mutex, Once, PoisonError},
};

static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal of standard input is raw while this lives.
#[derive(Debug)]
pub(super) struct Raw(());

impl Raw {
    /// `None` when standard input is no terminal.
    pub fn enter() -> io::Result<Option<Self>> {
        static HOOK: Once = Once::new();
        if !isatty(stdin()) {
            return Ok(None);
        }
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        // A panic may abort, and then no Drop runs.
        HOOK.call_once(|| {
            let previous = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                restore();
                previous(info);
            }));
        });
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(Self(())))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back if it was changed.
pub(super) fn restore() {
    if let Some(before) = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take()
        && let Err(e) = tcsetattr(stdin(), OptionalActions::Now, &before)
    {
        tracing::warn!("cannot restore the terminal: {e}; hint: type `reset`");
    }
}

//! The console of a Xen domain: its reader and whoever types, beside those of the serial port.

use super::{Running, Token};
use crate::{
    machine::console::{Console, Typed},
    xen::Xen,
};
use event_manager::{EventOps, EventSet, Events};
use std::os::fd::RawFd;

/// The host's side of it.
#[derive(Default)]
pub struct DomainConsole {
    /// Where it goes; nowhere for a machine without one.
    pub console: Console,
    /// What is typed is waited for.
    typing: bool,
    /// Nothing will be typed any more.
    ended: bool,
}

impl From<Console> for DomainConsole {
    fn from(console: Console) -> Self {
        Self {
            console,
            ..Self::default()
        }
    }
}

impl DomainConsole {
    /// The descriptors that are waited for from the start.
    pub(super) fn begin(&mut self, mut watch: impl FnMut(RawFd, Token) -> bool) {
        self.typing = self.console.input_fd().is_some_and(|fd| watch(fd, Token::DomainTyped));
        self.ended = !self.typing;
    }
}

impl Running {
    /// Somebody types. What the guest has no room for stays with them.
    pub(super) fn domain_typed(&mut self, ops: &mut EventOps<'_>) {
        let Some(xen) = &self.parts.platform.xen else { return };
        let room = xen.room_to_type();
        if room == 0 {
            return self.watch_domain_typing(ops, false);
        }
        match self.parts.domain_console.console.read(room) {
            Typed::Bytes(bytes) => {
                let taken = xen.typed(&bytes);
                if taken < bytes.len() {
                    tracing::warn!(lost = bytes.len() - taken, "the guest changed the ring of its console");
                }
            }
            Typed::Leave => self.end(super::Outcome::Quit),
            Typed::End => {
                self.parts.domain_console.ended = true;
                self.watch_domain_typing(ops, false);
            }
        }
    }

    /// What waits for a reader or for room is looked at again.
    pub(super) fn tend_domain_console(&mut self, ops: &mut EventOps<'_>) {
        let Some(xen) = self.parts.platform.xen.as_ref().filter(|xen| xen.has_console()) else {
            return;
        };
        let console = &self.parts.domain_console;
        if let Some(output) = console.console.backlog()
            && !output.is_empty()
            && let Err(error) = output.deliver()
        {
            tracing::warn!("output of the domain's console is lost: {error}");
        }
        xen.attend_console();
        if !console.typing && !console.ended && xen.room_to_type() > 0 {
            self.watch_domain_typing(ops, true);
        }
    }

    /// The last of it, when the processors stand; false: its reader has still to take some.
    pub(super) fn end_domain_console(&self) -> bool {
        self.parts.platform.xen.as_ref().inspect(|xen| xen.attend_console());
        let Some(output) = self.parts.domain_console.console.backlog() else {
            return true;
        };
        if self.impatient {
            output.give_up();
        }
        output.deliver().unwrap_or(true) && self.parts.platform.xen.as_ref().is_none_or(Xen::has_printed_all)
    }

    fn watch_domain_typing(&mut self, ops: &mut EventOps<'_>, on: bool) {
        let console = &mut self.parts.domain_console;
        let Some(fd) = console.console.input_fd() else { return };
        let events = Events::with_data_raw(fd, Token::DomainTyped.data(), EventSet::IN);
        let done = if on { ops.add(events) } else { ops.remove(events) };
        console.typing = on && done.is_ok();
    }
}

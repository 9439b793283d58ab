//! The control conversation about one port (virtio 1.2 section 5.3.6.2): which message is due next.
//!
//! ```text
//! device                              driver
//!                                 <-- DEVICE_READY 1
//! DEVICE_ADD                      -->
//!                                 <-- PORT_READY 1
//! CONSOLE_PORT, RESIZE (console)  -->
//! PORT_NAME (named port)          -->
//! PORT_OPEN 0/1 (host's side)     --> at each change
//!                                 <-- PORT_OPEN 0/1 (guest's side)
//! ```
//!
//! What is due is kept as flags and not as a queue of messages: a driver that asks a thousand times and reads nothing
//! costs nothing.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, little_endian};

/// Sent by the driver: 1 it is ready, 0 it failed.
pub(super) const DEVICE_READY: u16 = 0;
/// Sent by the device: the port exists.
pub(super) const DEVICE_ADD: u16 = 1;
/// Sent by the driver: 1 the port is ready, 0 it failed.
pub(super) const PORT_READY: u16 = 3;
/// Sent by the device: the port is a console.
pub(super) const CONSOLE_PORT: u16 = 4;
/// Sent by the device: size of the console.
pub(super) const RESIZE: u16 = 5;
/// Sent by both: whether somebody has their end of the port open.
pub(super) const PORT_OPEN: u16 = 6;
/// Sent by the device: name of the port.
pub(super) const PORT_NAME: u16 = 7;

/// `struct virtio_console_control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Header {
    pub id: little_endian::U32,
    pub event: little_endian::U16,
    pub value: little_endian::U16,
}
const _: () = assert!(size_of::<Header>() == 8);

/// A message to the driver about one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    Add,
    Console,
    Resize,
    Name,
    Open(bool),
}

/// What the driver has yet to hear about a port.
#[derive(Debug, Default)]
pub(super) struct Announcement {
    add: bool,
    ready: bool,
    kind: bool,
    resize: bool,
    /// The host's side as the driver knows it.
    told_open: bool,
    /// The host's side closed after the driver was told of it open: it must hear the end before the next beginning.
    missed_close: bool,
}

impl Announcement {
    /// The driver starts (over): it knows of no port.
    pub(super) fn device_ready(&mut self) {
        *self = Self {
            add: true,
            ..Self::default()
        };
    }

    /// The driver has (`value` 1) or has not the port we added.
    pub(super) fn port_ready(&mut self, ready: bool) {
        self.ready = ready;
        self.kind = ready;
        self.resize = ready;
    }

    /// The console's size changed.
    pub(super) fn resized(&mut self) {
        self.resize = self.ready;
    }

    /// The host's side closed.
    pub(super) fn closed(&mut self) {
        self.missed_close = self.told_open;
    }

    /// The message that is due: `console` is the kind of port, `sized` whether its size is known, `open` the host's side.
    pub(super) fn due(&self, console: bool, sized: bool, open: bool) -> Option<Message> {
        if self.add {
            return Some(Message::Add);
        }
        if !self.ready {
            return None;
        }
        if self.kind {
            return Some(if console { Message::Console } else { Message::Name });
        }
        if self.resize && console && sized {
            return Some(Message::Resize);
        }
        let open = open && !self.missed_close;
        (open != self.told_open).then_some(Message::Open(open))
    }

    /// `message` is on its way.
    pub(super) fn sent(&mut self, message: Message) {
        match message {
            Message::Add => self.add = false,
            Message::Console | Message::Name => self.kind = false,
            Message::Resize => self.resize = false,
            Message::Open(open) => {
                self.told_open = open;
                self.missed_close &= open;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(announcement: &mut Announcement, console: bool, open: bool) -> Vec<Message> {
        std::iter::from_fn(|| {
            let message = announcement.due(console, true, open)?;
            announcement.sent(message);
            Some(message)
        })
        .collect()
    }

    #[test]
    fn a_port_is_introduced_in_the_order_of_the_specification() {
        use Message::*;
        for (console, rest) in [
            (true, vec![Console, Resize, Open(true)]),
            (false, vec![Name, Open(true)]),
        ] {
            let mut announcement = Announcement::default();
            assert_eq!(drain(&mut announcement, console, true), []);
            announcement.device_ready();
            assert_eq!(drain(&mut announcement, console, true), [Add]);
            announcement.port_ready(true);
            assert_eq!(drain(&mut announcement, console, true), rest);
            assert_eq!(drain(&mut announcement, console, true), []);
        }
    }

    #[test]
    fn a_close_between_two_openings_is_told() {
        let mut announcement = Announcement::default();
        announcement.device_ready();
        announcement.port_ready(true);
        drain(&mut announcement, false, true);
        announcement.closed();
        assert_eq!(
            drain(&mut announcement, false, true),
            [Message::Open(false), Message::Open(true)]
        );
        announcement.closed();
        assert_eq!(drain(&mut announcement, false, false), [Message::Open(false)]);
        announcement.closed();
        assert_eq!(drain(&mut announcement, false, true), [Message::Open(true)]);
    }

    #[test]
    fn a_port_the_driver_failed_to_add_is_left_alone() {
        let mut announcement = Announcement::default();
        announcement.device_ready();
        drain(&mut announcement, true, true);
        announcement.port_ready(false);
        announcement.resized();
        assert_eq!(drain(&mut announcement, true, true), []);
    }
}

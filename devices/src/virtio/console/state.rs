//! The console's work on its queues: which queue is whose, and the control conversation over them.

use super::{
    Active, CONTROL_QUEUE_SIZE, CONTROL_RX, CONTROL_TX, PortKind, State,
    control::{self, Header, Message},
    port::Port,
};
use crate::virtio::{
    Interrupt, Memory, Progress,
    queue::{Next, Virtqueue},
};
use std::io::{Read, Write};
use zerocopy::{FromZeros, IntoBytes};

/// What a queue carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Receive(usize),
    Transmit(usize),
    ControlReceive,
    ControlTransmit,
}

/// Role of queue `index` (virtio 1.2 5.3.2).
pub(super) fn role(index: u16) -> Role {
    let index = usize::from(index);
    match (index, index % 2) {
        (CONTROL_RX, _) => Role::ControlReceive,
        (CONTROL_TX, _) => Role::ControlTransmit,
        (0 | 1, 0) => Role::Receive(0),
        (0 | 1, _) => Role::Transmit(0),
        (_, 0) => Role::Receive(index / 2 - 1),
        _ => Role::Transmit(index / 2 - 1),
    }
}

/// Receive queue of `port`; its transmit queue follows.
pub(super) fn receive_queue(port: usize) -> usize {
    if port == 0 { 0 } else { 2 * port + 2 }
}

impl State {
    /// A port with its queues, once the driver can use it.
    pub(super) fn port(&mut self, number: usize) -> Option<(&mut Port, &mut Virtqueue, &mut Virtqueue)> {
        let port = self.ports.get_mut(number)?.as_mut()?;
        let active = self.active.as_mut().filter(|active| active.multiport || number == 0)?;
        match active.queues.get_mut(receive_queue(number)..)? {
            [receive, transmit, ..] => Some((port, receive, transmit)),
            _ => None,
        }
    }

    fn control(&mut self, queue: usize) -> Option<&mut Virtqueue> {
        self.active
            .as_mut()
            .filter(|active| active.multiport)?
            .queues
            .get_mut(queue)
    }

    pub(super) fn serve(&mut self, index: u16, mem: &Memory) -> Progress {
        match role(index) {
            Role::Receive(port) => {
                if let Some((port, receive, _)) = self.port(port) {
                    port.offer(receive, mem);
                }
                Progress::Done
            }
            Role::Transmit(port) => match self.port(port) {
                Some((port, _, transmit)) => port.output(transmit, mem),
                None => Progress::Done,
            },
            Role::ControlReceive => {
                self.send_control(mem);
                Progress::Done
            }
            Role::ControlTransmit => {
                let progress = self.receive_control(mem);
                self.send_control(mem);
                progress
            }
        }
    }

    /// Takes the driver's messages.
    fn receive_control(&mut self, mem: &Memory) -> Progress {
        for _ in 0..CONTROL_QUEUE_SIZE {
            let Some(queue) = self.control(CONTROL_TX) else {
                return Progress::Done;
            };
            let chain = match queue.take_next(mem) {
                Next::Chain(chain) => chain,
                Next::LookAgain => continue,
                Next::Nothing => return Progress::Done,
            };
            let head = chain.head_index();
            if queue.bad_line(&chain).is_some() {
                // There is no status in which it could be told.
                queue.complete(mem, head, 0);
                continue;
            }
            let Some(mut from) = queue.reader(mem, chain) else {
                return Progress::Done;
            };
            let mut message = Header::new_zeroed();
            let whole = from.read_exact(message.as_mut_bytes()).is_ok();
            if queue.in_doubt() {
                queue.put_back();
                return Progress::More;
            }
            queue.complete(mem, head, 0);
            if (!whole || !self.hear(message, mem))
                && let Some(count) = self.complaints.hit()
            {
                tracing::warn!(
                    count,
                    ?message,
                    whole,
                    "virtio console driver sent a control message that leads nowhere"
                );
            }
        }
        Progress::More
    }

    /// Acts on one message of the driver; whether it made sense.
    fn hear(&mut self, message: Header, mem: &Memory) -> bool {
        let value = message.value.get();
        if message.event.get() == control::DEVICE_READY {
            // The port number means nothing here.
            if value == 1 {
                self.ports
                    .iter_mut()
                    .flatten()
                    .for_each(|port| port.announcement.device_ready());
            }
            // 0: it failed to start, which is worth the same line in the log as nonsense.
            return value == 1;
        }
        let Some((port, receive, _)) = usize::try_from(message.id.get()).ok().and_then(|id| self.port(id)) else {
            return false;
        };
        match message.event.get() {
            control::PORT_READY => port.announcement.port_ready(value == 1),
            control::PORT_OPEN => {
                port.set_guest_open(value == 1);
                port.offer(receive, mem);
            }
            _ => return false,
        }
        true
    }

    /// Tells the driver what is due, as far as it gave buffers.
    pub(super) fn send_control(&mut self, mem: &Memory) {
        while let Some((number, message)) = self.due() {
            let bytes = self.encode(number, message);
            let Some(queue) = self.control(CONTROL_RX) else { return };
            if queue.in_doubt() {
                return;
            }
            let Some(chain) = queue.pop(mem) else {
                match queue.listen(mem) {
                    true => continue,
                    false => return,
                }
            };
            let head = chain.head_index();
            let Some(mut to) = queue.writer(mem, chain) else { return };
            if to.write_all(&bytes).is_err() {
                return queue.fail(format_args!("a control buffer is smaller than {} bytes", bytes.len()));
            }
            queue.complete(mem, head, bytes.len());
            if let Some(Some(port)) = self.ports.get_mut(number) {
                port.announcement.sent(message);
            }
        }
    }

    fn due(&self) -> Option<(usize, Message)> {
        let sized = self.size.is_some();
        let of = |port: &Port| port.announcement.due(port.is_console(), sized, port.host_open);
        self.ports
            .iter()
            .enumerate()
            .find_map(|(number, port)| Some((number, of(port.as_ref()?)?)))
    }

    fn encode(&self, number: usize, message: Message) -> Vec<u8> {
        let (event, value) = match message {
            Message::Add => (control::DEVICE_ADD, 1),
            Message::Console => (control::CONSOLE_PORT, 1),
            Message::Resize => (control::RESIZE, 0),
            Message::Name => (control::PORT_NAME, 1),
            Message::Open(open) => (control::PORT_OPEN, u16::from(open)),
        };
        let id = u32::try_from(number).unwrap_or(u32::MAX).into();
        let mut bytes = Header {
            id,
            event: event.into(),
            value: value.into(),
        }
        .as_bytes()
        .to_vec();
        match (message, self.ports.get(number), self.size) {
            // virtio 1.2 5.3.6.2: the name follows without a terminating NUL.
            (
                Message::Name,
                Some(Some(Port {
                    kind: PortKind::Named(name),
                    ..
                })),
                _,
            ) => bytes.extend(name.as_bytes()),
            // `struct virtio_console_resize`: columns, then rows.
            (Message::Resize, _, Some((columns, rows))) => {
                bytes.extend([columns, rows].iter().flat_map(|n| n.to_le_bytes()));
            }
            _ => {}
        }
        bytes
    }
}

impl Active {
    /// Marks what was done for the driver; the interrupt to pulse, if it wants one.
    pub(super) fn settle(&mut self, mem: &Memory) -> Option<Interrupt> {
        let mut wanted = false;
        for queue in &mut self.queues {
            wanted |= queue.take_signal(mem);
        }
        wanted.then(|| self.interrupt.clone())
    }
}

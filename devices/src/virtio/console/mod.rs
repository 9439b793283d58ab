//! Console device (virtio 1.2 section 5.3) with the MULTIPORT feature: a console for the user, byte channels for programs.
//!
//! A port's number is its place in the configuration and guest ABI. Port 0 is the one a driver without MULTIPORT uses.
//! The queues are those of section 5.3.2: receive and transmit of port 0, receive and transmit of control messages, then
//! receive and transmit of each further port.
//!
//! ```text
//! host bytes --input--> receive buffers        full: refused, PortSink::input_room when the guest made room
//! transmit buffers --PortSink::write--> host   full: chain stays,  Console::output_ready when the host made room
//! ```
//!
//! Everything here runs on the machine's loop, except for register accesses by vCPU threads. One lock; sinks are called
//! under it and must not call back. A guest kernel spins until the console's output is taken (hvc writes with spinlocks
//! held), so the sink of a console port drops rather than refuses.

mod control;
mod port;
mod state;
#[cfg(test)]
mod tests;

use super::{
    Activation, Interrupt, Memory, Occasional, Progress, VirtioDevice, deferred::copy_config, lock, queue::Virtqueue,
};
use crate::GuestMemory;
use port::Port;
use state::receive_queue;
use std::sync::Mutex;
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use vm_memory::GuestAddressSpace;

/// VIRTIO_CONSOLE_F_SIZE: the configuration space has the console's size.
const F_SIZE: u64 = 1 << 0;
/// VIRTIO_CONSOLE_F_MULTIPORT: there are control queues and further ports.
const F_MULTIPORT: u64 = 1 << 1;
/// Entries of a port's queues. Linux gives each receive entry a page.
const PORT_QUEUE_SIZE: u16 = 32;
/// Entries of the control queues.
const CONTROL_QUEUE_SIZE: u16 = 16;
/// Queue of control messages to the driver.
const CONTROL_RX: usize = 2;
/// Queue of control messages from the driver.
const CONTROL_TX: usize = 3;

/// Where the guest's bytes go. Called under the device's lock: must not call the device.
pub trait PortSink: Send {
    /// Takes what it can of `data` and says how much; after less than all, nothing comes until [`Console::output_ready`].
    fn write(&mut self, data: &[u8]) -> usize;
    /// Input that was refused would now be taken, at least in part.
    fn input_room(&mut self);
    /// A guest program opened or closed the port.
    fn guest_open(&mut self, open: bool);
}

/// What a port is to the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortKind {
    /// A console (hvc).
    Console,
    /// A byte channel that programs find by this name.
    Named(String),
}

/// A port asked for.
pub struct PortConfig {
    /// What it is to the guest.
    pub kind: PortKind,
    /// Where its output goes.
    pub sink: Box<dyn PortSink>,
    /// Whether the host's side is open from the start.
    pub open: bool,
}

/// The device.
pub struct Console {
    queue_sizes: Vec<u16>,
    state: Mutex<State>,
}

struct State {
    ports: Vec<Option<Port>>,
    /// Columns and rows, when known.
    size: Option<(u16, u16)>,
    generation: u32,
    complaints: Occasional,
    active: Option<Active>,
}

struct Active {
    queues: Vec<Virtqueue>,
    memory: GuestMemory,
    interrupt: Interrupt,
    multiport: bool,
}

impl Console {
    /// A device with these ports; a place that is `None` keeps its number and is never announced.
    pub fn new(ports: Vec<Option<PortConfig>>) -> Self {
        let mut queue_sizes = vec![PORT_QUEUE_SIZE, PORT_QUEUE_SIZE, CONTROL_QUEUE_SIZE, CONTROL_QUEUE_SIZE];
        queue_sizes.resize(receive_queue(ports.len().max(1)), PORT_QUEUE_SIZE);
        let ports = ports.into_iter().map(|port| port.map(Port::new)).collect();
        let complaints = Occasional::default();
        Self {
            queue_sizes,
            state: Mutex::new(State {
                ports,
                size: None,
                generation: 0,
                complaints,
                active: None,
            }),
        }
    }

    /// Gives host bytes to the guest; how many were taken. After a refusal [`PortSink::input_room`] follows.
    pub fn input(&self, port: usize, data: &[u8]) -> usize {
        self.with(|state, mem| {
            let Some((port, receive, _)) = state.port(port) else {
                return 0;
            };
            port.input(receive, mem, data)
        })
        .unwrap_or_else(|| self.starve(port, 0))
    }

    /// Whether [`Self::input`] would take a byte; if not, [`PortSink::input_room`] follows.
    pub fn wants_input(&self, port: usize) -> bool {
        self.with(|state, mem| {
            let Some((port, receive, _)) = state.port(port) else {
                return false;
            };
            port.wants_input(receive, mem)
        })
        .unwrap_or_else(|| self.starve(port, false))
    }

    /// Notes that `port` refused input because there is no driver yet; it will be told when one comes.
    fn starve<R>(&self, port: usize, refusal: R) -> R {
        if let Some(Some(port)) = lock(&self.state).ports.get_mut(port) {
            port.starve();
        }
        refusal
    }

    /// The sink of `port` can take bytes again. On [`Progress::More`], call again after others had their turn.
    pub fn output_ready(&self, port: usize) -> Progress {
        self.with(|state, mem| {
            let Some((port, _, transmit)) = state.port(port) else {
                return Progress::Done;
            };
            port.resume();
            port.output(transmit, mem)
        })
        .unwrap_or(Progress::Done)
    }

    /// The host's side of `port` opened or closed: the guest's reader sees the end of the stream, its writer waits, and
    /// output that was under way is dropped. On [`Progress::More`], call [`Self::output_ready`].
    pub fn set_open(&self, port: usize, open: bool) -> Progress {
        let mut state = lock(&self.state);
        if let Some(Some(port)) = state.ports.get_mut(port) {
            port.set_host_open(open);
        }
        drop(state);
        self.with(|state, mem| {
            state.send_control(mem);
            state
                .port(port)
                .map_or(Progress::Done, |(port, _, transmit)| port.output(transmit, mem))
        })
        .unwrap_or(Progress::Done)
    }

    /// The user's terminal has this size.
    pub fn resize(&self, columns: u16, rows: u16) {
        let mut state = lock(&self.state);
        if state.size == Some((columns, rows)) {
            return;
        }
        state.size = Some((columns, rows));
        state.generation = state.generation.wrapping_add(1);
        for port in state.ports.iter_mut().flatten() {
            port.announcement.resized();
        }
        let interrupt = state.active.as_ref().map(|active| active.interrupt.clone());
        if let Some(interrupt) = &interrupt {
            interrupt.mark_config_changed();
        }
        drop(state);
        if let Some(interrupt) = interrupt {
            interrupt.pulse();
        }
        self.with(State::send_control);
    }

    /// Works on an active device, then interrupts the driver if something was done for it.
    fn with<R>(&self, act: impl FnOnce(&mut State, &Memory) -> R) -> Option<R> {
        let mut state = lock(&self.state);
        let memory = state.active.as_ref()?.memory.memory();
        let result = act(&mut state, &memory);
        let raise = state.active.as_mut().and_then(|active| active.settle(&memory));
        drop(state);
        if let Some(interrupt) = raise {
            interrupt.pulse();
        }
        Some(result)
    }
}

impl VirtioDevice for Console {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn features(&self) -> u64 {
        F_SIZE | F_MULTIPORT
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    /// virtio 1.2 5.3.4: cols, rows, max_nr_ports, emerg_wr.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let state = lock(&self.state);
        let (columns, rows) = state.size.unwrap_or_default();
        let ports = u32::try_from(state.ports.len().max(1)).unwrap_or(u32::MAX);
        let space = [
            &columns.to_le_bytes()[..],
            &rows.to_le_bytes(),
            &ports.to_le_bytes(),
            &[0; 4],
        ]
        .concat();
        copy_config(&space, offset, data);
    }

    fn config_generation(&self) -> u32 {
        lock(&self.state).generation
    }

    fn activate(&self, activation: Activation) {
        let Activation {
            queues,
            memory,
            interrupt,
            features,
        } = activation;
        let multiport = features & F_MULTIPORT != 0;
        let mut state = lock(&self.state);
        state.active = Some(Active {
            queues,
            memory,
            interrupt,
            multiport,
        });
        if !multiport && let Some(Some(port)) = state.ports.first_mut() {
            // Such a driver has one port, always open, and no way to say so.
            port.set_guest_open(true);
        }
    }

    fn reset(&self) {
        let mut state = lock(&self.state);
        state.active = None;
        state.ports.iter_mut().flatten().for_each(Port::reset);
    }

    fn process_queue(&self, index: u16) -> Progress {
        self.with(|state, mem| state.serve(index, mem))
            .unwrap_or(Progress::Done)
    }
}

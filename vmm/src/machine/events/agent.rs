//! The guest agent's channel: bytes between its client's socket and the console device, each read no faster than the other takes them.

use super::{AGENT_PORT, CHUNK, Running, Token};
use crate::machine::channel::Channel;
use devices::virtio::{Progress, console};
use event_manager::{EventOps, EventSet, Events};
use std::sync::Arc;
use vmm_sys_util::eventfd::EventFd;

/// The agent's channel: socket, device, and the bell for room in the guest.
pub struct Agent {
    /// Host side.
    pub channel: Channel,
    /// Guest side.
    pub device: Arc<console::Console>,
    /// Rung when the guest takes input again.
    pub room: EventFd,
    /// Bytes of the client that the guest has no room for yet; while there are some, the client is not read.
    pub pending: Vec<u8>,
}

impl Running {
    pub(super) fn agent_client(&mut self, events: EventSet) {
        let Some(agent) = &self.parts.agent else { return };
        if events.contains(EventSet::OUT) && agent.channel.is_stalled() {
            agent.channel.clear_stall();
            let progress = agent.device.output_ready(AGENT_PORT);
            self.flush_agent(progress);
        }
        if events.intersects(EventSet::IN | EventSet::HANG_UP | EventSet::ERROR) {
            self.agent_input();
        }
    }

    /// Moves bytes from the client to the guest while both keep up; at most one chunk waits here.
    pub(super) fn agent_input(&mut self) {
        let Some(agent) = &mut self.parts.agent else { return };
        loop {
            let taken = agent.device.input(AGENT_PORT, &agent.pending);
            agent.pending.drain(..taken);
            if !agent.pending.is_empty() {
                return;
            }
            let mut buffer = vec![0; CHUNK];
            match agent.channel.read(&mut buffer) {
                None => {
                    self.client_gone = true;
                    return;
                }
                Some(0) => return,
                Some(n) => {
                    buffer.truncate(n);
                    agent.pending = buffer;
                }
            }
        }
    }

    pub(super) fn flush_agent(&self, mut progress: Progress) {
        while let (Progress::More, Some(agent)) = (progress, &self.parts.agent) {
            progress = agent.device.output_ready(AGENT_PORT);
        }
    }

    /// Brings what is waited for on the client's socket in line with who can take what.
    pub(super) fn refresh_client(&mut self, ops: &mut EventOps<'_>) {
        let Some(agent) = &mut self.parts.agent else { return };
        if self.client_gone || agent.channel.is_broken() {
            // Out of the epoll set before the descriptor closes: its number may come back as another client's.
            if let Some((fd, _)) = self.client.take() {
                let _ = ops.remove(Events::empty_raw(fd));
            }
            self.client_gone = false;
            agent.pending.clear();
            agent.channel.hang_up();
            let progress = agent.device.set_open(AGENT_PORT, false);
            return self.flush_agent(progress);
        }
        let Some(fd) = agent.channel.client_fd() else { return };
        let mut wanted = EventSet::empty();
        if agent.pending.is_empty() {
            wanted |= EventSet::IN;
        }
        if agent.channel.is_stalled() {
            wanted |= EventSet::OUT;
        }
        let events = Events::with_data_raw(fd, Token::AgentClient.data(), wanted);
        let done = match self.client {
            Some((_, now)) if now == wanted => return,
            Some(_) => ops.modify(events),
            None => ops.add(events),
        };
        match done {
            Ok(()) => self.client = Some((fd, wanted)),
            Err(e) => tracing::warn!("the agent channel's client is not watched: {e}"),
        }
    }
}

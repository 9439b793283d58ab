//! Frames on their way to the host: one queue, one writer.
//!
//! Whoever answers a request never waits for the host to read (or the two could wait for each other); whoever carries a
//! command's output does, so a command is as fast as its reader. When a new host takes over a connection, everything that
//! was meant for the one before is dropped, also what its commands have yet to say.

use agent_protocol::{FromAgent, send};
use std::{
    collections::VecDeque,
    io::Write,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

/// Bytes of output that may wait.
const LIMIT: usize = 1 << 20;

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<FromAgent>,
    bytes: usize,
    closed: bool,
    /// Counts the hosts that took over.
    epoch: u64,
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    changed: Condvar,
}

fn weight(frame: &FromAgent) -> usize {
    match frame {
        FromAgent::Stdout { data, .. } | FromAgent::Stderr { data, .. } | FromAgent::FileData { data, .. } => {
            data.len()
        }
        _ => 0,
    }
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A way in for what is meant for the present host.
    pub fn sender(self: &Arc<Self>) -> Sender {
        Sender {
            outbox: Arc::clone(self),
            epoch: self.lock().epoch,
        }
    }

    /// A new host: drops what waits, and from now on what senders of before bring.
    pub fn renew(&self) {
        let mut queue = self.lock();
        *queue = Queue {
            closed: queue.closed,
            epoch: queue.epoch.wrapping_add(1),
            ..Queue::default()
        };
        self.changed.notify_all();
    }

    /// Drops what waits and all that comes.
    pub fn close(&self) {
        *self.lock() = Queue {
            closed: true,
            ..Queue::default()
        };
        self.changed.notify_all();
    }

    /// Writes frames until the queue is closed or the channel fails.
    pub fn write_all(&self, mut to: impl Write) {
        loop {
            let queue = self
                .changed
                .wait_while(self.lock(), |q| q.frames.is_empty() && !q.closed);
            let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
            let Some(frame) = queue.frames.pop_front() else { return };
            queue.bytes -= weight(&frame);
            self.changed.notify_all();
            drop(queue);
            if send(&mut to, &frame).is_err() {
                return self.close();
            }
        }
    }
}

/// One host's way in.
#[derive(Debug, Clone)]
pub struct Sender {
    outbox: Arc<Outbox>,
    epoch: u64,
}

impl Sender {
    fn put(&self, mut queue: MutexGuard<'_, Queue>, frame: FromAgent) {
        if !queue.closed && queue.epoch == self.epoch {
            queue.bytes += weight(&frame);
            queue.frames.push_back(frame);
            self.outbox.changed.notify_all();
        }
    }

    /// Queues an answer at once.
    pub fn answer(&self, frame: FromAgent) {
        self.put(self.outbox.lock(), frame);
    }

    /// Queues output when there is room.
    pub fn output(&self, frame: FromAgent) {
        let full = |q: &mut Queue| q.bytes > LIMIT && !q.closed && q.epoch == self.epoch;
        let queue = self.outbox.changed.wait_while(self.outbox.lock(), full);
        self.put(queue.unwrap_or_else(PoisonError::into_inner), frame);
    }
}

//! Frames on their way to the host: one queue, one writer.
//!
//! Whoever answers a request never waits for the host to read (or the two could wait for each other); whoever carries a
//! command's output does, so a command is as fast as its reader.

use agent_protocol::{FromAgent, send};
use std::{
    collections::VecDeque,
    io::Write,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// Bytes of output that may wait.
const LIMIT: usize = 1 << 20;

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<FromAgent>,
    bytes: usize,
    closed: bool,
}

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

    fn put(&self, mut queue: MutexGuard<'_, Queue>, frame: FromAgent) {
        if !queue.closed {
            queue.bytes += weight(&frame);
            queue.frames.push_back(frame);
            self.changed.notify_all();
        }
    }

    /// Queues an answer at once.
    pub fn answer(&self, frame: FromAgent) {
        self.put(self.lock(), frame);
    }

    /// Queues output when there is room.
    pub fn output(&self, frame: FromAgent) {
        let queue = self.changed.wait_while(self.lock(), |q| q.bytes > LIMIT && !q.closed);
        self.put(queue.unwrap_or_else(PoisonError::into_inner), frame);
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

//! Where vCPU threads stand while the machine is paused.
//!
//! ```text
//! owner:  close() ... all_stand(n)? ... open()
//! thread:          pass(): counted, then waits        goes on
//! ```
//! A gate that is closed again before a thread has left counts that thread anew.

use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

/// The gate of one machine; open at first.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// The same as in the state, for a look without the lock.
    closed: AtomicBool,
    state: Mutex<State>,
    opened: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// How often it has been closed.
    turn: u64,
    /// Threads that have arrived in this turn.
    standing: usize,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on threads stay. The caller kicks those that are in the guest.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        if state.closed {
            // Those that stand are counted, and nobody wakes them to be counted again.
            return;
        }
        state.closed = true;
        state.turn += 1;
        state.standing = 0;
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Lets everyone go on.
    pub(super) fn open(&self) {
        let mut state = self.lock();
        state.closed = false;
        self.closed.store(false, Ordering::SeqCst);
        self.opened.notify_all();
    }

    /// Whether threads are to come here.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Threads that stand here now.
    pub(super) fn standing(&self) -> usize {
        let state = self.lock();
        if state.closed { state.standing } else { 0 }
    }

    /// A thread on its way to the guest. While the gate is closed it waits; `arrived` is called once it counts as standing.
    /// True: it waited.
    pub(super) fn pass(&self, arrived: impl Fn()) -> bool {
        if !self.closed.load(Ordering::SeqCst) {
            return false;
        }
        let mut state = self.lock();
        let mut waited = false;
        while state.closed {
            let turn = state.turn;
            state.standing += 1;
            waited = true;
            arrived();
            let same = |s: &mut State| s.closed && s.turn == turn;
            state = self
                .opened
                .wait_while(state, same)
                .unwrap_or_else(PoisonError::into_inner);
        }
        waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{Arc, atomic::AtomicU64, mpsc},
        thread,
        time::{Duration, Instant},
    };

    #[test]
    fn closed_gate_holds_every_thread_and_open_gate_none() {
        let (gate, rounds, stop) = (
            Arc::new(Gate::default()),
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (arrived, arrivals) = mpsc::channel();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (gate, rounds, stop, arrived) = (gate.clone(), rounds.clone(), stop.clone(), arrived.clone());
                thread::spawn(move || {
                    while !stop.load(Ordering::SeqCst) {
                        gate.pass(|| arrived.send(()).expect("somebody counts"));
                        rounds.fetch_add(1, Ordering::SeqCst);
                        thread::yield_now();
                    }
                })
            })
            .collect();
        // Closed again right away, before the threads may have left.
        for _ in 0..200 {
            gate.close();
            let deadline = Instant::now() + Duration::from_secs(20);
            while gate.standing() < 4 {
                let left = deadline.saturating_duration_since(Instant::now());
                arrivals.recv_timeout(left).expect("every thread arrives");
            }
            let before = rounds.load(Ordering::SeqCst);
            thread::yield_now();
            assert_eq!((gate.standing(), rounds.load(Ordering::SeqCst)), (4, before));
            gate.open();
            assert_eq!(gate.standing(), 0);
        }
        stop.store(true, Ordering::SeqCst);
        gate.open();
        threads.into_iter().for_each(|t| t.join().unwrap());
    }

    #[test]
    fn open_gate_is_passed_without_a_word() {
        assert!(!Gate::default().pass(|| unreachable!("nobody stands at an open gate")));
    }
}

//! What is left to run, shared by the hosts that run it, and what follows when one of them fails.

use crate::test::{Tally, executables::Executable};
use std::collections::VecDeque;

/// Nested hosts of a tier that may fail; where so many do, something else is wrong.
const MOST_FAILURES: usize = 4;

/// Programs that wait, and results.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Executable>,
    /// Programs that a host has failed in.
    failures: Vec<String>,
    /// Of everything that has ended.
    pub tally: Tally,
}

impl Queue {
    /// All of them, in order.
    pub fn new(executables: &[Executable]) -> Self {
        Self {
            waiting: executables.iter().cloned().collect(),
            ..Self::default()
        }
    }

    /// The next one.
    pub fn take(&mut self) -> Option<Executable> {
        self.waiting.pop_front()
    }

    /// A host failed while it ran `program`, which gets one second host. Counts of the interrupted run are not of a whole one
    /// and must not have been added.
    pub fn host_failed_in(&mut self, program: Executable) {
        let name = program.name.clone();
        let before = self.failures.contains(&name);
        self.failures.push(name.clone());
        if before {
            println!("the nested host failed a second time in {name}");
            self.tally
                .fail(&name, "error: the nested host failed twice while it ran");
        } else {
            let what = format!("the nested host failed, which says nothing of the tests: {name} again");
            println!("RETRY: {what}");
            self.tally.retries.push(what);
            self.waiting.push_front(program);
        }
        if self.failures.len() >= MOST_FAILURES {
            self.give_up(&format!(
                "error: it did not run: {MOST_FAILURES} nested hosts had failed"
            ));
        }
    }

    /// Nothing more is run; what waits has failed.
    pub fn give_up(&mut self, why: &str) {
        for program in self.waiting.drain(..) {
            self.tally.fail(&program.name, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn program(name: &str) -> Executable {
        Executable {
            name: name.to_owned(),
            kind: "test".to_owned(),
            path: PathBuf::new(),
            folder: PathBuf::new(),
            tests: Vec::new(),
        }
    }

    fn failed(queue: &Queue) -> Vec<&str> {
        queue
            .tally
            .failures
            .iter()
            .map(|failure| failure.name.as_str())
            .collect()
    }

    fn queue(names: &[&str]) -> Queue {
        Queue::new(&names.iter().map(|name| program(name)).collect::<Vec<_>>())
    }

    fn name(queue: &mut Queue) -> Option<String> {
        queue.take().map(|program| program.name)
    }

    #[test]
    fn program_that_a_host_fails_in_is_run_once_more_and_no_other_loses_by_it() {
        let mut queue = queue(&["a", "b", "c"]);
        let (a, b) = (queue.take().unwrap(), queue.take().unwrap());
        queue.host_failed_in(a.clone());
        assert_eq!((queue.tally.failed, queue.tally.retries.len()), (0, 1));
        assert_eq!(name(&mut queue).unwrap(), "a", "first of all, on another host");
        queue.host_failed_in(b);
        queue.host_failed_in(a);
        assert_eq!(failed(&queue), ["a"], "its second host");
        assert_eq!(name(&mut queue).unwrap(), "b");
        assert_eq!(name(&mut queue).unwrap(), "c");
        assert_eq!((name(&mut queue), queue.tally.failed), (None, 1));
    }

    #[test]
    fn hosts_that_fail_have_an_end_and_what_is_left_has_failed() {
        let mut queue = queue(&["a", "b", "c", "d", "e", "f"]);
        for _ in 0..2 {
            let (one, other) = (queue.take().unwrap(), queue.take().unwrap());
            queue.host_failed_in(one);
            queue.host_failed_in(other);
        }
        assert_eq!(name(&mut queue), None);
        assert_eq!(failed(&queue), ["b", "a", "c", "d", "e", "f"]);
    }
}

//! Operations as the loop keeps them: all that are under way and the last [`KEPT`] that ended.

use crate::control::{
    ControlError, ErrorKind, GuestAction, GuestStep, OperationInfo, OperationKind, OperationResult, OperationState,
};
use std::collections::VecDeque;

/// Ended operations that are remembered.
const KEPT: usize = 256;
/// Steps of one operation that are remembered; a guest may take any number of them.
const STEPS: usize = 64;

/// The operations of a machine, oldest first.
#[derive(Debug, Default)]
pub struct Operations {
    last: u64,
    list: VecDeque<OperationInfo>,
}

impl Operations {
    /// Begins one.
    pub fn begin(&mut self, kind: OperationKind, target: String, now_ms: u64) -> u64 {
        self.last += 1;
        self.list.push_back(OperationInfo {
            id: self.last,
            kind,
            target,
            state: OperationState::Running,
            started_ms: now_ms,
            ended_ms: None,
            steps: vec![],
            result: None,
            error: None,
        });
        self.last
    }

    /// Notes what the guest did, unless it is what it did last; tells whether it was news.
    pub fn step(&mut self, id: u64, action: GuestAction, meaning: String, now_ms: u64) -> bool {
        let Some(operation) = self.list.iter_mut().find(|o| o.id == id) else {
            return false;
        };
        let known = operation.steps.last().is_some_and(|step| step.action == action);
        let news = !known && operation.steps.len() < STEPS;
        if news {
            operation.steps.push(GuestStep {
                at_ms: now_ms,
                action,
                meaning,
            });
        }
        news
    }

    /// Ends one, and forgets the oldest that ended when there are too many.
    pub fn end(&mut self, id: u64, state: OperationState, outcome: Result<OperationResult, ControlError>, now_ms: u64) {
        if let Some(operation) = self.list.iter_mut().find(|o| o.id == id) {
            operation.state = state;
            operation.ended_ms = Some(now_ms);
            match outcome {
                Ok(result) => operation.result = Some(result),
                Err(error) => operation.error = Some(error),
            }
        }
        let ended = |o: &OperationInfo| o.state != OperationState::Running;
        let count = self.list.iter().filter(|o| ended(o)).count();
        if count > KEPT
            && let Some(oldest) = self.list.iter().position(ended)
        {
            self.list.remove(oldest);
        }
    }

    /// One of them.
    pub fn get(&self, id: u64) -> Result<&OperationInfo, ControlError> {
        self.list.iter().find(|o| o.id == id).ok_or_else(|| {
            let hint = format!("the last {KEPT} that ended are remembered");
            let why = format!("there is no operation {id}");
            ControlError::new(ErrorKind::NotFound, why).field("id").hint(hint)
        })
    }

    /// All of them.
    pub fn list(&self) -> Vec<OperationInfo> {
        self.list.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(operations: &mut Operations) -> u64 {
        let id = operations.begin(OperationKind::NvdimmAdd, "a".into(), 1);
        let why = ControlError::new(ErrorKind::Internal, "no");
        operations.end(id, OperationState::Failed, Err(why), 2);
        id
    }

    #[test]
    fn operations_under_way_are_never_forgotten() {
        let mut operations = Operations::default();
        let running = operations.begin(OperationKind::NvdimmAdd, "a".into(), 0);
        let first = ended(&mut operations);
        for _ in 0..KEPT {
            ended(&mut operations);
        }
        assert_eq!(operations.list().len(), KEPT + 1);
        assert_eq!(operations.get(running).unwrap().state, OperationState::Running);
        assert_eq!(operations.get(first).unwrap_err().kind, ErrorKind::NotFound);
    }

    #[test]
    fn a_step_is_noted_once_and_a_busy_guest_fills_nothing() {
        let mut operations = Operations::default();
        let id = operations.begin(OperationKind::NvdimmAdd, "a".into(), 0);
        let seen = |generation| GuestAction::FitSeen { generation, wanted: 9 };
        for generation in 0..200 {
            operations.step(id, seen(generation), String::new(), 5);
            operations.step(id, seen(generation), String::new(), 6);
        }
        let steps = &operations.get(id).unwrap().steps;
        assert_eq!(steps.len(), STEPS);
        assert!(steps.iter().all(|step| step.at_ms == 5));
    }
}

//! What a worker remembers of tasks that the index may list although nobody can claim them: its
//! own that are running, those it has just finished, and those it has learnt others hold.
//!
//! Memory only saves writes; the claim's condition decides. It is therefore bounded, and what is
//! forgotten costs one refused claim.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use tokio::time::Instant;

use crate::task::TaskId;

/// No more tasks than these are remembered beside the running ones.
const LIMIT: usize = 100_000;

/// Nothing is remembered longer than this, whatever a lease or a `due` says.
const LONGEST: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, Default)]
pub(super) struct Known {
    running: BTreeSet<TaskId>,
    until: BTreeMap<TaskId, Instant>,
    order: BTreeSet<(Instant, TaskId)>,
    /// When tasks are to be tried again that failed here.
    retries: BinaryHeap<Reverse<Instant>>,
}

impl Known {
    /// The task is ours from now on, until it has ended.
    pub(super) fn runs(&mut self, id: TaskId) {
        self.running.insert(id);
    }

    /// The task is no longer ours; claiming it is of no use before `until`, if that is given.
    pub(super) fn ended(&mut self, id: TaskId, until: Option<Instant>) {
        self.running.remove(&id);
        let Some(until) = until else { return };
        let until = until.min(Instant::now() + LONGEST);
        if let Some(before) = self.until.insert(id.clone(), until) {
            self.order.remove(&(before, id.clone()));
        }
        self.order.insert((until, id));
        while self.order.len() > LIMIT {
            self.forget_first();
        }
    }

    /// A task is to be tried again at this moment.
    pub(super) fn tried_again(&mut self, at: Instant) {
        if self.retries.len() < LIMIT {
            self.retries.push(Reverse(at));
        }
    }

    /// How many tasks wait to be tried again.
    pub(super) fn waiting_to_retry(&mut self, now: Instant) -> usize {
        while self.retries.peek().is_some_and(|Reverse(at)| *at <= now) {
            self.retries.pop();
        }
        self.retries.len()
    }

    /// Whether claiming the task is of no use.
    pub(super) fn is_taken(&self, id: &TaskId, now: Instant) -> bool {
        self.running.contains(id) || self.until.get(id).is_some_and(|until| *until > now)
    }

    /// Forgets what is of no use any more.
    pub(super) fn forget(&mut self, now: Instant) {
        while self.order.first().is_some_and(|(until, _)| *until <= now) {
            self.forget_first();
        }
    }

    /// How many entries of the index may be in the way.
    pub(super) fn len(&self) -> usize {
        self.running.len() + self.until.len()
    }

    fn forget_first(&mut self) {
        if let Some((_, id)) = self.order.pop_first() {
            self.until.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_running_task_is_taken_until_it_ends_and_a_foreign_one_until_its_lease_does() {
        let (mut known, now, id) = (Known::default(), Instant::now(), TaskId::named("a"));
        assert!(!known.is_taken(&id, now));
        known.runs(id.clone());
        assert!(known.is_taken(&id, now + seconds(999)));
        known.ended(id.clone(), Some(now + seconds(5)));
        assert!(known.is_taken(&id, now + seconds(4)));
        assert!(!known.is_taken(&id, now + seconds(5)));
        known.forget(now + seconds(5));
        assert_eq!(known.len(), 0);
    }

    #[test]
    fn what_is_learnt_last_counts_and_nothing_is_believed_for_ever() {
        let (mut known, now, id) = (Known::default(), Instant::now(), TaskId::named("a"));
        known.ended(id.clone(), Some(now + seconds(500)));
        known.ended(id.clone(), Some(now + seconds(5)));
        assert!(!known.is_taken(&id, now + seconds(6)));
        known.ended(id.clone(), Some(now + seconds(1_000_000)));
        assert!(!known.is_taken(&id, now + LONGEST + seconds(1)));
        assert_eq!(known.len(), 1);
    }

    #[test]
    fn a_task_waits_to_be_tried_again_until_its_moment_has_come() {
        let (mut known, now) = (Known::default(), Instant::now());
        for wait in [3, 1, 1, 2] {
            known.tried_again(now + seconds(wait));
        }
        for (after, left) in [(0, 4), (1, 2), (2, 1), (3, 0)] {
            assert_eq!(known.waiting_to_retry(now + seconds(after)), left);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let (mut known, now) = (Known::default(), Instant::now());
        for number in 0..LIMIT as u64 + 10 {
            let id = TaskId::named(number.to_string());
            known.ended(id, Some(now + Duration::from_millis(number)));
        }
        assert_eq!(known.len(), LIMIT);
        assert!(!known.is_taken(&TaskId::named("0"), now - seconds(1)));
    }
}

//! What follows from an outcome: pure functions from what happened to what is written.

use std::mem;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::claim::{Claim, Rev};
use crate::invoker::{Failure, Outcome, Reason, TaskResult};
use crate::task::{Attempt, Timestamp};

/// The item's `history` keeps this many attempts, the last ones.
pub const HISTORY_LIMIT: u32 = 10;

/// When and how often a queue's tasks are tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A task that fails this many times has failed for good.
    pub max_attempts: u32,
    /// How long to wait between attempts.
    pub backoff: Backoff,
    /// What to do when nobody can tell whether the function ran.
    pub on_unknown: OnUnknown,
    /// How long a finished item is kept; for ever when absent.
    pub retention: Option<Duration>,
}

/// Exponential back-off with full jitter: a random wait between nothing and `base`, doubled with
/// each try, up to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest first wait.
    pub base: Duration,
    /// The longest wait of all.
    pub max: Duration,
}

impl Backoff {
    /// How long to wait after try number `tries`, counted from 1.
    pub fn after(&self, tries: u32, rng: &mut StdRng) -> Duration {
        let doublings = tries.saturating_sub(1).min(31);
        let ceiling = self.base.saturating_mul(1 << doublings).min(self.max);
        ceiling.mul_f64(rng.random::<f64>())
    }
}

/// What to do with a task when nobody can tell whether its function ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnknown {
    /// Leave it to its lease, so that it never runs beside its former self.
    Wait,
    /// Try again after the back-off, perhaps beside its former self.
    Retry,
    /// Fail it.
    Fail,
}

/// What is written on an item when its claim ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// The token of this write.
    pub rev: Rev,
    /// What becomes of the task.
    pub verdict: Verdict,
    /// How many attempts count from now on.
    pub attempts: u32,
    /// The last few attempts, this one included if it counts.
    pub history: Vec<Attempt>,
    /// Lambda's id of the last request.
    pub request_id: Option<String>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// When DynamoDB may delete the finished item.
    pub expires_at: Option<Timestamp>,
    /// Nothing is written that the item could do without, and what it has of that is removed.
    pub is_bare: bool,
}

impl Settlement {
    /// Leaves out the largest part that can be done without, for an item that has no room for
    /// it: the result, then the function's log and words, then the history, then all but the
    /// verdict, which takes less room than the claim did.
    /// Says what was left out; nothing when there is nothing left to leave out.
    pub fn shrink(&mut self) -> Option<&'static str> {
        match &mut self.verdict {
            Verdict::Succeed(result @ TaskResult::Json(_)) => {
                *result = TaskResult::Omitted { bytes: result.bytes(), why: "item is full" };
                return Some("result");
            }
            Verdict::Retry { failure, .. } | Verdict::Hold(failure) | Verdict::Fail(failure)
                if failure.log.is_some() || !failure.message.is_empty() =>
            {
                failure.log = None;
                failure.message.clear();
                return Some("error message and log");
            }
            _ => {}
        }
        // The last one goes last: without it the next holder takes this one for dead.
        let kept = usize::from(self.history.len() > 1);
        let surplus = self.history.len() - kept;
        self.history.drain(..surplus);
        if surplus > 0 {
            return Some("history");
        }
        let was_bare = mem::replace(&mut self.is_bare, true);
        (!was_bare).then_some("all but the status")
    }
}

/// What becomes of a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Done.
    Succeed(TaskResult),
    /// Again, from `due` on.
    Retry {
        /// When it may be claimed again.
        due: Timestamp,
        /// Why.
        failure: Failure,
    },
    /// As if it had never been claimed; due as before.
    Release,
    /// Left to its lease: the function may be running. The attempt is written down.
    Hold(Failure),
    /// Given up.
    Fail(Failure),
}

impl Verdict {
    /// The word for it in the log.
    pub fn label(&self) -> &'static str {
        match self {
            Verdict::Succeed(_) => "succeed",
            Verdict::Retry { .. } => "retry",
            Verdict::Release => "release",
            Verdict::Hold(_) => "wait",
            Verdict::Fail(_) => "fail",
        }
    }

    /// Why it did not succeed.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Verdict::Retry { failure, .. } | Verdict::Hold(failure) | Verdict::Fail(failure) => {
                Some(failure)
            }
            Verdict::Succeed(_) | Verdict::Release => None,
        }
    }
}

/// How an attempt ended, beside its outcome.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// How long the invocation took.
    pub took: Duration,
}

/// Decides what is written: from what is known of the invocation, the attempt and the policy.
pub fn decide(
    claim: &Claim,
    outcome: Outcome,
    ended: Ended,
    policy: &Policy,
    rng: &mut StdRng,
) -> Settlement {
    let request_id = outcome.request_id().map(str::to_owned);
    let (counts, spent) = (counts(&outcome), spent(claim, policy));
    let history = history(claim, spent, &outcome, ended);
    let verdict = match outcome {
        Outcome::Succeeded(success) => Verdict::Succeed(success.result),
        Outcome::Failed(failure) => again(claim, failure, ended.at, policy, rng),
        Outcome::Unknown(failure) => match policy.on_unknown {
            OnUnknown::Fail => Verdict::Fail(failure),
            OnUnknown::Retry => again(claim, failure, ended.at, policy, rng),
            OnUnknown::Wait if is_last(claim, policy) => Verdict::Fail(failure),
            OnUnknown::Wait => Verdict::Hold(failure),
        },
        Outcome::NotRun(refusal) => match refusal.reason {
            Reason::Impossible | Reason::Exhausted | Reason::Expired => {
                Verdict::Fail(refusal.failure)
            }
            Reason::Throttled(_) | Reason::Unavailable | Reason::Broken | Reason::Withdrawn => {
                Verdict::Release
            }
        },
    };
    let finished = matches!(verdict, Verdict::Succeed(_) | Verdict::Fail(_));
    Settlement {
        rev: Rev::random(rng),
        attempts: if counts { claim.task.attempt } else { spent },
        history,
        request_id,
        finished_at: ended.at,
        expires_at: policy.retention.filter(|_| finished).map(|kept| ended.at + kept),
        is_bare: false,
        verdict,
    }
}

/// How many attempts the task has: its own limit may lower the queue's.
pub fn max_attempts(claim: &Claim, policy: &Policy) -> u32 {
    claim.task.max_attempts.map_or(policy.max_attempts, |own| own.min(policy.max_attempts))
}

/// How many attempts before this claim may have run. A claim that finds all of them spent runs
/// nothing, so those beyond the last one that nobody wrote down were such claims, too, of workers
/// that died before they could say so.
fn spent(claim: &Claim, policy: &Policy) -> u32 {
    let recorded = claim.task.history.last().map_or(0, |last| last.number);
    (claim.task.attempt - 1).min(max_attempts(claim, policy).max(recorded))
}

/// An attempt counts when the function may have run, and only then.
fn counts(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::NotRun(_))
}

fn is_last(claim: &Claim, policy: &Policy) -> bool {
    claim.task.attempt >= max_attempts(claim, policy)
}

fn again(
    claim: &Claim,
    failure: Failure,
    now: Timestamp,
    policy: &Policy,
    rng: &mut StdRng,
) -> Verdict {
    if is_last(claim, policy) {
        return Verdict::Fail(failure);
    }
    let due = now + policy.backoff.after(claim.task.attempt, rng);
    match claim.task.deadline {
        Some(deadline) if due > deadline => Verdict::Fail(failure),
        _ => Verdict::Retry { due, failure },
    }
}

/// The attempts to be remembered: those on the item, those that nobody wrote down, and this one.
fn history(claim: &Claim, spent: u32, outcome: &Outcome, ended: Ended) -> Vec<Attempt> {
    let mut history = claim.task.history.clone();
    let recorded = history.last().map_or(0, |last| last.number);
    let remembered = spent.saturating_sub(HISTORY_LIMIT);
    let next = recorded.max(remembered).saturating_add(1);
    history.extend((next..=spent).map(|number| Attempt {
        number,
        outcome: "abandoned".to_owned(),
        error_type: None,
        request_id: None,
        started_at: None,
        took: None,
    }));
    if counts(outcome) {
        let error_type = match outcome {
            Outcome::Failed(failure) | Outcome::Unknown(failure) => {
                Some(failure.error_type.clone())
            }
            Outcome::Succeeded(_) | Outcome::NotRun(_) => None,
        };
        history.push(Attempt {
            number: claim.task.attempt,
            outcome: outcome.label().to_owned(),
            error_type,
            request_id: outcome.request_id().map(str::to_owned),
            started_at: Some(claim.started_at),
            took: Some(ended.took),
        });
    }
    let surplus = history.len().saturating_sub(HISTORY_LIMIT as usize);
    history.drain(..surplus);
    history
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Lease;
    use crate::invoker::{Limit, Refusal, Success, Throttle};
    use crate::task::{Payload, Task, TaskId};
    use rand::SeedableRng as _;
    use tokio::time::Instant;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn policy() -> Policy {
        Policy {
            max_attempts: 3,
            backoff: Backoff { base: Duration::from_secs(2), max: Duration::from_secs(600) },
            on_unknown: OnUnknown::Wait,
            retention: None,
        }
    }

    fn claim(attempt: u32) -> Claim {
        let task = Task {
            id: TaskId::named("a"),
            attempt,
            due: Timestamp::default(),
            payload: Payload("{}".into()),
            max_attempts: None,
            deadline: None,
            trace: None,
            history: (1..attempt).map(remembered).collect(),
        };
        let second = Duration::from_secs(1);
        Claim {
            task,
            rev: Rev::from("held".to_owned()),
            lease: Lease::begin(NOW, Instant::now(), second, second),
            started_at: NOW,
        }
    }

    fn remembered(number: u32) -> Attempt {
        Attempt {
            number,
            outcome: "failed".into(),
            error_type: Some("E".into()),
            request_id: None,
            started_at: Some(NOW),
            took: Some(Duration::ZERO),
        }
    }

    fn settle(claim: &Claim, outcome: Outcome, policy: &Policy) -> Settlement {
        let ended = Ended { at: NOW, took: Duration::from_millis(7) };
        decide(claim, outcome, ended, policy, &mut StdRng::seed_from_u64(1))
    }

    fn failed() -> Outcome {
        Outcome::Failed(Failure::new("E", "it broke"))
    }

    fn unknown() -> Outcome {
        Outcome::Unknown(Failure::new("Burstd.ConnectionLost", "reset"))
    }

    fn not_run(reason: Reason) -> Outcome {
        Outcome::NotRun(Refusal::new(reason, Failure::new("E", "no")))
    }

    fn succeeded() -> Outcome {
        Outcome::Succeeded(Success { result: TaskResult::Json("1".into()), request_id: None })
    }

    #[test]
    fn claims_that_found_all_attempts_spent_and_whose_workers_died_are_no_attempts() {
        let mut claim = claim(6);
        // Of three attempts, two were written down; what came after the third ran nothing.
        claim.task.history.truncate(2);
        let refusal = Refusal::new(Reason::Exhausted, Failure::new("Burstd.AttemptsExhausted", ""));
        let settlement = settle(&claim, Outcome::NotRun(refusal), &policy());
        let history: Vec<_> =
            settlement.history.iter().map(|it| (it.number, it.outcome.as_str())).collect();
        assert_eq!((settlement.attempts, history.len()), (3, 3));
        assert_eq!(history[2], (3, "abandoned"));
    }

    #[test]
    fn what_follows_from_each_outcome_on_the_first_and_on_the_last_attempt() {
        let throttled =
            || not_run(Reason::Throttled(Throttle { limit: Limit::Account, retry_after: None }));
        for (outcome, first, last, counted) in [
            (succeeded(), "succeed", "succeed", true),
            (failed(), "retry", "fail", true),
            (unknown(), "wait", "fail", true),
            (throttled(), "release", "release", false),
            (not_run(Reason::Unavailable), "release", "release", false),
            (not_run(Reason::Broken), "release", "release", false),
            (not_run(Reason::Withdrawn), "release", "release", false),
            (not_run(Reason::Impossible), "fail", "fail", false),
            (not_run(Reason::Exhausted), "fail", "fail", false),
            (not_run(Reason::Expired), "fail", "fail", false),
        ] {
            for (attempt, verdict) in [(1, first), (3, last)] {
                let settlement = settle(&claim(attempt), outcome.clone(), &policy());
                assert_eq!(settlement.verdict.label(), verdict, "{outcome:?}, attempt {attempt}");
                let expected = if counted { attempt } else { attempt - 1 };
                assert_eq!(settlement.attempts, expected, "{outcome:?}, attempt {attempt}");
                let added = usize::from(counted);
                assert_eq!(settlement.history.len(), attempt as usize - 1 + added, "{outcome:?}");
            }
        }
    }

    #[test]
    fn on_unknown_is_obeyed() {
        for (on_unknown, verdict) in
            [(OnUnknown::Wait, "wait"), (OnUnknown::Retry, "retry"), (OnUnknown::Fail, "fail")]
        {
            let policy = Policy { on_unknown, ..policy() };
            assert_eq!(settle(&claim(1), unknown(), &policy).verdict.label(), verdict);
        }
    }

    #[test]
    fn a_task_may_lower_the_queue_s_limit_of_attempts_and_not_raise_it() {
        for (own, verdict) in [(Some(1), "fail"), (Some(2), "retry"), (None, "retry")] {
            let mut claim = claim(1);
            claim.task.max_attempts = own;
            assert_eq!(settle(&claim, failed(), &policy()).verdict.label(), verdict, "{own:?}");
        }
        let mut claim = claim(3);
        claim.task.max_attempts = Some(99);
        assert_eq!(settle(&claim, failed(), &policy()).verdict.label(), "fail");
    }

    #[test]
    fn no_retry_is_due_after_the_deadline() {
        let mut claim = claim(1);
        claim.task.deadline = Some(NOW);
        assert_eq!(settle(&claim, failed(), &policy()).verdict.label(), "fail");
    }

    #[test]
    fn a_finished_item_expires_after_the_retention_and_a_retried_one_does_not() {
        let policy = Policy { retention: Some(Duration::from_secs(60)), ..policy() };
        let expires = |outcome| settle(&claim(1), outcome, &policy).expires_at;
        assert_eq!(expires(succeeded()), Some(NOW + Duration::from_secs(60)));
        assert_eq!(expires(failed()), None);
    }

    #[test]
    fn back_off_is_random_below_a_ceiling_that_doubles_up_to_its_maximum() {
        let backoff = policy().backoff;
        let mut rng = StdRng::seed_from_u64(7);
        for (tries, ceiling) in [(1, 2), (2, 4), (5, 32), (10, 600), (u32::MAX, 600)] {
            let waits: Vec<_> = (0..500).map(|_| backoff.after(tries, &mut rng)).collect();
            let ceiling = Duration::from_secs(ceiling);
            assert!(waits.iter().all(|wait| *wait <= ceiling), "try {tries}");
            assert!(waits.iter().any(|wait| *wait > ceiling.mul_f64(0.9)), "try {tries}");
            assert!(waits.iter().any(|wait| *wait < ceiling.mul_f64(0.1)), "try {tries}");
        }
    }

    #[test]
    fn history_keeps_the_last_ten_attempts() {
        let policy = Policy { max_attempts: 99, ..policy() };
        let settlement = settle(&claim(30), failed(), &policy);
        let numbers: Vec<_> = settlement.history.iter().map(|attempt| attempt.number).collect();
        assert_eq!(numbers, (21..=30).collect::<Vec<_>>());
    }

    #[test]
    fn a_history_with_numbers_that_nobody_can_have_reached_is_left_as_it_is() {
        let mut claim = claim(1);
        claim.task.attempt = 4_000_000_000;
        claim.task.history = vec![remembered(u32::MAX)];
        let refusal = Refusal::new(Reason::Exhausted, Failure::new("Burstd.AttemptsExhausted", ""));
        let settlement = settle(&claim, Outcome::NotRun(refusal), &policy());
        assert_eq!(settlement.history, [remembered(u32::MAX)]);
    }

    #[test]
    fn an_attempt_whose_holder_died_is_written_down_by_the_next() {
        let mut claim = claim(3);
        claim.task.history.truncate(1);
        assert_eq!(claim.task.abandoned_attempt(), Some(2));
        let settlement = settle(&claim, succeeded(), &policy());
        let outcomes: Vec<_> =
            settlement.history.iter().map(|attempt| attempt.outcome.as_str()).collect();
        assert_eq!(outcomes, ["failed", "abandoned", "succeeded"]);
    }

    #[test]
    fn each_of_several_holders_that_died_in_a_row_is_written_down() {
        let mut claim = claim(5);
        claim.task.history.truncate(1);
        let settlement = settle(&claim, succeeded(), &Policy { max_attempts: 9, ..policy() });
        let history: Vec<_> =
            settlement.history.iter().map(|it| (it.number, it.outcome.as_str())).collect();
        let dead = [(2, "abandoned"), (3, "abandoned"), (4, "abandoned")];
        assert_eq!(history[1..4], dead);
        assert_eq!(history[4], (5, "succeeded"));
    }

    #[test]
    fn a_settlement_shrinks_until_only_the_verdict_is_left() {
        let mut succeeded = settle(&claim(2), succeeded(), &policy());
        assert_eq!(succeeded.shrink(), Some("result"));
        assert_eq!(succeeded.shrink(), Some("history"));
        assert_eq!(succeeded.history.len(), 1, "the next holder sees that this one wrote");
        assert_eq!(succeeded.shrink(), Some("history"));
        assert_eq!(succeeded.shrink(), Some("all but the status"));
        assert_eq!(succeeded.shrink(), None);
        assert_eq!(succeeded.verdict.label(), "succeed");

        let mut failed = settle(&claim(3), failed(), &policy());
        assert_eq!(failed.shrink(), Some("error message and log"));
        assert_eq!(failed.shrink(), Some("history"));
        assert_eq!(failed.shrink(), Some("history"));
        assert_eq!(failed.shrink(), Some("all but the status"));
        assert_eq!(failed.shrink(), None);
        assert_eq!(failed.verdict.label(), "fail");
    }
}

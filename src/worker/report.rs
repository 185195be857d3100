//! What came of a candidate, for the dispatcher.

use std::time::Duration;

use crate::claim::{Claim, Standing};
use crate::invoker::Reason;
use crate::retry::{Settlement, Verdict};
use crate::store::{Fault, Write};
use crate::task::Timestamp;

/// What came of a candidate.
#[derive(Debug)]
pub enum Report {
    /// burstd was stopping, or its queue was paused, before it was claimed.
    Withdrawn,
    /// It was somebody else's, finished, or gone.
    Lost(Standing),
    /// It could not be read as a task, and says so now.
    Invalid(String),
    /// The table takes no write to this item.
    Rejected(Fault),
    /// It was claimed.
    Attempted(Box<Attempted>),
}

/// A claim and what became of it.
#[derive(Debug)]
pub struct Attempted {
    /// The claim.
    pub claim: Claim,
    /// The outcome's word.
    pub outcome: &'static str,
    /// Whether it shows that the function runs now: no later start was refused.
    pub function_runs: bool,
    /// Why the function did not run, when it did not.
    pub not_run: Option<Reason>,
    /// How long the claim took.
    pub claim_took: Duration,
    /// How long the invocation took.
    pub invoke_took: Duration,
    /// How long the settling write took.
    pub write_took: Duration,
    /// What was to be written.
    pub settlement: Settlement,
    /// Whether it was.
    pub write: Result<Write, Fault>,
}

impl Attempted {
    /// How long the task could have been claimed before it was. `due = 0` says "at once" and not
    /// since when, so there is nothing to tell.
    pub fn queue_wait(&self) -> Option<Duration> {
        let due = self.claim.task.due;
        (due > Timestamp::default()).then(|| self.claim.started_at.since(due))
    }

    /// The attempt before this one, when its worker never wrote how it ended and this claim does.
    /// A claim that is given back writes nothing of it, so the next one will.
    pub fn rescued(&self) -> Option<u32> {
        let writes = !matches!(self.settlement.verdict, Verdict::Release);
        self.claim.task.abandoned_attempt().filter(|_| writes)
    }
}

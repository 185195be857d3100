//! A claim: the right of one worker to settle one task, for the length of a lease.

use std::fmt;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::task::{Task, TaskId, Timestamp};

/// A fresh random token, written with every write of burstd. It fences (a stale holder's is no
/// longer on the item), and a retried write recognises itself by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rev(String);

impl Rev {
    /// A token nobody else has: 128 random bits.
    pub fn random(rng: &mut StdRng) -> Self {
        Rev(format!("{:032x}", rng.random::<u128>()))
    }

    /// The text in the table.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Rev {
    fn from(text: String) -> Self {
        Rev(text)
    }
}

/// How long a claim stands, on both clocks that matter.
///
/// Its length is the function's own timeout plus a margin, counted from *before* the claim is
/// sent. Lambda stops a function at its timeout, so a function that is started while at least
/// its timeout and half the margin are left has ended before anyone may claim the task again.
/// That half covers what differs between two machines' clocks and what a request needs to reach
/// the function, an environment's start (10 s at most) included. The other half is the time
/// between claim and start, and afterwards the time to write the result.
#[derive(Clone, Debug)]
pub struct Lease {
    /// When it ends by the wall clock: what the table says and others compare with.
    pub until: Timestamp,
    /// When it ends by this machine's monotonic clock: what its holder trusts.
    trusted_until: Instant,
    run: Duration,
    margin: Duration,
}

impl Lease {
    /// The lease of a claim about to be sent, for a function that runs at most `run`.
    pub fn begin(now: Timestamp, at: Instant, run: Duration, margin: Duration) -> Self {
        let length = run + margin;
        Lease { until: now + length, trusted_until: at + length, run, margin }
    }

    /// The same lease begun anew.
    #[must_use]
    pub fn renewed(&self, now: Timestamp, at: Instant) -> Self {
        Lease::begin(now, at, self.run, self.margin)
    }

    /// Whether a function started at `at` has surely ended when the lease does.
    pub fn covers_a_run(&self, at: Instant) -> bool {
        at < self.start_by()
    }

    /// The first moment at which a start is no longer covered.
    pub fn start_by(&self) -> Instant {
        self.trusted_until - self.run - self.margin / 2
    }

    /// Until when the answer of an invocation started at `at` is waited for.
    pub fn deadline(&self, at: Instant) -> Instant {
        at + self.run + self.margin / 2
    }

    /// What is left of it at `at`.
    pub fn remaining(&self, at: Instant) -> Duration {
        self.trusted_until.saturating_duration_since(at)
    }
}

/// What a worker asks for when it claims.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The token of this claim.
    pub rev: Rev,
    /// Who claims.
    pub worker: String,
    /// The time of day, which `due` and others' leases are compared with.
    pub now: Timestamp,
    /// When the lease asked for ends.
    pub lease_until: Timestamp,
}

/// A won claim: the task, and the token that proves it.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The claimed task.
    pub task: Task,
    /// The token on the item as long as the claim is held.
    pub rev: Rev,
    /// How long it stands.
    pub lease: Lease,
    /// When it was taken.
    pub started_at: Timestamp,
}

impl Claim {
    /// The claimed task's name.
    pub fn id(&self) -> &TaskId {
        &self.task.id
    }
}

/// How a refused write found the item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether there is an item.
    pub is_there: bool,
    /// Its status as written, whatever it is; absent on a new item.
    pub status: Option<String>,
    /// From when it may be claimed; absent on a finished task.
    pub due: Option<Timestamp>,
    /// Until when somebody holds it.
    pub lease_until: Option<Timestamp>,
    /// Who holds it, or held it last.
    pub worker: Option<String>,
}

impl Standing {
    /// When it may be claimed, as far as this tells.
    pub fn free_at(&self) -> Timestamp {
        self.due.max(self.lease_until).unwrap_or_default()
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_there {
            return f.write_str("gone");
        }
        f.write_str(self.status.as_deref().unwrap_or("without a status"))?;
        if let Some(worker) = &self.worker {
            write!(f, ", worker {worker}")?;
        }
        match self.lease_until {
            Some(until) => write!(f, ", leased until {until}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    const RUN: Duration = Duration::from_secs(60);
    const MARGIN: Duration = Duration::from_secs(30);

    #[test]
    fn a_lease_covers_a_run_only_while_half_its_margin_is_left_beside_it() {
        let at = Instant::now();
        let lease = Lease::begin(Timestamp::default(), at, RUN, MARGIN);
        assert!(lease.covers_a_run(at));
        assert!(lease.covers_a_run(at + MARGIN / 2 - Duration::from_millis(1)));
        assert!(!lease.covers_a_run(lease.start_by()), "who wakes then has to extend it");
        assert_eq!(lease.start_by(), at + MARGIN / 2);
    }

    #[test]
    fn the_answer_to_the_latest_start_is_awaited_no_longer_than_the_lease() {
        let at = Instant::now();
        let lease = Lease::begin(Timestamp::default(), at, RUN, MARGIN);
        let latest_start = at + MARGIN / 2;
        assert_eq!(lease.deadline(latest_start), at + RUN + MARGIN);
        assert_eq!(lease.remaining(at + RUN + MARGIN), Duration::ZERO);
    }

    #[test]
    fn a_lease_is_counted_from_before_the_claim_is_sent_on_both_clocks() {
        let (now, at) = (Timestamp::from_millis(5_000), Instant::now());
        let lease = Lease::begin(now, at, RUN, MARGIN);
        assert_eq!(lease.until, Timestamp::from_millis(95_000));
        assert_eq!(lease.remaining(at), RUN + MARGIN);
    }

    #[test]
    fn two_revs_differ_and_one_seed_gives_the_same_again() {
        let mut rng = StdRng::seed_from_u64(1);
        let (first, second) = (Rev::random(&mut rng), Rev::random(&mut rng));
        assert_ne!(first, second);
        assert_eq!(Rev::random(&mut StdRng::seed_from_u64(1)), first);
    }
}

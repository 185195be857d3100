//! Writes to a table of tasks, without an engine.

use std::time::Duration;

use burstd::claim::{Rev, Terms};
use burstd::clock::Clock;
use burstd::retry::{Settlement, Verdict};
use burstd::task::Timestamp;

pub fn now() -> Timestamp {
    Clock::system().now()
}

/// A claim's terms with this token, for a minute.
pub fn terms(rev: &str) -> Terms {
    Terms {
        rev: Rev::from(rev.to_owned()),
        worker: format!("worker of {rev}"),
        now: now(),
        lease_until: now() + Duration::from_secs(60),
    }
}

pub fn settlement(rev: &str, verdict: Verdict) -> Settlement {
    Settlement {
        rev: Rev::from(rev.to_owned()),
        verdict,
        attempts: 1,
        history: Vec::new(),
        request_id: None,
        finished_at: now(),
        expires_at: None,
        is_bare: false,
    }
}

//! One invocation, without a daemon.

use std::time::Duration;

use burstd::aws::LambdaInvoker;
use burstd::claim::{Claim, Lease, Rev};
use burstd::invoker::{Invocation, Invoker as _, Outcome, Reason};
use burstd::task::{Payload, Task, TaskId, Timestamp};
use tokio::time::Instant;

/// What becomes of an invocation of `function` with this event.
pub async fn invoke(invoker: &LambdaInvoker, function: &str, event: &str) -> Outcome {
    invoke_within(Duration::from_secs(10), invoker, function, event).await
}

/// The same, when an answer is of use for so long.
pub async fn invoke_within(
    patience: Duration,
    invoker: &LambdaInvoker,
    function: &str,
    event: &str,
) -> Outcome {
    let task = Task {
        id: TaskId::named("a"),
        attempt: 1,
        due: Timestamp::default(),
        payload: Payload(event.to_owned()),
        max_attempts: None,
        deadline: None,
        trace: None,
        history: Vec::new(),
    };
    let claim = Claim {
        task,
        rev: Rev::from("rev".to_owned()),
        lease: Lease::begin(Timestamp::default(), Instant::now(), patience, patience),
        started_at: Timestamp::default(),
    };
    let deadline = Instant::now() + patience;
    let invocation =
        Invocation { function, queue: "work", claim: &claim, worker: "worker", deadline };
    invoker.invoke(invocation).await
}

/// What came of it, in a word.
pub fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::NotRun(refusal) => match refusal.reason {
            Reason::Throttled(_) => "throttled",
            Reason::Unavailable => "unavailable",
            Reason::Broken => "broken",
            Reason::Impossible => "impossible",
            _ => "of our own making",
        },
        other => other.label(),
    }
}

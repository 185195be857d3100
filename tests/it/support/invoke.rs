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
    let start_by = Instant::now() + patience;
    invoke_between(start_by, start_by, invoker, function, event).await
}

/// The same, when it is to begin by the first moment and to be answered by the second.
pub async fn invoke_between(
    start_by: Instant,
    deadline: Instant,
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
        lease: Lease::begin(Timestamp::default(), start_by, Duration::ZERO, Duration::ZERO),
        started_at: Timestamp::default(),
    };
    let (queue, worker) = ("work", "worker");
    let invocation = Invocation { function, queue, claim: &claim, worker, start_by, deadline };
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

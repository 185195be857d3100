//! What the worker says: when table or function are in trouble, and when that is over.

use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::episode::Over;
use crate::invoker::{Failure, Reason, Refusal};
use crate::queue::Queue;
use crate::store::{Fault, StoreError};
use crate::task::TaskId;

pub(super) fn table_works(over: Over) {
    let (episode_s, faults) = (over.lasted.as_secs_f64(), over.faults);
    info!(event = "store.recovered", episode_s, faults, "the table answers again");
}

pub(super) fn table_fails(error: &StoreError) {
    let Fault { operation, code, message } = error.fault();
    match error {
        StoreError::Refused(_) => error!(
            event = "store.refused",
            operation,
            code,
            error = message,
            "DynamoDB refuses; burstd goes on trying"
        ),
        StoreError::Unavailable(_) | StoreError::Rejected(_) => warn!(
            event = "store.unavailable",
            operation,
            code,
            error = message,
            "DynamoDB is away; burstd waits for it"
        ),
    }
}

pub(super) fn shortened(task_id: &TaskId, fault: &Fault, omitted: &str) {
    warn!(
        event = "task.shortened",
        %task_id,
        code = fault.code,
        omitted,
        "the item has no room for all of it"
    );
}

/// Notes that an invocation that began then ran.
pub(super) fn function_works(queue: &Queue, began: Instant) {
    if let Some(over) = queue.function.trouble.success_of(began) {
        info!(
            event = "lambda.recovered",
            queue = queue.name,
            function = queue.function.name,
            episode_s = over.lasted.as_secs_f64(),
            refusals = over.faults,
            "the function runs again"
        );
    }
}

/// Notes that a function was not started; the first time in an episode it is said. What is
/// wrong with one task alone is not the function's trouble.
pub(super) fn function_refuses(queue: &Queue, refusal: &Refusal) {
    let troubled =
        matches!(refusal.reason, Reason::Throttled(_) | Reason::Unavailable | Reason::Broken);
    if !troubled || !queue.function.trouble.fault() {
        return;
    }
    let Failure { error_type: code, message: error, .. } = &refusal.failure;
    let (function, queue) = (&queue.function.name, &queue.name);
    match refusal.reason {
        Reason::Broken => error!(
            event = "lambda.broken",
            queue, function, code, error, "the function runs no task; its queue pauses and probes"
        ),
        _ => warn!(
            event = "lambda.unavailable",
            queue, function, code, error, "Lambda cannot start it; tasks wait, no attempt is spent"
        ),
    }
}

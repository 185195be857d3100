//! What the dispatcher says: one line for each attempt that ended, and a summary now and then.

use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::Limits;
use crate::claim::Standing;
use crate::invoker::{Reason, TaskResult};
use crate::queue::Queue;
use crate::retry::{Verdict, max_attempts};
use crate::store::{Fault, Write};
use crate::task::{TaskId, Timestamp};
use crate::worker::Attempted;

/// The line of an attempt that ended, whichever way.
pub(super) fn attempted(queue: &Queue, attempted: &Attempted) {
    rescued(queue, attempted);
    match (&attempted.write, &attempted.settlement.verdict) {
        (Ok(Write::Lost(standing)), _) => refused(queue, attempted, standing),
        (Err(fault), _) => unwritable(queue, attempted, fault),
        (Ok(Write::Applied), Verdict::Release) => released(queue, attempted),
        (Ok(Write::Applied), _) => settled(queue, attempted),
    }
}

/// Fields that every line about a settled attempt has, in the same order.
macro_rules! attempt_line {
    ($level:ident, $event:literal, $queue:expr, $attempted:expr, $($rest:tt)*) => {{
        let Attempted { claim, outcome, settlement, .. } = $attempted;
        $level!(
            event = $event,
            queue = $queue.name,
            task_id = %claim.id(),
            attempt = claim.task.attempt,
            outcome,
            queue_ms = $attempted.queue_wait().map(millis),
            claim_ms = millis($attempted.claim_took),
            invoke_ms = millis($attempted.invoke_took),
            write_ms = millis($attempted.write_took),
            request_id = settlement.request_id,
            $($rest)*
        )
    }};
}

/// The same of an attempt that failed, and where the function's own log tells of it.
macro_rules! failure_line {
    ($level:ident, $event:literal, $queue:expr, $attempted:expr, $($rest:tt)*) => {{
        let (function, attempted) = (&$queue.function, $attempted);
        let failure = attempted.settlement.verdict.failure();
        let has_run = attempted.not_run.is_none();
        attempt_line!(
            $level,
            $event,
            $queue,
            attempted,
            function = function.name,
            log_group = has_run.then(|| function.log_group()),
            log_since = has_run.then_some(attempted.claim.started_at.as_millis()),
            log_bytes = failure.and_then(|failure| failure.log.as_ref()).map_or(0, String::len),
            error_type = failure.map(|failure| failure.error_type.as_str()),
            max_attempts = max_attempts(&attempted.claim, &$queue.policy),
            $($rest)*
        )
    }};
}

fn settled(queue: &Queue, attempted: &Attempted) {
    match &attempted.settlement.verdict {
        Verdict::Succeed(result) => {
            if let TaskResult::Omitted { bytes, why } = result {
                let (queue, task_id) = (&queue.name, attempted.claim.id());
                warn!(
                    event = "task.result_omitted",
                    queue, %task_id, result_bytes = bytes, reason = why,
                    "the task succeeded; its result is not kept on the item"
                );
            }
            attempt_line!(
                info,
                "task.succeeded",
                queue,
                attempted,
                result_bytes = result.bytes(),
                "task succeeded"
            );
        }
        Verdict::Retry { due, .. } => again(queue, attempted, *due, "it is tried again"),
        Verdict::Hold(_) => {
            let words = "the function may be running; it is tried again when the lease has ended";
            again(queue, attempted, attempted.claim.lease.until, words);
        }
        Verdict::Fail(_) => {
            failure_line!(error, "task.failed", queue, attempted, "task failed for good");
        }
        Verdict::Release => {}
    }
}

/// An attempt that another will follow.
fn again(queue: &Queue, attempted: &Attempted, at: Timestamp, words: &str) {
    failure_line!(
        warn,
        "task.attempt_failed",
        queue,
        attempted,
        retry_in_ms = millis(at.since(attempted.settlement.finished_at)),
        "attempt failed; {words}"
    );
}

fn released(queue: &Queue, attempted: &Attempted) {
    debug!(
        event = "task.released",
        queue = queue.name,
        task_id = %attempted.claim.id(),
        attempt = attempted.claim.task.attempt,
        reason = attempted.not_run.as_ref().map(Reason::words),
        "given back; no attempt was spent"
    );
}

/// The task's last holder died, or never learnt the outcome.
fn rescued(queue: &Queue, attempted: &Attempted) {
    if let Some(previous_attempt) = attempted.rescued() {
        warn!(
            event = "task.rescued",
            queue = queue.name,
            task_id = %attempted.claim.id(),
            attempt = attempted.claim.task.attempt,
            previous_attempt,
            "taken over: the worker of the previous attempt never wrote how it ended"
        );
    }
}

/// Fencing worked: somebody else has had the task meanwhile.
fn refused(queue: &Queue, attempted: &Attempted, standing: &Standing) {
    attempt_line!(
        warn,
        "task.write_refused",
        queue,
        attempted,
        wanted = attempted.settlement.verdict.label(),
        found = %standing,
        "the claim was no longer held; nothing was written"
    );
}

fn unwritable(queue: &Queue, attempted: &Attempted, fault: &Fault) {
    attempt_line!(
        error,
        "task.unwritable",
        queue,
        attempted,
        code = fault.code,
        error = fault.message,
        "DynamoDB does not take the outcome; the task is left to its lease"
    );
}

pub(super) fn lost(queue: &Queue, id: &TaskId, standing: &Standing) {
    debug!(
        event = "claim.lost",
        queue = queue.name,
        task_id = %id,
        found = %standing,
        "somebody else's, finished, or gone"
    );
}

pub(super) fn invalid(queue: &Queue, id: &TaskId, reason: &str) {
    error!(
        event = "task.rejected",
        queue = queue.name,
        task_id = %id,
        reason,
        "not a task; its status is INVALID now"
    );
}

pub(super) fn rejected(queue: &Queue, id: &TaskId, fault: &Fault) {
    error!(
        event = "task.rejected",
        queue = queue.name,
        task_id = %id,
        reason = fault.message,
        code = fault.code,
        "DynamoDB takes no claim of this item; it is left alone for a while"
    );
}

pub(super) fn abandoned(queue: &Queue, id: &TaskId) {
    warn!(
        event = "task.abandoned",
        queue = queue.name,
        task_id = %id,
        "burstd stops without it: it may run on in Lambda, and waits for its lease"
    );
}

pub(super) fn draining(reason: &str, in_flight: usize, limits: Limits) {
    info!(
        event = "daemon.draining",
        reason,
        in_flight,
        deadline_s = limits.drain.as_secs_f64(),
        "no new claims; waiting for what is in flight"
    );
}

pub(super) fn still_draining(in_flight: usize, waited: Duration) {
    let waited_s = waited.as_secs();
    info!(event = "daemon.drain_progress", in_flight, waited_s, "still waiting");
}

/// Milliseconds with the fraction a reader can use.
pub(super) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

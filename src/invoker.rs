//! The port to what runs a task, and what may come of it.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::claim::Claim;

/// Results up to this many bytes are kept on the item. An item may have 400 KB in all.
pub const RESULT_LIMIT_BYTES: usize = 256 * 1024;

/// Runs functions.
pub trait Invoker: Send + Sync + 'static {
    /// Runs the claimed task's function once and says what is known of it. It never fails:
    /// whatever goes wrong is an [`Outcome`].
    fn invoke(&self, invocation: Invocation<'_>) -> impl Future<Output = Outcome> + Send;

    /// So many invocations will come soon: what they need can be made ready meanwhile.
    fn expect(&self, invocations: usize);

    /// The longest the function may run, as its own configuration says.
    fn timeout(&self, function: &str) -> impl Future<Output = Result<Duration, Refusal>> + Send;

    /// How much concurrency the function has; nothing when Lambda does not tell.
    fn concurrency(&self, function: &str) -> impl Future<Output = Option<Concurrency>> + Send;
}

/// One request to run a function.
#[derive(Clone, Copy, Debug)]
pub struct Invocation<'a> {
    /// Name, `name:alias`, or ARN.
    pub function: &'a str,
    /// The queue the task stands in.
    pub queue: &'a str,
    /// The task and the proof that it is ours.
    pub claim: &'a Claim,
    /// Who runs it.
    pub worker: &'a str,
    /// When it is too late to begin.
    pub start_by: Instant,
    /// Until when an answer is of use.
    pub deadline: Instant,
}

/// What is known of an invocation.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The function ran and answered.
    Succeeded(Success),
    /// The function ran, and failed or was stopped.
    Failed(Failure),
    /// The function did not run.
    NotRun(Refusal),
    /// The function may have run, may be running still; nobody can tell.
    Unknown(Failure),
}

impl Outcome {
    /// The word for it in the log and in `history`.
    pub fn label(&self) -> &'static str {
        match self {
            Outcome::Succeeded(_) => "succeeded",
            Outcome::Failed(_) => "failed",
            Outcome::NotRun(_) => "not run",
            Outcome::Unknown(_) => "unknown",
        }
    }

    /// Whether it shows that the function runs.
    pub fn ran(&self) -> bool {
        matches!(self, Outcome::Succeeded(_) | Outcome::Failed(_))
    }

    /// How large the result is that is kept; nothing when there is none.
    pub fn result_bytes(&self) -> Option<usize> {
        match self {
            Outcome::Succeeded(Success { result: TaskResult::Json(text), .. }) => Some(text.len()),
            Outcome::Succeeded(_) => Some(0),
            Outcome::Failed(_) | Outcome::NotRun(_) | Outcome::Unknown(_) => None,
        }
    }

    /// Lambda's id of the request, when one is known.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Outcome::Succeeded(success) => success.request_id.as_deref(),
            Outcome::Failed(failure) | Outcome::Unknown(failure) => failure.request_id.as_deref(),
            Outcome::NotRun(refusal) => refusal.failure.request_id.as_deref(),
        }
    }
}

/// A function's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Success {
    /// What it returned.
    pub result: TaskResult,
    /// Lambda's id of the request.
    pub request_id: Option<String>,
}

/// What a function returned, as the item will keep it.
#[derive(Clone, PartialEq)]
pub enum TaskResult {
    /// Nothing at all.
    Empty,
    /// JSON text.
    Json(String),
    /// Something that cannot be kept on the item; how large it was, and why it is not there.
    Omitted {
        /// Its size.
        bytes: usize,
        /// Why it is not kept.
        why: &'static str,
    },
}

impl TaskResult {
    /// Keeps what can be kept. The task succeeded all the same.
    pub fn of(body: Vec<u8>) -> Self {
        let bytes = body.len();
        if bytes == 0 {
            return TaskResult::Empty;
        }
        if bytes > RESULT_LIMIT_BYTES {
            return TaskResult::Omitted { bytes, why: "larger than 256 KB" };
        }
        match String::from_utf8(body) {
            Ok(text) if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() => {
                TaskResult::Json(text)
            }
            Ok(_) => TaskResult::Omitted { bytes, why: "not JSON" },
            Err(_) => TaskResult::Omitted { bytes, why: "not UTF-8" },
        }
    }

    /// Its size, kept or not.
    pub fn bytes(&self) -> usize {
        match self {
            TaskResult::Empty => 0,
            TaskResult::Json(text) => text.len(),
            TaskResult::Omitted { bytes, .. } => *bytes,
        }
    }
}

/// Its size alone: results are never logged.
impl fmt::Debug for TaskResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskResult({} bytes)", self.bytes())
    }
}

/// An error, as the item's `error` keeps it.
#[derive(Clone, PartialEq)]
pub struct Failure {
    /// The function's own error type, Lambda's error code, or one of ours (`Burstd.…`).
    pub error_type: String,
    /// In words. It may hold what the function was given, so it is kept on the item only.
    pub message: String,
    /// The tail of the function's log.
    pub log: Option<String>,
    /// Lambda's id of the request.
    pub request_id: Option<String>,
}

impl Failure {
    /// A failure with a type and a message alone.
    pub fn new(error_type: impl Into<String>, message: impl Into<String>) -> Self {
        let (error_type, message) = (error_type.into(), message.into());
        Failure { error_type, message, log: None, request_id: None }
    }
}

/// Without message and log, which belong to the function's owner.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failure({})", self.error_type)
    }
}

/// Why a function did not run.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// What to do about it.
    pub reason: Reason,
    /// What was said.
    pub failure: Failure,
}

impl Refusal {
    /// A refusal of our own making.
    pub fn new(reason: Reason, failure: Failure) -> Self {
        Refusal { reason, failure }
    }
}

/// The caller's reaction to a function that did not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Lambda gives no more at the moment: wait and start again.
    Throttled(Throttle),
    /// A passing fault on the way or of the function's environment: wait and start again.
    Unavailable,
    /// The function is broken for every task: give the task back and pause the queue.
    Broken,
    /// This task can never run: fail it.
    Impossible,
    /// All its attempts were spent before this claim: fail it.
    Exhausted,
    /// Its deadline has passed: fail it.
    Expired,
    /// The worker is stopping, or its lease cannot be made to cover a run: give it back.
    Withdrawn,
}

impl Reason {
    /// The words for it in the log.
    pub fn words(&self) -> &'static str {
        match self {
            Reason::Throttled(_) => "throttled",
            Reason::Unavailable => "Lambda is away",
            Reason::Broken => "the function is broken",
            Reason::Impossible => "it can never run",
            Reason::Exhausted => "its attempts are spent",
            Reason::Expired => "its deadline has passed",
            Reason::Withdrawn => "it is not to start",
        }
    }
}

/// What a throttle says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// Which limit was reached.
    pub limit: Limit,
    /// How long Lambda asks to wait, if it does.
    pub retry_after: Option<Duration>,
}

/// The limits that a throttle can be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The function's own reserved concurrency.
    Reserved,
    /// The concurrency that all functions share, or how fast environments are made.
    Account,
    /// Calls of the function in a second.
    FunctionRate,
    /// Calls in a second by this caller.
    CallerRate,
    /// Snapshots that are made at once.
    Snapshots,
}

impl Limit {
    /// The words for it in the log.
    pub fn why(self) -> &'static str {
        match self {
            Limit::Reserved => "reserved concurrency",
            Limit::Account => "account concurrency",
            Limit::FunctionRate => "rate of the function's calls",
            Limit::CallerRate => "rate of this caller's calls",
            Limit::Snapshots => "snapshots being made",
        }
    }
}

/// How much concurrency a function has, as Lambda tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// So much is its own, and no more; 0 switches it off.
    Reserved(u32),
    /// So much it shares with all functions that have none of their own.
    Shared(u32),
}

impl Concurrency {
    /// How much it is.
    pub fn units(self) -> u32 {
        let (Concurrency::Reserved(units) | Concurrency::Shared(units)) = self;
        units
    }

    /// The words for it in the log.
    pub fn why(self) -> &'static str {
        match self {
            Concurrency::Reserved(0) => "the function is switched off: reserved concurrency is 0",
            Concurrency::Reserved(_) => Limit::Reserved.why(),
            Concurrency::Shared(_) => Limit::Account.why(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_kept_as_it_came_or_its_size_and_the_reason_are() {
        let large = vec![b' '; RESULT_LIMIT_BYTES + 1];
        for (body, kept) in [
            (b"".to_vec(), TaskResult::Empty),
            (b" {\"a\": 1.50 }".to_vec(), TaskResult::Json(" {\"a\": 1.50 }".into())),
            (b"OK".to_vec(), TaskResult::Omitted { bytes: 2, why: "not JSON" }),
            (vec![0xff], TaskResult::Omitted { bytes: 1, why: "not UTF-8" }),
            (large, TaskResult::Omitted { bytes: 262_145, why: "larger than 256 KB" }),
        ] {
            assert!(TaskResult::of(body) == kept);
        }
    }

    #[test]
    fn nothing_of_a_function_s_data_is_in_what_debug_prints() {
        let mut failure = Failure::new("ValueError", "card 4111 was refused");
        failure.log = Some("card 4111".into());
        let result = TaskResult::Json("\"4111\"".into());
        assert!(!format!("{failure:?} {result:?}").contains("4111"));
    }
}

//! Lambda's Invoke.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_lambda::operation::RequestId as _;
use aws_sdk_lambda::operation::invoke::builders::InvokeFluentBuilder;
use aws_sdk_lambda::operation::invoke::{InvokeError, InvokeOutput};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{LogType, ThrottleReason};
use aws_smithy_types::base64;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::errors::{configuration_refusal, invoke_outcome};
use super::transport::{Sent, Transport, send_by};
use crate::invoker::{
    Concurrency, Failure, Invocation, Invoker, Limit, Outcome, Reason, Refusal, Success,
    TaskResult, Throttle,
};

/// Lambda takes no longer ClientContext, counted as base64
/// (docs.aws.amazon.com/lambda/latest/api/API_Invoke.html).
const CONTEXT_LIMIT_BYTES: usize = 3583;

/// How long Lambda may take to tell a function's configuration.
const CONFIGURATION_TIMEOUT: Duration = Duration::from_secs(10);

/// The account's concurrency is not read again for so long.
const SHARED_STAYS: Duration = Duration::from_secs(10);

/// No more of a function's own words is kept on the item.
const MESSAGE_LIMIT_BYTES: usize = 2048;

/// Invokes functions synchronously.
#[derive(Clone, Debug)]
pub struct LambdaInvoker {
    client: aws_sdk_lambda::Client,
    transport: Transport,
    /// What the account's functions share, and when that was read: it is asked for once for all
    /// functions that are looked at together.
    shared: Arc<Mutex<Option<(Instant, u32)>>>,
}

impl LambdaInvoker {
    pub(super) fn new(client: aws_sdk_lambda::Client, transport: Transport) -> Self {
        LambdaInvoker { client, transport, shared: Arc::default() }
    }

    fn request(&self, invocation: &Invocation<'_>) -> InvokeFluentBuilder {
        self.client
            .invoke()
            .function_name(invocation.function)
            .log_type(LogType::Tail)
            .set_client_context(client_context(invocation))
            .payload(Blob::new(invocation.claim.task.payload.0.as_bytes()))
    }
}

impl LambdaInvoker {
    async fn shared_concurrency(&self) -> Option<u32> {
        let mut known = self.shared.lock().await;
        if let Some((_, shared)) = known.filter(|(read_at, _)| read_at.elapsed() < SHARED_STAYS) {
            return Some(shared);
        }
        let account = self.client.get_account_settings().send().await.ok()?;
        let shared = account.account_limit()?.unreserved_concurrent_executions()?;
        let shared = u32::try_from(shared).ok()?;
        *known = Some((Instant::now(), shared));
        Some(shared)
    }
}

impl Invoker for LambdaInvoker {
    async fn invoke(&self, invocation: Invocation<'_>) -> Outcome {
        let request = self.request(&invocation);
        let (latest, deadline) = (invocation.start_by, invocation.deadline);
        // A call with a trace costs more, so those without are not made like it.
        let sent = match invocation.claim.task.trace.clone() {
            None => send_by(latest, deadline, request.send()).await,
            Some(trace) => {
                let call = request.customize().mutate_request(move |request| {
                    request.headers_mut().insert("x-amzn-trace-id", trace.clone());
                });
                send_by(latest, deadline, Box::pin(call.send())).await
            }
        };
        match sent {
            Sent::Done(Ok(output)) => answer(output),
            Sent::Done(Err(error)) => {
                let throttle = throttle(error.as_service_error());
                invoke_outcome(&error, throttle)
            }
            Sent::Late => Outcome::NotRun(Refusal::new(
                Reason::Unavailable,
                Failure::new("Burstd.NotConnected", "Lambda could not be reached in time"),
            )),
            Sent::Unanswered => Outcome::Unknown(Failure::new(
                "Burstd.NoAnswer",
                "Lambda did not answer within the function's timeout and half the lease margin",
            )),
        }
    }

    fn expect(&self, invocations: usize) {
        self.transport.expect(invocations);
    }

    async fn timeout(&self, function: &str) -> Result<Duration, Refusal> {
        let request = self.client.get_function_configuration().function_name(function);
        let answer = timeout(CONFIGURATION_TIMEOUT, request.send()).await.map_err(|_| {
            let message = "Lambda does not say how the function is configured";
            Refusal::new(Reason::Unavailable, Failure::new("Burstd.NoAnswer", message))
        })?;
        let output = answer.map_err(|error| configuration_refusal(&error))?;
        // Lambda's own default, should it ever leave the field out.
        let seconds = output.timeout().and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(3);
        Ok(Duration::from_secs(seconds))
    }

    async fn concurrency(&self, function: &str) -> Option<Concurrency> {
        let reads = async {
            // Concurrency is a matter of the function, not of an alias.
            let request = self.client.get_function_concurrency();
            let own = request.function_name(without_qualifier(function)).send().await.ok()?;
            if let Some(own) = own.reserved_concurrent_executions() {
                return u32::try_from(own).ok().map(Concurrency::Reserved);
            }
            self.shared_concurrency().await.map(Concurrency::Shared)
        };
        timeout(CONFIGURATION_TIMEOUT, reads).await.ok()?
    }
}

/// A function's name or ARN without the version or alias at its end.
pub fn without_qualifier(function: &str) -> &str {
    let parts = if function.contains(":function:") {
        // arn:aws:lambda:REGION:ACCOUNT:function:NAME, or from ACCOUNT on.
        if function.starts_with("arn:") { 7 } else { 3 }
    } else {
        1
    };
    match function.match_indices(':').nth(parts - 1) {
        Some((end, _)) => &function[..end],
        None => function,
    }
}

/// What a function that ran has answered.
fn answer(output: InvokeOutput) -> Outcome {
    let request_id = output.request_id().map(str::to_owned);
    let body = output.payload.map(Blob::into_inner).unwrap_or_default();
    if output.function_error.is_none() {
        return Outcome::Succeeded(Success { result: TaskResult::of(body), request_id });
    }
    let mut failure = function_error(&body);
    failure.log = output.log_result.as_deref().and_then(log_tail);
    failure.request_id = request_id;
    Outcome::Failed(failure)
}

/// What runtimes say of an error: by custom this, in practice anything.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorBody {
    error_type: Option<String>,
    error_message: Option<String>,
}

fn function_error(body: &[u8]) -> Failure {
    let (error_type, message) = match serde_json::from_slice(body) {
        Ok(ErrorBody { error_type, error_message }) => (error_type, error_message),
        Err(_) => (None, Some(String::from_utf8_lossy(body).into_owned())),
    };
    let mut error_type = error_type.unwrap_or_else(|| "Unhandled".to_owned());
    let mut message = message.unwrap_or_default();
    cut(&mut error_type, 256);
    cut(&mut message, MESSAGE_LIMIT_BYTES);
    Failure::new(error_type, message)
}

/// Lambda gives the last 4 KB of the log, in base64.
fn log_tail(encoded: &str) -> Option<String> {
    let log = base64::decode(encoded).ok()?;
    (!log.is_empty()).then(|| String::from_utf8_lossy(&log).into_owned())
}

/// Shortens a text to at most `limit` bytes, between two characters.
fn cut(text: &mut String, limit: usize) {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
        text.push('…');
    }
}

/// What the function is told about its task, beside the event. All of it is text: the clients of
/// several runtimes (Go, Rust) take `custom` for a map of strings, and nothing else.
#[derive(Serialize)]
struct Context<'a> {
    custom: Custom<'a>,
}

#[derive(Serialize)]
struct Custom<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
    queue: &'a str,
    attempt: String,
    worker: &'a str,
    lease_until: String,
}

/// The ClientContext. A task id too long for it is left out.
fn client_context(invocation: &Invocation<'_>) -> Option<String> {
    let with = |task_id| {
        let custom = Custom {
            task_id,
            queue: invocation.queue,
            attempt: invocation.claim.task.attempt.to_string(),
            worker: invocation.worker,
            lease_until: invocation.claim.lease.until.to_string(),
        };
        let json = serde_json::to_string(&Context { custom }).expect("it has a JSON form");
        Some(base64::encode(ascii(&json))).filter(|context| context.len() <= CONTEXT_LIMIT_BYTES)
    };
    with(Some(invocation.claim.id().to_string())).or_else(|| with(None))
}

/// The same JSON in ASCII: runtimes are given it in an HTTP header.
fn ascii(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        match c.is_ascii() {
            true => ascii.push(c),
            false => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                write!(ascii, "\\u{unit:04x}").expect("writing to a string cannot fail");
            }),
        }
    }
    ascii
}

/// What a throttle says. How long Lambda asks to wait comes in seconds; a minute is as long as is
/// believed.
fn throttle(error: Option<&InvokeError>) -> Throttle {
    let Some(InvokeError::TooManyRequestsException(error)) = error else {
        return Throttle { limit: Limit::Account, retry_after: None };
    };
    let limit = match error.reason() {
        Some(ThrottleReason::ReservedFunctionConcurrentInvocationLimitExceeded) => Limit::Reserved,
        Some(
            ThrottleReason::FunctionInvocationRateLimitExceeded
            | ThrottleReason::ReservedFunctionInvocationRateLimitExceeded,
        ) => Limit::FunctionRate,
        Some(ThrottleReason::CallerRateLimitExceeded) => Limit::CallerRate,
        Some(ThrottleReason::ConcurrentSnapshotCreateLimitExceeded) => Limit::Snapshots,
        _ => Limit::Account,
    };
    let seconds = error.retry_after_seconds().and_then(|seconds| seconds.parse().ok());
    let retry_after = seconds.map(|it| Duration::from_secs(it).min(Duration::from_secs(60)));
    Throttle { limit, retry_after }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::cases;

    #[test]
    fn a_qualifier_is_taken_off_names_and_arns() {
        for (function, plain) in [
            ("f", "f"),
            ("f:live", "f"),
            ("123456789012:function:f:7", "123456789012:function:f"),
            ("arn:aws:lambda:eu-west-1:1:function:f", "arn:aws:lambda:eu-west-1:1:function:f"),
            ("arn:aws:lambda:eu-west-1:1:function:f:7", "arn:aws:lambda:eu-west-1:1:function:f"),
        ] {
            assert_eq!(without_qualifier(function), plain);
        }
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn whatever_a_function_says_of_its_error_is_kept_in_bounds(
            body in any::<Vec<u8>>(),
            log in ".*",
        ) {
            let failure = function_error(&body);
            prop_assert!(failure.error_type.len() <= 256 + '…'.len_utf8());
            prop_assert!(failure.message.len() <= MESSAGE_LIMIT_BYTES + '…'.len_utf8());
            log_tail(&log);
        }

        #[test]
        fn an_error_s_words_are_kept_whole_or_cut_between_two_characters(
            character in any::<char>(),
            repeated in 0..3000_usize,
            rest in ".*",
        ) {
            let said = character.to_string().repeat(repeated) + &rest;
            let body = json!({ "errorType": said, "errorMessage": said, "stackTrace": [said] });
            let failure = function_error(body.to_string().as_bytes());
            for (kept, limit) in
                [(failure.error_type, 256), (failure.message, MESSAGE_LIMIT_BYTES)]
            {
                match said.len() <= limit {
                    true => prop_assert_eq!(&kept, &said),
                    false => {
                        let beginning = kept.strip_suffix('…').expect("it says that it is cut");
                        prop_assert!(said.starts_with(beginning));
                        prop_assert!((limit - 3..=limit).contains(&beginning.len()));
                    }
                }
            }
        }

        #[test]
        fn whatever_a_task_is_called_the_function_is_told_in_ascii(name in ".*") {
            let json = serde_json::to_string(&name).expect("any string has a JSON form");
            let told = ascii(&json);
            prop_assert!(told.is_ascii());
            prop_assert_eq!(serde_json::from_str::<String>(&told).ok(), Some(name));
        }

        #[test]
        fn the_log_s_tail_is_read_back_from_base64(log in ".+") {
            prop_assert_eq!(log_tail(&base64::encode(&log)), Some(log));
        }
    }
}

//! What Lambda's API says of users' own functions, and what it refuses.

use std::time::Duration;

use aws_sdk_lambda::operation::invoke::InvokeError;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use aws_smithy_types::base64;
use burstd::clock::Clock;
use burstd::config::Program as Code;
use burstd::local::limits::Limits;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Endpoint, naughty};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn the_ramp_counts_new_processes_and_one_that_exited_is_no_warm_one() {
    // Another new one may be made after ten seconds.
    let limits = Limits { ramp: Some(1), ..Limits::default() };
    let endpoint = Endpoint::limited(&[("f", naughty())], Duration::from_secs(60), limits);
    let process = endpoint.pid().await;
    assert_eq!(endpoint.pid().await, process, "a warm one is used again");
    let ended = endpoint.invoke(&json!({ "do": "exit", "code": 1 })).await;
    assert_eq!(ended.error.as_deref(), Some("Unhandled"));
    let refused = endpoint.client.invoke().function_name("f").send().await;
    let refused = refused.expect_err("none may be made yet").into_service_error();
    let InvokeError::TooManyRequestsException(refused) = refused else { panic!("{refused:?}") };
    let reason = refused.reason().expect("there is one").as_str();
    assert_eq!(reason, "ConcurrentInvocationLimitExceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lambda_would_refuse_is_refused_with_its_words() {
    let endpoint = Endpoint::start(naughty());
    let text = |bytes: usize| Blob::new(format!("\"{}\"", "x".repeat(bytes - 2)));
    let call = || endpoint.client.invoke().function_name("f");
    let event = InvocationType::Event;
    for (call, code, words) in [
        (call().payload(Blob::new("{")), "InvalidRequestContentException", "into json"),
        (call().payload(text(6_291_457)), "RequestTooLargeException", "6291457 byte payload"),
        (call().payload(text(13_000_000)), "RequestTooLargeException", "limit 6291456 bytes"),
        (
            call().invocation_type(event).payload(text(1_048_577)),
            "RequestTooLargeException",
            "the Event invocation type (limit 1048576 bytes)",
        ),
        (
            call().client_context("no base64"),
            "InvalidRequestContentException",
            "Client context must be a valid Base64-encoded JSON object",
        ),
        (
            call().invocation_type(InvocationType::from("Later")),
            "ValidationException",
            "Value 'Later' at 'invocationType'",
        ),
        (
            call().function_name("f:live").qualifier("test"),
            "InvalidParameterValueException",
            "does not match the specified qualifier",
        ),
        (call().function_name("g"), "ResourceNotFoundException", "Function not found: g"),
    ] {
        let refused = call.send().await.expect_err(code).into_service_error();
        assert_eq!(refused.meta().code(), Some(code), "{refused:?}");
        let message = refused.meta().message().unwrap_or_default();
        assert!(message.contains(words), "{code}: {refused:?}");
    }
    assert_eq!(endpoint.environments.usage().environments, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_at_once_than_are_allowed_are_throttled_with_lambda_s_reason() {
    let endpoint = Endpoint::start(Code { max_concurrency: Some(2), ..naughty() });
    let client = &endpoint.client;
    let reserved = async || {
        let told = client.get_function_concurrency().function_name("f").send().await;
        told.expect("it tells").reserved_concurrent_executions
    };
    assert_eq!(reserved().await, Some(2));
    let put = client.put_function_concurrency().function_name("f");
    let told = put.reserved_concurrent_executions(1).send().await.expect("it may be changed");
    assert_eq!((told.reserved_concurrent_executions, reserved().await), (Some(1), Some(1)));
    let mut calls = JoinSet::new();
    for _ in 0..2 {
        let call = client.invoke().function_name("f");
        let event = json!({ "do": "sleep", "ms": 1000 }).to_string();
        calls.spawn(call.payload(Blob::new(event)).send());
    }
    let refused: Vec<_> = calls.join_all().await.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 1);
    let refused = refused[0].as_service_error().expect("Lambda says so");
    let InvokeError::TooManyRequestsException(refused) = refused else { panic!("{refused:?}") };
    let reason = refused.reason().expect("there is one").as_str();
    assert_eq!(reason, "ReservedFunctionConcurrentInvocationLimitExceeded");
    let take = client.delete_function_concurrency().function_name("f").send().await;
    take.expect("it may be taken away");
    assert_eq!(reserved().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_dry_runs_are_answered_at_once() {
    let endpoint = Endpoint::start(naughty());
    let call = |kind: InvocationType| {
        let call = endpoint.client.invoke().function_name("f").invocation_type(kind);
        call.payload(Blob::new("{}")).send()
    };
    let dry = call(InvocationType::DryRun).await.expect("it may be called");
    assert_eq!((dry.status_code, endpoint.environments.usage().environments), (204, 0));
    let event = call(InvocationType::Event).await.expect("it is taken");
    assert_eq!(event.status_code, 202);
    eventually("it has run", async || match endpoint.environments.usage().invocations {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    let absent = endpoint.client.invoke().function_name("g").send().await;
    let absent = absent.expect_err("there is none").into_service_error();
    assert!(absent.is_resource_not_found_exception(), "{absent}");
    assert_eq!(endpoint.lambda.running().now, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_for_which_there_is_no_room_is_taken_and_runs_later() {
    let endpoint = Endpoint::start(Code { max_concurrency: Some(1), ..naughty() });
    let call =
        || endpoint.client.invoke().function_name("f").invocation_type(InvocationType::Event);
    for _ in 0..3 {
        let event = json!({ "do": "sleep", "ms": 200 }).to_string();
        let taken = call().payload(Blob::new(event)).send().await.expect("it is taken");
        assert_eq!(taken.status_code, 202);
    }
    eventually("all have run", async || match endpoint.environments.usage() {
        usage if usage.invocations == 3 => Ok(()),
        usage => Err(usage),
    })
    .await;
    assert!(endpoint.lambda.running().throttled > 0, "they had to wait for one another");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_lease_would_not_cover_its_run_any_more_does_not_begin() {
    let cold_start = Duration::from_secs(600);
    let endpoint = Endpoint::start(Code { cold_start, ..naughty() });
    let lease = Duration::from_millis(Clock::system().now().as_millis())
        + Duration::from_secs(20)
        + Duration::from_secs(6);
    let context = json!({ "custom": {
        "task_id": "t", "queue": "q", "attempt": "1", "worker": "w",
        "lease_until": lease.as_secs_f64().to_string(),
    } });
    let call = endpoint.client.invoke().function_name("f");
    let call = call.client_context(base64::encode(context.to_string())).send();
    let refused = timeout(Duration::from_secs(30), call).await.expect("it is not waited for");
    let refused = refused.expect_err("nothing has run").into_service_error();
    assert!(refused.is_too_many_requests_exception(), "{refused:?}");
    assert_eq!(endpoint.environments.usage().environments, 0);
}

//! Every error of Lambda's Invoke, as it comes over the wire, and what burstd makes of it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use burstd::aws::{Clients, LambdaInvoker};
use burstd::invoker::{Limit, Outcome, Reason, Throttle};
use burstd::local::lambda::{Answer, Call, EmbeddedLambda, Functions, LocalFunction};
use burstd::local::place;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::calls::Calls;
use crate::support::invoke::{invoke, invoke_between, invoke_within, word};

async fn invoker(lambda_url: &str) -> LambdaInvoker {
    let clients = Clients::new(&place("http://127.0.0.1:1", lambda_url)).await;
    clients.expect("a region").invoker()
}

/// A function that answers as its event says: `{"status": …, "code": …, "body": …}`.
fn refusing() -> EmbeddedLambda {
    let function = LocalFunction::new(Duration::from_secs(5), async |call: Call| {
        let event: BTreeMap<String, Value> = serde_json::from_slice(&call.payload).expect("ours");
        let code = event["code"].as_str().expect("it is a string").to_owned();
        Answer::Refused {
            status: event["status"].as_u64().and_then(|it| u16::try_from(it).ok()).expect("ours"),
            code: code.leak(),
            body: event["body"].clone(),
        }
    });
    let functions = Functions::from([("refuse".to_owned(), function)]);
    EmbeddedLambda::start(anywhere(), functions).expect("a free port")
}

fn anywhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

#[tokio::test]
async fn every_error_code_leads_to_its_outcome_whatever_the_http_status() {
    let lambda = refusing();
    let invoker = invoker(&lambda.url()).await;
    // The status is the one that Lambda sends with it.
    for (status, code, expected) in [
        (429, "TooManyRequestsException", "throttled"),
        (502, "EC2ThrottledException", "throttled"),
        (402, "ServiceQuotaExceededException", "throttled"),
        (400, "ThrottlingException", "throttled"),
        (503, "RequestLimitExceeded", "throttled"),
        (502, "ResourceNotReadyException", "unavailable"),
        (409, "ResourceConflictException", "unavailable"),
        (502, "ENINotReadyException", "unavailable"),
        (502, "ENILimitReachedException", "unavailable"),
        (502, "EC2UnexpectedException", "unavailable"),
        (502, "SubnetIPAddressLimitReachedException", "unavailable"),
        (408, "EFSMountConnectivityException", "unavailable"),
        (408, "EFSMountTimeoutException", "unavailable"),
        (410, "EFSIOException", "unavailable"),
        (408, "S3FilesMountConnectivityException", "unavailable"),
        (408, "S3FilesMountTimeoutException", "unavailable"),
        (409, "SnapStartNotReadyException", "unavailable"),
        (408, "SnapStartTimeoutException", "unavailable"),
        (400, "SnapStartRegenerationFailureException", "unavailable"),
        (400, "CodeArtifactUserPendingException", "unavailable"),
        (400, "ExpiredTokenException", "unavailable"),
        (403, "UnrecognizedClientException", "unavailable"),
        (403, "InvalidSignatureException", "unavailable"),
        (403, "ExpiredToken", "unavailable"),
        (403, "InvalidClientTokenId", "unavailable"),
        (403, "SignatureDoesNotMatch", "unavailable"),
        (403, "IncompleteSignature", "unavailable"),
        (403, "IncompleteSignatureException", "unavailable"),
        (403, "MissingAuthenticationToken", "unavailable"),
        (403, "MissingAuthenticationTokenException", "unavailable"),
        (403, "RequestTimeTooSkewed", "unavailable"),
        (400, "RequestExpired", "unavailable"),
        (400, "AuthFailure", "unavailable"),
        (503, "ServiceUnavailable", "unavailable"),
        (503, "ServiceUnavailableException", "unavailable"),
        (404, "ResourceNotFoundException", "broken"),
        (403, "AccessDeniedException", "broken"),
        (502, "KMSAccessDeniedException", "broken"),
        (502, "KMSDisabledException", "broken"),
        (502, "KMSInvalidStateException", "broken"),
        (502, "KMSNotFoundException", "broken"),
        (403, "EFSMountFailureException", "broken"),
        (403, "S3FilesMountFailureException", "broken"),
        (502, "EC2AccessDeniedException", "broken"),
        (502, "InvalidRuntimeException", "broken"),
        (502, "InvalidSecurityGroupIDException", "broken"),
        (502, "InvalidSubnetIDException", "broken"),
        (502, "InvalidZipFileException", "broken"),
        (400, "CodeArtifactUserDeletedException", "broken"),
        (400, "CodeArtifactUserFailedException", "broken"),
        (400, "NoPublishedVersionException", "broken"),
        (400, "ModeNotSupportedException", "broken"),
        (401, "NotAuthorized", "broken"),
        (403, "OptInRequired", "broken"),
        (404, "UnknownOperationException", "broken"),
        (400, "InvalidRequestContentException", "impossible"),
        (400, "ValidationException", "impossible"),
        (400, "ValidationError", "impossible"),
        (400, "MalformedHttpRequestException", "impossible"),
        (413, "RequestEntityTooLargeException", "impossible"),
        (400, "InvalidParameterValueException", "impossible"),
        (413, "RequestTooLargeException", "impossible"),
        (413, "SerializedRequestEntityTooLargeException", "impossible"),
        (415, "UnsupportedMediaTypeException", "impossible"),
        (400, "RecursiveInvocationException", "impossible"),
        (409, "DurableExecutionAlreadyStartedException", "impossible"),
        (400, "SnapStartException", "failed"),
        (500, "ServiceException", "unknown"),
        (500, "InternalFailure", "unknown"),
        (408, "RequestTimeoutException", "unknown"),
        (400, "RequestAbortedException", "unknown"),
        (418, "ACodeOfTheFuture", "unknown"),
    ] {
        let body = json!({ "Message": "so it is", "message": "so it is" });
        let event = json!({ "status": status, "code": code, "body": body }).to_string();
        let before = lambda.running().begun;
        let outcome = invoke(&invoker, "refuse", &event).await;
        assert_eq!(word(&outcome), expected, "{code}");
        assert_eq!(lambda.running().begun, before + 1, "{code}: asked once, not again");
        assert!(outcome.request_id().is_some(), "{code}: the key into Lambda's logs");
    }
}

#[tokio::test]
async fn lambda_s_wish_to_wait_is_kept() {
    let lambda = refusing();
    let body = json!({ "Reason": "CallerRateLimitExceeded", "retryAfterSeconds": "7" });
    let event = json!({ "status": 429, "code": "TooManyRequestsException", "body": body });
    let outcome = invoke(&invoker(&lambda.url()).await, "refuse", &event.to_string()).await;
    let Outcome::NotRun(refusal) = outcome else { panic!("{outcome:?}") };
    let retry_after = Some(Duration::from_secs(7));
    let throttle = Throttle { limit: Limit::CallerRate, retry_after };
    assert_eq!(refusal.reason, Reason::Throttled(throttle));
}

#[tokio::test]
async fn where_nobody_listens_nothing_ran() {
    let listener = TcpListener::bind(anywhere()).expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    drop(listener);
    let outcome = invoke(&invoker(&url).await, "any", "{}").await;
    assert_eq!(word(&outcome), "unavailable", "{outcome:?}");
    let Outcome::NotRun(refusal) = outcome else { panic!("it did not run") };
    assert_eq!(refusal.failure.error_type, "Burstd.NotConnected");
}

#[tokio::test]
async fn every_call_of_many_is_told_why_there_is_no_connection() {
    let nowhere = TcpListener::bind(anywhere()).expect("a free port");
    let url = format!("http://{}", nowhere.local_addr().expect("it is bound"));
    drop(nowhere);
    let invoker = invoker(&url).await;
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let invoker = invoker.clone();
        calls.spawn(async move { invoke(&invoker, "work", "1").await });
    }
    for outcome in calls.join_all().await {
        let Outcome::NotRun(refusal) = &outcome else { panic!("{outcome:?}") };
        let message = &refusal.failure.message;
        assert!(message.contains("no connection could be made: "), "{message}");
        assert!(message.contains("Connection refused (os error "), "{message}");
    }
}

#[tokio::test]
async fn where_no_name_resolves_nothing_ran() {
    let outcome = invoke(&invoker("http://burstd.invalid:80").await, "any", "{}").await;
    assert_eq!(word(&outcome), "unavailable", "{outcome:?}");
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_leaves_it_unknown() {
    let function = LocalFunction::new(Duration::from_secs(5), async |_| Answer::Disconnected);
    let functions = Functions::from([("break".to_owned(), function)]);
    let lambda = EmbeddedLambda::start(anywhere(), functions).expect("a free port");
    let outcome = invoke(&invoker(&lambda.url()).await, "break", "{}").await;
    assert_eq!(word(&outcome), "unknown", "{outcome:?}");
}

#[tokio::test]
async fn no_answer_before_the_deadline_leaves_it_unknown() {
    let listener = TcpListener::bind(anywhere()).expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let patience = Duration::from_millis(300);
    let outcome = invoke_within(patience, &invoker(&url).await, "any", "{}").await;
    let Outcome::Unknown(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.error_type, "Burstd.NoAnswer");
}

#[tokio::test]
async fn what_waited_for_a_connection_until_its_lease_was_too_short_is_not_sent() {
    let calls = Calls::default();
    let echo = calls.function(Duration::from_secs(5), async |call| Answer::Returned(call.payload));
    let functions = Functions::from([("echo".to_owned(), echo)]);
    let lambda = EmbeddedLambda::start(anywhere(), functions).expect("a free port");
    let invoker = invoker(&lambda.url()).await;
    let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(10));
    let outcome = invoke_between(now, later, &invoker, "echo", "{}").await;
    assert_eq!((word(&outcome), calls.count()), ("unavailable", 0), "{outcome:?}");
    let outcome = invoke_between(later, later, &invoker, "echo", "{}").await;
    assert_eq!((word(&outcome), calls.count()), ("succeeded", 1), "{outcome:?}");
    // Where a connection is ready, it is the last look that finds it too late.
    let outcome = invoke_between(now, later, &invoker, "echo", "{}").await;
    assert_eq!((word(&outcome), calls.count()), ("unavailable", 1), "{outcome:?}");
}

#[tokio::test]
async fn an_error_that_is_not_the_custom_form_is_kept_as_it_is() {
    for (body, error_type, message) in [
        ("not json", "Unhandled", "not json"),
        ("{}", "Unhandled", ""),
        ("[1]", "Unhandled", "[1]"),
        ("{\"errorType\": 5}", "Unhandled", "{\"errorType\": 5}"),
        ("{\"errorMessage\": \"m\"}", "Unhandled", "m"),
        ("{\"errorType\": \"T\", \"errorMessage\": \"m\", \"stackTrace\": []}", "T", "m"),
    ] {
        let url = function_error_endpoint(body).await;
        let outcome = invoke(&invoker(&url).await, "any", "{}").await;
        let Outcome::Failed(failure) = outcome else { panic!("{body}: {outcome:?}") };
        assert_eq!((failure.error_type.as_str(), failure.message.as_str()), (error_type, message));
    }
}

#[tokio::test]
async fn a_function_s_words_are_cut_between_two_characters() {
    let body = json!({ "errorType": "é".repeat(1000), "errorMessage": "é".repeat(100_000) });
    let url = function_error_endpoint(&body.to_string()).await;
    let outcome = invoke(&invoker(&url).await, "any", "{}").await;
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert!(failure.error_type.len() < 300 && failure.message.len() < 2100);
}

/// An endpoint on which every function fails with this body.
async fn function_error_endpoint(body: &str) -> String {
    let listener = tokio::net::TcpListener::bind(anywhere()).await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let body = body.to_owned();
    let router = axum::Router::new().fallback(async move || {
        let mut response = axum::http::Response::new(axum::body::Body::from(body));
        let unhandled = axum::http::HeaderValue::from_static("Unhandled");
        response.headers_mut().insert("x-amz-function-error", unhandled);
        response
    });
    // It ends with the test's runtime.
    #[expect(clippy::disallowed_methods, reason = "nobody waits for it")]
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

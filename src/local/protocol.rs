//! Lambda's HTTP interface, as the SDK and the AWS CLI speak it
//! (docs.aws.amazon.com/lambda/latest/api/API_Invoke.html).

mod call;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use axum::routing::{get, post, put};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rand::{RngExt as _, make_rng, rngs::StdRng};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::lambda::{Answer, Call, Code, Ended, Functions, Gauge, LocalFunction};
use super::limits::{Gate, Limits};
use super::output::TAIL_BYTES;
use crate::retry::Backoff;
pub use call::plain_name;

/// How long an event waits for room, ...
const EVENT_LASTS: Duration = Duration::from_secs(6 * 3600);

/// ... and how long between two tries.
const EVENT_BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(100), max: Duration::from_secs(5) };

struct Endpoint {
    functions: Functions,
    gate: Arc<Gate>,
    gauge: Arc<Gauge>,
}

type Shared = State<Arc<Endpoint>>;

pub(super) fn router(functions: Functions, limits: Limits, gauge: Arc<Gauge>) -> Router {
    let gate = Arc::new(Gate::new(limits, &functions));
    for function in functions.values() {
        if let Code::Program(environments) = &function.code {
            environments.keep_to_ramp(limits.ramp);
        }
    }
    Router::new()
        .route("/2015-03-31/functions/{name}/invocations", post(invoke))
        .route("/2015-03-31/functions/{name}/configuration", get(settings::configuration))
        .route("/2019-09-30/functions/{name}/concurrency", get(settings::concurrency))
        .route(
            "/2017-10-31/functions/{name}/concurrency",
            put(settings::put_concurrency).delete(settings::delete_concurrency),
        )
        .route("/2016-08-19/account-settings", get(settings::account_settings))
        .layer(DefaultBodyLimit::max(call::BODY_LIMIT_BYTES))
        .with_state(Arc::new(Endpoint { functions, gate, gauge }))
}

/// What an Invoke says beside its payload.
#[derive(Deserialize)]
struct Query {
    #[serde(rename = "Qualifier")]
    qualifier: Option<String>,
}

async fn invoke(
    State(endpoint): Shared,
    Path(path): Path<String>,
    axum::extract::Query(Query { qualifier }): axum::extract::Query<Query>,
    headers: HeaderMap,
    payload: Result<Bytes, BytesRejection>,
) -> Response<Body> {
    let request_id = random_id();
    let name = plain_name(&path);
    let Some(function) = endpoint.functions.get(name) else {
        return not_found(&endpoint.functions, name, &request_id);
    };
    let text = |header: &str| headers.get(header).and_then(|value| value.to_str().ok());
    let invocation_type = text("x-amz-invocation-type").unwrap_or("RequestResponse");
    let call = call::read(&path, qualifier, &headers, invocation_type, payload);
    let call = match call {
        Ok(call) => Call { request_id: request_id.clone(), ..call },
        Err(refusal) => return respond(&request_id, refusal),
    };
    if invocation_type == "DryRun" {
        return empty(&request_id, StatusCode::NO_CONTENT);
    }
    // The function runs on whatever becomes of this connection, as it does in Lambda.
    if invocation_type == "Event" {
        #[expect(
            clippy::disallowed_methods,
            reason = "it outlives its caller, and ends by itself"
        )]
        tokio::spawn(run_when_there_is_room(endpoint.clone(), function.clone(), call));
        return empty(&request_id, StatusCode::ACCEPTED);
    }
    #[expect(clippy::disallowed_methods, reason = "it outlives its caller, and ends by itself")]
    let run = tokio::spawn(run(endpoint.clone(), function.clone(), call));
    let ended = run.await.unwrap_or_else(|_| crashed(&request_id));
    let mut response = respond(&request_id, ended.answer);
    if text("x-amz-log-type") == Some("Tail") && response.status() == StatusCode::OK {
        header(&mut response, "x-amz-log-result", &log_tail(&ended.log));
    }
    response
}

/// Runs a function that nobody waits for: Lambda keeps the event for six hours while there is no
/// room for it (docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html).
async fn run_when_there_is_room(endpoint: Arc<Endpoint>, function: LocalFunction, call: Call) {
    let mut rng: StdRng = make_rng();
    let until = Instant::now() + EVENT_LASTS;
    for tries in 1.. {
        let ended = run(endpoint.clone(), function.clone(), call.clone()).await;
        let has_no_room = matches!(ended.answer, Answer::Refused { status: 429 | 500.., .. });
        if !has_no_room || Instant::now() > until {
            return;
        }
        sleep(EVENT_BACKOFF.after(tries, &mut rng)).await;
    }
}

/// Runs a function to its end, or to its timeout, if there is room for it.
async fn run(endpoint: Arc<Endpoint>, function: LocalFunction, call: Call) -> Ended {
    let has_own_ramp = matches!(function.code, Code::Program(_));
    let admitted = endpoint.gate.admit(&call.function, has_own_ramp);
    let ended = match admitted {
        Ok(_admission) => {
            endpoint.gauge.begin();
            let _running = EndOnDrop(&endpoint.gauge);
            run_admitted(&function, call).await
        }
        Err(refusal) => Ended { answer: refusal, log: String::new() },
    };
    if let Answer::Refused { status: 429, .. } = ended.answer {
        endpoint.gauge.throttled();
    }
    ended
}

async fn run_admitted(function: &LocalFunction, call: Call) -> Ended {
    let request_id = call.request_id.clone();
    let handler = match &function.code {
        Code::Program(environments) => return environments.invoke(call).await,
        Code::Handler(handler) => handler,
    };
    let answer = match tokio::time::timeout(function.timeout, handler(call)).await {
        Ok(answer) => answer,
        Err(_) => Answer::Raised {
            error_type: "Sandbox.Timedout".to_owned(),
            message: format!(
                "RequestId: {request_id} Error: Task timed out after {:.2} seconds",
                function.timeout.as_secs_f64()
            ),
        },
    };
    let line = match &answer {
        Answer::Raised { error_type, message } => format!("[ERROR] {error_type}: {message}\n"),
        _ => String::new(),
    };
    let log = format!(
        "START RequestId: {request_id} Version: $LATEST\n{line}END RequestId: {request_id}\n"
    );
    Ended { answer, log }
}

struct EndOnDrop<'a>(&'a Gauge);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn invalid(request_id: &str, message: &str) -> Response<Body> {
    let body = json!({ "Type": "User", "message": message });
    respond(
        request_id,
        Answer::Refused { status: 400, code: "InvalidParameterValueException", body },
    )
}

fn not_found(functions: &Functions, name: &str, request_id: &str) -> Response<Body> {
    let known: Vec<_> = functions.keys().map(String::as_str).collect();
    let message = format!("Function not found: {name}; here is: {}", known.join(", "));
    let code = "ResourceNotFoundException";
    let body = json!({ "Type": "User", "Message": message });
    respond(request_id, Answer::Refused { status: 404, code, body })
}

/// burstd's own code has panicked.
fn crashed(request_id: &str) -> Ended {
    let answer = Answer::Raised {
        error_type: "Runtime.ExitError".to_owned(),
        message: format!("RequestId: {request_id} Error: Runtime exited with error"),
    };
    Ended { answer, log: String::new() }
}

fn respond(request_id: &str, answer: Answer) -> Response<Body> {
    match answer {
        Answer::Returned(result) => answered(request_id, result),
        Answer::Errored(error) => failed(request_id, error),
        Answer::Raised { error_type, message } => {
            let error = json!({ "errorType": error_type, "errorMessage": message });
            failed(request_id, error.to_string().into_bytes())
        }
        Answer::TooLarge => {
            let message =
                "Response payload size exceeded maximum allowed payload size (6291556 bytes).";
            let error = json!({
                "errorType": "Function.ResponseSizeTooLarge",
                "errorMessage": message,
            });
            failed(request_id, error.to_string().into_bytes())
        }
        Answer::Refused { status, code, body } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            let mut response = json_response(request_id, status, &body);
            header(&mut response, "x-amzn-errortype", code);
            if let Some(seconds) = body.get("retryAfterSeconds").and_then(Value::as_str) {
                header(&mut response, "retry-after", seconds);
            }
            response
        }
        // The connection's task ends, and the connection with it; this is not a panic, so nothing
        // is printed.
        Answer::Disconnected => std::panic::resume_unwind(Box::new("the connection breaks")),
    }
}

/// The function ran, and this came of it.
fn answered(request_id: &str, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    header(&mut response, "content-type", "application/json");
    header(&mut response, "x-amz-executed-version", "$LATEST");
    with_id(response, request_id)
}

/// The function ran, and failed.
fn failed(request_id: &str, error: Vec<u8>) -> Response<Body> {
    let mut response = answered(request_id, error);
    header(&mut response, "x-amz-function-error", "Unhandled");
    response
}

fn json_response(request_id: &str, status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    header(&mut response, "content-type", "application/json");
    with_id(response, request_id)
}

fn empty(request_id: &str, status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    with_id(response, request_id)
}

fn with_id(mut response: Response<Body>, request_id: &str) -> Response<Body> {
    header(&mut response, "x-amzn-requestid", request_id);
    response
}

fn header(response: &mut Response<Body>, name: &'static str, value: &str) {
    let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static("unprintable"));
    response.headers_mut().insert(name, value);
}

/// The end of the function's log, as Lambda sends it.
fn log_tail(log: &str) -> String {
    BASE64.encode(&log.as_bytes()[log.len().saturating_sub(TAIL_BYTES)..])
}

/// A random UUID's form.
fn random_id() -> String {
    let id = format!("{:032x}", make_rng::<StdRng>().random::<u128>());
    format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..])
}

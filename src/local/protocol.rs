//! Lambda's HTTP interface, as the SDK and the AWS CLI speak it
//! (docs.aws.amazon.com/lambda/latest/api/API_Invoke.html).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rand::{RngExt as _, make_rng, rngs::StdRng};
use serde::Deserialize;
use serde_json::{Value, json};

use super::lambda::{Answer, Call, Functions, Gauge, LocalFunction, TaskContext};
use super::limits::{Admission, Gate, Limits};

/// Lambda takes no larger event of a synchronous invocation.
const PAYLOAD_LIMIT_BYTES: usize = 6 * 1024 * 1024;

struct Endpoint {
    functions: Functions,
    gate: Arc<Gate>,
    gauge: Arc<Gauge>,
}

type Shared = State<Arc<Endpoint>>;

pub(super) fn router(functions: Functions, limits: Limits, gauge: Arc<Gauge>) -> Router {
    let gate = Arc::new(Gate::new(limits));
    Router::new()
        .route("/2015-03-31/functions/{name}/invocations", post(invoke))
        .route("/2015-03-31/functions/{name}/configuration", get(configuration))
        .route("/2019-09-30/functions/{name}/concurrency", get(concurrency))
        .route("/2016-08-19/account-settings", get(account_settings))
        .layer(DefaultBodyLimit::max(2 * PAYLOAD_LIMIT_BYTES))
        .with_state(Arc::new(Endpoint { functions, gate, gauge }))
}

async fn invoke(
    State(endpoint): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
    payload: Bytes,
) -> Response<Body> {
    let request_id = random_id();
    let name = plain_name(&name);
    let Some(function) = endpoint.functions.get(name) else {
        return not_found(&endpoint.functions, name, &request_id);
    };
    let payload = if payload.is_empty() { Bytes::from_static(b"{}") } else { payload };
    if let Some(refusal) = objection(&payload) {
        return respond(&request_id, refusal);
    }
    let text = |header: &str| headers.get(header).and_then(|value| value.to_str().ok());
    let call = Call {
        function: name.to_owned(),
        request_id: request_id.clone(),
        payload: payload.to_vec(),
        context: text("x-amz-client-context").and_then(task_context),
        trace: text("x-amzn-trace-id").map(str::to_owned),
    };
    let invocation_type = text("x-amz-invocation-type");
    if invocation_type == Some("DryRun") {
        return empty(&request_id, StatusCode::NO_CONTENT);
    }
    let admission = match endpoint.gate.admit(name, function.max_concurrency) {
        Ok(admission) => admission,
        Err(refusal) => {
            endpoint.gauge.throttled();
            return respond(&request_id, refusal);
        }
    };
    // The function runs on whatever becomes of this connection, as it does in Lambda.
    #[expect(clippy::disallowed_methods, reason = "it outlives its caller, and ends by itself")]
    let run = tokio::spawn(run(endpoint.clone(), function.clone(), admission, call));
    if invocation_type == Some("Event") {
        return empty(&request_id, StatusCode::ACCEPTED);
    }
    let answer = run.await.unwrap_or_else(|_| crashed(&request_id));
    respond(&request_id, answer)
}

/// Runs a function to its end, or to its timeout.
async fn run(
    endpoint: Arc<Endpoint>,
    function: LocalFunction,
    _admission: Admission,
    call: Call,
) -> Answer {
    let request_id = call.request_id.clone();
    endpoint.gauge.begin();
    let _running = EndOnDrop(&endpoint.gauge);
    match tokio::time::timeout(function.timeout, (function.handler)(call)).await {
        Ok(answer) => answer,
        Err(_) => Answer::Raised {
            error_type: "Sandbox.Timedout".to_owned(),
            message: format!(
                "RequestId: {request_id} Error: Task timed out after {:.2} seconds",
                function.timeout.as_secs_f64()
            ),
        },
    }
}

struct EndOnDrop<'a>(&'a Gauge);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

async fn configuration(State(endpoint): Shared, Path(name): Path<String>) -> Response<Body> {
    let request_id = random_id();
    let name = plain_name(&name);
    match endpoint.functions.get(name) {
        None => not_found(&endpoint.functions, name, &request_id),
        Some(function) => json_response(
            &request_id,
            StatusCode::OK,
            &json!({
                "FunctionName": name,
                "FunctionArn": format!("arn:aws:lambda:us-east-1:000000000000:function:{name}"),
                "Timeout": whole_seconds(function.timeout),
                "MemorySize": 128,
                "State": "Active",
                "LastUpdateStatus": "Successful",
                "Version": "$LATEST",
            }),
        ),
    }
}

async fn concurrency(State(endpoint): Shared, Path(name): Path<String>) -> Response<Body> {
    let request_id = random_id();
    let name = plain_name(&name);
    let Some(function) = endpoint.functions.get(name) else {
        return not_found(&endpoint.functions, name, &request_id);
    };
    if endpoint.gate.is_secret() {
        return denied(&request_id);
    }
    let reserved = function.max_concurrency;
    let body = reserved.map_or(json!({}), |most| json!({ "ReservedConcurrentExecutions": most }));
    json_response(&request_id, StatusCode::OK, &body)
}

async fn account_settings(State(endpoint): Shared) -> Response<Body> {
    if endpoint.gate.is_secret() {
        return denied(&random_id());
    }
    let limit = json!({
        "ConcurrentExecutions": endpoint.gate.account(),
        "UnreservedConcurrentExecutions": endpoint.gate.unreserved(&endpoint.functions),
    });
    json_response(&random_id(), StatusCode::OK, &json!({ "AccountLimit": limit }))
}

fn denied(request_id: &str) -> Response<Body> {
    let body = json!({ "Message": "no identity-based policy allows the action" });
    respond(request_id, Answer::Refused { status: 403, code: "AccessDeniedException", body })
}

fn whole_seconds(timeout: Duration) -> u64 {
    timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0)
}

/// The function's name in `name`, `name:alias`, a partial ARN or an ARN.
fn plain_name(name: &str) -> &str {
    let after = name.split_once(":function:").map_or(name, |(_, after)| after);
    after.split(':').next().unwrap_or(after)
}

/// What Lambda refuses before the function sees it.
fn objection(payload: &[u8]) -> Option<Answer> {
    let refused = |status, code, message: String| {
        Some(Answer::Refused { status, code, body: json!({ "message": message }) })
    };
    if payload.len() > PAYLOAD_LIMIT_BYTES {
        let message = format!(
            "{} byte payload is too large for the RequestResponse invocation type (limit \
             {PAYLOAD_LIMIT_BYTES} bytes)",
            payload.len()
        );
        return refused(413, "RequestTooLargeException", message);
    }
    match serde_json::from_slice::<serde::de::IgnoredAny>(payload) {
        Ok(_) => None,
        Err(error) => {
            let message = format!("Could not parse request body into json: {error}");
            refused(400, "InvalidRequestContentException", message)
        }
    }
}

fn task_context(header: &str) -> Option<TaskContext> {
    #[derive(Deserialize)]
    struct ClientContext {
        custom: TaskContext,
    }
    let context = BASE64.decode(header).ok()?;
    let ClientContext { custom } = serde_json::from_slice(&context).ok()?;
    Some(custom)
}

fn not_found(functions: &Functions, name: &str, request_id: &str) -> Response<Body> {
    let known: Vec<_> = functions.keys().map(String::as_str).collect();
    let message = format!("Function not found: {name}; here is: {}", known.join(", "));
    let code = "ResourceNotFoundException";
    let body = json!({ "Type": "User", "Message": message });
    respond(request_id, Answer::Refused { status: 404, code, body })
}

fn crashed(request_id: &str) -> Answer {
    Answer::Raised {
        error_type: "Runtime.ExitError".to_owned(),
        message: format!("RequestId: {request_id} Error: Runtime exited with error"),
    }
}

fn respond(request_id: &str, answer: Answer) -> Response<Body> {
    match answer {
        Answer::Returned(result) => {
            let mut response = Response::new(Body::from(result));
            let log = log_tail(request_id, None);
            header(&mut response, "x-amz-log-result", &log);
            header(&mut response, "x-amz-executed-version", "$LATEST");
            with_id(response, request_id)
        }
        Answer::Raised { error_type, message } => {
            let body = json!({ "errorType": error_type, "errorMessage": message });
            let mut response = Response::new(Body::from(body.to_string()));
            let log = log_tail(request_id, Some(&format!("[ERROR] {error_type}: {message}")));
            header(&mut response, "x-amz-log-result", &log);
            header(&mut response, "x-amz-function-error", "Unhandled");
            with_id(response, request_id)
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

/// The function's log, as Lambda would have it.
fn log_tail(request_id: &str, line: Option<&str>) -> String {
    let line = line.map(|line| format!("{line}\n")).unwrap_or_default();
    BASE64.encode(format!(
        "START RequestId: {request_id} Version: $LATEST\n{line}END RequestId: {request_id}\n"
    ))
}

/// A random UUID's form.
fn random_id() -> String {
    let id = format!("{:032x}", make_rng::<StdRng>().random::<u128>());
    format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..])
}

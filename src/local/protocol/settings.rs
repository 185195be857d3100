//! What Lambda tells of its functions' settings, and lets be changed.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::{Shared, empty, invalid, json_response, not_found, plain_name, random_id, respond};
use crate::local::lambda::{Answer, arn};

pub(super) async fn configuration(
    State(endpoint): Shared,
    Path(name): Path<String>,
) -> Response<Body> {
    let request_id = random_id();
    let name = plain_name(&name);
    match endpoint.functions.get(name) {
        None => not_found(&endpoint.functions, name, &request_id),
        Some(function) => json_response(
            &request_id,
            StatusCode::OK,
            &json!({
                "FunctionName": name,
                "FunctionArn": arn(name, None),
                "Timeout": whole_seconds(function.timeout),
                "MemorySize": function.memory_mb,
                "State": "Active",
                "LastUpdateStatus": "Successful",
                "Version": "$LATEST",
            }),
        ),
    }
}

pub(super) async fn concurrency(
    State(endpoint): Shared,
    Path(name): Path<String>,
) -> Response<Body> {
    let (request_id, name) = (random_id(), plain_name(&name));
    if !endpoint.functions.contains_key(name) {
        return not_found(&endpoint.functions, name, &request_id);
    }
    if endpoint.gate.is_secret() {
        return denied(&request_id);
    }
    let reserved = endpoint.gate.reserved(name);
    let body = reserved.map_or(json!({}), |most| json!({ "ReservedConcurrentExecutions": most }));
    json_response(&request_id, StatusCode::OK, &body)
}

pub(super) async fn put_concurrency(
    State(endpoint): Shared,
    Path(name): Path<String>,
    body: Bytes,
) -> Response<Body> {
    #[derive(Deserialize)]
    struct Wish {
        #[serde(rename = "ReservedConcurrentExecutions")]
        most: u32,
    }
    let (request_id, name) = (random_id(), plain_name(&name));
    if !endpoint.functions.contains_key(name) {
        return not_found(&endpoint.functions, name, &request_id);
    }
    let Ok(Wish { most }) = serde_json::from_slice(&body) else {
        return invalid(&request_id, "ReservedConcurrentExecutions must be a number from 0 on");
    };
    if !endpoint.gate.reserve(name, Some(most)) {
        let message = format!(
            "Specified ReservedConcurrentExecutions for function is above what the account's \
             limit of {} leaves",
            endpoint.gate.account().unwrap_or_default()
        );
        return invalid(&request_id, &message);
    }
    let body = json!({ "ReservedConcurrentExecutions": most });
    json_response(&request_id, StatusCode::OK, &body)
}

pub(super) async fn delete_concurrency(
    State(endpoint): Shared,
    Path(name): Path<String>,
) -> Response<Body> {
    let (request_id, name) = (random_id(), plain_name(&name));
    if !endpoint.functions.contains_key(name) {
        return not_found(&endpoint.functions, name, &request_id);
    }
    endpoint.gate.reserve(name, None);
    empty(&request_id, StatusCode::NO_CONTENT)
}

pub(super) async fn account_settings(State(endpoint): Shared) -> Response<Body> {
    if endpoint.gate.is_secret() {
        return denied(&random_id());
    }
    let limit = json!({
        "ConcurrentExecutions": endpoint.gate.account(),
        "UnreservedConcurrentExecutions": endpoint.gate.unreserved(),
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

//! What a caller of Invoke says, and what Lambda refuses of it before the function sees it
//! (docs.aws.amazon.com/lambda/latest/api/API_Invoke.html).

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::local::lambda::{Answer, Call, TaskContext};

/// Lambda takes no larger event of a synchronous invocation, ...
/// (docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html)
const PAYLOAD_LIMIT_BYTES: usize = 6 * 1024 * 1024;

/// ... and none larger than this of an asynchronous one.
const EVENT_LIMIT_BYTES: usize = 1024 * 1024;

/// No more is read at all.
pub(super) const BODY_LIMIT_BYTES: usize = 2 * PAYLOAD_LIMIT_BYTES;

/// Reads a call, or says why there is none.
pub(super) fn read(
    path: &str,
    qualifier: Option<String>,
    headers: &HeaderMap,
    invocation_type: &str,
    payload: Result<Bytes, BytesRejection>,
) -> Result<Call, Answer> {
    let limit = match invocation_type {
        "RequestResponse" | "DryRun" => PAYLOAD_LIMIT_BYTES,
        "Event" => EVENT_LIMIT_BYTES,
        other => {
            let message = format!(
                "1 validation error detected: Value '{other}' at 'invocationType' failed to \
                 satisfy constraint: Member must satisfy enum value set: [Event, RequestResponse, \
                 DryRun]"
            );
            return Err(refused(400, "ValidationException", &message));
        }
    };
    let named = qualifier_of(path);
    if let (Some(named), Some(said)) = (named, &qualifier)
        && named != said
    {
        let message =
            "The derived qualifier from the function name does not match the specified qualifier.";
        return Err(refused(400, "InvalidParameterValueException", message));
    }
    let payload = payload.map_err(|rejection| match rejection.status().as_u16() {
        413 => too_large(&format!("More than {BODY_LIMIT_BYTES}"), invocation_type, limit),
        _ => refused(400, "InvalidRequestContentException", &rejection.body_text()),
    })?;
    if payload.len() > limit {
        return Err(too_large(&payload.len().to_string(), invocation_type, limit));
    }
    let payload = if payload.is_empty() { Bytes::from_static(b"{}") } else { payload };
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(&payload) {
        let message = format!("Could not parse request body into json: {error}");
        return Err(refused(400, "InvalidRequestContentException", &message));
    }
    let text = |header: &str| headers.get(header).and_then(|value| value.to_str().ok());
    let client_context = match text("x-amz-client-context") {
        // Lambda passes it on for synchronous invocations only.
        Some(encoded) => Some(decoded(encoded)?).filter(|_| invocation_type != "Event"),
        None => None,
    };
    Ok(Call {
        function: plain_name(path).to_owned(),
        qualifier: named.map(str::to_owned).or(qualifier),
        request_id: String::new(),
        payload: payload.to_vec(),
        context: client_context.as_deref().and_then(task_context),
        client_context,
        trace: text("x-amzn-trace-id").map(str::to_owned),
    })
}

fn refused(status: u16, code: &'static str, message: &str) -> Answer {
    Answer::Refused { status, code, body: json!({ "Type": "User", "message": message }) }
}

fn too_large(bytes: &str, invocation_type: &str, limit: usize) -> Answer {
    let message = format!(
        "{bytes} byte payload is too large for the {invocation_type} invocation type (limit \
         {limit} bytes)"
    );
    refused(413, "RequestTooLargeException", &message)
}

/// The ClientContext.
fn decoded(encoded: &str) -> Result<Vec<u8>, Answer> {
    let decoded = BASE64.decode(encoded).ok();
    let is_json = |text: &Vec<u8>| serde_json::from_slice::<IgnoredAny>(text).is_ok();
    let mut decoded = decoded.filter(is_json).ok_or_else(|| {
        let message = "Client context must be a valid Base64-encoded JSON object.";
        refused(400, "InvalidRequestContentException", message)
    })?;
    // It becomes a header, which takes no line ends; JSON has them between its parts only.
    decoded.iter_mut().filter(|byte| **byte < b' ').for_each(|byte| *byte = b' ');
    Ok(decoded)
}

/// The function's name in `name`, `name:alias`, a partial ARN or an ARN.
pub fn plain_name(name: &str) -> &str {
    let after = name.split_once(":function:").map_or(name, |(_, after)| after);
    after.split(':').next().unwrap_or(after)
}

/// The alias or version in `name:alias`, a partial ARN or an ARN, if there is one.
fn qualifier_of(name: &str) -> Option<&str> {
    let after = name.split_once(":function:").map_or(name, |(_, after)| after);
    after.split_once(':').map(|(_, qualifier)| qualifier)
}

fn task_context(context: &[u8]) -> Option<TaskContext> {
    #[derive(Deserialize)]
    struct ClientContext {
        custom: TaskContext,
    }
    let ClientContext { custom } = serde_json::from_slice(context).ok()?;
    Some(custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(path: &str, qualifier: Option<&str>, kind: &str) -> Result<Call, Answer> {
        let context = BASE64.encode("{\n\t\"custom\": {\"a\": \"b\"}\n}\n");
        let context = context.parse().expect("it is a header's value");
        let headers =
            HeaderMap::from_iter([("x-amz-client-context".parse().expect("it is one"), context)]);
        read(path, qualifier.map(str::to_owned), &headers, kind, Ok(Bytes::from_static(b"{}")))
    }

    #[test]
    fn an_alias_or_version_is_named_in_the_path_or_beside_it() {
        let arn = "arn:aws:lambda:us-east-1:123456789012:function:f";
        let live = format!("{arn}:live");
        for (path, qualifier, expected) in [
            ("f", None, None),
            ("f:live", None, Some("live")),
            ("f", Some("3"), Some("3")),
            ("f:live", Some("live"), Some("live")),
            (arn, None, None),
            (&live, None, Some("live")),
            ("123456789012:function:f:7", None, Some("7")),
        ] {
            let call = call(path, qualifier, "RequestResponse").expect("it is right");
            assert_eq!(
                (call.function.as_str(), call.qualifier.as_deref()),
                ("f", expected),
                "{path}"
            );
        }
        assert!(call("f:live", Some("test"), "RequestResponse").is_err());
    }

    #[test]
    fn the_client_s_context_is_passed_on_for_synchronous_invocations_alone() {
        for (kind, is_passed) in [("RequestResponse", true), ("Event", false)] {
            let call = call("f", None, kind).expect("it is right");
            let passed =
                call.client_context.map(|text| String::from_utf8(text).expect("it is text"));
            let expected = "{  \"custom\": {\"a\": \"b\"} } ".to_owned();
            assert_eq!(passed, is_passed.then_some(expected), "{kind}: on one line");
        }
    }
}

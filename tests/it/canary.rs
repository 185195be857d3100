//! What belongs to tasks, to functions and to their owners is on the item or nowhere: the log has
//! none of it, at any level. Every other test that runs the program looks for that, too.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_types::base64;
use burstd::telemetry::events::EVENTS;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::program::Program;
use crate::support::raw::{Raw, Reply, Request};
use crate::support::world::{World, config_with, error, s, text};

const LOG: &str = "START\nmarked-log\nEND\n";

fn answer(request: &Request) -> Reply {
    let headers = "content-type: application/json\r\nx-amzn-requestid: r-1\r\n\
                   x-something: marked-header\r\n";
    let failed = format!(
        "{headers}x-amz-function-error: Unhandled\r\nx-amz-log-result: {}\r\n",
        base64::encode(LOG)
    );
    let refused = format!("{headers}x-amzn-errortype: InvalidRequestContentException\r\n");
    let unsigned = format!("{headers}x-amzn-errortype: InvalidSignatureException\r\n");
    let canonical = "The request signature we calculated does not match.\n\nThe Canonical String \
                     should have been 'POST\n\nx-amz-security-token:marked-token\n'";
    match request.text() {
        _ if request.operation() != "Invoke" => Reply::json(403, "{}"),
        text if text.contains("good") => Reply::http(200, headers, "\"marked-result\""),
        text if text.contains("refused") => {
            Reply::http(400, &refused, json!({ "message": "marked-refusal" }).to_string())
        }
        text if text.contains("unsigned") => {
            Reply::http(403, &unsigned, json!({ "message": canonical }).to_string())
        }
        _ => {
            let body = json!({ "errorType": "ValueError", "errorMessage": "marked-message" });
            Reply::http(200, &failed, body.to_string())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payload_result_errors_words_headers_credentials_and_environment_are_never_logged() {
    let world = World::echoing().await;
    let lambda = Raw::start(answer).await;
    let config = config_with("max_attempts = 1\ntimeout = \"2s\"")
        + "[log]\nlevel = \"trace,aws_smithy_runtime=trace,aws_config=trace,aws_sdk_lambda=trace,\
           aws_sdk_dynamodb=trace,hyper=trace,hyper_util=trace,h2=trace,rustls=trace\"\n";
    let program = Program::between(&world.dynamodb.url(), &lambda.url, &config);
    let mut daemon = program.start_with(&[
        ("AWS_ACCESS_KEY_ID", "marked-key"),
        ("AWS_SECRET_ACCESS_KEY", "marked-secret"),
        ("AWS_SESSION_TOKEN", "marked-token"),
        ("PASSWORD_OF_SOMETHING", "marked-environment"),
    ]);
    for id in ["good", "bad", "refused"] {
        world.task(id).with("payload", s(format!("\"marked-payload {id}\""))).put().await;
    }
    let good = world.until("good", "SUCCEEDED").await;
    let bad = world.until("bad", "FAILED").await;
    let refused = world.until("refused", "FAILED").await;
    let key = HashMap::from([("marked-key-of-it".to_owned(), AttributeValue::B(Blob::new("1")))]);
    world.task("binary").with("payload", AttributeValue::M(key)).put().await;
    world.until("binary", "INVALID").await;
    world.task("unsigned").with("payload", s("\"unsigned\"")).put().await;
    let line = daemon.line_with("lambda.unavailable").await;
    assert!(line.contains("AWS does not accept the signature"), "{line}");
    daemon.signal(Signal::TERM);
    daemon.ended().await;

    assert_eq!(text(&good, "result"), "\"marked-result\"");
    assert_eq!(text(&good, "payload"), "\"marked-payload good\"");
    assert_eq!(error(&bad, "message"), "marked-message");
    assert_eq!(error(&bad, "log"), LOG);
    assert!(error(&refused, "message").contains("marked-refusal"), "{refused:?}");

    let lines = daemon.finish();
    let leaks: Vec<_> = lines.iter().filter(|line| line.contains("marked-")).collect();
    assert!(leaks.is_empty(), "{leaks:?}");
    let told: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    let failed =
        told.iter().find(|line| line["event"] == "task.failed" && line["task_id"] == "bad");
    let failed = failed.expect("it is told");
    assert_eq!(failed["error_type"], "ValueError");
    assert_eq!(failed["request_id"], "r-1");
    assert_eq!(
        (&failed["function"], &failed["log_group"]),
        (&"work".into(), &"/aws/lambda/work".into())
    );
    assert_eq!(failed["log_bytes"], LOG.len());
    assert!(failed["log_since"].as_u64().is_some_and(|at| at > 1_700_000_000_000), "{failed}");
    let is_known = |line: &Value| EVENTS.iter().any(|event| line["event"] == event.name);
    assert!(told.iter().all(is_known), "only what the catalogue promises: {told:?}");
}

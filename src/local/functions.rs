//! The built-in functions of `burstd demo` and `burstd dev`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::sleep;

use super::lambda::{Answer, Call, Functions, LocalFunction};

/// What a task of the demo is called with.
#[derive(Debug, Serialize, Deserialize)]
pub struct DemoEvent {
    /// The task's number.
    pub task: u64,
    /// How long to take.
    pub sleep_ms: u64,
    /// Whether to fail on the first attempt.
    pub fails_first: bool,
}

/// The demo's function: it takes its time, and fails when told to.
pub fn demo(timeout: Duration) -> Functions {
    let function = LocalFunction::new(timeout, async |call: Call| {
        let event: DemoEvent = match serde_json::from_slice(&call.payload) {
            Ok(event) => event,
            Err(error) => return raised("Demo.BadEvent", &error.to_string()),
        };
        sleep(Duration::from_millis(event.sleep_ms)).await;
        let attempt = call.context.map_or(1, |context| context.attempt);
        if event.fails_first && attempt == 1 {
            return raised("Demo.Failure", "the first attempt of this task fails on purpose");
        }
        returned(&json!({ "task": event.task }))
    });
    Functions::from([("demo".to_owned(), function)])
}

/// What `burstd dev` can run, by name, with what it does.
pub const BUILT_IN: [(&str, &str); 4] = [
    ("echo", "returns its event"),
    ("sleep", "takes the event's `seconds`, 1 if there are none"),
    ("flaky", "fails on the first attempt of a task, returns the event on the second"),
    ("fail", "always fails"),
];

/// The functions of `burstd dev`.
pub fn built_in() -> Functions {
    let timeout = Duration::from_secs(60);
    BUILT_IN
        .iter()
        .map(|(name, _)| {
            let function = LocalFunction::new(timeout, run_built_in);
            ((*name).to_owned(), function)
        })
        .collect()
}

async fn run_built_in(call: Call) -> Answer {
    let attempt = call.context.as_ref().map_or(1, |context| context.attempt);
    match call.function.as_str() {
        "sleep" => {
            let event: serde_json::Value =
                serde_json::from_slice(&call.payload).unwrap_or_default();
            let seconds = event.get("seconds").and_then(serde_json::Value::as_f64).unwrap_or(1.0);
            // The function's timeout ends what would take longer.
            let seconds = seconds.clamp(0.0, 1e6);
            sleep(Duration::from_secs_f64(seconds)).await;
            returned(&json!({ "slept": seconds }))
        }
        "fail" => raised("Example.Failure", "this function always fails"),
        "flaky" if attempt == 1 => raised("Example.Failure", "the first attempt fails"),
        _ => Answer::Returned(call.payload),
    }
}

fn returned(result: &serde_json::Value) -> Answer {
    Answer::Returned(result.to_string().into_bytes())
}

fn raised(error_type: &str, message: &str) -> Answer {
    Answer::Raised { error_type: error_type.to_owned(), message: message.to_owned() }
}

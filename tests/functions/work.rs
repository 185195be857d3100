//! A Lambda function in Rust: takes the event's `seconds`, and says how long that was and for whom.
//!
//! ```sh
//! cargo build --release --example work
//! burstd dev --function work=target/release/examples/work
//! ```
//!
//! and in another terminal, 500 of them (with the variables that `burstd dev` prints):
//!
//! ```sh
//! printf 'table = "tasks"\n[queues.work]\nfunction = "work"\n' > dev.toml
//! for i in $(seq 500); do echo "{\"id\": \"work-$i\", \"payload\": {\"seconds\": 0.5}}"; done |
//!   burstd put --config dev.toml --queue work --file -
//! ```

use std::time::Duration;

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_runtime::run(service_fn(work)).await
}

async fn work(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let seconds = event.payload["seconds"].as_f64().unwrap_or_default();
    let task = event.context.client_context.and_then(|it| it.custom.get("task_id").cloned());
    if seconds != 0.0 {
        println!("working for {seconds} s");
        tokio::time::sleep(Duration::try_from_secs_f64(seconds)?).await;
    }
    Ok(json!({ "seconds": seconds, "task": task }))
}

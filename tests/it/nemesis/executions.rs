//! The functions, and the record of what they were called for.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use burstd::local::lambda::{Answer, Call, EmbeddedLambda, Functions, LocalFunction};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::time::sleep;

use super::TIMEOUT;

/// One run of the function.
#[derive(Clone, Debug)]
pub struct Execution {
    pub task: String,
    pub attempt: u32,
    pub worker: String,
    pub began: Instant,
    /// Nothing while it runs.
    pub ended: Option<Instant>,
}

pub struct Executions {
    lambda: EmbeddedLambda,
    record: Record,
}

type Record = Arc<Mutex<Vec<Execution>>>;

/// What a call comes to.
enum Deed {
    Refuse,
    Run { takes: Duration, then: Answer },
}

impl Executions {
    pub fn start(seed: u64) -> Self {
        let record = Record::default();
        let dice = Mutex::new(StdRng::seed_from_u64(seed));
        let noted = record.clone();
        let function = LocalFunction::new(TIMEOUT, move |call: Call| {
            let deed = decide(&call, &mut dice.lock().expect("nobody panics with it"));
            let record = noted.clone();
            async move {
                match deed {
                    Deed::Refuse => Answer::Refused {
                        status: 429,
                        code: "TooManyRequestsException",
                        body: json!({ "Reason": "ConcurrentInvocationLimitExceeded" }),
                    },
                    Deed::Run { takes, then } => {
                        let _running = Running::new(&record, &call);
                        sleep(takes).await;
                        then
                    }
                }
            }
        });
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let functions = Functions::from([("work".to_owned(), function)]);
        let lambda = EmbeddedLambda::start(anywhere, functions).expect("a free port");
        Executions { lambda, record }
    }

    pub fn url(&self) -> String {
        self.lambda.url()
    }

    pub fn all(&self) -> Vec<Execution> {
        self.record.lock().expect("nobody panics with it").clone()
    }
}

fn decide(call: &Call, dice: &mut StdRng) -> Deed {
    let raised = |error_type: &str| Answer::Raised {
        error_type: error_type.to_owned(),
        message: "so it is".to_owned(),
    };
    let takes = Duration::from_millis(dice.random_range(10..300));
    let task = call.context.as_ref().map_or("", |context| &context.task_id);
    let then = match dice.random_range(0..100) {
        0..5 => return Deed::Refuse,
        _ if task.starts_with("poison") => raised("Runtime.ExitError"),
        5..12 => raised("ValueError"),
        12..15 => Answer::Disconnected,
        // It is stopped before.
        15..18 => return Deed::Run { takes: 2 * TIMEOUT, then: raised("never") },
        _ => Answer::Returned(b"{\"good\": true}".to_vec()),
    };
    Deed::Run { takes, then }
}

/// Ends its execution when it is dropped: the function has returned, or was stopped.
struct Running {
    record: Record,
    index: usize,
}

impl Running {
    fn new(record: &Record, call: &Call) -> Self {
        let context = call.context.clone().expect("burstd tells the function");
        let mut executions = record.lock().expect("nobody panics with it");
        executions.push(Execution {
            task: context.task_id,
            attempt: context.attempt,
            worker: context.worker,
            began: Instant::now(),
            ended: None,
        });
        Running { record: record.clone(), index: executions.len() - 1 }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut executions = self.record.lock().expect("nobody panics with it");
        executions[self.index].ended = Some(Instant::now());
    }
}

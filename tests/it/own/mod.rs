//! Users' own functions, as processes over the Lambda Runtime API.

mod api;
mod dev;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::LogType;
use aws_smithy_types::base64;
use burstd::config::Program as Code;
use burstd::local::environments::{Environments, Host};
use burstd::local::lambda::{EmbeddedLambda, Functions, LocalFunction};
use burstd::local::limits::Limits;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::eventually;

/// A function that is built beside the tests.
pub fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("the tests are a program");
    let target = tests.parent().and_then(Path::parent).expect("it is in target/*/deps");
    let path = target.join("examples").join(name);
    assert!(
        path.exists(),
        "{}: `cargo test` or `cargo build --examples` builds it",
        path.display()
    );
    path
}

fn naughty() -> Code {
    let command = vec![example("naughty").display().to_string()];
    Code { timeout: Duration::from_secs(20), ..Code::new(command) }
}

/// A Lambda endpoint with a function `f`, and a client of AWS's for it.
struct Endpoint {
    client: aws_sdk_lambda::Client,
    environments: std::sync::Arc<Environments>,
    lambda: EmbeddedLambda,
}

/// How an invocation ended.
#[derive(Debug)]
struct Ended {
    payload: Value,
    error: Option<String>,
    log: String,
}

impl Endpoint {
    fn start(program: Code) -> Self {
        Endpoint::idling(program, Duration::from_secs(60))
    }

    fn idling(program: Code, idle: Duration) -> Self {
        Endpoint::of(&[("f", program)], idle)
    }

    /// The same, with several functions.
    fn of(programs: &[(&str, Code)], idle: Duration) -> Self {
        Endpoint::limited(programs, idle, Limits::default())
    }

    /// The same, within limits.
    fn limited(programs: &[(&str, Code)], idle: Duration, limits: Limits) -> Self {
        let host = Host::new(env!("CARGO_BIN_EXE_burstd").into(), idle).expect("it starts");
        let environments = programs.iter().map(|(name, program)| {
            Environments::new((*name).to_owned(), program.clone(), host.clone())
        });
        let environments: Vec<_> = environments.collect();
        let names = programs.iter().map(|(name, _)| (*name).to_owned());
        let functions = environments.iter().cloned().map(LocalFunction::program);
        let functions: Functions = names.zip(functions).collect();
        let environments = environments.last().expect("there is one").clone();
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let lambda = EmbeddedLambda::limited(anywhere, functions, limits);
        let lambda = lambda.expect("a free port");
        let credentials =
            aws_sdk_lambda::config::Credentials::new("test", "test", None, None, "tests");
        let config = aws_sdk_lambda::Config::builder()
            .behavior_version_latest()
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(lambda.url())
            .region(aws_sdk_lambda::config::Region::new("us-east-1"))
            .retry_config(aws_sdk_lambda::config::retry::RetryConfig::disabled())
            .credentials_provider(credentials)
            .build();
        Endpoint { client: aws_sdk_lambda::Client::from_conf(config), environments, lambda }
    }

    async fn invoke(&self, event: &Value) -> Ended {
        let request = self.client.invoke().function_name("f").log_type(LogType::Tail);
        let sent = request.payload(Blob::new(event.to_string())).send().await;
        let output = sent.expect("Lambda answers");
        let payload = output.payload.expect("there is one").into_inner();
        let log = base64::decode(output.log_result.expect("it was asked for")).expect("base64");
        Ended {
            payload: serde_json::from_slice(&payload).expect("it is JSON"),
            error: output.function_error,
            log: String::from_utf8_lossy(&log).into_owned(),
        }
    }

    /// The process that answers next.
    async fn pid(&self) -> u64 {
        self.invoke(&json!({ "do": "tell" })).await.payload["pid"].as_u64().expect("it has one")
    }
}

fn is_alive(pid: u64) -> bool {
    // A zombie has no command line any more.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// Until it has become what it was started for.
async fn until_alive(pid: u64) {
    eventually(&format!("{pid} lives"), async || if is_alive(pid) { Ok(()) } else { Err(()) })
        .await;
}

async fn until_gone(pid: u64) {
    eventually(&format!("{pid} is gone"), async || if is_alive(pid) { Err(()) } else { Ok(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_told_what_lambda_tells() {
    let environment = [("STAGE".to_owned(), "dev".to_owned())].into();
    let endpoint = Endpoint::start(Code { memory_mb: 256, environment, ..naughty() });
    let context = json!({ "custom": { "task_id": "a", "other": "b" } });
    let trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1";
    let call = endpoint
        .client
        .invoke()
        .function_name("f:live")
        .payload(Blob::new(json!({ "do": "tell" }).to_string()));
    let call = call.client_context(base64::encode(context.to_string()));
    let call = call.customize().mutate_request(move |request| {
        request.headers_mut().insert("x-amzn-trace-id", trace);
    });
    let output = call.send().await.expect("Lambda answers");
    assert_eq!(
        (output.function_error(), output.log_result()),
        (None, None),
        "no log was asked for"
    );
    let told = output.payload.expect("there is one").into_inner();
    let told: Value = serde_json::from_slice(&told).expect("it is JSON");
    for (key, expected) in [
        ("function", json!("f")),
        ("memory", json!(256)),
        ("arn", json!("arn:aws:lambda:us-east-1:000000000000:function:f:live")),
        ("trace", json!(trace)),
        ("client", context["custom"].clone()),
        ("stage", json!("dev")),
    ] {
        assert_eq!(told[key], expected, "{key}: {told}");
    }
    assert_eq!(told["request_id"].as_str().map(str::len), Some(36), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_function_does_harms_its_own_invocation_alone() {
    let endpoint = Endpoint::start(Code { timeout: Duration::from_secs(2), ..naughty() });
    let sleeping = json!({ "do": "sleep", "ms": 500 });
    let bystander = endpoint.invoke(&sleeping);
    let naughty = async {
        for (event, error_type, message) in [
            (json!({ "do": "raise" }), "", "it went wrong"),
            (json!({ "do": "hang" }), "Sandbox.Timedout", "Task timed out after 2.00 seconds"),
            (json!({ "do": "exit", "code": 3 }), "Runtime.ExitError", "exit status 3"),
            (
                json!({ "do": "exit", "code": 0 }),
                "Runtime.ExitError",
                "Runtime exited without providing a reason",
            ),
            (json!({ "do": "abort" }), "Runtime.ExitError", "signal: aborted"),
            (
                json!({ "do": "return", "bytes": 7_000_000 }),
                "Function.ResponseSizeTooLarge",
                "maximum allowed payload size (6291556 bytes)",
            ),
        ] {
            let ended = endpoint.invoke(&event).await;
            assert_eq!(ended.error.as_deref(), Some("Unhandled"), "{event}");
            let told = |key: &str| ended.payload[key].as_str().unwrap_or_default().to_owned();
            assert!(told("errorType").contains(error_type), "{event}: {ended:?}");
            assert!(told("errorMessage").contains(message), "{event}: {ended:?}");
            let next = endpoint.invoke(&json!({ "do": "nothing" })).await;
            assert_eq!((next.payload, next.error), (Value::Null, None), "after {event}");
        }
    };
    let (bystander, ()) = tokio::join!(bystander, naughty);
    assert_eq!(bystander.error, None);
    let usage = endpoint.environments.usage();
    assert_eq!((usage.invocations, usage.failed), (13, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_counts_once_and_the_second_is_refused() {
    let endpoint = Endpoint::start(naughty());
    let process = endpoint.pid().await;
    for _ in 0..3 {
        let ended = endpoint.invoke(&json!({ "do": "answer twice" })).await;
        assert_eq!((ended.payload, ended.error), (json!("first"), None));
        assert_eq!(endpoint.pid().await, process, "it ends when the second is not refused");
        let next = endpoint.invoke(&json!({ "do": "nothing" })).await;
        assert_eq!((next.payload, next.error), (Value::Null, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_flood_of_output_the_last_four_kilobytes_come_back() {
    let endpoint = Endpoint::start(naughty());
    let ended = endpoint.invoke(&json!({ "do": "print", "bytes": 10_000_000 })).await;
    assert_eq!(ended.error, None);
    assert!(ended.log.len() <= 4096, "{}", ended.log.len());
    let (body, report) = ended.log.split_once("END RequestId: ").expect("it says its end");
    assert!(body.ends_with("xxx\n"), "{body}");
    assert!(report.contains("\tMemory Size: 128 MB\tInit Duration: "), "{report}");
    let next = endpoint.invoke(&json!({ "do": "print", "bytes": 100 })).await;
    let line = "x".repeat(99);
    assert!(next.log.starts_with("START RequestId: "), "{}", next.log);
    assert!(next.log.contains(&format!("Version: $LATEST\n{line}\nEND")), "{}", next.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_cannot_begin_says_why() {
    let with = |what: &str| {
        let environment = [("NAUGHTY".to_owned(), what.to_owned())].into();
        Endpoint::start(Code { environment, timeout: Duration::from_secs(1), ..naughty() })
    };
    let missing = Endpoint::start(Code::new(vec!["/nonexistent/bootstrap".to_owned()]));
    for (endpoint, error_type, message) in [
        (with("exits"), "Runtime.ExitError", "exit status 3"),
        (with("raises"), "Runtime.ExitError", "exit status 101"),
        (with("hangs"), "Sandbox.Timedout", "Task timed out after 1.00 seconds"),
        (with("asks and exits"), "Runtime.ExitError", "exited without providing a reason"),
        (missing, "Runtime.InvalidEntrypoint", "its program cannot be run"),
    ] {
        let ended = endpoint.invoke(&json!({})).await;
        assert_eq!(ended.error.as_deref(), Some("Unhandled"));
        assert_eq!(ended.payload["errorType"], error_type, "{ended:?}");
        assert!(ended.payload["errorMessage"].to_string().contains(message), "{ended:?}");
        let usage = endpoint.environments.usage();
        // One that asked may have been given the event and not have taken it.
        if !message.contains("without providing a reason") {
            let is_billed = usage.invocations == 1 && usage.failed == 1 && usage.billed_ms > 0;
            assert!(is_billed, "Lambda bills that, too: {usage:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_says_that_it_cannot_begin_is_ended() {
    let environment = [("NAUGHTY".to_owned(), "says so".to_owned())].into();
    let timeout = Duration::from_secs(600);
    let endpoint = Endpoint::start(Code { environment, timeout, ..naughty() });
    let ended = endpoint.invoke(&json!({})).await;
    assert_eq!(ended.payload["errorType"], "Init", "in its own words: {ended:?}");
    let process = ended.payload["errorMessage"].as_str().and_then(|pid| pid.parse().ok());
    until_gone(process.expect("its number")).await;
    assert_eq!(endpoint.environments.usage().failed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_between_two_invocations_harms_none() {
    let endpoint = Endpoint::start(naughty());
    let process = endpoint.pid().await;
    let ended = endpoint.invoke(&json!({ "do": "exit later", "ms": 100 })).await;
    assert_eq!(ended.error, None);
    eventually("burstd knows that it has ended", async || {
        // Until then it is a zombie.
        if PathBuf::from(format!("/proc/{process}")).exists() { Err(()) } else { Ok(()) }
    })
    .await;
    assert_ne!(endpoint.pid().await, process);
    assert_eq!(endpoint.environments.usage().failed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_start_is_added_to_each_new_environment_and_to_no_warm_one() {
    let cold_start = Duration::from_millis(700);
    let endpoint = Endpoint::start(Code { cold_start, ..naughty() });
    let began = Instant::now();
    let process = endpoint.pid().await;
    assert!(began.elapsed() >= cold_start, "{:?}", began.elapsed());
    assert_eq!(endpoint.pid().await, process);
    assert_eq!(endpoint.environments.usage().environments, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_hang_at_their_start_hold_up_no_other() {
    let environment = [("NAUGHTY".to_owned(), "hangs".to_owned())].into();
    let hanging = Code { environment, timeout: Duration::from_secs(600), ..naughty() };
    let endpoint = Endpoint::of(&[("hangs", hanging), ("f", naughty())], Duration::from_secs(60));
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        calls.spawn(endpoint.client.invoke().function_name("hangs").send());
    }
    eventually("all have begun", async || match endpoint.lambda.running().now {
        10 => Ok(()),
        other => Err(other),
    })
    .await;
    // A turn lasts ten seconds: four of the ten have theirs.
    let event = json!({ "do": "nothing" });
    let other = timeout(Duration::from_secs(8), endpoint.invoke(&event)).await;
    assert_eq!(other.expect("it does not wait for them").error, None);
    assert_eq!(endpoint.lambda.running().now, 10, "they hang still");
}

#[tokio::test(flavor = "multi_thread")]
async fn environments_are_kept_warm_one_for_each_call_at_once_and_end_when_they_idle() {
    let endpoint = Endpoint::idling(naughty(), Duration::from_secs(1));
    let first = endpoint.pid().await;
    assert_eq!(endpoint.pid().await, first, "it is used again");
    let sleeping = json!({ "do": "sleep", "ms": 400 });
    let calls = (0..10).map(|_| endpoint.invoke(&sleeping));
    let ended = futures(calls).await;
    assert!(ended.iter().all(|ended| ended.error.is_none()), "{ended:?}");
    let usage = endpoint.environments.usage();
    assert!((2..=10).contains(&usage.environments), "{usage:?}");
    until_gone(first).await;
    assert_ne!(endpoint.pid().await, first);
}

/// All of them, at the same moment.
async fn futures<T>(calls: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut calls: Vec<_> = calls.map(|call| (Box::pin(call), None)).collect();
    std::future::poll_fn(move |context| {
        let mut is_done = true;
        for (call, ended) in &mut calls {
            if ended.is_none() {
                match call.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *ended = Some(value),
                    std::task::Poll::Pending => is_done = false,
                }
            }
        }
        match is_done {
            true => {
                let ended = calls.iter_mut().filter_map(|(_, ended)| ended.take());
                std::task::Poll::Ready(ended.collect())
            }
            false => std::task::Poll::Pending,
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_function_leaves_behind_ends_with_burstd() {
    let endpoint = Endpoint::start(naughty());
    let ended = endpoint.invoke(&json!({ "do": "fork", "seconds": 1000 })).await;
    let child = ended.payload["child"].as_u64().expect("it has started one");
    let function = endpoint.pid().await;
    assert_ne!(child, function);
    until_alive(child).await;
    drop(endpoint);
    until_gone(function).await;
    until_gone(child).await;
}

/// A Python that has the official runtime client, if there is one.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("BURSTD_PYTHON").map(PathBuf::from);
    let python = named.unwrap_or_else(|| "python3".into());
    let tried = std::process::Command::new(&python).args(["-c", "import awslambdaric"]).output();
    tried.is_ok_and(|output| output.status.success()).then_some(python)
}

#[tokio::test(flavor = "multi_thread")]
async fn python_s_own_runtime_client_runs_a_handler() {
    let Some(python) = python() else {
        eprintln!("skipped: python3 has no awslambdaric (BURSTD_PYTHON names one that has)");
        return;
    };
    let command = [&python.display().to_string(), "-m", "awslambdaric", "handler.handler"];
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/functions");
    let program = Code {
        directory,
        timeout: Duration::from_secs(20),
        ..Code::new(command.map(str::to_owned).into())
    };
    let endpoint = Endpoint::start(program);
    let event = json!({ "seconds": 0.01 });
    let ended = futures((0..20).map(|_| endpoint.invoke(&event))).await;
    for ended in ended {
        assert_eq!((&ended.payload["seconds"], &ended.error), (&json!(0.01), &None), "{ended:?}");
        assert!(ended.log.contains("working for 0.01 s\n"), "{}", ended.log);
    }
    let raised = endpoint.invoke(&json!({ "seconds": -1 })).await;
    assert_eq!((raised.payload["errorType"].as_str()), Some("ValueError"), "{raised:?}");
    assert_eq!(raised.payload["errorMessage"], "-1 s is not a time");
    assert!(raised.log.contains("Traceback"), "{}", raised.log);
}

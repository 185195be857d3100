//! Users' own functions, as processes over the Lambda Runtime API.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_sdk_lambda::operation::invoke::InvokeError;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{InvocationType, LogType};
use aws_smithy_types::base64;
use burstd::config::Program as Code;
use burstd::local::environments::{Environments, Host};
use burstd::local::lambda::{EmbeddedLambda, Functions, LocalFunction};
use burstd::local::limits::Limits;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::eventually;
use crate::support::program::{Process, Program, command, failure};
use crate::support::world::{Item, client, error, n, outcomes, s, text};

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
        let is_billed = usage.invocations == 1 && usage.failed == 1 && usage.billed_ms > 0;
        assert!(
            is_billed || error_type == "Runtime.ExitError",
            "Lambda bills that, too: {usage:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_between_two_invocations_harms_none() {
    let endpoint = Endpoint::start(naughty());
    let process = endpoint.pid().await;
    let ended = endpoint.invoke(&json!({ "do": "exit later", "ms": 100 })).await;
    assert_eq!(ended.error, None);
    until_gone(process).await;
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
async fn the_ramp_counts_new_processes_and_one_that_exited_is_no_warm_one() {
    // Another new one may be made after ten seconds.
    let limits = Limits { ramp: Some(1), ..Limits::default() };
    let endpoint = Endpoint::limited(&[("f", naughty())], Duration::from_secs(60), limits);
    let process = endpoint.pid().await;
    assert_eq!(endpoint.pid().await, process, "a warm one is used again");
    let ended = endpoint.invoke(&json!({ "do": "exit", "code": 1 })).await;
    assert_eq!(ended.error.as_deref(), Some("Unhandled"));
    let refused = endpoint.client.invoke().function_name("f").send().await;
    let refused = refused.expect_err("none may be made yet").into_service_error();
    let InvokeError::TooManyRequestsException(refused) = refused else { panic!("{refused:?}") };
    let reason = refused.reason().expect("there is one").as_str();
    assert_eq!(reason, "ConcurrentInvocationLimitExceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lambda_would_refuse_is_refused_with_its_words() {
    let endpoint = Endpoint::start(naughty());
    let text = |bytes: usize| Blob::new(format!("\"{}\"", "x".repeat(bytes - 2)));
    let call = || endpoint.client.invoke().function_name("f");
    let event = InvocationType::Event;
    for (call, code, words) in [
        (call().payload(Blob::new("{")), "InvalidRequestContentException", "into json"),
        (call().payload(text(6_291_457)), "RequestTooLargeException", "6291457 byte payload"),
        (call().payload(text(13_000_000)), "RequestTooLargeException", "limit 6291456 bytes"),
        (
            call().invocation_type(event).payload(text(1_048_577)),
            "RequestTooLargeException",
            "the Event invocation type (limit 1048576 bytes)",
        ),
        (
            call().client_context("no base64"),
            "InvalidRequestContentException",
            "Client context must be a valid Base64-encoded JSON object",
        ),
        (
            call().invocation_type(InvocationType::from("Later")),
            "ValidationException",
            "Value 'Later' at 'invocationType'",
        ),
        (
            call().function_name("f:live").qualifier("test"),
            "InvalidParameterValueException",
            "does not match the specified qualifier",
        ),
        (call().function_name("g"), "ResourceNotFoundException", "Function not found: g"),
    ] {
        let refused = call.send().await.expect_err(code).into_service_error();
        assert_eq!(refused.meta().code(), Some(code), "{refused:?}");
        let message = refused.meta().message().unwrap_or_default();
        assert!(message.contains(words), "{code}: {refused:?}");
    }
    assert_eq!(endpoint.environments.usage().environments, 0);
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
    assert_eq!(endpoint.invoke(&json!({ "do": "nothing" })).await.error, None);
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

#[tokio::test(flavor = "multi_thread")]
async fn more_at_once_than_are_allowed_are_throttled_with_lambda_s_reason() {
    let endpoint = Endpoint::start(Code { max_concurrency: Some(2), ..naughty() });
    let client = &endpoint.client;
    let reserved = async || {
        let told = client.get_function_concurrency().function_name("f").send().await;
        told.expect("it tells").reserved_concurrent_executions
    };
    assert_eq!(reserved().await, Some(2));
    let put = client.put_function_concurrency().function_name("f");
    let told = put.reserved_concurrent_executions(1).send().await.expect("it may be changed");
    assert_eq!((told.reserved_concurrent_executions, reserved().await), (Some(1), Some(1)));
    let mut calls = JoinSet::new();
    for _ in 0..2 {
        let call = client.invoke().function_name("f");
        let event = json!({ "do": "sleep", "ms": 1000 }).to_string();
        calls.spawn(call.payload(Blob::new(event)).send());
    }
    let refused: Vec<_> = calls.join_all().await.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 1);
    let refused = refused[0].as_service_error().expect("Lambda says so");
    let InvokeError::TooManyRequestsException(refused) = refused else { panic!("{refused:?}") };
    let reason = refused.reason().expect("there is one").as_str();
    assert_eq!(reason, "ReservedFunctionConcurrentInvocationLimitExceeded");
    let take = client.delete_function_concurrency().function_name("f").send().await;
    take.expect("it may be taken away");
    assert_eq!(reserved().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_dry_runs_are_answered_at_once() {
    let endpoint = Endpoint::start(naughty());
    let call = |kind: InvocationType| {
        let call = endpoint.client.invoke().function_name("f").invocation_type(kind);
        call.payload(Blob::new("{}")).send()
    };
    let dry = call(InvocationType::DryRun).await.expect("it may be called");
    assert_eq!((dry.status_code, endpoint.environments.usage().environments), (204, 0));
    let event = call(InvocationType::Event).await.expect("it is taken");
    assert_eq!(event.status_code, 202);
    eventually("it has run", async || match endpoint.environments.usage().invocations {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    let absent = endpoint.client.invoke().function_name("g").send().await;
    let absent = absent.expect_err("there is none").into_service_error();
    assert!(absent.is_resource_not_found_exception(), "{absent}");
    assert_eq!(endpoint.lambda.running().now, 0);
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

/// `burstd dev` with a function of one's own, on free ports.
fn dev(arguments: &[&str]) -> Process {
    let mut dev = command(&["dev", "--dynamodb-port", "0", "--lambda-port", "0"]);
    dev.args(arguments).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    Process::start(dev)
}

async fn table_of(dev: &Process) -> aws_sdk_dynamodb::Client {
    let line = dev.line_with("export AWS_ENDPOINT_URL_DYNAMODB=").await;
    client(line.trim().trim_start_matches("export AWS_ENDPOINT_URL_DYNAMODB="))
}

async fn put(client: &aws_sdk_dynamodb::Client, id: &str, queue: &str, event: &Value) {
    let item = Item::from([
        ("id".into(), s(id)),
        ("queue".into(), s(queue)),
        ("due".into(), n(0)),
        ("payload".into(), s(event.to_string())),
    ]);
    client.put_item().table_name("tasks").set_item(Some(item)).send().await.expect("it is put");
}

async fn until(client: &aws_sdk_dynamodb::Client, id: &str, status: &str) -> Item {
    eventually(&format!("{id} is {status}"), async || {
        let get = client.get_item().table_name("tasks").key("id", s(id)).send().await;
        let item = get.expect("it answers").item.unwrap_or_default();
        if text(&item, "status") == status { Ok(item) } else { Err(item) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inserted_task_runs_a_function_of_one_s_own_which_knows_its_task() {
    let work = format!("work={}", example("work").display());
    let mut dev = dev(&["--function", &work]);
    let client = table_of(&dev).await;
    put(&client, "a", "work", &json!({ "seconds": 0.01 })).await;
    let item = until(&client, "a", "SUCCEEDED").await;
    let result: Value = serde_json::from_str(&text(&item, "result")).expect("it is JSON");
    assert_eq!(result, json!({ "seconds": 0.01, "task": "a" }));
    put(&client, "b", "work", &json!({ "seconds": -1 })).await;
    let failed = eventually("it has failed once", async || {
        let get = client.get_item().table_name("tasks").key("id", s("b")).send().await;
        let item = get.expect("it answers").item.unwrap_or_default();
        if outcomes(&item).is_empty() { Err(item) } else { Ok(item) }
    })
    .await;
    assert!(error(&failed, "message").contains("negative"), "{failed:?}");
    assert!(error(&failed, "log").contains("working for -1 s"), "{failed:?}");
    let line = dev.line_with("line=\"working for 0.01 s\"").await;
    let request_id = text(&item, "request_id");
    assert!(line.contains("function=work") && line.contains(&request_id), "{line}");
    dev.signal(Signal::TERM);
    assert!(dev.ended().await.success());
    dev.line_with("work: ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_no_process_of_a_function_is_left() {
    let naughty = format!("f={}", example("naughty").display());
    let runs = std::env::var("BURSTD_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(3);
    for _ in 0..runs {
        let mut dev = dev(&["--function", &naughty]);
        let client = table_of(&dev).await;
        put(&client, "fork", "f", &json!({ "do": "fork", "seconds": 1000 })).await;
        let forked = until(&client, "fork", "SUCCEEDED").await;
        let forked: Value = serde_json::from_str(&text(&forked, "result")).expect("it is JSON");
        put(&client, "tell", "f", &json!({ "do": "tell" })).await;
        let told = until(&client, "tell", "SUCCEEDED").await;
        let told: Value = serde_json::from_str(&text(&told, "result")).expect("it is JSON");
        let pids = [&forked["child"], &told["pid"]].map(|pid| pid.as_u64().expect("a number"));
        for pid in pids {
            until_alive(pid).await;
        }
        dev.signal(Signal::KILL);
        dev.ended().await;
        for pid in pids {
            until_gone(pid).await;
        }
    }
}

/// The processes of the function with this name.
fn processes_of(function: &str) -> Vec<String> {
    let variable = format!("AWS_LAMBDA_FUNCTION_NAME={function}");
    let entries = std::fs::read_dir("/proc").expect("it is there");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_its = |process: &String| {
        // What has ended meanwhile has none.
        let variables = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        variables.split(|byte| *byte == 0).any(|it| it == variable.as_bytes())
    };
    names.filter(is_its).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_environments_start_burstd_leaves_none_of_them_behind() {
    let runs = std::env::var("BURSTD_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(3);
    for run in 0..runs {
        let function = format!("starting-{}-{run}", std::process::id());
        let mut dev = dev(&["--function", &format!("{function}={}", example("naughty").display())]);
        let client = table_of(&dev).await;
        for number in 0..30 {
            let event = json!({ "do": "sleep", "ms": 60_000 });
            put(&client, &number.to_string(), &function, &event).await;
        }
        eventually("some have been started", async || match processes_of(&function).len() {
            started if started > 2 => Ok(()),
            started => Err(started),
        })
        .await;
        dev.signal(Signal::KILL);
        dev.ended().await;
        eventually("all are gone", async || match processes_of(&function) {
            left if left.is_empty() => Ok(()),
            left => Err(left),
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_s_functions_and_limits_are_rehearsed() {
    let program = Program::with(&format!(
        "table = \"tasks\"\n[queues.q]\nfunction = \"f:live\"\n[local]\naccount_concurrency = 2\n\
         [local.functions.f]\ncommand = [{:?}]\ntimeout = \"20s\"\nmemory = 512\n\
         environment = {{ STAGE = \"dev\" }}\n",
        example("naughty")
    ));
    let mut dev = dev(&["--config", program.config().to_str().expect("it is text")]);
    let client = table_of(&dev).await;
    for number in 0..6 {
        put(&client, &number.to_string(), "q", &json!({ "do": "sleep", "ms": 200 })).await;
    }
    put(&client, "tell", "q", &json!({ "do": "tell" })).await;
    let told = until(&client, "tell", "SUCCEEDED").await;
    let told: Value = serde_json::from_str(&text(&told, "result")).expect("it is JSON");
    assert_eq!((&told["stage"], &told["memory"]), (&json!("dev"), &json!(512)));
    for number in 0..6 {
        assert_eq!(text(&until(&client, &number.to_string(), "SUCCEEDED").await, "attempt"), "1");
    }
    dev.signal(Signal::TERM);
    assert!(dev.ended().await.success());
    let usage = dev.line_with("f: 7 invocations, 0 failed, ").await;
    let environments = usage.split(", ").nth(2).expect("it says how many");
    assert!(["1 environments", "2 environments"].contains(&environments), "{usage}");
}

#[test]
fn what_cannot_be_run_is_named_before_anything_starts() {
    let with = |section: &str| {
        let source = format!("table = \"tasks\"\n[queues.q]\nfunction = \"f\"\n{section}");
        let program = Program::with(&source);
        let path = program.config().display().to_string();
        failure(&command(&["dev", "--config", &path]).output().expect("it runs"))
    };
    let function = |keys: &str| with(&format!("[local.functions.f]\n{keys}"));
    for ((code, words), expected) in [
        (with(""), "queue \"q\" runs the function \"f\", which is not here"),
        (function("command = [\"./nothing\"]"), "./nothing is no program; is it built?"),
        (function("command = [\"no-such-program\"]"), "\"no-such-program\" is not in PATH"),
        (
            function("command = [\"sh\"]\ndirectory = \"/nonexistent\""),
            "the directory /nonexistent is not there",
        ),
    ] {
        assert_eq!(code, 78, "{words}");
        assert!(words.contains(expected), "{words}");
    }
    let output = command(&["dev", "--function", "f"]).output().expect("it runs");
    let (code, words) = failure(&output);
    assert_eq!(code, 64, "{words}");
    assert!(words.contains("write NAME=COMMAND"), "{words}");
}

//! `burstd dev` with users' own functions.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{example, until_alive, until_gone};
use crate::support::eventually;
use crate::support::program::{Process, Program, command, failure};
use crate::support::world::{Item, client, error, n, outcomes, s, text};

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

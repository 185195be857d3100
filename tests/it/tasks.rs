//! What an operator asks of single tasks, with no daemon about unless it is said.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;

use crate::support::program::{Program, command, failure, success};
use crate::support::world::{World, config, n, outcomes, s, seconds_from_now, text};

/// What a command says of one task, as JSON.
fn said(program: &Program, command: &str, id: &str) -> Value {
    let output = success(&program.run(&[command, "--json", id]));
    serde_json::from_str(&output).expect("it is JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_why_a_task_does_not_run_is_told() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    let item = |id: &str| world.task(id);
    item("ready").put().await;
    item("delayed").with("due", seconds_from_now(100)).put().await;
    item("failed once").with("due", seconds_from_now(100)).with("attempt", n(1)).put().await;
    item("in milliseconds").with("due", n(1_800_000_000_000_u64)).put().await;
    item("without due").without("due").put().await;
    item("without queue").without("queue").put().await;
    item("elsewhere").with("queue", s("worc")).put().await;
    item("late").with("deadline", seconds_from_now(-5)).put().await;
    let leased = item("leased").with("status", s("RUNNING")).with("worker", s("w-1"));
    leased.with("lease_until", seconds_from_now(50)).put().await;
    item("no JSON").with("payload", s("hello")).put().await;
    item("no attempt").with("attempt", s("three")).put().await;
    item("over").with("status", s("FAILED")).without("due").put().await;
    for (id, reason, words) in [
        ("ready", "no_worker", "it is due, and no daemon serves its queue: none has been heard of"),
        ("delayed", "not_due", "it is delayed: due in 1m"),
        ("failed once", "not_due", "attempt 1 failed and it waits to be tried again: due in 1m"),
        ("in milliseconds", "milliseconds", "Is this in milliseconds?"),
        ("without due", "no_due", "it has no `due`"),
        ("without queue", "no_queue", "it has no `queue`"),
        ("elsewhere", "unknown_queue", "its queue \"worc\" is not in this configuration"),
        ("late", "deadline_passed", "its deadline passed"),
        ("leased", "leased", "w-1 holds it, for"),
        ("no JSON", "unreadable", "it is no task: payload is not JSON text"),
        ("no attempt", "unreadable", "it is no task: attempt has the type S"),
        ("over", "ended", "it has ended FAILED"),
    ] {
        let told = said(&program, "explain", id);
        assert_eq!(told["reason"], reason, "{id}: {told}");
        let message = told["message"].as_str().expect("there are words");
        assert!(message.contains(words), "{id}: {message}");
    }
    let (code, words) = failure(&program.run(&["explain", "nobody"]));
    assert_eq!(code, 65, "{words}");
    assert!(words.contains("nobody: there is no such task"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_shown_with_all_its_item_says() {
    let world = World::echoing().await;
    let attempt = AttributeValue::M(
        [
            ("attempt", n(1)),
            ("outcome", s("failed")),
            ("error", s("ValueError")),
            ("request_id", s("r-1")),
            ("started_at", n(1_795_404_000)),
            ("ms", n(812)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
    );
    let error = [
        ("type", s("ValueError")),
        ("message", s("no\u{1b}]0;x")),
        ("log", s("START\nEND\u{1b}[2J\n")),
    ];
    let error = error.map(|(name, value)| (name.to_owned(), value));
    let item = world.task("a").with("status", s("FAILED")).without("due").with("attempt", n(1));
    let item = item.with("payload", s("{\"a\": 1}"));
    let item = item.with("history", AttributeValue::L(vec![attempt]));
    item.with("error", AttributeValue::M(error.into())).put().await;
    let program = Program::in_world(&world, &config());
    let words = success(&program.run(&["show", "a"]));
    for line in [
        "  status        FAILED",
        "  queue         work",
        "  payload       {\"a\": 1}",
        "  error type    ValueError",
        "  error log     START\n                END\u{fffd}[2J",
        "  attempt 1     failed · ValueError · 2026-11-23T03:20:00.000Z · 812 ms · r-1",
    ] {
        assert!(words.contains(line), "{line}\n{words}");
    }
    let words = success(&program.run(&["explain", "a"]));
    assert!(words.contains("no\u{fffd}]0;x") && !words.contains('\u{1b}'), "{words:?}");
    let json = said(&program, "show", "a");
    assert_eq!((&json["attempt"], &json["history"][0]["ms"]), (&1.into(), &812.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_task_stays_so_and_a_retried_one_runs_again_from_the_first_attempt() {
    let (world, gate) = World::gated(Duration::from_secs(60)).await;
    let program = Program::in_world(&world, &config());
    world.task("new").put().await;
    world.task("over").with("status", s("SUCCEEDED")).without("due").put().await;
    let failed = world.task("failed").with("status", s("FAILED")).without("due");
    failed.with("attempt", n(5)).with("expires_at", seconds_from_now(9)).put().await;
    assert_eq!(said(&program, "cancel", "new")["outcome"], "cancelled");
    let (code, words) = failure(&program.run(&["cancel", "over"]));
    assert_eq!(code, 65, "{words}");
    assert!(words.contains("has ended (SUCCEEDED); it was left as it is"), "{words}");
    assert_eq!(said(&program, "retry", "failed")["outcome"], "retried");
    let item = world.item("failed").await.expect("it is there");
    for gone in ["status", "attempt", "expires_at"] {
        assert!(!item.contains_key(gone), "{gone}");
    }

    let daemon = world.daemon(&config()).await;
    world.until_running(1).await;
    let (code, words) = failure(&program.run(&["retry", "failed"]));
    assert_eq!(code, 65, "{words}");
    assert!(words.contains("is running; it was left alone"), "{words}");
    let told = said(&program, "cancel", "failed");
    assert!(told["message"].as_str().is_some_and(|words| words.contains("runs on in Lambda")));
    gate.add_permits(1);
    let counts = daemon.stop().await;
    assert_eq!((counts.succeeded, counts.refused), (0, 1), "its result is discarded");
    let item = world.item("failed").await.expect("it is there");
    assert_eq!(text(&item, "status"), "CANCELLED");
    assert_eq!(world.calls.count(), 1, "what was cancelled before did not run");

    assert_eq!(said(&program, "retry", "new")["outcome"], "retried");
    let daemon = world.daemon(&config()).await;
    let item = world.until("new", "SUCCEEDED").await;
    assert_eq!(outcomes(&item), ["1 succeeded"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_and_retried_while_it_runs_a_task_never_runs_beside_its_former_self() {
    let (world, gate) = World::gated(Duration::from_secs(30)).await;
    let program = Program::in_world(&world, &config());
    let first = program.start();
    world.task("a").put().await;
    world.until_running(1).await;
    let lease = text(&world.item("a").await.expect("it is there"), "lease_until");
    success(&program.run(&["cancel", "a"]));
    success(&program.run(&["retry", "a"]));
    drop(first);
    let second = program.start();
    second.line_with("daemon.ready").await;
    world.task("b").put().await;
    world.until_running(2).await;
    let item = world.item("a").await.expect("it is there");
    assert_eq!((text(&item, "status"), text(&item, "lease_until")), (String::new(), lease));
    assert_eq!(said(&program, "explain", "a")["reason"], "leased");
    gate.add_permits(2);
    world.until("b", "SUCCEEDED").await;
    assert_eq!(world.calls.count(), 2, "a did not run again under its lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_for_its_next_attempt_is_retried_at_once_and_its_attempts_count_on() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    let waiting = world.task("a").with("status", s("PENDING")).with("attempt", n(2));
    waiting.with("due", seconds_from_now(3600)).put().await;
    let told = said(&program, "retry", "a");
    assert!(told["message"].as_str().is_some_and(|words| words.contains("attempts count on")));
    let daemon = world.daemon(&config()).await;
    let item = world.until("a", "SUCCEEDED").await;
    assert_eq!(text(&item, "attempt"), "3");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let world = World::echoing().await;
    world.task("a").with("payload", s("1")).put().await;
    let program = Program::in_world(&world, &config());
    let commands = [
        &["show", "a"][..],
        &["explain", "a"],
        &["iam-policy"],
        &["check"],
        &["doctor"],
        &["list"],
        &["stats"],
        &["table", "create"],
    ];
    for arguments in commands {
        let mut command = command(arguments);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        command.env("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1");
        let output = command.arg("--config").arg(program.config()).stdout(writer).output();
        let output = output.expect("the program runs");
        assert_eq!(
            (output.status.code(), &output.stderr[..]),
            (Some(0), &b""[..]),
            "{arguments:?}"
        );
    }
}

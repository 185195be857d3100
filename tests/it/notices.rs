//! What operators and daemons tell one another through the table: pauses, and how things stand.

use burstd::local::lambda::{Answer, Call};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::program::{Program, failure, success};
use crate::support::proxy::{Fate, Proxy};
use crate::support::world::{World, config, config_with, n, s, seconds_from_now, text};

/// What a command says, as JSON.
fn said(program: &Program, arguments: &[&str]) -> Value {
    let output = success(&program.run(&[arguments, &["--json"]].concat()));
    serde_json::from_str(&output).expect("it is JSON")
}

/// Waits until `explain` gives this reason; its words.
async fn until_explained(program: &Program, id: &str, reason: &str) -> String {
    eventually(&format!("{id} is explained by {reason}"), async || {
        let told = said(program, &["explain", id]);
        match told["reason"] == reason {
            true => Ok(told["message"].as_str().expect("there are words").to_owned()),
            false => Err(told),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_is_left_alone_by_every_daemon_across_restarts_until_it_is_resumed() {
    let world = World::echoing().await;
    let queues = format!("{}\n[queues.other]\nfunction = \"work\"\n", config());
    let program = Program::in_world(&world, &queues);
    let [mut first, second] = [program.start(), program.start()];
    for daemon in [&first, &second] {
        daemon.line_with("daemon.ready").await;
    }
    assert_eq!(said(&program, &["pause", "work"])["outcome"], "paused");
    for daemon in [&first, &second] {
        daemon.line_with("\"event\":\"queue.paused\"").await;
    }
    world.task("a").put().await;
    world.task("b").with("queue", s("other")).put().await;
    world.until("b", "SUCCEEDED").await;
    let again = said(&program, &["pause", "work"]);
    assert_eq!(again["outcome"], "paused_before", "the first one's word stands");
    first.signal(Signal::TERM);
    assert!(first.ended().await.success());
    let third = program.start();
    third.line_with("daemon.ready").await;
    world.task("c").with("queue", s("other")).put().await;
    world.until("c", "SUCCEEDED").await;
    let words = until_explained(&program, "a", "paused").await;
    assert!(words.contains("`burstd resume work`"), "{words}");
    assert_eq!(text(&world.item("a").await.expect("it is there"), "status"), "");
    assert_eq!(said(&program, &["resume", "work"])["outcome"], "resumed");
    world.until("a", "SUCCEEDED").await;
    assert_eq!(said(&program, &["resume", "work"])["outcome"], "not_paused");
    third.line_with("\"event\":\"queue.resumed\"").await;
    assert_eq!(world.calls.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_lets_what_is_in_flight_end() {
    let (world, gate) = World::gated(std::time::Duration::from_secs(30)).await;
    let queues = format!("{}\n[queues.other]\nfunction = \"work\"\n", config());
    let program = Program::in_world(&world, &queues);
    let daemon = program.start();
    world.put_many(5, "1").await;
    world.until_running(5).await;
    success(&program.run(&["pause", "work"]));
    daemon.line_with("queue.paused").await;
    world.task("late").put().await;
    gate.add_permits(5);
    world.until_all(5, "SUCCEEDED").await;
    world.task("later").with("queue", s("other")).put().await;
    world.until("later", "SUCCEEDED").await;
    assert_eq!(world.status("late").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_lifted_even_of_a_queue_that_the_configuration_has_no_more() {
    let world = World::echoing().await;
    let before = Program::in_world(&world, &config());
    success(&before.run(&["pause", "work"]));
    let after = Program::in_world(&world, &config().replace("[queues.work]", "[queues.new]"));
    let (code, _) = failure(&after.run(&["pause", "work"]));
    assert_eq!(code, 64);
    assert_eq!(said(&after, &["resume", "work"])["outcome"], "resumed");
    let (code, words) = failure(&after.run(&["resume", "work"]));
    assert_eq!(code, 64, "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_the_configuration_does_not_have_is_not_paused() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    for command in ["pause", "resume"] {
        let (code, words) = failure(&program.run(&[command, "worc"]));
        assert_eq!(code, 64, "{words}");
        let expected = "there is no queue \"worc\" in this configuration, which has: work";
        assert!(words.contains(expected), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_for_a_daemon_says_which_there_are() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    world.task("a").with("queue", s("elsewhere")).put().await;
    let elsewhere = config().replace("[queues.work]", "[queues.elsewhere]");
    let elsewhere = Program::in_world(&world, &elsewhere);
    let told = said(&elsewhere, &["explain", "a"]);
    assert_eq!(told["reason"], "no_worker", "{told}");
    assert!(told.to_string().contains("none has been heard of lately"), "{told}");
    let mut daemon = program.start();
    eventually("the daemon is heard of", async || {
        let told = said(&elsewhere, &["explain", "a"]).to_string();
        if told.contains("which works on this table, serves others") { Ok(()) } else { Err(told) }
    })
    .await;
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
    let told = said(&elsewhere, &["explain", "a"]).to_string();
    assert!(told.contains("none has been heard of lately"), "it said that it ends: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_for_a_limit_says_which_and_how_many_it_lets_be_in_flight() {
    let (world, _gate) = World::gated(std::time::Duration::from_secs(60)).await;
    let program = Program::in_world(&world, &config_with("max_in_flight = 2"));
    let _daemon = program.start();
    world.put_many(2, "1").await;
    world.until_running(2).await;
    world.task("waits").put().await;
    let words = until_explained(&program, "waits", "limit").await;
    let expected = "2 in flight of the 2 that max_in_flight of the queue allows";
    assert!(words.contains(expected), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_function_is_broken_says_since_when() {
    let world = World::with(async |_: Call| Answer::Refused {
        status: 404,
        code: "ResourceNotFoundException",
        body: json!({ "Message": "gone" }),
    })
    .await;
    let program = Program::in_world(&world, &config());
    let daemon = program.start();
    world.put_many(3, "1").await;
    daemon.line_with("lambda.broken").await;
    let words = until_explained(&program, "2", "function_broken").await;
    assert!(words.contains("the function work is broken, since 20"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leased_task_says_whether_its_holder_was_heard_of() {
    let (world, _gate) = World::gated(std::time::Duration::from_secs(60)).await;
    let program = Program::in_world(&world, &config());
    let daemon = program.start();
    world.task("a").put().await;
    world.until_running(1).await;
    eventually("its holder is heard of", async || {
        let told = said(&program, &["explain", "a"]).to_string();
        if told.contains("it is running: ") { Ok(()) } else { Err(told) }
    })
    .await;
    let leased = world.task("b").with("status", s("RUNNING")).with("worker", s("w-1"));
    leased.with("lease_until", seconds_from_now(50)).put().await;
    let told = said(&program, &["explain", "b"]).to_string();
    assert!(told.contains("Nothing is known of that daemon"), "{told}");
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_item_is_no_task_and_a_task_of_its_name_is_left_alone() {
    let world = World::echoing().await;
    let task = world.task("burstd#control").with("due", seconds_from_now(3600));
    task.with("attempt", n(0)).put().await;
    let before = world.items().await;
    let program = Program::in_world(&world, &config());
    let (code, words) = failure(&program.run(&["pause", "work"]));
    assert_eq!(code, 78, "{words}");
    assert!(words.contains("a task of \"tasks\" has the name burstd#control"), "{words}");
    let daemon = program.start();
    daemon.line_with("\"event\":\"control.unavailable\"").await;
    world.task("a").put().await;
    world.until("a", "SUCCEEDED").await;
    assert_eq!(world.items().await["burstd#control"], before["burstd#control"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_cannot_read_or_write_its_notices_works_on_and_says_so_once() {
    let world = World::echoing().await;
    let proxy = Proxy::start(&world.dynamodb.url(), |_, _| Fate::Pass).await;
    let program = Program::between(&proxy.url, &world.lambda.url(), &config());
    let daemon = program.start();
    daemon.line_with("daemon.ready").await;
    proxy.plan(|_, body| match body.contains("burstd#control") {
        true => Fate::Refuse(400, "AccessDeniedException"),
        false => Fate::Pass,
    });
    let line = daemon.line_with("\"event\":\"control.unavailable\"").await;
    assert!(line.contains("AccessDeniedException"), "{line}");
    world.task("a").put().await;
    world.until("a", "SUCCEEDED").await;
    proxy.plan(|_, _| Fate::Pass);
    daemon.line_with("\"event\":\"control.recovered\"").await;
    assert_eq!(daemon.told("control.unavailable"), 1);
    assert_eq!(daemon.told("store.refused"), 0);
}

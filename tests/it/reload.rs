//! The configuration read again, while tasks run.

use std::time::Duration;

use burstd::local::lambda::Answer;
use rustix::process::Signal;

use crate::support::eventually;
use crate::support::manager::Manager;
use crate::support::program::{Process, Program};
use crate::support::proxy::{Fate, Proxy};
use crate::support::world::{World, config, config_with, outcomes, s, text};

/// Sends SIGHUP and waits for what came of it.
async fn reload(daemon: &Process) -> serde_json::Value {
    let told = |daemon: &Process| {
        let lines = daemon.lines().into_iter();
        let lines = lines.filter(|line| line.contains("\"event\":\"config.reload"));
        lines.collect::<Vec<_>>()
    };
    let before = told(daemon).len();
    daemon.signal(Signal::HUP);
    let line = eventually("the configuration is read again", async || {
        let told = told(daemon);
        told.get(before).cloned().ok_or(told.len())
    })
    .await;
    serde_json::from_str(&line).expect("it is JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_queues_and_the_log_s_level_change_and_no_task_in_flight_notices() {
    let (world, gate) = World::gated(Duration::from_secs(60)).await;
    let program = Program::in_world(&world, &config_with("max_in_flight = 2\n"));
    let daemon = program.start();
    daemon.line_with("daemon.ready").await;
    for number in 0..5 {
        world.task(&number.to_string()).put().await;
    }
    world.until_running(2).await;
    program.rewrite(|config| config.replace("max_in_flight = 2\n", "max_in_flight = 4\n"));
    let line = reload(&daemon).await;
    assert_eq!(
        (&line["event"], &line["changed"]),
        (&"config.reloaded".into(), &"queues.work".into())
    );
    world.until_running(4).await;

    // Less is allowed than is in flight.
    program.rewrite(|config| config.replace("max_in_flight = 1000", "max_in_flight = 3"));
    reload(&daemon).await;
    program.rewrite(|config| config.replace("max_in_flight = 3", "max_in_flight = 1000"));
    reload(&daemon).await;

    // The queue is gone, another is there; what runs goes on.
    program.rewrite(|config| {
        let config = config.replace("[queues.work]", "[queues.other]");
        config.replace("level = \"trace\"", "level = \"debug\"")
    });
    let line = reload(&daemon).await;
    assert_eq!(line["changed"], "[log] level, queues.other (new), queues.work (gone)");
    world.task("o").with("queue", s("other")).put().await;
    world.until_running(5).await;
    gate.add_permits(1);
    world.until_all(5, "SUCCEEDED").await;
    let waiting = world.items().await.into_values().filter(|item| !item.contains_key("status"));
    assert_eq!(waiting.count(), 1, "the fifth task of the queue that is gone stays as it was");

    // And it comes back.
    program.rewrite(|config| config.replace("[queues.other]", "[queues.work]"));
    reload(&daemon).await;
    world.until_all(6, "SUCCEEDED").await;
    for (id, item) in world.items().await {
        assert_eq!(outcomes(&item), ["1 succeeded"], "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_wrong_changes_nothing_and_the_log_says_what_is_wrong() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    let mut daemon = program.start();
    daemon.line_with("daemon.ready").await;
    program.rewrite(|config| config.replace("lease_margin", "lease_margn"));
    let line = reload(&daemon).await;
    assert_eq!((&line["event"], &line["level"]), (&"config.reload_failed".into(), &"ERROR".into()));
    let error = line["error"].as_str().expect("it says why");
    assert!(error.contains("queues.work.lease_margn: unknown key"), "{error}");
    world.task("a").put().await;
    world.until("a", "SUCCEEDED").await;
    std::fs::remove_file(program.config()).expect("it is there");
    let line = reload(&daemon).await;
    let error = line["error"].as_str().expect("it says why");
    assert!(error.contains("cannot be read"), "{error}");
    world.task("b").put().await;
    world.until("b", "SUCCEEDED").await;
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_reads_no_configuration_and_says_so() {
    let (world, gate) = World::gated(Duration::from_secs(60)).await;
    let program = Program::in_world(&world, &config());
    let mut daemon = program.start();
    world.task("a").put().await;
    world.until_running(1).await;
    daemon.signal(Signal::TERM);
    daemon.line_with("daemon.draining").await;
    let line = reload(&daemon).await;
    assert_eq!(
        (&line["event"], &line["error"]),
        (&"config.reload_failed".into(), &"burstd is stopping".into())
    );
    gate.add_permits(1);
    world.until("a", "SUCCEEDED").await;
    assert!(daemon.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_waits_for_lambda_when_burstd_stops_has_failed() {
    let (world, gate) = World::gated(Duration::from_secs(60)).await;
    let lambda = Proxy::start(&world.lambda.url(), |_, _| Fate::Pass).await;
    let program = Program::between(&world.dynamodb.url(), &lambda.url, &config());
    let manager = Manager::start();
    let mut daemon = program.start_under(&manager, &[]);
    world.task("a").put().await;
    world.until_running(1).await;
    lambda.plan(|operation, _| match operation.starts_with("GET") {
        true => Fate::HoldReply,
        false => Fate::Pass,
    });
    program.rewrite(|config| config.replace("[queues.work]", "[queues.other]"));
    daemon.signal(Signal::HUP);
    manager.until_told(0, "RELOADING=1").await;
    daemon.signal(Signal::TERM);
    let line = daemon.line_with("\"event\":\"config.reload_failed\"").await;
    assert!(line.contains("burstd is stopping"), "{line}");
    gate.add_permits(1);
    world.until("a", "SUCCEEDED").await;
    assert!(daemon.ended().await.success());
    assert_eq!(daemon.told("config.reloaded"), 0);
    assert_eq!(manager.count("READY=1"), 1, "it does not call itself ready on its way out");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_running_daemon_cannot_change_is_named() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    let daemon = program.start();
    daemon.line_with("daemon.ready").await;
    program.rewrite(|config| {
        let config = config.replace("table = \"tasks\"", "table = \"others\"");
        config.replace("region = \"us-east-1\"", "region = \"eu-west-1\"")
    });
    let line = reload(&daemon).await;
    assert_eq!(line["needs_restart"], "table, aws");
    world.task("a").put().await;
    world.until("a", "SUCCEEDED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_wishes_is_heard_a_few_times_and_the_manager_is_told_of_each() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    let manager = Manager::start();
    let daemon = program.start_under(&manager, &[]);
    daemon.line_with("daemon.ready").await;
    world.put_many(300, "1").await;
    for _ in 0..200 {
        daemon.signal(Signal::HUP);
    }
    world.until_all(300, "SUCCEEDED").await;
    daemon.line_with("config.reloaded").await;
    let line = reload(&daemon).await;
    assert_eq!(line["changed"], "");
    let reloads = daemon.told("config.reloaded");
    assert!(reloads < 50, "{reloads} times for 201 signals");
    manager.until_told(0, "RELOADING=1\nMONOTONIC_USEC=").await;
    let is_settled = async || match (manager.count("RELOADING=1"), manager.count("READY=1")) {
        (again, ready) if again + 1 == ready => Ok(()),
        counts => Err(counts),
    };
    eventually("each RELOADING is followed by READY", is_settled).await;
    for (id, item) in world.items().await {
        assert_eq!(text(&item, "attempt"), "1", "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_gone_for_a_while_and_comes_back_runs_no_more_than_it_may() {
    let (world, gate) = World::gated(Duration::from_secs(60)).await;
    let config = config() + "[functions.work]\nmax_concurrency = 2\n";
    let program = Program::in_world(&world, &config);
    let manager = Manager::start();
    let daemon = program.start_under(&manager, &[]);
    daemon.line_with("daemon.ready").await;
    for number in 0..5 {
        world.task(&number.to_string()).put().await;
    }
    world.until_running(2).await;
    let with_work = std::fs::read_to_string(program.config()).expect("it is there");
    program.rewrite(|config| {
        let config =
            config.replace("[queues.work]\nfunction = \"work\"", "[queues.o]\nfunction = \"o\"");
        config.replace("[functions.work]", "[functions.o]")
    });
    reload(&daemon).await;
    program.rewrite(|_| with_work);
    let told = manager.told().len();
    reload(&daemon).await;
    manager.until_told(told, "(work: max_concurrency)").await;
    assert_eq!(world.lambda.running().now, 2);
    gate.add_permits(1);
    world.until_all(5, "SUCCEEDED").await;
    assert_eq!(world.lambda.running().peak, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_in_flight_is_told_of_as_it_began_whatever_its_queue_runs_now() {
    let raises = |_| Answer::Raised { error_type: "E".to_owned(), message: String::new() };
    let (world, gate) = World::gated_with(Duration::from_secs(60), raises).await;
    let program = Program::in_world(&world, &config_with("max_attempts = 1\n"));
    let daemon = program.start();
    daemon.line_with("daemon.ready").await;
    world.task("a").put().await;
    world.until_running(1).await;
    program.rewrite(|config| {
        config.replace("function = \"work\"", "function = \"else\"\ntimeout = \"9s\"")
    });
    assert_eq!(reload(&daemon).await["changed"], "queues.work");
    assert_eq!(world.lambda.running().now, 1, "it runs on");
    gate.add_permits(1);
    let line = daemon.line_with("\"event\":\"task.failed\"").await;
    assert!(line.contains("\"function\":\"work\""), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_that_cannot_be_read_again_stays_as_it_was() {
    let world = World::echoing().await;
    let proxy = Proxy::start(&world.lambda.url(), |_, _| Fate::Pass).await;
    let program = Program::between(&world.dynamodb.url(), &proxy.url, &config());
    let daemon = program.start();
    daemon.line_with("daemon.ready").await;
    proxy.plan(|_, _| Fate::Refuse(429, "TooManyRequestsException"));
    program.rewrite(|config| config.replace("[queues.work]", "[queues.new]"));
    assert_eq!(reload(&daemon).await["changed"], "queues.new (new), queues.work (gone)");
    assert_eq!(daemon.told("function.timeout_unknown"), 0);
    proxy.plan(|_, _| Fate::Pass);
    world.task("a").with("queue", s("new")).put().await;
    world.until("a", "SUCCEEDED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_that_is_shorter_than_the_function_s_own_is_told_until_it_is_mended() {
    let (world, _gate) = World::gated(Duration::from_secs(60)).await;
    let program = Program::in_world(&world, &config_with("timeout = \"9s\""));
    let daemon = program.start();
    let line = daemon.line_with("function.timeout_longer").await;
    let said = "\"queue\":\"work\",\"function\":\"work\",\"timeout_s\":9,\"function_timeout_s\":60";
    assert!(line.contains(said), "{line}");
    daemon.line_with("daemon.ready").await;
    program.rewrite(|config| config.replace("\"1s\"", "\"2s\""));
    reload(&daemon).await;
    assert_eq!(daemon.told("function.timeout_longer"), 1, "it is known");
    program.rewrite(|config| config.replace("\"9s\"", "\"60s\""));
    reload(&daemon).await;
    program.rewrite(|config| config.replace("\"60s\"", "\"59s\""));
    reload(&daemon).await;
    assert_eq!(daemon.told("function.timeout_longer"), 2, "it is wrong again");
}

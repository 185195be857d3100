//! What the service manager is told.

use std::time::Duration;

use burstd::local::lambda::{Answer, Call};
use rustix::process::Signal;
use serde_json::json;

use crate::support::eventually;
use crate::support::manager::Manager;
use crate::support::program::{Program, success};
use crate::support::world::{World, config, config_with, seconds_from_now};

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_when_burstd_is_ready_what_it_does_and_when_it_stops() {
    let (world, gate) = World::gated(Duration::from_secs(60)).await;
    let program = Program::in_world(&world, &config());
    let manager = Manager::start();
    let mut daemon = program.start_under(&manager, &[]);
    assert_eq!(manager.until_told(0, "READY=1").await, "READY=1\nSTATUS=polling\n");
    for number in 0..7 {
        world.task(&number.to_string()).with("due", seconds_from_now(-3)).put().await;
    }
    manager.until_told(1, "STATUS=polling · 7/1000 in flight").await;
    daemon.signal(Signal::TERM);
    manager.until_told(1, "STOPPING=1").await;
    manager.until_told(1, "STATUS=draining · 7/1000 in flight").await;
    manager.until_told(1, "EXTEND_TIMEOUT_USEC=15000000").await;
    gate.add_permits(1);
    assert!(daemon.ended().await.success());
    assert_eq!(manager.count("WATCHDOG=1"), 0, "nobody asked for it");
    assert_eq!(manager.count("MAINPID"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_which_limit_keeps_how_old_tasks_waiting() {
    let (world, gate) = World::gated(Duration::from_secs(60)).await;
    let config = config_with("max_in_flight = 3");
    let program = Program::in_world(&world, &config);
    let manager = Manager::start();
    let _daemon = program.start_under(&manager, &[]);
    for number in 0..5 {
        world.task(&number.to_string()).with("due", seconds_from_now(-100)).put().await;
    }
    let status =
        manager.until_told(1, "3/3 in flight (work: max_in_flight of the queue) · oldest").await;
    let age = status.trim().strip_suffix(" s").and_then(|rest| rest.rsplit_once(' '));
    let age: f64 = age.and_then(|(_, age)| age.parse().ok()).expect("it says how old");
    assert!((100.0..160.0).contains(&age), "{status}");
    gate.add_permits(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_names_what_claimed_tasks_wait_for_before_the_places_that_they_take() {
    for (keys, payload, limit, said) in [
        ("[functions.work]\nmax_concurrency = 2\n", 1, 5, "2/2 in flight (work: max_concurrency)"),
        ("[functions.work]\nstart_rate = \"1/m\"\n", 1, 5, "in flight (work: start_rate)"),
        ("", 300_000, 5, "in flight (max_bytes_in_flight)"),
        ("", 300_000, 1, "1/1 in flight (max_in_flight)"),
    ] {
        let (world, gate) = World::gated(Duration::from_secs(60)).await;
        let config = config().replace("max_in_flight = 1000", &format!("max_in_flight = {limit}"));
        let config = format!("max_bytes_in_flight = \"1MB\"\n{config}{keys}");
        let program = Program::in_world(&world, &config);
        let manager = Manager::start();
        let _daemon = program.start_under(&manager, &[]);
        let payload = format!("\"{}\"", "x".repeat(payload));
        world.put_many(8, &payload).await;
        manager.until_told(1, said).await;
        gate.add_permits(1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_that_lambda_is_waited_for_whichever_limit_that_fills() {
    let world = World::with(async |_: Call| Answer::Refused {
        status: 503,
        code: "ServiceUnavailableException",
        body: json!({ "Message": "away" }),
    })
    .await;
    let program = Program::in_world(&world, &config_with("max_in_flight = 3"));
    let manager = Manager::start();
    let _daemon = program.start_under(&manager, &[]);
    world.put_many(5, "1").await;
    manager.until_told(1, "in flight (work: waiting for Lambda to start work)").await;
    let told = eventually("its holder has said so", async || {
        let told = success(&program.run(&["explain", "0", "1", "2", "3", "4"]));
        if told.contains("Lambda") { Ok(told) } else { Err(told) }
    })
    .await;
    let held = "and is waiting for Lambda to start work: it may not have started";
    assert_eq!(told.matches(held).count(), 3, "{told}");
    assert_eq!(told.matches("is waiting for Lambda").count(), 5, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_hears_of_it_as_long_as_every_loop_goes_on() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    let manager = Manager::start();
    let second = [("WATCHDOG_USEC", "1500000")];
    let mut daemon = program.start_under(&manager, &second);
    eventually("it is alive for seconds", async || match manager.count("WATCHDOG=1") {
        count if count >= 12 => Ok(()),
        count => Err(count),
    })
    .await;
    assert_eq!(daemon.told("watchdog.late"), 0);
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_hears_nothing_more_when_a_loop_hangs_and_the_log_says_which() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    let manager = Manager::start();
    let hangs = [("WATCHDOG_USEC", "1500000"), ("BURSTD_HANG_AT", "dispatcher.turn:20")];
    let daemon = program.start_under(&manager, &hangs);
    let line = daemon.line_with("watchdog.late").await;
    assert!(line.contains("\"loop\":\"dispatcher\""), "{line}");
    let count = manager.count("WATCHDOG=1");
    assert!(count > 0, "it was alive before");
    // Status lines or none: nothing that comes now may say that it lives.
    tokio::time::timeout(Duration::from_secs(3), manager.until_told(usize::MAX, "never"))
        .await
        .expect_err("nobody tells this");
    assert_eq!(manager.count("WATCHDOG=1"), count);
    assert_eq!(daemon.told("watchdog.late"), 1, "it is said once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_has_stopped_listening_holds_up_neither_tasks_nor_the_end() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    let deaf = Manager::deaf();
    let mut daemon = program.start_under(&deaf.manager, &[]);
    world.task("a").put().await;
    world.until("a", "SUCCEEDED").await;
    daemon.line_with("\"event\":\"systemd.unreachable\"").await;
    daemon.signal(Signal::HUP);
    daemon.line_with("config.reloaded").await;
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
}

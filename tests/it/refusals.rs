//! Functions that Lambda does not start.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use burstd::local::lambda::{Answer, Call};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::support::eventually;
use crate::support::program::{Process, Program};
use crate::support::world::{World, config, n, outcomes, patient, s, seconds_from_now};

/// No task can run.
fn broken_for_all() -> Answer {
    let body = json!({ "Message": "the key is disabled" });
    Answer::Refused { status: 502, code: "KMSDisabledException", body }
}

/// A world whose function runs no task while this is so.
async fn broken_until_told() -> (World, Arc<AtomicBool>) {
    let is_broken = Arc::new(AtomicBool::new(true));
    let state = is_broken.clone();
    let world = World::with(move |call: Call| {
        ready(match state.load(Ordering::Relaxed) {
            true => broken_for_all(),
            false => Answer::Returned(call.payload),
        })
    })
    .await;
    (world, is_broken)
}

/// Waits until more tasks than these were given back.
async fn until_given_back(daemon: &Process, more_than: usize) {
    eventually("it is probed", async || match daemon.told("task.released") {
        told if told > more_than => Ok(()),
        told => Err(told),
    })
    .await;
}

#[tokio::test]
async fn a_function_broken_for_all_spends_no_attempt_and_its_queue_waits_for_it() {
    let (world, is_broken) = broken_until_told().await;
    for number in 0..20 {
        world.task(&number.to_string()).put().await;
    }
    let mut daemon = world.daemon(&config()).await;
    daemon.until("a probe after the first pause", |counts| counts.released > 20).await;
    assert!(world.calls.count() < 40, "probes go one at a time, not {}", world.calls.count());
    is_broken.store(false, Ordering::Relaxed);
    world.until_all(20, "SUCCEEDED").await;
    for number in 0..20 {
        let item = world.item(&number.to_string()).await.expect("it is there");
        assert_eq!(outcomes(&item), ["1 succeeded"]);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_task_whose_lambda_is_away_for_longer_than_its_lease_is_taken_over_by_nobody() {
    let tries = Arc::new(AtomicU32::new(0));
    let world = World::with(move |call: Call| {
        ready(match tries.fetch_add(1, Ordering::Relaxed) {
            60.. => Answer::Returned(call.payload),
            _ => Answer::Refused { status: 503, code: "ServiceUnavailable", body: json!({}) },
        })
    })
    .await;
    world.put_many(5, "1").await;
    let daemons = [world.daemon(&config()).await, world.daemon(&config()).await];
    world.until_all(5, "SUCCEEDED").await;
    for daemon in daemons {
        assert_eq!(daemon.stop().await.rescued, 0);
    }
    for item in world.items().await.values() {
        assert_eq!(outcomes(item), ["1 succeeded"]);
    }
}

#[tokio::test]
async fn a_task_that_is_taken_over_and_given_back_for_a_while_is_rescued_once() {
    let (world, is_broken) = broken_until_told().await;
    let abandoned = world.task("a").with("status", s("RUNNING")).with("attempt", n(1));
    abandoned.with("rev", s("another's")).with("lease_until", seconds_from_now(-1)).put().await;
    let mut daemon = world.daemon(&config()).await;
    daemon.until("it was given back twice", |counts| counts.released >= 2).await;
    is_broken.store(false, Ordering::Relaxed);
    let item = world.until("a", "SUCCEEDED").await;
    assert_eq!(outcomes(&item), ["1 abandoned", "2 succeeded"]);
    assert_eq!(daemon.stop().await.rescued, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_older_run_is_no_sign_that_a_broken_function_runs_again() {
    let gate = Arc::new(Semaphore::new(0));
    let closed = gate.clone();
    let world = World::with(move |call: Call| {
        let closed = closed.clone();
        async move {
            if call.payload != b"\"long\"" {
                return broken_for_all();
            }
            drop(closed.acquire().await);
            Answer::Returned(call.payload)
        }
    })
    .await;
    let program = Program::in_world(&world, &patient());
    let daemon = program.start();
    world.task("long").with("payload", s("\"long\"")).put().await;
    world.until_running(1).await;
    world.task("short").put().await;
    daemon.line_with("\"event\":\"lambda.broken\"").await;
    until_given_back(&daemon, 1).await;
    gate.add_permits(1);
    daemon.until_told("task.succeeded", 1).await;
    let probes = daemon.told("task.released");
    until_given_back(&daemon, probes).await;
    assert_eq!(daemon.told("lambda.recovered"), 0);
}

//! The daemon before functions with limits.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use burstd::local::lambda::{Answer, Call};
use burstd::local::limits::Limits;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::eventually;
use crate::support::program::Program;
use crate::support::world::{World, config, patient};

const SECRET: Limits = Limits { account_concurrency: None, ramp: None, is_secret: true };

/// A world whose function takes this long, and `count` tasks.
async fn limited(max_concurrency: u32, limits: Limits, takes: Duration, count: usize) -> World {
    let world = World::limited(Some(max_concurrency), limits, move |call: Call| async move {
        tokio::time::sleep(takes).await;
        Answer::Returned(call.payload)
    })
    .await;
    for number in 0..count {
        world.task(&number.to_string()).put().await;
    }
    world
}

/// That each task was tried once.
async fn assert_one_attempt_each(world: &World) {
    for item in world.table().await.read_all().await.expect("the table is read") {
        assert_eq!(item.attempt, 1, "{item:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_lambda_tells_of_is_kept_from_the_first_burst_on() {
    let world = limited(5, Limits::default(), Duration::from_millis(30), 60).await;
    let daemon = world.daemon(&config()).await;
    world.until_all(60, "SUCCEEDED").await;
    daemon.stop().await;
    let running = world.lambda.running();
    assert_eq!((running.peak, running.throttled), (5, 0));
    assert_one_attempt_each(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_only_learnt_costs_throttles_and_no_attempt() {
    let world = limited(20, SECRET, Duration::from_millis(100), 300).await;
    let daemon = world.daemon(&patient()).await;
    world.until_all(300, "SUCCEEDED").await;
    let counts = daemon.stop().await;
    let running = world.lambda.running();
    assert!(running.peak == 20 && running.throttled > 0, "{running:?}");
    assert!(running.throttled < 150, "it goes on asking in vain: {running:?}");
    assert_eq!((counts.succeeded, counts.released), (300, 0));
    assert_one_attempt_each(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_s_cap_is_kept_where_lambda_would_give_more() {
    let world = limited(100, Limits::default(), Duration::from_millis(30), 40).await;
    let config = config() + "[functions.work]\nmax_concurrency = 3\n";
    let daemon = world.daemon(&config).await;
    world.until_all(40, "SUCCEEDED").await;
    daemon.stop().await;
    assert_eq!(world.lambda.running().peak, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_and_the_limit_it_met_are_a_line_each() {
    let world = limited(20, SECRET, Duration::from_millis(1300), 50).await;
    let program = Program::in_world(&world, &config());
    let daemon = program.start();
    let changed = daemon.line_with("\"event\":\"limiter.changed\"").await;
    assert!(changed.contains("\"why\":\"reserved concurrency\""), "{changed}");
    let burst = daemon.line_with("\"event\":\"burst\"").await;
    assert!(burst.contains("\"peak\":20,"), "{burst}");
    world.until_all(50, "SUCCEEDED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_all_functions_share_is_a_line_when_it_is_learnt() {
    let asked = AtomicU32::new(0);
    let body = json!({ "Reason": "CallerRateLimitExceeded" });
    let world = World::with(move |call: Call| {
        let is_refused = asked.fetch_add(1, Ordering::Relaxed) == 30;
        let refused =
            Answer::Refused { status: 429, code: "TooManyRequestsException", body: body.clone() };
        ready(if is_refused { refused } else { Answer::Returned(call.payload) })
    })
    .await;
    world.put_many(50, "1").await;
    let program = Program::in_world(&world, &patient());
    let daemon = program.start();
    let changed = daemon.line_with("\"event\":\"limiter.changed\"").await;
    let changed: Value = serde_json::from_str(&changed).expect("it is JSON");
    assert_eq!(
        (&changed["why"], &changed["unit"]),
        (&"rate of this caller's calls".into(), &"starts a second".into())
    );
    assert!(changed["to"].as_u64().is_some_and(|to| to > 0), "{changed}");
    world.until_all(50, "SUCCEEDED").await;
    assert_one_attempt_each(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_switched_off_is_paused_and_said_and_no_attempt_is_spent() {
    for limits in [Limits::default(), SECRET] {
        let world = limited(0, limits, Duration::ZERO, 20).await;
        let program = Program::in_world(&world, &config());
        let daemon = program.start();
        daemon.line_with("switched off").await;
        eventually("all are given back", async || {
            let items = world.table().await.read_all().await.expect("the table is read");
            let claimed = items.iter().filter(|item| item.attempt > 0).count();
            if claimed <= 1 { Ok(()) } else { Err(claimed) }
        })
        .await;
        assert_eq!(world.lambda.running().begun, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_task_is_given_back_is_said_in_words() {
    let world = limited(0, SECRET, Duration::ZERO, 1).await;
    let program = Program::in_world(&world, &config());
    let daemon = program.start();
    let released = daemon.line_with("\"event\":\"task.released\"").await;
    assert!(released.contains("\"reason\":\"the function is broken\""), "{released}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_account_has_left_is_the_limit_of_a_function_without_its_own() {
    let limits = Limits { account_concurrency: Some(7), ..Limits::default() };
    let gate = Arc::new(Semaphore::new(0));
    let closed = gate.clone();
    let world = World::limited(None, limits, move |call: Call| {
        let closed = closed.clone();
        async move {
            drop(closed.acquire().await);
            Answer::Returned(call.payload)
        }
    })
    .await;
    for number in 0..40 {
        world.task(&number.to_string()).put().await;
    }
    let daemon = world.daemon(&config()).await;
    world.until_running(7).await;
    gate.add_permits(1);
    world.until_all(40, "SUCCEEDED").await;
    daemon.stop().await;
    let running = world.lambda.running();
    assert_eq!((running.peak, running.throttled), (7, 0));
}

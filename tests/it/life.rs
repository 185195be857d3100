//! A task's life from insert to settled, through the real daemon over real HTTP.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use burstd::local::lambda::{Answer, Call};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::support::eventually;
use crate::support::program::CANARY;
use crate::support::world::{
    FUNCTION_TIMEOUT, Item, World, config, config_with, error, n, outcomes, s, seconds_from_now,
    text,
};

fn raised(error_type: &str, message: &str) -> Answer {
    Answer::Raised { error_type: error_type.into(), message: message.into() }
}

fn throttled() -> Answer {
    Answer::Refused {
        status: 429,
        code: "TooManyRequestsException",
        body: json!({ "Reason": "ConcurrentInvocationLimitExceeded", "message": "Rate Exceeded." }),
    }
}

fn attempt(call: &Call) -> u32 {
    call.context.as_ref().expect("burstd says who it is").attempt
}

#[tokio::test]
async fn a_task_runs_once_and_its_item_says_how_it_went() {
    let world = World::echoing().await;
    let daemon = world.daemon(&config()).await;
    world.task("a").with("payload", s(" {\"b\": 1.50,\t\"a\":\"é\"} ")).put().await;
    let item = world.until("a", "SUCCEEDED").await;

    let executions = world.calls.of("a");
    assert_eq!(executions.len(), 1);
    let call = &executions[0].call;
    assert_eq!(call.payload, " {\"b\": 1.50,\t\"a\":\"é\"} ".as_bytes(), "byte for byte");
    assert_eq!(text(&item, "result"), " {\"b\": 1.50,\t\"a\":\"é\"} ");
    assert_eq!(text(&item, "attempt"), "1");
    assert_eq!(text(&item, "request_id"), call.request_id);
    assert_eq!(outcomes(&item), ["1 succeeded"]);
    assert!(text(&item, "started_at") <= text(&item, "finished_at"));
    for absent in ["due", "lease_until", "error", "expires_at"] {
        assert!(!item.contains_key(absent), "{absent}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn the_function_is_told_task_attempt_worker_and_lease() {
    let world = World::echoing().await;
    let daemon = world.daemon(&config()).await;
    world.task("a").with("trace", s("Root=1-5759e988-bd862e3fe1be46a994272793")).put().await;
    let item = world.until("a", "SUCCEEDED").await;
    let call = world.calls.of("a").remove(0).call;
    let context = call.context.expect("it is told");
    assert_eq!((context.task_id.as_str(), context.queue.as_str()), ("a", "work"));
    assert_eq!(context.attempt, 1);
    assert_eq!(context.worker, text(&item, "worker"));
    let started: f64 = text(&item, "started_at").parse().expect("it is a number");
    let lease = FUNCTION_TIMEOUT.as_secs_f64() + 1.0;
    assert!((context.lease_until - started - lease).abs() < 0.002, "timeout and margin");
    assert_eq!(call.trace.as_deref(), Some("Root=1-5759e988-bd862e3fe1be46a994272793"));
    daemon.stop().await;
}

#[tokio::test]
async fn a_payload_of_any_json_type_becomes_json() {
    let world = World::echoing().await;
    let daemon = world.daemon(&config()).await;
    let map = AttributeValue::M(Item::from([
        ("list".into(), AttributeValue::L(vec![n("12345678901234567890.5"), s("\"")])),
        ("flag".into(), AttributeValue::Bool(false)),
    ]));
    for (id, payload, event) in [
        ("map", Some(map), "{\"flag\":false,\"list\":[12345678901234567890.5,\"\\\"\"]}"),
        ("number", Some(n(7)), "7"),
        ("null", Some(AttributeValue::Null(true)), "null"),
        ("text", Some(s("\"text\"")), "\"text\""),
        ("none", None, "{}"),
    ] {
        let task = world.task(id);
        match payload {
            Some(payload) => task.with("payload", payload).put().await,
            None => task.without("payload").put().await,
        }
        assert_eq!(text(&world.until(id, "SUCCEEDED").await, "result"), event, "{id}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_failure_is_tried_again_and_remembered() {
    let world = World::with(async |call: Call| match attempt(&call) {
        1 => raised("ValueError", "no such size"),
        2 => raised("OSError", "no such disk"),
        _ => Answer::Returned(call.payload),
    })
    .await;
    let daemon = world.daemon(&config()).await;
    world.task("a").put().await;
    let item = world.until("a", "SUCCEEDED").await;
    assert_eq!(outcomes(&item), ["1 failed", "2 failed", "3 succeeded"]);
    assert!(!item.contains_key("error"), "the error of an attempt that was made good is gone");
    let counts = daemon.stop().await;
    assert_eq!((counts.retried, counts.succeeded), (2, 1));
}

#[tokio::test]
async fn at_its_last_attempt_a_task_fails_with_type_message_and_log() {
    let world = World::with(async |_| raised("ValueError", "no such size")).await;
    let daemon = world.daemon(&config_with("max_attempts = 3")).await;
    world.task("a").put().await;
    world.task("less").with("max_attempts", n(1)).put().await;
    world.task("more").with("max_attempts", n(99)).put().await;
    for (id, attempts) in [("a", 3), ("less", 1), ("more", 3)] {
        let item = world.until(id, "FAILED").await;
        assert_eq!(text(&item, "attempt"), attempts.to_string(), "{id}");
        assert_eq!(world.calls.of(id).len(), attempts, "{id}");
        assert_eq!(error(&item, "type"), "ValueError");
        assert_eq!(error(&item, "message"), format!("no such size{CANARY}"));
        assert!(error(&item, "log").contains("[ERROR] ValueError: no such size"));
        assert!(!item.contains_key("due"), "{id}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_function_stopped_at_its_timeout_has_failed() {
    let world = World::with(async |call: Call| {
        if attempt(&call) == 1 {
            std::future::pending::<()>().await;
        }
        Answer::Returned(call.payload)
    })
    .await;
    let daemon = world.daemon(&config()).await;
    world.task("a").put().await;
    let item = world.until("a", "SUCCEEDED").await;
    assert_eq!(outcomes(&item), ["1 failed", "2 succeeded"]);
    let Some(AttributeValue::L(history)) = item.get("history") else { panic!("no history") };
    let first = history[0].as_m().expect("it is a map");
    assert_eq!(text(first, "error"), "Sandbox.Timedout");
    daemon.stop().await;
}

#[tokio::test]
async fn a_throttled_start_costs_no_attempt_and_no_write() {
    let refusals = Arc::new(AtomicU32::new(0));
    let seen = refusals.clone();
    let world = World::with(move |call: Call| {
        let is_throttled = seen.fetch_add(1, Ordering::Relaxed) < 3;
        ready(if is_throttled { throttled() } else { Answer::Returned(call.payload) })
    })
    .await;
    let daemon = world.daemon(&config()).await;
    world.task("a").put().await;
    let item = world.until("a", "SUCCEEDED").await;
    assert_eq!(refusals.load(Ordering::Relaxed), 4);
    assert_eq!(outcomes(&item), ["1 succeeded"]);
    let counts = daemon.stop().await;
    assert_eq!((counts.claimed, counts.released), (1, 0), "one claim, held through all refusals");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_limited_to_20_at_once_costs_no_attempts_and_is_seldom_asked_in_vain() {
    let (running, refused) = (Arc::new(Semaphore::new(20)), Arc::new(AtomicU32::new(0)));
    let counted = refused.clone();
    let world = World::with(move |call: Call| {
        let place = running.clone().try_acquire_owned();
        counted.fetch_add(u32::from(place.is_err()), Ordering::Relaxed);
        async move {
            let Ok(_place) = place else { return throttled() };
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            Answer::Returned(call.payload)
        }
    })
    .await;
    for number in 0..400 {
        world.task(&number.to_string()).put().await;
    }
    // Leases that outlast the test: none is extended, and none given back.
    let config = config().replace("max_in_flight = 1000", "max_in_flight = 200");
    let daemon = world.daemon(&config.replace("\"1s\"", "\"60s\"")).await;
    world.until_all(400, "SUCCEEDED").await;
    assert_eq!(daemon.stop().await.claimed, 400, "each was claimed once and kept");
    for item in world.table().await.read_all().await.expect("the table is read") {
        assert_eq!(item.attempt, 1, "{item:?}");
    }
    // The first burst shows the limit; after that only growing beyond it is refused.
    let refused = refused.load(Ordering::Relaxed);
    assert!(refused <= 300, "{refused} refused");
}

#[tokio::test]
async fn a_lease_is_extended_while_lambda_throttles_for_longer_than_it_lasts() {
    let began = std::time::Instant::now();
    let world = World::with(move |call: Call| {
        let is_throttled = began.elapsed() < 2 * FUNCTION_TIMEOUT;
        ready(if is_throttled { throttled() } else { Answer::Returned(call.payload) })
    })
    .await;
    let daemon = world.daemon(&config()).await;
    world.task("a").put().await;
    let item = world.until("a", "SUCCEEDED").await;
    assert_eq!((text(&item, "attempt").as_str(), outcomes(&item).len()), ("1", 1));
    let contexts = world.calls.of("a");
    let last = contexts.last().and_then(|execution| execution.call.context.clone());
    let started: f64 = text(&item, "started_at").parse().expect("it is a number");
    let lease_until = last.expect("it is told").lease_until;
    assert!(lease_until > started + 2.0 * FUNCTION_TIMEOUT.as_secs_f64(), "it was extended");
    daemon.stop().await;
}

#[tokio::test]
async fn what_lambda_can_never_run_fails_without_an_attempt() {
    let world = World::with(async |_| Answer::Refused {
        status: 413,
        code: "RequestTooLargeException",
        body: json!({ "message": "too large" }),
    })
    .await;
    let daemon = world.daemon(&config()).await;
    world.task("a").put().await;
    let item = world.until("a", "FAILED").await;
    assert_eq!(text(&item, "attempt"), "0");
    assert_eq!(error(&item, "type"), "RequestTooLargeException");
    assert_eq!(world.calls.count(), 1);
    daemon.stop().await;
}

#[tokio::test]
async fn an_unknown_outcome_waits_for_its_lease_so_that_nothing_runs_twice_at_once() {
    let world = World::with(async |call: Call| match attempt(&call) {
        1 => Answer::Disconnected,
        _ => Answer::Returned(call.payload),
    })
    .await;
    let daemon = world.daemon(&config()).await;
    world.task("a").put().await;
    let item = world.until("a", "SUCCEEDED").await;
    assert_eq!(outcomes(&item), ["1 unknown", "2 succeeded"]);
    let runs = world.calls.of("a");
    let between = runs[1].began - runs[0].began;
    assert!(between > FUNCTION_TIMEOUT, "claimed again after {between:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn on_unknown_may_be_to_retry_or_to_fail_at_once() {
    for (policy, status, runs) in [("retry", "SUCCEEDED", 2), ("fail", "FAILED", 1)] {
        let world = World::with(async |call: Call| match attempt(&call) {
            1 => Answer::Disconnected,
            _ => Answer::Returned(call.payload),
        })
        .await;
        let daemon = world.daemon(&config_with(&format!("on_unknown = \"{policy}\""))).await;
        world.task("a").put().await;
        let item = world.until("a", status).await;
        assert_eq!(world.calls.count(), runs, "{policy}");
        assert_eq!(outcomes(&item)[0], "1 unknown");
        daemon.stop().await;
    }
}

#[tokio::test]
async fn a_task_that_kills_every_worker_ends_failed() {
    let world = World::echoing().await;
    let daemon = world.daemon(&config_with("max_attempts = 3")).await;
    world
        .task("poison")
        .with("status", s("RUNNING"))
        .with("attempt", n(3))
        .with("lease_until", n(1))
        .put()
        .await;
    let item = world.until("poison", "FAILED").await;
    assert_eq!(world.calls.count(), 0, "it is not run a fourth time");
    assert_eq!(text(&item, "attempt"), "3", "and no fourth attempt is counted");
    assert_eq!(error(&item, "type"), "Burstd.AttemptsExhausted");
    assert_eq!(outcomes(&item), ["1 abandoned", "2 abandoned", "3 abandoned"]);
    daemon.stop().await;
}

#[tokio::test]
async fn after_its_deadline_a_task_fails_without_running() {
    let world = World::echoing().await;
    let daemon = world.daemon(&config()).await;
    world.task("late").with("deadline", n(1)).put().await;
    world.task("early").with("deadline", seconds_from_now(60)).put().await;
    let item = world.until("late", "FAILED").await;
    assert_eq!(error(&item, "type"), "Burstd.DeadlinePassed");
    assert_eq!(text(&item, "attempt"), "0");
    world.until("early", "SUCCEEDED").await;
    assert_eq!(world.calls.of("late").len(), 0);
    daemon.stop().await;
}

#[tokio::test]
async fn a_task_does_not_run_before_it_is_due() {
    let world = World::echoing().await;
    let daemon = world.daemon(&config()).await;
    let due = seconds_from_now(2);
    world.task("later").with("due", due.clone()).put().await;
    let item = world.until("later", "SUCCEEDED").await;
    let due: f64 = due.as_n().expect("a number").parse().expect("a number");
    let started: f64 = text(&item, "started_at").parse().expect("a number");
    assert!((due..due + 1.0).contains(&started), "due {due}, started {started}");
    world.task("much later").with("due", seconds_from_now(3600)).put().await;
    world.task("now").put().await;
    world.until("now", "SUCCEEDED").await;
    assert_eq!(world.status("much later").await, "");
    daemon.stop().await;
}

#[tokio::test]
async fn a_claim_counts_from_when_it_is_won_and_not_from_its_end() {
    let (world, gate) = World::gated(Duration::from_secs(60)).await;
    let mut daemon = world.daemon(&config()).await;
    world.put_many(3, "1").await;
    let counts = daemon.until("three are claimed", |counts| counts.claimed == 3).await;
    assert_eq!((counts.in_flight, counts.succeeded), (3, 0));
    gate.add_permits(1);
    world.until_all(3, "SUCCEEDED").await;
    assert_eq!(daemon.stop().await.claimed, 3);
}

#[tokio::test]
async fn garbage_among_good_items_stops_nothing() {
    let world = World::echoing().await;
    for number in 0..30 {
        let task = world.task(&number.to_string());
        match number % 3 {
            0 => task.with("payload", s("{broken")).put().await,
            1 => task.with("lease_until", s("garbage")).put().await,
            _ => task.put().await,
        }
    }
    let daemon = world.daemon(&config()).await;
    world.until_all(10, "SUCCEEDED").await;
    world.until_all(20, "INVALID").await;
    let counts = daemon.stop().await;
    assert_eq!((counts.invalid, counts.claimed), (20, 10));
}

#[tokio::test]
async fn a_result_that_cannot_be_kept_leaves_its_size_and_the_task_succeeded() {
    let world =
        World::with(async |call: Call| match call.context.expect("told").task_id.as_str() {
            "large" => Answer::Returned(format!("\"{}\"", "x".repeat(300_000)).into_bytes()),
            "text" => Answer::Returned(b"plain text".to_vec()),
            "full" => Answer::Returned(format!("\"{}\"", "x".repeat(100_000)).into_bytes()),
            _ => Answer::Returned(Vec::new()),
        })
        .await;
    let daemon = world.daemon(&config()).await;
    let large_event = s(format!("\"{}\"", "y".repeat(380_000)));
    world.task("large").put().await;
    world.task("text").put().await;
    world.task("full").with("payload", large_event).put().await;
    world.task("empty").put().await;
    for (id, bytes, why) in [
        ("large", "300002", "larger than 256 KB"),
        ("text", "10", "not JSON"),
        ("full", "100002", "item is full"),
        ("empty", "", ""),
    ] {
        let item = world.until(id, "SUCCEEDED").await;
        assert!(!item.contains_key("result"), "{id}");
        assert_eq!(
            (text(&item, "result_bytes"), text(&item, "result_omitted")),
            (bytes.into(), why.into())
        );
    }
    daemon.stop().await;
}

#[tokio::test]
async fn an_item_with_just_enough_room_to_be_claimed_ends_like_any_other() {
    let world = World::with(async |call: Call| match call.payload[1] {
        b'f' => raised("AnErrorWithALongName", "it broke"),
        _ => Answer::Returned(b"\"done\"".to_vec()),
    })
    .await;
    let config = config_with("max_attempts = 2\nretention = \"1d\"");
    // From so large that it cannot be claimed to so small that all can be written.
    let largest = 400 * 1024 - "id".len() - "queuework".len() - "due0".len() - "payload".len();
    for room in (0..400).step_by(10) {
        for kind in ["f", "s"] {
            let id = format!("{kind}{room:03}");
            let payload = largest - id.len() - room;
            let payload = format!("\"{kind}{}\"", "x".repeat(payload - "\"f\"".len()));
            world.task(&id).with("payload", s(payload)).put().await;
        }
    }
    let daemon = world.daemon(&config).await;
    let ended = eventually("all that could be claimed have ended", async || {
        let items = world.items().await;
        let mut ended = 0;
        for (id, item) in items {
            match text(&item, "status").as_str() {
                "SUCCEEDED" | "FAILED" => ended += 1,
                "" if world.calls.of(&id).is_empty() => {}
                other => return Err(format!("{id} is {other}")),
            }
        }
        if ended > 0 { Ok(ended) } else { Err("none has".to_owned()) }
    })
    .await;
    assert!((40..78).contains(&ended), "{ended} of 80 have room to be claimed");
    daemon.stop().await;
}

#[tokio::test]
async fn a_finished_item_expires_when_a_retention_is_set() {
    let world = World::echoing().await;
    let daemon = world.daemon(&config_with("retention = \"14d\"")).await;
    world.task("a").put().await;
    let item = world.until("a", "SUCCEEDED").await;
    let expires: f64 = text(&item, "expires_at").parse().expect("it is a number");
    let finished: f64 = text(&item, "finished_at").parse().expect("it is a number");
    assert!((expires - finished - 14.0 * 86_400.0).abs() <= 1.0);
    assert!(!text(&item, "expires_at").contains('.'), "TTL reads whole seconds only");
    daemon.stop().await;
}

#[tokio::test]
async fn no_more_are_in_flight_than_process_and_queue_allow() {
    for (limits, most) in [("max_in_flight = 7", 7), ("", 11)] {
        let gate = Arc::new(Semaphore::new(0));
        let closed = gate.clone();
        let world = World::with(move |call: Call| {
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
        let config = config_with(limits).replace("max_in_flight = 1000", "max_in_flight = 11");
        let daemon = world.daemon(&config).await;
        eventually("full use is made of the limit", async || match world.lambda.running().now {
            now if now >= most => Ok(()),
            now => Err(now),
        })
        .await;
        gate.add_permits(1);
        world.until_all(40, "SUCCEEDED").await;
        assert_eq!(daemon.stop().await.succeeded, 40);
        assert_eq!(world.lambda.running().peak, most);
    }
}

#[tokio::test]
async fn every_shard_of_a_queue_is_served() {
    let world = World::echoing().await;
    for (id, shard) in [("a", "work"), ("b", "work#0"), ("c", "work#3")] {
        world.task(id).with("queue", s(shard)).put().await;
    }
    world.task("stranger").with("queue", s("work#4")).put().await;
    let daemon = world.daemon(&config_with("shards = 4")).await;
    world.until_all(3, "SUCCEEDED").await;
    daemon.stop().await;
    assert_eq!(world.status("stranger").await, "");
}

#[tokio::test]
async fn a_task_that_succeeds_at_once_costs_five_write_units() {
    let world = World::echoing().await;
    let producer = world.table().await.producer().await.expect("the table is there");
    let daemon = world.daemon(&config()).await;
    let tasks: Vec<_> = (0..25)
        .map(|number| burstd::aws::NewTask {
            id: Some(number.to_string()),
            queue: "work".into(),
            payload: Some(format!("{{\"text\":\"{}\"}}", "x".repeat(300))),
            ..Default::default()
        })
        .collect();
    assert!(producer.put_all(&tasks).await.expect("they are put").is_empty());
    world.until_all(25, "SUCCEEDED").await;
    let store = daemon.store.clone();
    assert_eq!(daemon.stop().await.claimed, 25);
    let spent = store.spent_on_tasks();
    assert_eq!(producer.consumed().write_milli, 25 * 2 * 1000, "insert: item and index");
    assert_eq!(spent.write_milli, 25 * 3 * 1000, "claim: item; settle: item and index");
}

//! DynamoDB in trouble under a working daemon.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use burstd::aws::{Clients, NewTask};
use burstd::clock::Clock;
use burstd::local::lambda::{Answer, Call};
use burstd::local::place;
use burstd::task::TaskId;
use burstd::worker::Report;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::simulation::lives::{queue, worker};
use crate::simulation::world::{BEGINNING, Sabotage, World as Simulated};
use crate::support::eventually;
use crate::support::program::Program;
use crate::support::proxy::{Fate, Proxy};
use crate::support::world::{World, config, n, outcomes, patient, s, text};

#[tokio::test(flavor = "multi_thread")]
async fn with_every_third_reply_lost_each_task_still_runs_once() {
    let world = World::echoing().await;
    let mut updates = 0;
    let proxy = Proxy::start(&world.dynamodb.url(), move |operation, _| {
        updates += u32::from(operation == "UpdateItem");
        if operation == "UpdateItem" && updates % 3 == 0 { Fate::LoseReply } else { Fate::Pass }
    })
    .await;
    for number in 0..100 {
        world.task(&number.to_string()).put().await;
    }
    let daemon = world.daemon_at(&config(), &place(&proxy.url, &world.lambda.url())).await;
    world.until_all(100, "SUCCEEDED").await;
    let counts = daemon.stop().await;
    assert_eq!((counts.succeeded, counts.refused, counts.lost), (100, 0, 0));
    assert_eq!(world.calls.count(), 100);
    for item in world.table().await.read_all().await.expect("the table is read") {
        assert_eq!(item.attempt, 1, "{item:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_sends_again_what_dynamodb_throttles_or_leaves_unprocessed() {
    let world = World::echoing().await;
    let mut batches = 0;
    let proxy = Proxy::start(&world.dynamodb.url(), move |operation, _| {
        batches += u32::from(operation == "BatchWriteItem");
        match batches {
            1 | 2 => Fate::LeaveUnprocessed,
            3 => Fate::Refuse(400, "ProvisionedThroughputExceededException"),
            4 => Fate::LoseReply,
            _ => Fate::Pass,
        }
    })
    .await;
    let clients = Clients::new(&place(&proxy.url, &world.lambda.url())).await.expect("a region");
    let producer = clients.table("tasks").producer().await.expect("the table is there");
    let tasks: Vec<_> = (0..25)
        .map(|number| NewTask { id: Some(number.to_string()), ..NewTask::default() })
        .map(|task| NewTask { queue: "work".to_owned(), ..task })
        .collect();
    assert_eq!(producer.put_all(&tasks).await.expect("they are put"), []);
    assert_eq!(world.table().await.read_all().await.expect("the table is read").len(), 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_episode_is_said_once_when_it_begins_and_once_when_it_is_over() {
    let world = World::echoing().await;
    let proxy = Proxy::start(&world.dynamodb.url(), |_, _| Fate::Pass).await;
    let program = Program::with(&format!(
        "{}\n[aws]\nregion = \"us-east-1\"\ndynamodb_endpoint_url = \"{}\"\n\
         lambda_endpoint_url = \"{}\"\n",
        config(),
        proxy.url,
        world.lambda.url()
    ));
    let daemon = program.start();
    daemon.line_with("daemon.ready").await;
    let refused = Arc::new(AtomicU32::new(0));
    let count = refused.clone();
    proxy.plan(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        Fate::Refuse(503, "ServiceUnavailable")
    });
    eventually("many calls have failed", async || match refused.load(Ordering::Relaxed) {
        failed if failed >= 12 => Ok(()),
        failed => Err(failed),
    })
    .await;
    proxy.plan(|_, _| Fate::Pass);
    let over = daemon.line_with("store.recovered").await;
    assert!(over.contains("\"faults\":"), "{over}");
    let begun = daemon.lines().iter().filter(|line| line.contains("store.unavailable")).count();
    assert_eq!(begun, 1, "{:?}", daemon.lines());
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_lost_shows_that_the_table_is_back() {
    let simulated = Simulated::new(1, Sabotage::None, Duration::ZERO);
    let world = Arc::new(Mutex::new(simulated));
    let worker = worker(&world, Clock::reading(|| BEGINNING));
    worker.store_trouble.fault();
    let report = worker.run(&queue(), TaskId::named("gone"), StdRng::seed_from_u64(1)).await;
    assert!(matches!(report, Report::Lost(_)), "{report:?}");
    assert!(!worker.store_trouble.is_open());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_away_is_waited_for_and_results_are_kept() {
    let world = World::with(async |call: Call| {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Answer::Returned(call.payload)
    })
    .await;
    for fault in ["InternalServerError", "ThrottlingException", "ExpiredTokenException"] {
        let proxy = Proxy::start(&world.dynamodb.url(), |_, _| Fate::Pass).await;
        let daemon = world.daemon_at(&config(), &place(&proxy.url, &world.lambda.url())).await;
        let id = format!("during {fault}");
        world.task(&id).put().await;
        eventually("it runs", async || {
            if world.calls.of(&id).is_empty() { Err("it waits") } else { Ok(()) }
        })
        .await;
        proxy.plan(move |_, _| Fate::Refuse(500, fault));
        eventually("the function has ended", async || {
            match world.calls.of(&id).first().and_then(|run| run.ended) {
                Some(_) => Ok(()),
                None => Err("it runs"),
            }
        })
        .await;
        assert_eq!(world.status(&id).await, "RUNNING", "nobody could write");
        proxy.plan(|_, _| Fate::Pass);
        let item = world.until(&id, "SUCCEEDED").await;
        assert_eq!(outcomes(&item), ["1 succeeded"], "{fault}: the result was kept");
        daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_claim_is_sent_any_more_once_burstd_stops() {
    let world = World::echoing().await;
    world.put_many(300, "1").await;
    let sent = Arc::new(AtomicU32::new(0));
    let count = sent.clone();
    let proxy = Proxy::start(&world.dynamodb.url(), move |operation, _| {
        let is_write = operation == "UpdateItem";
        count.fetch_add(u32::from(is_write), Ordering::Relaxed);
        if is_write { Fate::Delay(Duration::from_millis(500)) } else { Fate::Pass }
    })
    .await;
    let daemon = world.daemon_at(&patient(), &place(&proxy.url, &world.lambda.url())).await;
    eventually("as many claims are under way as can be", async || {
        match sent.load(Ordering::Relaxed) {
            48.. => Ok(()),
            fewer => Err(fewer),
        }
    })
    .await;
    let counts = daemon.stop().await;
    assert_eq!((counts.claimed, counts.released, counts.abandoned), (48, 48, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_index_costs_one_refused_write_and_not_one_per_poll() {
    let world = World::echoing().await;
    let later = burstd::clock::Clock::system().now() + Duration::from_secs(3600);
    // What the index lists and nobody can claim: an index that lags shows the same.
    for number in 0..10 {
        world
            .task(&format!("leased {number}"))
            .with("status", s("RUNNING"))
            .with("lease_until", n(later))
            .put()
            .await;
        world.task(&format!("finished {number}")).with("status", s("SUCCEEDED")).put().await;
    }
    let mut daemon = world.daemon(&config()).await;
    daemon.until("each was tried", |counts| counts.lost >= 20).await;
    // Tasks that come and go keep the polls going.
    for number in 0..20 {
        world.task(&format!("good {number}")).put().await;
        world.until(&format!("good {number}"), "SUCCEEDED").await;
    }
    let counts = daemon.stop().await;
    assert_eq!((counts.lost, counts.succeeded), (20, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_share_a_table_and_nothing_runs_twice() {
    let world = World::with(async |call: Call| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Answer::Returned(call.payload)
    })
    .await;
    for number in 0..200 {
        world.task(&number.to_string()).put().await;
    }
    let small = config().replace("max_in_flight = 1000", "max_in_flight = 10");
    let (one, other) = (world.daemon(&small).await, world.daemon(&small).await);
    world.until_all(200, "SUCCEEDED").await;
    let (one, other) = (one.stop().await, other.stop().await);
    assert_eq!(one.succeeded + other.succeeded, 200);
    assert!(one.succeeded > 0 && other.succeeded > 0, "{one:?} {other:?}");
    assert_eq!(world.calls.count(), 200);
    world.calls.assert_no_overlap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_daemon_s_tasks_are_taken_over_when_their_leases_end() {
    let world = World::with(async |call: Call| {
        let attempt = call.context.as_ref().map_or(1, |context| context.attempt);
        if attempt == 1 {
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        Answer::Returned(call.payload)
    })
    .await;
    for number in 0..30 {
        world.task(&number.to_string()).put().await;
    }
    let doomed = world.daemon(&config()).await;
    eventually("all run", async || match world.lambda.running().now {
        30 => Ok(()),
        running => Err(running),
    })
    .await;
    drop(doomed);
    let heir = world.daemon(&config()).await;
    world.until_all(30, "SUCCEEDED").await;
    let counts = heir.stop().await;
    assert_eq!((counts.rescued, counts.succeeded), (30, 30));
    world.calls.assert_no_overlap();
    let item = world.item("0").await.expect("it is there");
    assert_eq!(outcomes(&item), ["1 abandoned", "2 succeeded"]);
    assert_eq!(text(&item, "attempt"), "2");
}

//! Many finished items, many workers, and few file descriptors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::{PutRequest, WriteRequest};
use burstd::local::lambda::{Answer, Call};
use burstd::local::place;
use burstd::store::Consumed;
use tokio::time::sleep;

use crate::support::eventually;
use crate::support::program::{Process, Program};
use crate::support::proxy::{Fate, Proxy};
use crate::support::world::{World, config, outcomes, patient, s};

/// Polls whose cost is compared.
const POLLS: u64 = 10;

/// Puts items as a daemon leaves them when their tasks have succeeded.
async fn put_finished(world: &World, count: usize) {
    let daemon = world.daemon(&config()).await;
    world.task("finished").put().await;
    let finished = world.until("finished", "SUCCEEDED").await;
    daemon.stop().await;
    let request = |number: usize| {
        let mut item = finished.clone();
        item.insert("id".to_owned(), s(format!("finished {number}")));
        let put = PutRequest::builder().set_item(Some(item)).build().expect("it is complete");
        WriteRequest::builder().put_request(put).build()
    };
    let requests: Vec<_> = (0..count).map(request).collect();
    for batch in requests.chunks(25) {
        let write = world.client.batch_write_item().request_items("tasks", batch.to_vec());
        let left = write.send().await.expect("they are put").unprocessed_items;
        assert!(left.is_none_or(|left| left.is_empty()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finished_items_make_no_poll_dearer_and_keep_no_task_waiting() {
    let mut seen = Vec::new();
    for finished in [0, 3000] {
        let world = World::echoing().await;
        if finished > 0 {
            put_finished(&world, finished).await;
        }
        let polls = Arc::new(AtomicU64::new(0));
        let count = polls.clone();
        // The polls after those that are compared have no reply, and so no cost.
        let proxy = Proxy::start(&world.dynamodb.url(), move |operation, _| {
            let polls = count.fetch_add(u64::from(operation == "Query"), Ordering::Relaxed);
            if operation == "Query" && polls >= POLLS { Fate::Lose } else { Fate::Pass }
        })
        .await;
        let daemon = world.daemon_at(&config(), &place(&proxy.url, &world.lambda.url())).await;
        eventually("it polls", async || match polls.load(Ordering::Relaxed) {
            polls if polls > POLLS => Ok(()),
            polls => Err(polls),
        })
        .await;
        let cost = daemon.store.spent_on_tasks();
        proxy.plan(|_, _| Fate::Pass);
        world.task("new").put().await;
        world.until("new", "SUCCEEDED").await;
        seen.push((cost, daemon.stop().await.claimed));
    }
    let cost = Consumed { read_milli: POLLS * 500, write_milli: 0 };
    assert_eq!(seen, [(cost, 1), (cost, 1)], "without finished items, and with 3,000");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_daemons_race_for_the_same_tasks_and_each_runs_once_without_a_loud_word() {
    let world = World::echoing().await;
    let config = patient().replace("max_in_flight = 1000", "max_in_flight = 50");
    let program = Program::in_world(&world, &(config + "[log]\nlevel = \"debug\"\n"));
    let daemons: Vec<_> = (0..10).map(|_| program.start()).collect();
    for daemon in &daemons {
        daemon.line_with("daemon.ready").await;
    }
    world.put_many(300, "1").await;
    world.until_all(300, "SUCCEEDED").await;
    assert_eq!(world.calls.count(), 300);
    for (id, item) in world.items().await {
        assert_eq!(outcomes(&item), ["1 succeeded"], "{id}");
    }
    let lines: Vec<_> = daemons.into_iter().flat_map(Process::finish).collect();
    let of = |part: &str| lines.iter().filter(|line| line.contains(part)).collect::<Vec<_>>();
    assert_eq!(of("\"event\":\"task.succeeded\"").len(), 300);
    let lost = of("\"event\":\"claim.lost\"");
    assert!(!lost.is_empty(), "they did not race");
    assert!(lost.iter().all(|line| line.contains("\"level\":\"DEBUG\"")), "{lost:#?}");
    let loud = [of("\"level\":\"WARN\""), of("\"level\":\"ERROR\"")].concat();
    assert!(loud.is_empty(), "{loud:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_few_file_descriptors_are_allowed_no_more_run_than_they_are_enough_for() {
    let (world, gate) = World::gated(Duration::from_secs(60)).await;
    world.put_many(100, "1").await;
    let program = Program::in_world(&world, &patient());
    let daemon = program.start_with_descriptors(160);
    // DynamoDB's connections take descriptors, too.
    eventually("nearly as many run", async || match world.lambda.running().now {
        50.. => Ok(()),
        now => Err(now),
    })
    .await;
    let line = daemon.line_with("\"event\":\"daemon.limits\"").await;
    assert!(line.contains("\"key\":\"max_in_flight\",\"from\":1000,\"to\":60"), "{line}");
    gate.add_permits(1);
    world.until_all(100, "SUCCEEDED").await;
    let most = world.lambda.running().peak;
    assert!(most <= 60, "{most} at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_file_descriptors_tasks_wait_and_the_log_says_what_is_short() {
    let world = World::with(async |call: Call| {
        sleep(Duration::from_millis(50)).await;
        Answer::Returned(call.payload)
    })
    .await;
    let program = Program::in_world(&world, &patient());
    let mut daemon = program.start();
    daemon.line_with("daemon.ready").await;
    daemon.limit_descriptors(60);
    world.put_many(200, "1").await;
    world.until_all(200, "SUCCEEDED").await;
    for (id, item) in world.items().await {
        assert_eq!(outcomes(&item), ["1 succeeded"], "{id}");
    }
    assert_eq!(world.calls.count(), 200);
    assert_eq!(daemon.try_ended(), None, "it stays");
    let line = daemon.line_with(".unavailable\"").await;
    assert!(line.contains("Too many open files (os error 24)"), "{line}");
    // It comes and goes with every call, and is not told each time.
    let said = ["lambda.unavailable", "store.unavailable"].map(|event| daemon.told(event));
    assert!(said.iter().all(|times| *times <= 7), "{said:?} times in a minute at most");
}

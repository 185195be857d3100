//! The table goes away, is not ready yet, or is another one all of a sudden.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use burstd::clock::Clock;
use rustix::process::Signal;

use crate::faults::description;
use crate::support::eventually;
use crate::support::program::{Process, Program};
use crate::support::proxy::{Fate, Proxy};
use crate::support::raw::{Act, Raw, Reply};
use crate::support::world::{World, config, outcomes, patient, text};

/// Longer than it takes to claim 500 tasks on a busy machine.
const PATIENT: Duration = Duration::from_secs(30);

/// Time enough for 500 claims at once on a busy machine: each must have led to a start within half
/// of the margin, or its lease is extended first.
const ROOMY: &str = "lease_margin = \"20s\"";

/// What each of 500 functions returns.
const RESULT_BYTES: usize = 8 * 1024;

/// One trouble was told once, and so was its end.
fn assert_one_episode(daemon: &Process, trouble: &str) {
    let told = ["store.unavailable", "store.refused", "store.recovered"].map(|it| daemon.told(it));
    let expected = match trouble {
        "store.unavailable" => [1, 0, 1],
        _ => [0, 1, 1],
    };
    assert_eq!(told, expected, "{:#?}", daemon.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_results_of_500_functions_outlive_a_table_that_is_away_for_longer_than_a_lease() {
    let (world, gate) = World::gated(PATIENT).await;
    let proxy = Proxy::start(&world.dynamodb.url(), |_, _| Fate::Pass).await;
    world.put_many(500, &format!("\"{}\"", "x".repeat(RESULT_BYTES))).await;
    let config = config().replace("lease_margin = \"1s\"", ROOMY);
    let program = Program::between(&proxy.url, &world.lambda.url(), &config);
    let mut daemon = program.start();
    world.until_running(500).await;
    let memory = daemon.peak_resident_kb();
    proxy.plan(|_, _| Fate::Lose);
    gate.add_permits(1);
    world.until_running(0).await;
    let leases = world.items().await.into_values().map(|item| {
        assert_eq!(text(&item, "status"), "RUNNING");
        text(&item, "lease_until").parse::<f64>().expect("it is a number")
    });
    let last = leases.fold(0.0, f64::max);
    eventually("every lease has ended", async || {
        match last - Clock::system().now().as_millis() as f64 / 1e3 {
            left if left < 0.0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
    proxy.plan(|_, _| Fate::Pass);
    daemon.until_told("task.succeeded", 500).await;
    let (more, results) = (daemon.peak_resident_kb() - memory, 500 * RESULT_BYTES as u64 / 1024);
    assert!(more < 4 * results, "{more} KB more, for {results} KB of results");
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
    assert_one_episode(&daemon, "store.unavailable");
    for (id, item) in world.items().await {
        assert_eq!(outcomes(&item), ["1 succeeded"], "{id}");
        assert_eq!(text(&item, "status"), "SUCCEEDED", "{id}");
    }
    assert_eq!(world.calls.count(), 500);
    world.calls.assert_no_overlap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_daemon_took_over_while_the_table_was_away_stays_as_that_one_wrote_it() {
    let (world, gate) = World::gated(Duration::from_secs(3)).await;
    let proxy = Proxy::start(&world.dynamodb.url(), |_, _| Fate::Pass).await;
    world.put_many(100, "1").await;
    let margin = config().replace("lease_margin = \"1s\"", "lease_margin = \"4s\"");
    let far = Program::between(&proxy.url, &world.lambda.url(), &margin);
    let mut cut_off = far.start();
    world.until_running(100).await;
    proxy.plan(|_, _| Fate::Lose);
    gate.add_permits(1);
    let near = Program::in_world(&world, &patient());
    let heir = near.start();
    heir.until_told("task.succeeded", 100).await;
    let before = world.items().await;
    proxy.plan(|_, _| Fate::Pass);
    cut_off.until_told("task.write_refused", 100).await;
    cut_off.signal(Signal::TERM);
    assert!(cut_off.ended().await.success());
    assert_one_episode(&cut_off, "store.unavailable");
    let refused = cut_off.line_with("task.write_refused").await;
    assert!(refused.contains("\"wanted\":\"succeed\",\"found\":\"SUCCEEDED, worker "), "{refused}");
    let after = world.items().await;
    assert!(before == after, "a stale worker changes nothing");
    for (id, item) in after {
        assert_eq!(outcomes(&item), ["1 abandoned", "2 succeeded"], "{id}");
    }
    assert_eq!((world.calls.count(), heir.told("task.rescued")), (200, 100));
    world.calls.assert_no_overlap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_being_made_is_waited_for() {
    let world = World::echoing().await;
    let being_made = description()
        .replace("\"IndexStatus\":\"ACTIVE\"", "\"IndexStatus\":\"CREATING\",\"Backfilling\":true");
    assert!(being_made.contains("Backfilling"));
    let dynamodb = Raw::before(&world.dynamodb.url(), move |request| match request.operation() {
        "DescribeTable" => Reply::json(200, &being_made).into(),
        _ => Act::PassOn(Reply::bytes),
    })
    .await;
    let directory = tempfile::TempDir::new().expect("a directory");
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_nonblocking(true).expect("it can be");
    let told = || {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let all_told = || std::iter::from_fn(told).collect::<String>();
    world.task("a").put().await;
    let program = Program::between(&dynamodb.url, &world.lambda.url(), &config());
    let daemon = program.start_with(&[("NOTIFY_SOCKET", &path.display().to_string())]);
    let line = daemon.line_with("store.unavailable").await;
    let words = "the index due-index of \\\"tasks\\\" is CREATING; burstd waits for it";
    assert!(line.contains(words), "{line}");
    eventually("it looks again", async || match dynamodb.count_of("DescribeTable") {
        looks if looks > 3 => Ok(()),
        looks => Err(looks),
    })
    .await;
    let told = all_told();
    assert!(told.contains("STATUS=waiting for DynamoDB: Burstd.TableNotActive"), "{told}");
    assert!(told.contains("EXTEND_TIMEOUT_USEC="), "it needs more time: {told}");
    assert!(!told.contains("READY=1"), "it cannot work yet: {told}");
    assert_eq!((daemon.told("daemon.ready"), dynamodb.count_of("Query")), (0, 0));
    dynamodb.plan(|_| Act::PassOn(Reply::bytes));
    world.until("a", "SUCCEEDED").await;
    assert!(all_told().contains("READY=1"));
    assert_eq!(daemon.told("store.unavailable"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_deleted_and_made_again_is_worked_on_and_nothing_old_comes_back() {
    let (world, gate) = World::gated(PATIENT).await;
    let proxy = Proxy::start(&world.dynamodb.url(), |_, _| Fate::Pass).await;
    let program = Program::between(&proxy.url, &world.lambda.url(), &config());
    let mut daemon = program.start();
    world.put_many(10, "1").await;
    world.until_running(10).await;
    world.client.delete_table().table_name("tasks").send().await.expect("it is deleted");
    let line = daemon.line_with("store.refused").await;
    assert!(line.contains("ResourceNotFoundException"), "{line}");
    let writes = Arc::new(AtomicUsize::new(0));
    let seen = writes.clone();
    proxy.plan(move |operation, _| {
        seen.fetch_add(usize::from(operation == "UpdateItem"), Ordering::Relaxed);
        Fate::Pass
    });
    gate.add_permits(1);
    eventually("all try to write", async || match writes.load(Ordering::Relaxed) {
        tries if tries >= 20 => Ok(()),
        tries => Err(tries),
    })
    .await;
    world.table().await.create().await.expect("the table can be made");
    daemon.line_with("store.recovered").await;
    world.task("new").put().await;
    world.until("new", "SUCCEEDED").await;
    daemon.until_told("task.write_refused", 10).await;
    assert_eq!(world.items().await.into_keys().collect::<Vec<_>>(), ["new"]);
    assert_eq!(world.calls.count(), 11);
    assert_eq!(daemon.try_ended(), None, "it never ended");
    assert_one_episode(&daemon, "store.refused");
}

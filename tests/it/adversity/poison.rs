//! Tasks whose function is killed at every execution, among good ones.

use burstd::local::lambda::{Answer, Call};

use crate::support::world::{World, error, n, outcomes, patient, text};

const GOOD: usize = 200;
const POISON: usize = 5;

fn poison(number: usize) -> String {
    format!("poison {number}")
}

/// A world whose function dies of poison. The poison is first in the index.
async fn poisoned() -> World {
    let world = World::with(async |call: Call| {
        let task = call.context.expect("it is told").task_id;
        if task.starts_with("poison") {
            let message = "RequestId: 1 Error: Runtime exited with error: signal: killed".into();
            return Answer::Raised { error_type: "Runtime.ExitError".into(), message };
        }
        Answer::Returned(call.payload)
    })
    .await;
    world.put_many(GOOD, "1").await;
    for number in 0..POISON {
        world.task(&poison(number)).with("due", n(-1)).put().await;
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_ends_failed_after_its_attempts_and_costs_others_nothing() {
    let world = poisoned().await;
    let daemon = world.daemon(&(patient() + "max_attempts = 3\n")).await;
    world.until_all(GOOD, "SUCCEEDED").await;
    world.until_all(POISON, "FAILED").await;
    let counts = daemon.stop().await;
    assert_eq!((counts.succeeded, counts.failed, counts.retried), (200, 5, 10));
    let wasted = counts.lost + counts.released + counts.refused + counts.unknown + counts.rescued;
    assert_eq!((counts.claimed, wasted), (215, 0));
    for number in 0..POISON {
        let (id, item) = (poison(number), world.item(&poison(number)).await);
        let item = item.expect("it is there");
        assert_eq!(outcomes(&item), ["1 failed", "2 failed", "3 failed"], "{id}");
        assert_eq!(error(&item, "type"), "Runtime.ExitError", "{id}");
        assert_eq!(world.calls.of(&id).len(), 3, "{id}");
    }
    for number in 0..GOOD {
        let item = world.item(&number.to_string()).await.expect("it is there");
        assert_eq!(outcomes(&item), ["1 succeeded"], "{number}");
    }
    assert_eq!(world.calls.count(), 215);
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_that_waits_for_its_next_attempt_takes_nobody_s_place() {
    let world = poisoned().await;
    let config = patient()
        .replace("max_in_flight = 1000", &format!("max_in_flight = {POISON}"))
        .replace("base = \"20ms\", max = \"100ms\"", "base = \"24h\", max = \"24h\"");
    let daemon = world.daemon(&config).await;
    world.until_all(GOOD, "SUCCEEDED").await;
    for number in 0..POISON {
        let item = world.item(&poison(number)).await.expect("it is there");
        assert_eq!(text(&item, "status"), "PENDING", "it waits");
        assert_eq!(outcomes(&item), ["1 failed"]);
    }
    let counts = daemon.stop().await;
    assert_eq!((counts.claimed, counts.retried, counts.lost), (205, 5, 0));
}

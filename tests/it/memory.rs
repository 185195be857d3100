//! Large items: as many as fit are in flight, whatever their number may be.

use std::time::Duration;

use crate::support::eventually;
use crate::support::world::{World, config};

/// Nearly the largest item there can be.
const PAYLOAD_BYTES: usize = 390 * 1024;

/// Longer than it takes to claim a dozen of them on a busy machine.
const PATIENT: Duration = Duration::from_secs(50);

fn allowing(bytes: &str) -> String {
    format!("max_bytes_in_flight = \"{bytes}\"\n{}", config())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_items_are_in_flight_as_far_as_memory_allows_and_no_further() {
    let (world, gate) = World::gated(PATIENT).await;
    // Enough that some are left whenever it is noticed that a few have ended.
    world.put_many(60, &format!("\"{}\"", "p".repeat(PAYLOAD_BYTES))).await;
    let few = world.daemon(&allowing("2MiB")).await;
    world.until_running(5).await;
    gate.add_permits(1);
    eventually("more have ended than fit at once", async || {
        match world.calls.all().iter().filter(|run| run.ended.is_some()).count() {
            ended if ended > 8 => Ok(()),
            ended => Err(ended),
        }
    })
    .await;
    assert_eq!(world.lambda.running().peak, 5, "2 MiB have room for five");
    few.stop().await;

    gate.forget_permits(1);
    let _many = world.daemon(&allowing("100MB")).await;
    eventually("more run than fitted", async || match world.lambda.running().now {
        now if now > 5 => Ok(()),
        now => Err(now),
    })
    .await;
}

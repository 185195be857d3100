//! Large items: as many as fit are in flight, whatever their number may be.

use std::time::Duration;

use burstd::local::lambda::{Answer, Call};
use tokio::time::sleep;

use crate::support::eventually;
use crate::support::world::{World, config, s};

/// Nearly the largest item there can be.
const PAYLOAD: usize = 390 * 1024;

/// How many functions ran at once, of tasks of the largest size, with this allowed for them.
async fn peak(allowed: &str) -> u64 {
    let world = World::with(async |_: Call| {
        sleep(Duration::from_millis(1500)).await;
        Answer::Returned(b"1".to_vec())
    })
    .await;
    let payload = s(format!("\"{}\"", "p".repeat(PAYLOAD)));
    for number in 0..40 {
        world.task(&number.to_string()).with("payload", payload.clone()).put().await;
    }
    let config = format!("max_bytes_in_flight = \"{allowed}\"\n{}", config());
    let daemon = world.daemon(&config).await;
    eventually("some have ended", async || match world.calls.all() {
        runs if runs.iter().filter(|run| run.ended.is_some()).count() > 12 => Ok(()),
        runs => Err(runs.len()),
    })
    .await;
    drop(daemon);
    world.lambda.running().peak
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_items_are_in_flight_as_far_as_memory_allows_and_no_further() {
    let many = peak("100MB").await;
    let few = peak("2MiB").await;
    assert!((4..=5).contains(&few), "{few} at once in 2 MiB");
    assert!(many > few + 2, "{many} at once where nothing binds");
}

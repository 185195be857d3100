//! What the tests are told in.

pub mod calls;
pub mod invoke;
pub mod machine;
pub mod manager;
pub mod program;
pub mod proxy;
pub mod raw;
pub mod relay;
pub mod tables;
pub mod tls;
pub mod world;
pub mod writes;

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, interval};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again until `look` finds something. What it saw last is told when it never
/// does.
pub async fn eventually<T, S: Debug>(what: &str, mut look: impl AsyncFnMut() -> Result<T, S>) -> T {
    let began = Instant::now();
    let mut ticks = interval(Duration::from_millis(10));
    loop {
        ticks.tick().await;
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(began.elapsed() < PATIENCE, "never: {what}; last seen: {seen:?}"),
        }
    }
}

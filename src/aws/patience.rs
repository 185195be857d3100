//! Waiting for a table in trouble, where somebody waits for the end of a long command.

use std::time::Duration;

use rand::make_rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use crate::retry::Backoff;
use crate::store::StoreError;

/// A call that fails this often in a row fails.
pub(super) const TRIES: u32 = 10;

pub(super) const BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(100), max: Duration::from_secs(5) };

/// Makes a call again while the table is in trouble.
pub(super) async fn patiently<T, F>(mut call: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut rng: StdRng = make_rng();
    let mut tries = 0;
    loop {
        tries += 1;
        match call().await {
            Err(StoreError::Unavailable(_)) if tries < TRIES => {
                sleep(BACKOFF.after(tries, &mut rng)).await;
            }
            answer => return answer,
        }
    }
}

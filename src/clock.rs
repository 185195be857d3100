//! The only place that asks what time it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::task::Timestamp;

/// Tells the time of day, which the table counts in. Spans are measured with tokio's monotonic
/// [`Instant`], which a test can pause.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    /// `start` at `epoch`, moving with tokio's clock.
    Simulated {
        epoch: Instant,
        start: Timestamp,
    },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Clock(Source::System)
    }

    /// A clock that shows `start` now and moves with tokio's, so that pausing that pauses this.
    /// Two workers whose clocks differ are two clocks with different starts.
    pub fn simulated(start: Timestamp) -> Self {
        Clock(Source::Simulated { epoch: Instant::now(), start })
    }

    /// The time of day. A machine's clock before 1970 reads as 1970.
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn now(&self) -> Timestamp {
        match self.0 {
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                Timestamp::default() + since
            }
            Source::Simulated { epoch, start } => start + epoch.elapsed(),
        }
    }
}

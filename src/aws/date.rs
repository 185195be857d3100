//! What time AWS says it is: the `Date` of its answers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_smithy_async::time::TimeSource;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use http::header::{AGE, DATE};
use http::{HeaderMap, Uri};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::clock::{Clock, Skew};
use crate::task::Timestamp;

/// Tells the clock what an answer to a request that was sent at `sent` says of the time.
pub(super) fn hear(clock: &Clock, from: &Uri, headers: &HeaderMap, sent: Instant) {
    // An agent for credentials runs on this machine, and a cache shows an old date.
    if from.host().is_some_and(|host| host.starts_with("169.254.")) || headers.contains_key(AGE) {
        return;
    }
    let Some(date) = headers.get(DATE).and_then(|value| value.to_str().ok()) else { return };
    let Ok(date) = DateTime::from_str(date, Format::HttpDate) else { return };
    let date = Timestamp::from_seconds(date.as_secs_f64());
    match clock.hear(date, sent) {
        Some(Skew::Wrong(skew_s)) => warn!(
            event = "aws.clock_skew",
            skew_s, "this machine's clock is wrong; burstd uses AWS's; set the clock, by NTP"
        ),
        Some(Skew::Right) => {
            info!(event = "aws.clock_right", "this machine's clock is right again");
        }
        None => {}
    }
}

/// The SDK signs by the same clock.
///
/// Its own correction takes a `Date` for the middle of the call. After a function of fourteen
/// minutes it would sign the next request seven minutes ahead, and five are too many.
#[derive(Debug)]
pub(super) struct Signing(pub(super) Clock);

impl TimeSource for Signing {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.now().as_millis())
    }
}

//! When nothing is claimed although there would be room: nobody can tell the time, or nobody
//! reads the log.

use std::time::Duration;

use tracing::{info, warn};

use super::lane::Lane;
use crate::episode::Episode;
use crate::invoker::Invoker;
use crate::store::Store;
use crate::worker::Worker;

/// Nobody knows the time well enough.
pub(super) const NO_TIME: &str = "paused: the time is not known";

/// Whether claims pause, and since when.
#[derive(Debug, Default)]
pub(super) struct Pause {
    episode: Episode,
    reason: Option<&'static str>,
}

enum Why {
    /// The time may be wrong by so much.
    Clock(Duration),
    Log,
}

impl Pause {
    /// Looks whether claims must pause. Where the time is not known well enough for a queue, its
    /// index is asked again: the answer says how late it is. True when nothing at all may be
    /// claimed.
    pub(super) fn look<S: Store, I: Invoker>(
        &mut self,
        worker: &Worker<S, I>,
        lanes: &mut [Lane],
    ) -> bool {
        let mut why = worker.backlog.is_long().then_some(Why::Log);
        let is_for_all = why.is_some();
        for lane in lanes.iter_mut().filter(|lane| lane.is_open()) {
            if !worker.knows_the_time(&lane.queue) {
                lane.forget();
                // Of the two, the one that stops every queue.
                why.get_or_insert_with(|| Why::Clock(worker.clock.doubt()));
            }
        }
        self.reason = why.as_ref().map(|why| match why {
            Why::Log => "paused: nobody reads the log",
            Why::Clock(_) => NO_TIME,
        });
        self.say(why);
        is_for_all
    }

    /// What the last look found, in words.
    pub(super) fn reason(&self) -> Option<&'static str> {
        self.reason
    }

    fn say(&self, why: Option<Why>) {
        match why {
            Some(why) if self.episode.fault() => match why {
                Why::Clock(doubt) => warn!(
                    event = "claims.paused",
                    reason = "clock",
                    doubt_s = doubt.as_secs_f64(),
                    "the time is not known well enough for the lease margin; asking AWS"
                ),
                Why::Log => warn!(
                    event = "claims.paused",
                    reason = "log",
                    "nobody reads the log; what is in flight goes on"
                ),
            },
            Some(_) => {}
            None => {
                if let Some(over) = self.episode.success() {
                    let episode_s = over.lasted.as_secs_f64();
                    info!(event = "claims.resumed", episode_s, "claims go on");
                }
            }
        }
    }
}

//! The dispatcher's last loop.

use std::time::Duration;

use tokio::time::{Instant, Interval, sleep_until};

use super::{Dispatcher, log, ticks};
use crate::counts::Counts;
use crate::invoker::Invoker;
use crate::store::Store;

/// How often a drain says that it goes on.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

impl<S: Store, I: Invoker> Dispatcher<S, I> {
    /// Awaits what is in flight, until the drain time is over or a second signal comes.
    pub(super) async fn drain(mut self, mut stock: Interval) -> Counts {
        let shutdown = self.worker.shutdown.clone();
        let began = Instant::now();
        log::draining(shutdown.reason(), self.tasks.len(), self.limits);
        self.polls.abort_all();
        self.take_stock();
        let mut progress = ticks(PROGRESS_EVERY);
        while !self.tasks.is_empty() {
            self.pulse.beat();
            tokio::select! {
                biased;
                () = shutdown.stopping() => break,
                () = sleep_until(began + self.limits.drain) => break,
                _ = progress.tick() => log::still_draining(self.tasks.len(), began.elapsed()),
                _ = stock.tick() => self.take_stock(),
                Some(ended) = self.tasks.join_next_with_id() => self.task_ended(ended),
            }
        }
        self.tasks.abort_all();
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.task_ended(ended);
        }
        self.summarise();
        self.counts
    }
}

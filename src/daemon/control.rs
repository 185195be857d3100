//! What a running daemon hears and says through the table: which queues are paused, and how things
//! stand with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::aws::{Control, DynamoStore, LambdaInvoker};
use crate::dispatcher::{Overview, QueueOverview};
use crate::episode::Episode;
use crate::notices::{Bound, Notices, Pause, Presence, REPORT_EVERY, Service};
use crate::pulse::Pulse;
use crate::store::StoreError;
use crate::task::Timestamp;
use crate::worker::{STORE_BACKOFF, Worker};

/// How often it looks what people wish.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What changes is said this often at most.
const CHANGES_EVERY: Duration = Duration::from_secs(5);

/// Failures in a row that are no trouble yet.
const PATIENCE: u32 = 2;

/// How long the last word may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// A daemon's end of it.
#[derive(Debug)]
pub(super) struct Liaison {
    control: Control,
    worker: Arc<Worker<DynamoStore, LambdaInvoker>>,
    overviews: watch::Receiver<Overview>,
    /// What was last heard.
    notices: Notices,
    /// What was last said, and when.
    said: Option<(Instant, Presence)>,
    failures: u32,
    trouble: Episode,
    pub(super) pulse: Pulse,
}

impl Liaison {
    pub(super) fn new(
        control: Control,
        worker: Arc<Worker<DynamoStore, LambdaInvoker>>,
        notices: Notices,
        overviews: watch::Receiver<Overview>,
    ) -> Self {
        let mut liaison = Liaison {
            control,
            worker,
            overviews,
            notices: Notices::default(),
            said: None,
            failures: 0,
            trouble: Episode::default(),
            pulse: Pulse::default(),
        };
        liaison.hear(notices);
        liaison
    }

    /// Hears and says, until the dispatcher has ended. What is on its way then is awaited for a
    /// moment: it must not arrive after the last word.
    pub(super) async fn keep_in_touch(&mut self, ended: &CancellationToken) {
        let shutdown = self.worker.shutdown.clone();
        let enough = async {
            ended.cancelled().await;
            // The second wish to stop ends it at once.
            timeout(LEAVE_WITHIN, shutdown.stopping()).await.ok();
        };
        tokio::pin!(enough);
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.pulse.beat();
            tokio::select! {
                biased;
                () = ended.cancelled() => return,
                _ = ticks.tick() => {}
            }
            tokio::select! {
                biased;
                () = self.exchange() => {}
                () = &mut enough => return,
            }
        }
    }

    /// Hears and says once.
    async fn exchange(&mut self) {
        let outcome = match self.control.read().await {
            Ok(notices) => {
                self.hear(notices);
                self.say().await
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => self.works(),
            Err(error) => self.fails(&error),
        }
    }

    /// Says that it ends, if the table is there to hear it and there is time. Otherwise its silence
    /// does.
    pub(super) async fn leave(&mut self) {
        if self.said.is_none() {
            return;
        }
        tokio::select! {
            biased;
            () = self.worker.shutdown.stopping() => {}
            // Whatever came of it: silence tells the same, only later.
            left = timeout(LEAVE_WITHIN, self.control.leave(&self.worker.name)) => drop(left),
        }
    }

    /// Does as people wish.
    fn hear(&mut self, notices: Notices) {
        let before = std::mem::replace(&mut self.notices, notices);
        for (queue, Pause { since, by }) in &self.notices.pauses {
            if !before.pauses.contains_key(queue) {
                let since_s = self.worker.clock.now().since(*since).as_secs();
                info!(
                    event = "queue.paused",
                    queue, by, since_s, "nothing of it is started; what runs goes on"
                );
            }
        }
        for queue in before.pauses.keys() {
            if !self.notices.pauses.contains_key(queue) {
                info!(event = "queue.resumed", queue, "its tasks are claimed again");
            }
        }
        self.worker.held.set(self.notices.pauses.keys().cloned().collect());
    }

    /// Says how things stand, when that is new, or when it was last said a while ago.
    async fn say(&mut self) -> Result<(), StoreError> {
        let (at, now) = (Instant::now(), self.worker.clock.now());
        let before = self.said.as_ref().map(|(_, presence)| presence);
        let presence = presence(&self.overviews.borrow(), before, now);
        if presence.activity.is_empty() {
            // The dispatcher has not begun yet.
            return Ok(());
        }
        if let Some((said_at, before)) = &self.said {
            let is_new = Presence { seen_at: before.seen_at, ..presence.clone() } != *before;
            let every = if is_new { CHANGES_EVERY } else { REPORT_EVERY };
            if at < *said_at + every {
                return Ok(());
            }
        }
        let forgotten = self.notices.forgotten(now);
        self.control.report(&self.worker.name, &presence, &forgotten).await?;
        self.said = Some((at, presence));
        Ok(())
    }

    fn works(&mut self) {
        self.failures = 0;
        if let Some(over) = self.trouble.success() {
            let episode_s = over.lasted.as_secs_f64();
            info!(event = "control.recovered", episode_s, "people's wishes are heard again");
        }
    }

    /// A table that is away for all is said elsewhere.
    fn fails(&mut self, error: &StoreError) {
        self.failures += 1;
        let is_ours = self.failures > PATIENCE && !self.worker.store_trouble.is_open();
        if is_ours && self.trouble.fault() {
            unavailable(error);
        }
    }
}

fn unavailable(error: &StoreError) {
    let fault = error.fault();
    warn!(
        event = "control.unavailable",
        operation = fault.operation,
        code = fault.code,
        error = fault.message,
        "pauses are not heard of, or nobody hears how things stand here"
    );
}

/// What people wished before this daemon began, waiting for a table that is away. What cannot be
/// read at all is said later, if it stays so; it keeps no task.
pub(super) async fn first(control: &Control, rng: &mut StdRng) -> Notices {
    for tries in 1.. {
        let error = match control.read().await {
            Ok(notices) => return notices,
            Err(error) => error,
        };
        if tries == 1 {
            unavailable(&error);
        }
        match error {
            StoreError::Unavailable(_) => sleep(STORE_BACKOFF.after(tries, rng)).await,
            StoreError::Refused(_) | StoreError::Rejected(_) => return Notices::default(),
        }
    }
    unreachable!("it is tried for ever")
}

/// How things stand. What binds a queue does so since it was first seen to.
fn presence(overview: &Overview, before: Option<&Presence>, now: Timestamp) -> Presence {
    let service = |queue: &QueueOverview| {
        let before = before.and_then(|before| before.queues.get(&queue.name)?.bound.as_ref());
        let bound = queue.bound.as_ref().map(|(why, limit)| Bound {
            why: why.clone(),
            limit: *limit as u64,
            since: before.filter(|before| before.why == *why).map_or(now, |before| before.since),
        });
        let shards = u32::try_from(queue.shards).unwrap_or(u32::MAX);
        let service = Service { shards, in_flight: queue.in_flight as u64, bound };
        (queue.name.clone(), service)
    };
    let queues: BTreeMap<_, _> = overview.queues.iter().map(service).collect();
    Presence { seen_at: now, activity: overview.activity.to_owned(), queues }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_binds_a_queue_does_so_since_it_was_first_seen_to() {
        let at = Timestamp::from_millis;
        let overview = |why: Option<&str>| Overview {
            activity: "polling",
            queues: vec![QueueOverview {
                name: "q".to_owned(),
                shards: 1,
                in_flight: 7,
                bound: why.map(|why| (why.to_owned(), 7)),
                is_held: false,
            }],
            ..Overview::default()
        };
        let since = |presence: &Presence| presence.queues["q"].bound.as_ref().map(|it| it.since);
        let free = presence(&overview(None), None, at(1));
        assert_eq!(since(&free), None);
        let bound = presence(&overview(Some("max_in_flight")), Some(&free), at(2));
        let still = presence(&overview(Some("max_in_flight")), Some(&bound), at(3));
        assert_eq!((since(&still), still.seen_at), (Some(at(2)), at(3)));
        let otherwise = presence(&overview(Some("broken")), Some(&still), at(4));
        assert_eq!(since(&otherwise), Some(at(4)));
    }
}

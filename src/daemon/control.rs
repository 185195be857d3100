//! What a running daemon hears and says through the table: which queues are paused, and how things
//! stand with it.

use std::collections::{BTreeMap, HashMap};
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
use crate::systemd;
use crate::task::Timestamp;
use crate::worker::{STORE_BACKOFF, Worker};

/// How often it looks what people wish.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What changes is said this often at most.
const CHANGES_EVERY: Duration = Duration::from_secs(5);

/// What has let go of a queue for less than this, and has it again, never let go.
const SHORT: Duration = Duration::from_secs(15);

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
    /// Since when what keeps tasks waiting has done so.
    binding: Binding,
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
            binding: Binding::default(),
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
                self.say().await.map_err(|error| (error, "nobody hears how things stand here"))
            }
            Err(error) => Err((error, "pauses are not heard of; those that were stand")),
        };
        match outcome {
            Ok(()) => self.works(),
            Err((error, so)) => self.fails(&error, so),
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
        let overview = self.overviews.borrow().clone();
        if overview.activity.is_empty() {
            // The dispatcher has not begun yet.
            return Ok(());
        }
        let presence = presence(&overview, &mut self.binding, at, now);
        if let Some((said_at, before)) = &self.said {
            // Another worker, to which this one seemed dead, may have cleared it away.
            let is_there = self.notices.workers.contains_key(&self.worker.name);
            let is_new = !is_there || is_news(&presence, before);
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
    fn fails(&mut self, error: &StoreError, so: &str) {
        self.failures += 1;
        let is_ours = self.failures > PATIENCE && !self.worker.store_trouble.is_open();
        if is_ours && self.trouble.fault() {
            unavailable(error, so);
        }
    }
}

fn unavailable(error: &StoreError, so: &str) {
    let fault = error.fault();
    warn!(
        event = "control.unavailable",
        operation = fault.operation,
        code = fault.code,
        error = fault.message,
        "{so}"
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
            unavailable(&error, "nobody knows whether a queue is paused");
            systemd::status(&format!("waiting for DynamoDB: {}", error.fault().code));
        }
        match error {
            StoreError::Unavailable(_) => sleep(STORE_BACKOFF.after(tries, rng)).await,
            StoreError::Refused(_) | StoreError::Rejected(_) => return Notices::default(),
        }
    }
    unreachable!("it is tried for ever")
}

/// Since when what keeps a queue's tasks waiting has done so, and when it was last seen to.
#[derive(Debug, Default)]
struct Binding(HashMap<String, (String, Timestamp, Instant)>);

impl Binding {
    /// What keeps a queue waiting is seen to. Since when it does; limits are left and reached
    /// again all the time.
    fn since(&mut self, queue: &str, why: &str, at: Instant, now: Timestamp) -> Timestamp {
        let is_still = |(before, _, seen): &(String, Timestamp, Instant)| {
            before == why && at.duration_since(*seen) < SHORT
        };
        let known = self.0.get(queue).filter(|known| is_still(known));
        let since = known.map_or(now, |(_, since, _)| *since);
        self.0.insert(queue.to_owned(), (why.to_owned(), since, at));
        since
    }
}

/// How things stand.
fn presence(overview: &Overview, binding: &mut Binding, at: Instant, now: Timestamp) -> Presence {
    let service = |queue: &QueueOverview| {
        let bound = queue.bound.as_ref().map(|bound| Bound {
            kind: bound.kind,
            why: bound.why.clone(),
            limit: bound.most.map(|most| most as u64),
            in_flight: bound.in_flight as u64,
            since: binding.since(&queue.name, &bound.why, at, now),
        });
        let shards = u32::try_from(queue.shards).unwrap_or(u32::MAX);
        let service = Service { shards, in_flight: queue.in_flight as u64, bound };
        (queue.name.clone(), service)
    };
    let queues: BTreeMap<_, _> = overview.queues.iter().map(service).collect();
    let waits = overview.is_stopped.then(|| overview.activity.to_owned());
    Presence { seen_at: now, waits, queues }
}

/// Whether something has changed that is worth being said at once. Numbers change all the time.
fn is_news(presence: &Presence, said: &Presence) -> bool {
    let flows = |presence: &Presence| -> Vec<u64> {
        presence.queues.values().map(|service| service.in_flight).collect()
    };
    let other = |(now, said): (u64, u64)| now > 4 * said || said > 4 * now;
    essence(presence) != essence(said) || flows(presence).into_iter().zip(flows(said)).any(other)
}

/// What stands there beside the numbers.
fn essence(presence: &Presence) -> Presence {
    let mut presence = Presence { seen_at: Timestamp::default(), ..presence.clone() };
    for service in presence.queues.values_mut() {
        service.in_flight = 0;
        if let Some(bound) = &mut service.bound {
            bound.in_flight = 0;
            bound.since = Timestamp::default();
        }
    }
    presence
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatcher;
    use crate::notices::Kind;

    fn overview(why: Option<&str>, in_flight: usize) -> Overview {
        let bound = why.map(|why| dispatcher::Bound {
            kind: Kind::Limit,
            of: None,
            why: why.to_owned(),
            most: Some(7),
            in_flight,
        });
        let queue =
            QueueOverview { name: "q".to_owned(), shards: 1, in_flight, bound, is_held: false };
        Overview { activity: "polling", queues: vec![queue], ..Overview::default() }
    }

    #[test]
    fn what_binds_a_queue_does_so_since_it_was_first_seen_to_in_spite_of_short_gaps() {
        let (mut binding, began) = (Binding::default(), Instant::now());
        let mut since = |why, s: u64| {
            let (at, now) = (began + Duration::from_secs(s), Timestamp::from_millis(s * 1000));
            let presence = presence(&overview(why, 7), &mut binding, at, now);
            let bound = presence.queues["q"].bound.as_ref();
            bound.map(|bound| bound.since.as_millis() / 1000)
        };
        assert_eq!(since(None, 1), None);
        assert_eq!(since(Some("max_in_flight"), 2), Some(2));
        assert_eq!(since(Some("max_in_flight"), 10), Some(2));
        assert_eq!(since(None, 20), None);
        assert_eq!(since(Some("max_in_flight"), 24), Some(2), "it was left for 14 s");
        assert_eq!(since(Some("broken"), 25), Some(25));
        assert_eq!(since(Some("broken"), 40), Some(40), "it was left for 15 s");
    }

    #[test]
    fn numbers_alone_are_worth_a_report_when_they_are_far_from_what_was_said() {
        let stands = |why, in_flight: usize| {
            let now = Timestamp::from_millis(in_flight as u64);
            let overview = overview(why, in_flight);
            presence(&overview, &mut Binding::default(), Instant::now(), now)
        };
        let is_news = |now, said| super::is_news(&now, &said);
        for (now, said, expected) in [
            (15, 16, false),
            (16, 15, false),
            (20, 5, false),
            (21, 5, true),
            (5, 21, true),
            (1, 0, true),
        ] {
            assert_eq!(is_news(stands(None, now), stands(None, said)), expected, "{now} {said}");
        }
        let limit = Some("a limit");
        assert!(!is_news(stands(limit, 4), stands(limit, 7)));
        assert!(is_news(stands(limit, 5), stands(None, 5)));
        assert!(is_news(stands(limit, 5), stands(Some("another"), 5)));
    }
}

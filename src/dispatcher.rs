//! The loop: asks the table for due tasks, starts one [`Worker::run`] for each free slot, and
//! takes in what came of them. It alone owns what it counts and remembers; the futures in its
//! `JoinSet`s return values.

mod known;
mod lane;
mod limits;
mod log;
mod pause;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use tracing::error;

use crate::claim::Standing;
use crate::counts::Counts;
use crate::invoker::{Invoker, Reason};
use crate::queue::Queue;
use crate::retry::Verdict;
use crate::store::{DueQuery, Page, Store, StoreError, Write};
use crate::task::{Status, TaskId, Timestamp};
use crate::worker::{Attempted, Report, STORE_BACKOFF, Worker};
use known::Known;
pub use lane::Pace;
use lane::{Lane, Load};
pub use limits::Limits;
use pause::Pause;

/// A summary line comes this often while there is work.
const SUMMARY_EVERY: Duration = Duration::from_secs(10);

/// Names of due tasks read beyond the free slots, so that the next free slot need not wait.
const PEEK: usize = 100;

/// No page of the index is larger; 1,000 entries are about 65 KB.
const PAGE_LIMIT: usize = 1000;

/// How often a governor that had no room is asked again, unless a task ends before.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long the index is expected to go on listing a task that we have just settled.
const INDEX_LAG: Duration = Duration::from_secs(2);

/// How long a task is left alone that the index lists although the item says it is finished,
/// gone, or takes no write. Long, because each further try costs a write unit; not longer,
/// because a person may put a task of the same name meanwhile.
const LEFT_ALONE: Duration = Duration::from_secs(60);

/// Drives the tasks of some queues through one worker.
#[derive(Debug)]
pub struct Dispatcher<S, I> {
    worker: Arc<Worker<S, I>>,
    lanes: Vec<Lane>,
    /// The functions of the lanes, each once.
    loads: Vec<Load>,
    limits: Limits,
    tasks: JoinSet<Report>,
    polls: JoinSet<Polled>,
    /// Which task each future in `tasks` is, and its lane.
    starts: HashMap<Id, (usize, TaskId)>,
    known: Known,
    /// The lane whose turn it is.
    turn: usize,
    rng: StdRng,
    counts: Counts,
    summarised: Counts,
    published: watch::Sender<Counts>,
    pause: Pause,
}

/// The answer to a poll, and whose it is.
#[derive(Debug)]
struct Polled {
    lane: usize,
    shard: usize,
    page: Result<Page, StoreError>,
}

impl<S: Store, I: Invoker> Dispatcher<S, I> {
    /// A dispatcher of `queues`; `rng` is where all its randomness comes from.
    pub fn new(worker: Arc<Worker<S, I>>, queues: Vec<Queue>, limits: Limits, rng: StdRng) -> Self {
        let now = Instant::now();
        let (lanes, loads) = lane::lanes(queues, limits.pace, now);
        Dispatcher {
            worker,
            lanes,
            loads,
            limits,
            tasks: JoinSet::new(),
            polls: JoinSet::new(),
            starts: HashMap::new(),
            known: Known::default(),
            turn: 0,
            rng,
            counts: Counts::default(),
            summarised: Counts::default(),
            published: watch::Sender::new(Counts::default()),
            pause: Pause::default(),
        }
    }

    /// The queues as they are driven.
    pub fn queues(&self) -> Vec<Arc<Queue>> {
        self.lanes.iter().map(|lane| lane.queue.clone()).collect()
    }

    /// What is counted, as it changes.
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.published.subscribe()
    }

    /// Runs until the worker's shutdown says so, then drains.
    pub async fn run(mut self) -> Counts {
        let shutdown = self.worker.shutdown.clone();
        let mut summary = ticks(SUMMARY_EVERY);
        while !shutdown.is_draining() {
            let now = Instant::now();
            self.known.forget(now);
            let is_paused = self.pause.look(&self.worker, &mut self.lanes);
            let looks = self.loads.iter().filter_map(|load| load.governor.look()).min();
            if !is_paused {
                self.start_tasks(now);
                self.ask_for_more(now);
            }
            let next = if is_paused { now + LOOK_AGAIN } else { self.next_wake(now) };
            let wake = next.min(looks.unwrap_or(now + SUMMARY_EVERY));
            tokio::select! {
                biased;
                () = shutdown.draining() => {}
                Some(ended) = self.tasks.join_next_with_id() => self.task_ended(ended),
                Some(polled) = self.polls.join_next() => self.page_came(polled),
                _ = summary.tick() => self.summarise(),
                () = sleep_until(wake) => {}
            }
        }
        self.drain(summary).await
    }

    /// Starts candidates while there are free slots, the queues in turn.
    fn start_tasks(&mut self, now: Instant) {
        let (mut passed_over, before) = (0, self.tasks.len());
        while self.tasks.len() < self.limits.max_in_flight && passed_over < self.lanes.len() {
            let index = self.turn % self.lanes.len();
            self.turn = index + 1;
            let free = self.free(index, now);
            let lane = &mut self.lanes[index];
            let candidate = if free > 0 { lane.next_candidate() } else { None };
            let Some(id) = candidate else {
                passed_over += 1;
                continue;
            };
            passed_over = 0;
            if self.known.is_taken(&id, now) {
                continue;
            }
            lane.in_flight += 1;
            self.loads[lane.load].in_flight += 1;
            self.known.runs(id.clone());
            let (worker, queue, task) = (self.worker.clone(), lane.queue.clone(), id.clone());
            let rng = StdRng::seed_from_u64(self.rng.random());
            let handle = self.tasks.spawn(async move { worker.run(&queue, task, rng).await });
            self.starts.insert(handle.id(), (index, id));
        }
        if self.tasks.len() > before {
            self.worker.invoker.expect(self.tasks.len() - before);
        }
        assert!(self.tasks.len() <= self.limits.max_in_flight, "more in flight than allowed");
        self.publish();
    }

    /// How many more tasks of a lane may start, and soon can.
    fn free(&self, index: usize, now: Instant) -> usize {
        let lane = &self.lanes[index];
        match lane.free(now) {
            0 => 0,
            free => free.min(self.loads[lane.load].room()),
        }
    }

    /// Asks the index for the queues that have free slots and no candidates left.
    fn ask_for_more(&mut self, now: Instant) {
        let free = self.limits.max_in_flight - self.tasks.len();
        let taken = self.known.len();
        for index in 0..self.lanes.len() {
            let want = self.free(index, now).min(free);
            if want == 0 {
                continue;
            }
            for (number, shard) in self.lanes[index].shards.iter_mut().enumerate() {
                if !shard.wants_poll() || shard.next_poll > now {
                    continue;
                }
                shard.poll_sent(now);
                let (worker, name) = (self.worker.clone(), shard.name.clone());
                let after = shard.cursor.clone();
                let limit = (want + taken + PEEK).min(PAGE_LIMIT);
                self.polls.spawn(async move {
                    let now = worker.clock.now();
                    let query = DueQuery { shard: &name, now, limit, after: after.as_ref() };
                    let page = worker.store.due(query).await;
                    Polled { lane: index, shard: number, page }
                });
            }
        }
    }

    /// When there is something to do although nothing has happened.
    fn next_wake(&self, now: Instant) -> Instant {
        let full = self.tasks.len() >= self.limits.max_in_flight;
        let willing = self.lanes.iter().filter(|lane| !full && lane.free(now) > 0);
        // A governor that has no room now opens with time; those who wait are looked at again.
        let polls = willing.filter_map(|lane| match self.loads[lane.load].room() {
            0 => Some(now + LOOK_AGAIN),
            _ => lane.next_poll(),
        });
        let pauses = self.lanes.iter().filter_map(|lane| lane.paused_until(now));
        polls.chain(pauses).min().unwrap_or(now + SUMMARY_EVERY)
    }

    fn page_came(&mut self, polled: Result<Polled, JoinError>) {
        let polled = polled.expect("a poll neither panics nor is aborted while the loop runs");
        let now = Instant::now();
        let shard = &mut self.lanes[polled.lane].shards[polled.shard];
        match polled.page {
            Ok(page) => {
                self.worker.store_works();
                let candidates = page.candidates.iter().map(|candidate| &candidate.id);
                let ready = candidates.filter(|id| !self.known.is_taken(id, now)).cloned();
                let ready = ready.collect();
                shard.page_came(page, ready, now, &mut self.rng);
            }
            Err(error) => {
                self.worker.store_fails(&error);
                shard.poll_failed(STORE_BACKOFF, now, &mut self.rng);
            }
        }
    }

    /// Takes in what came of a candidate, and frees its slot.
    fn task_ended(&mut self, ended: Result<(Id, Report), JoinError>) {
        let (id, report) = match ended {
            Ok((id, report)) => (id, Some(report)),
            Err(failure) => {
                // A bug of ours: the task is left to its lease, and no other suffers.
                error!(event = "daemon.panic", error = %failure, "a task's life panicked");
                (failure.id(), None)
            }
        };
        let (index, task) = self.starts.remove(&id).expect("every future in `tasks` is known");
        self.lanes[index].in_flight -= 1;
        self.loads[self.lanes[index].load].in_flight -= 1;
        let taken_until = match report {
            None => Some(Instant::now() + LEFT_ALONE),
            Some(Report::Withdrawn) => None,
            Some(Report::Lost(standing)) => {
                self.counts.lost += 1;
                log::lost(&self.lanes[index].queue, &task, &standing);
                Some(self.free_again(&standing))
            }
            Some(Report::Invalid(reason)) => {
                self.counts.invalid += 1;
                log::invalid(&self.lanes[index].queue, &task, &reason);
                Some(Instant::now() + INDEX_LAG)
            }
            Some(Report::Rejected(fault)) => {
                log::rejected(&self.lanes[index].queue, &task, &fault);
                Some(Instant::now() + LEFT_ALONE)
            }
            Some(Report::Attempted(attempted)) => {
                log::attempted(&self.lanes[index].queue, &attempted);
                self.count(&attempted);
                self.steer(index, attempted.not_run.as_ref());
                self.free_after(&attempted)
            }
        };
        self.known.ended(task, taken_until);
        self.publish();
    }

    fn count(&mut self, attempted: &Attempted) {
        self.counts.claimed += 1;
        self.counts.rescued += u64::from(attempted.rescued().is_some());
        let counter = match (&attempted.write, &attempted.settlement.verdict) {
            (Ok(Write::Lost(_)) | Err(_), _) => &mut self.counts.refused,
            (_, Verdict::Succeed(_)) => &mut self.counts.succeeded,
            (_, Verdict::Fail(_)) => &mut self.counts.failed,
            (_, Verdict::Retry { .. }) => &mut self.counts.retried,
            (_, Verdict::Hold(_)) => &mut self.counts.unknown,
            (_, Verdict::Release) => &mut self.counts.released,
        };
        *counter += 1;
    }

    /// Pauses a queue whose function runs nothing, and resumes it when it ran.
    fn steer(&mut self, index: usize, not_run: Option<&Reason>) {
        match not_run {
            None => self.lanes[index].resume(),
            Some(Reason::Broken) => self.lanes[index].pause(Instant::now(), &mut self.rng),
            Some(_) => {}
        }
    }

    /// Until when claiming a task is of no use that was found like this.
    fn free_again(&self, standing: &Standing) -> Instant {
        let now = self.worker.clock.now();
        let final_or_gone = standing.due.is_none()
            || standing.status.as_deref().and_then(Status::parse).is_some_and(Status::is_final);
        let at = if final_or_gone { now + LEFT_ALONE } else { standing.free_at() };
        self.instant(at)
    }

    /// Until when claiming a task is of no use after what we wrote.
    fn free_after(&self, attempted: &Attempted) -> Option<Instant> {
        let lag = Instant::now() + INDEX_LAG;
        match (&attempted.write, &attempted.settlement.verdict) {
            (Ok(Write::Lost(standing)), _) => Some(self.free_again(standing)),
            (Err(_), _) => Some(self.instant(attempted.claim.lease.until)),
            (_, Verdict::Succeed(_) | Verdict::Fail(_)) => Some(lag),
            (_, Verdict::Retry { due, .. }) => Some(self.instant(*due)),
            (_, Verdict::Hold(_)) => Some(self.instant(attempted.claim.lease.until)),
            (_, Verdict::Release) => None,
        }
    }

    /// A moment of the table's clock on the monotonic one.
    fn instant(&self, at: Timestamp) -> Instant {
        let now = Instant::now();
        now.checked_add(at.since(self.worker.clock.now())).unwrap_or(now + LEFT_ALONE)
    }

    fn publish(&mut self) {
        self.counts.in_flight = self.tasks.len() as u64;
        self.published.send_replace(self.counts);
    }

    /// Awaits what is in flight, until the drain time is over or a second signal comes.
    async fn drain(mut self, mut summary: Interval) -> Counts {
        let shutdown = self.worker.shutdown.clone();
        let began = Instant::now();
        log::draining(shutdown.reason(), self.tasks.len(), self.limits);
        self.polls.abort_all();
        summary.reset();
        while !self.tasks.is_empty() {
            tokio::select! {
                biased;
                () = shutdown.stopping() => break,
                Some(ended) = self.tasks.join_next_with_id() => self.task_ended(ended),
                () = sleep_until(began + self.limits.drain) => break,
                _ = summary.tick() => log::still_draining(self.tasks.len(), began.elapsed()),
            }
        }
        self.counts.abandoned = self.tasks.len() as u64;
        self.summarise();
        self.tasks.shutdown().await;
        self.publish();
        self.counts
    }

    /// Says what was done since the last summary, if anything was.
    fn summarise(&mut self) {
        if self.counts == self.summarised && self.tasks.is_empty() {
            return;
        }
        let consumed = self.worker.store.consumed();
        let memory = &self.worker.memory;
        log::summary(&self.summarised, &self.counts, self.limits, memory, consumed);
        self.summarised = self.counts;
    }
}

/// Ticks that begin when the first span is over, and never come in a burst after a pause.
fn ticks(every: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

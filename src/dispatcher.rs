//! The loop: asks the table for due tasks, starts one [`Worker::run`] for each free slot, and
//! takes in what came of them. It alone owns what it counts and remembers; the futures in its
//! `JoinSet`s return values.

mod again;
mod drain;
mod known;
mod lane;
mod limits;
mod log;
mod overview;
mod pause;
mod plan;
mod summary;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use tracing::error;

use crate::counts::Counts;
use crate::failpoint::reach;
use crate::invoker::{Invoker, Reason};
use crate::pulse::Pulse;
use crate::queue::Queue;
use crate::retry::Verdict;
use crate::store::{Candidate, DueQuery, Page, Store, StoreError, Write};
use crate::task::TaskId;
use crate::worker::{Attempted, Report, STORE_BACKOFF, Worker};
use again::{INDEX_LAG, LEFT_ALONE};
use known::Known;
pub use lane::Pace;
use lane::{Lane, Load};
pub use limits::Limits;
pub use overview::{Bound, Overview, QueueOverview};
use pause::Pause;
pub use plan::{Plan, Plans};
use summary::Tally;

/// How often the loop comes round at the least, and looks where it stands.
const EVERY: Duration = Duration::from_secs(1);

/// Names of due tasks read beyond the free slots, so that the next free slot need not wait.
const PEEK: usize = 100;

/// No page of the index is larger; 1,000 entries are about 65 KB.
const PAGE_LIMIT: usize = 1000;

/// How often a governor that had no room is asked again, unless a task ends before.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

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
    /// What each future in `tasks` is.
    starts: HashMap<Id, Started>,
    known: Known,
    /// The lane whose turn it is.
    turn: usize,
    rng: StdRng,
    counts: Counts,
    tally: Tally,
    published: watch::Sender<Counts>,
    overview: watch::Sender<Overview>,
    pause: Pause,
    plans: mpsc::UnboundedReceiver<Plan>,
    /// Keeps `plans` open.
    planner: mpsc::UnboundedSender<Plan>,
    pulse: Pulse,
}

/// A task in flight, and where it is counted. A reload may change its lane's queue meanwhile.
#[derive(Debug)]
struct Started {
    id: TaskId,
    queue: Arc<Queue>,
    lane: usize,
    load: usize,
}

/// The answer to a poll, and whose it is.
#[derive(Debug)]
struct Polled {
    lane: usize,
    shard: usize,
    page: Result<Page, StoreError>,
}

impl<S: Store, I: Invoker> Dispatcher<S, I> {
    /// A dispatcher with this plan; `rng` is where all its randomness comes from.
    pub fn new(worker: Arc<Worker<S, I>>, plan: Plan, rng: StdRng) -> Self {
        let (planner, plans) = mpsc::unbounded_channel();
        let mut dispatcher = Dispatcher {
            worker,
            lanes: Vec::new(),
            loads: Vec::new(),
            limits: plan.limits,
            tasks: JoinSet::new(),
            polls: JoinSet::new(),
            starts: HashMap::new(),
            known: Known::default(),
            turn: 0,
            rng,
            counts: Counts::default(),
            tally: Tally::new(Instant::now()),
            published: watch::Sender::new(Counts::default()),
            overview: watch::Sender::new(Overview::default()),
            pause: Pause::default(),
            plans,
            planner,
            pulse: Pulse::default(),
        };
        dispatcher.adopt(plan);
        dispatcher
    }

    /// What is counted, as it changes.
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.published.subscribe()
    }

    /// What it is at, once a second.
    pub fn overviews(&self) -> watch::Receiver<Overview> {
        self.overview.subscribe()
    }

    /// Where new plans go.
    pub fn plans(&self) -> Plans {
        Plans(self.planner.clone())
    }

    /// Whether the loop goes on.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Runs until the worker's shutdown says so, then drains.
    pub async fn run(mut self) -> Counts {
        let shutdown = self.worker.shutdown.clone();
        let mut stock = ticks(EVERY);
        let worker = self.worker.clone();
        let mut held = pin!(worker.held.changed());
        self.hold();
        self.take_stock();
        while !shutdown.is_draining() {
            let now = Instant::now();
            self.pulse.beat();
            reach("dispatcher.turn");
            self.known.forget(now);
            let is_paused = self.pause.look(&self.worker, &mut self.lanes);
            let looks = self.loads.iter().filter_map(|load| load.governor.look()).min();
            if !is_paused {
                self.start_tasks(now);
                self.ask_for_more(now);
            }
            let next = if is_paused { now + LOOK_AGAIN } else { self.next_wake(now) };
            let wake = next.min(looks.unwrap_or(now + EVERY));
            tokio::select! {
                biased;
                () = shutdown.draining() => {}
                // What is rare comes first: tasks may end all the time.
                Some(plan) = self.plans.recv() => self.adopt(plan),
                () = &mut held => {
                    held.set(worker.held.changed());
                    self.hold();
                }
                _ = stock.tick() => self.take_stock(),
                Some(ended) = self.tasks.join_next_with_id() => self.task_ended(ended),
                Some(polled) = self.polls.join_next() => self.page_came(polled),
                () = sleep_until(wake) => {}
            }
        }
        self.drain(stock).await
    }

    /// Looks where it stands.
    fn take_stock(&mut self) {
        self.publish();
        let now = Instant::now();
        let overview = self.overview(now);
        self.overview.send_replace(overview);
        self.summarise_in_time(now);
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
            lane.started();
            let load = lane.load;
            self.loads[load].in_flight += 1;
            self.known.runs(id.clone());
            let (worker, queue, task) = (self.worker.clone(), lane.queue.clone(), id.clone());
            let started = queue.clone();
            let rng = StdRng::seed_from_u64(self.rng.random());
            let handle = self.tasks.spawn(async move { worker.run(&queue, task, rng).await });
            self.starts.insert(handle.id(), Started { id, queue: started, lane: index, load });
        }
        if self.tasks.len() > before {
            self.worker.invoker.expect(self.tasks.len() - before);
        }
        // A reload may have lowered the limit below what was in flight then.
        let most = self.limits.max_in_flight.max(before);
        assert!(self.tasks.len() <= most, "more in flight than allowed");
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
        let free = self.limits.max_in_flight.saturating_sub(self.tasks.len());
        let taken = self.known.len();
        for index in 0..self.lanes.len() {
            let want = self.free(index, now).min(free);
            for (number, shard) in self.lanes[index].shards.iter_mut().enumerate() {
                let asks = match want {
                    0 => shard.is_out_of_sight(now),
                    _ => shard.wants_poll() && shard.next_poll <= now,
                };
                if !asks {
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
        polls.chain(pauses).min().unwrap_or(now + EVERY)
    }

    fn page_came(&mut self, polled: Result<Polled, JoinError>) {
        let polled = polled.expect("a poll neither panics nor is aborted while the loop runs");
        let now = Instant::now();
        let shard = &mut self.lanes[polled.lane].shards[polled.shard];
        match polled.page {
            Ok(page) => {
                self.worker.store_works();
                let candidates = page.candidates.iter();
                let is_free = |candidate: &&Candidate| !self.known.is_taken(&candidate.id, now);
                let ready = candidates.filter(is_free).cloned().collect();
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
            Ok((id, report)) => (id, Ok(report)),
            Err(failure) => (failure.id(), Err(failure)),
        };
        let started = self.starts.remove(&id).expect("every future in `tasks` is known");
        let Started { id: task, queue, lane: index, load } = started;
        self.lanes[index].ended();
        self.loads[load].in_flight -= 1;
        let taken_until = match report {
            Err(failure) if failure.is_cancelled() => {
                self.counts.abandoned += 1;
                log::abandoned(&queue, &task);
                None
            }
            Err(failure) => {
                // A bug of ours: the task is left to its lease, and no other suffers.
                error!(event = "daemon.panic", error = %failure, "a task's life panicked");
                Some(Instant::now() + LEFT_ALONE)
            }
            Ok(Report::Withdrawn) => None,
            Ok(Report::Lost(standing)) => {
                self.counts.lost += 1;
                log::lost(&queue, &task, &standing);
                Some(self.free_again(&standing))
            }
            Ok(Report::Invalid(reason)) => {
                self.counts.invalid += 1;
                log::invalid(&queue, &task, &reason);
                Some(Instant::now() + INDEX_LAG)
            }
            Ok(Report::Rejected(fault)) => {
                self.counts.invalid += 1;
                log::rejected(&queue, &task, &fault);
                Some(Instant::now() + LEFT_ALONE)
            }
            Ok(Report::Attempted(attempted)) => {
                log::attempted(&queue, &attempted);
                self.count(&attempted);
                self.tally.add(&attempted);
                if self.lanes[index].load == load {
                    self.steer(index, &attempted);
                }
                let free = self.free_after(&attempted);
                let verdict = &attempted.settlement.verdict;
                if let (Ok(Write::Applied), Verdict::Retry { .. }, Some(at)) =
                    (&attempted.write, verdict, free)
                {
                    self.known.tried_again(at);
                }
                free
            }
        };
        self.known.ended(task, taken_until);
        self.publish();
    }

    fn count(&mut self, attempted: &Attempted) {
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

    /// Pauses a queue whose function runs nothing, and resumes it when it does.
    fn steer(&mut self, index: usize, attempted: &Attempted) {
        match attempted.not_run {
            Some(Reason::Broken) => self.lanes[index].pause(Instant::now(), &mut self.rng),
            _ if attempted.function_runs => self.lanes[index].resume(),
            _ => {}
        }
    }

    fn publish(&mut self) {
        self.counts.claimed = self.worker.claims.load(Ordering::Relaxed);
        self.counts.in_flight = self.tasks.len() as u64;
        self.published.send_replace(self.counts);
    }
}

/// Ticks that begin when the first span is over, and never come in a burst after a pause.
fn ticks(every: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

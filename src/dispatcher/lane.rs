//! A queue as the dispatcher drives it: its slots, its pause, and the polling of its shards.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::governor::Governor;
use crate::queue::Queue;
use crate::retry::Backoff;
use crate::store::{Candidate, Cursor, Page};
use crate::task::TaskId;

/// A pass over a shard's index that has found something and is older than this begins again at
/// the head, where tasks that have become free meanwhile are.
const LONGEST_PASS: Duration = Duration::from_secs(5);

/// The wait after a pass grows with its pages, up to this many, so that an index full of running
/// tasks costs no more to poll than a short one.
const MOST_PAGES: u32 = 20;

/// So long a queue that has no free slot is not looked at, ...
const OUT_OF_SIGHT: Duration = Duration::from_secs(10);

/// ... and so long if it had more than there were slots for.
const IN_DEMAND: Duration = Duration::from_secs(1);

/// Between two probes of a function that runs no task.
const PROBE_BACKOFF: Backoff =
    Backoff { base: Duration::from_secs(1), max: Duration::from_secs(60) };

/// How often a shard's index is asked: at `min` while there is work, slowing down to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The shortest time between two passes.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

/// A function's tasks in flight, in all its queues.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) governor: Arc<Governor>,
    pub(super) in_flight: usize,
}

impl Load {
    /// Whether tasks that were claimed wait until they may start.
    pub(super) fn has_waiting(&self) -> bool {
        self.governor.waiting() > 0
    }

    /// How many more tasks of the function it is worth to claim.
    pub(super) fn room(&self) -> usize {
        self.governor.capacity().map_or(usize::MAX, |most| most.saturating_sub(self.in_flight))
    }
}

/// Makes the lanes those of `queues`. A queue that is no longer served keeps its lane, because
/// tasks of it may be in flight; it is closed.
pub(super) fn arrange(
    lanes: &mut Vec<Lane>,
    loads: &mut Vec<Load>,
    queues: Vec<Queue>,
    pace: Pace,
    now: Instant,
) {
    lanes.iter_mut().for_each(Lane::close);
    for queue in queues {
        let load = load_of(loads, &queue.function.governor);
        let lane = Lane::new(queue, load, pace, now);
        match lanes.iter_mut().find(|known| known.queue.name == lane.queue.name) {
            Some(known) => known.reopen(lane),
            None => lanes.push(lane),
        }
    }
}

fn load_of(loads: &mut Vec<Load>, governor: &Arc<Governor>) -> usize {
    let known = loads.iter().position(|load| Arc::ptr_eq(&load.governor, governor));
    known.unwrap_or_else(|| {
        loads.push(Load { governor: governor.clone(), in_flight: 0 });
        loads.len() - 1
    })
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) queue: Arc<Queue>,
    /// Which function runs its tasks.
    pub(super) load: usize,
    in_flight: usize,
    pub(super) shards: Vec<Shard>,
    pause: Option<Pause>,
    is_closed: bool,
    /// A person wishes that nothing of it be claimed.
    is_held: bool,
}

/// The function is broken: nothing starts before `until`, then one task at a time.
#[derive(Debug)]
struct Pause {
    until: Instant,
    probes: u32,
    is_probing: bool,
}

impl Lane {
    fn new(queue: Queue, load: usize, pace: Pace, now: Instant) -> Self {
        let shards = queue.shards.iter().map(|name| Shard::new(name.clone(), pace, now)).collect();
        let queue = Arc::new(queue);
        let in_flight = 0;
        Lane { queue, load, in_flight, shards, pause: None, is_closed: false, is_held: false }
    }

    /// The queue is no longer served.
    fn close(&mut self) {
        self.is_closed = true;
        self.shards.clear();
    }

    /// The queue is served in another way from now on. A function that is broken stays so.
    fn reopen(&mut self, new: Lane) {
        let pause = self.pause.take().filter(|_| self.load == new.load);
        let (in_flight, is_held) = (self.in_flight, self.is_held);
        *self = Lane { in_flight, pause, is_held, ..new };
    }

    /// Whether the queue is served.
    pub(super) fn is_open(&self) -> bool {
        !self.is_closed
    }

    /// How many more tasks may start.
    pub(super) fn free(&self, now: Instant) -> usize {
        let free = self.queue.max_in_flight.saturating_sub(self.in_flight);
        match &self.pause {
            _ if self.is_closed || self.is_held => 0,
            None => free,
            Some(pause) if pause.until > now || pause.is_probing => 0,
            Some(_) => free.min(1),
        }
    }

    /// A task is being claimed. What started before the pause says nothing of the function.
    pub(super) fn started(&mut self) {
        self.in_flight += 1;
        self.probes(true);
    }

    /// One has ended, whatever came of it.
    pub(super) fn ended(&mut self) {
        self.in_flight -= 1;
        self.probes(false);
    }

    fn probes(&mut self, is_probing: bool) {
        if let Some(pause) = &mut self.pause {
            pause.is_probing = is_probing;
        }
    }

    /// Its tasks in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The function runs no task at all. Tasks that were started together fail together: only
    /// the first one of them makes the pause longer.
    pub(super) fn pause(&mut self, now: Instant, rng: &mut StdRng) {
        let probes = match &self.pause {
            Some(pause) if pause.until > now => return,
            Some(pause) => pause.probes + 1,
            None => 1,
        };
        let least = Duration::from_millis(500);
        let wait = PROBE_BACKOFF.after(probes, rng).max(least);
        self.pause = Some(Pause { until: now + wait, probes, is_probing: false });
    }

    /// Claims nothing while a person wishes so. What was read before is read again afterwards.
    pub(super) fn hold(&mut self, wish: bool) {
        if self.is_held != wish {
            self.is_held = wish;
            self.forget();
        }
    }

    /// Whether a person wishes that nothing of it be claimed.
    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }

    /// The function ran.
    pub(super) fn resume(&mut self) {
        self.pause = None;
    }

    /// Whether a broken function keeps tasks waiting: until it is probed, and while it is.
    pub(super) fn is_broken(&self, now: Instant) -> bool {
        let is_probed = self.pause.as_ref().is_some_and(|pause| pause.is_probing);
        self.paused_until(now).is_some() || is_probed
    }

    /// When a paused queue is to be looked at again.
    pub(super) fn paused_until(&self, now: Instant) -> Option<Instant> {
        let pause = self.pause.as_ref().filter(|_| self.is_open());
        pause.map(|pause| pause.until).filter(|until| *until > now)
    }

    /// When the index is to be asked next.
    pub(super) fn next_poll(&self) -> Option<Instant> {
        let asks = self.shards.iter().filter(|shard| shard.wants_poll());
        asks.map(|shard| shard.next_poll).min()
    }

    /// Forgets what was read: the index is to be asked again.
    pub(super) fn forget(&mut self) {
        self.shards.iter_mut().for_each(|shard| shard.ready.clear());
    }

    /// The next candidate, from the shards in turn.
    pub(super) fn next_candidate(&mut self) -> Option<TaskId> {
        let fullest = self.shards.iter_mut().max_by_key(|shard| shard.ready.len())?;
        fullest.ready.pop_front().map(|candidate| candidate.id)
    }

    /// Candidates that were read and not yet tried.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.shards.iter().flat_map(|shard| &shard.ready)
    }
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) name: String,
    /// Candidates that were read and not yet tried.
    pub(super) ready: VecDeque<Candidate>,
    /// Where the pass under way goes on.
    pub(super) cursor: Option<Cursor>,
    pub(super) polling: bool,
    pub(super) next_poll: Instant,
    pass: Pass,
    pace: Pace,
    interval: Duration,
    failures: u32,
}

#[derive(Debug)]
struct Pass {
    began: Instant,
    pages: u32,
    found: bool,
}

impl Pass {
    fn new(now: Instant) -> Self {
        Pass { began: now, pages: 0, found: false }
    }
}

impl Shard {
    fn new(name: String, pace: Pace, now: Instant) -> Self {
        Shard {
            name,
            ready: VecDeque::new(),
            cursor: None,
            polling: false,
            next_poll: now,
            pass: Pass::new(now),
            pace,
            interval: pace.min,
            failures: 0,
        }
    }

    /// Whether the index should be asked, given that there is a free slot.
    pub(super) fn wants_poll(&self) -> bool {
        !self.polling && self.ready.is_empty()
    }

    /// Whether the index should be asked although there is no free slot: somebody wants to know
    /// what waits.
    pub(super) fn is_out_of_sight(&self, now: Instant) -> bool {
        let unseen = if self.pass.found { IN_DEMAND } else { OUT_OF_SIGHT };
        self.wants_poll() && now >= self.pass.began + unseen
    }

    /// A poll is sent.
    pub(super) fn poll_sent(&mut self, now: Instant) {
        self.polling = true;
        let is_old = self.pass.found && now > self.pass.began + LONGEST_PASS;
        if self.cursor.is_none() || is_old {
            self.cursor = None;
            self.pass = Pass::new(now);
        }
    }

    /// A page came; `ready` is what of it may be claimed.
    pub(super) fn page_came(
        &mut self,
        page: Page,
        ready: Vec<Candidate>,
        now: Instant,
        rng: &mut StdRng,
    ) {
        self.polling = false;
        self.failures = 0;
        self.pass.pages = self.pass.pages.saturating_add(1);
        self.pass.found |= !ready.is_empty();
        self.ready.extend(ready);
        self.cursor = page.next;
        if self.cursor.is_some() {
            self.next_poll = now;
            return;
        }
        self.interval = match self.pass.found {
            true => self.pace.min,
            false => (self.interval * 2).min(self.pace.max),
        };
        // Many workers must not ask in step.
        let wait = self.interval * self.pass.pages.min(MOST_PAGES);
        self.next_poll = now + wait.mul_f64(rng.random_range(0.8..1.0));
    }

    /// The table did not answer.
    pub(super) fn poll_failed(&mut self, backoff: Backoff, now: Instant, rng: &mut StdRng) {
        self.polling = false;
        self.cursor = None;
        self.failures = self.failures.saturating_add(1);
        self.next_poll = now + backoff.after(self.failures, rng).max(self.pace.min);
    }
}

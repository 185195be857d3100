//! What the dispatcher is at, once a second: the service's status line, and the state of things in
//! the summary.

use std::fmt;
use std::time::Duration;

use super::lane::{Lane, Load};
use super::{Dispatcher, Limits, pause};
use crate::invoker::Invoker;
use crate::notices::Kind;
use crate::store::Store;
use tokio::time::Instant;

/// What it does when nothing keeps it from that.
const POLLING: &str = "polling";

/// What the dispatcher is at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overview {
    /// What it does, in a word or two.
    pub activity: &'static str,
    /// Nothing at all is claimed meanwhile, of whichever queue.
    pub is_stopped: bool,
    /// Tasks in flight: being claimed, running, or being settled.
    pub in_flight: usize,
    /// Tasks beside them that wait until they may go on: for room in memory, for a limit of their
    /// function, or for Lambda.
    pub waiting: usize,
    /// How many there may be.
    pub limit: usize,
    /// What keeps more from being in flight: a limit, or what burstd waits for.
    pub bound_by: Option<String>,
    /// Due tasks that wait for a place, as far as the index was read.
    pub backlog: usize,
    /// How long the oldest of them has been due; of those that say since when.
    pub oldest_due: Option<Duration>,
    /// Tasks that this process will try again after their back-off.
    pub waiting_to_retry: usize,
    /// The queues that are served.
    pub queues: Vec<QueueOverview>,
}

/// How things stand with a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueOverview {
    /// Its name.
    pub name: String,
    /// In how many shards its tasks are looked for.
    pub shards: usize,
    /// Its tasks in flight.
    pub in_flight: usize,
    /// What keeps more of them from being in flight.
    pub bound: Option<Bound>,
    /// A person wishes that nothing of it be claimed.
    pub is_held: bool,
}

impl fmt::Display for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} · {}/{} in flight", self.activity, self.in_flight, self.limit)?;
        if let Some(bound_by) = self.bound_by.as_deref().filter(|by| *by != self.activity) {
            write!(f, " ({bound_by})")?;
        }
        if self.waiting > 0 {
            write!(f, " · {} waiting to start", self.waiting)?;
        }
        if self.waiting_to_retry > 0 {
            write!(f, " · {} waiting to retry", self.waiting_to_retry)?;
        }
        match self.oldest_due {
            Some(age) => write!(f, " · oldest due {:.1} s", age.as_secs_f64())?,
            None if self.backlog > 0 => write!(f, " · {} more due", self.backlog)?,
            None => {}
        }
        let mut held = self.queues.iter().filter(|queue| queue.is_held);
        match (held.next(), held.count()) {
            (None, _) => Ok(()),
            (Some(queue), 0) => write!(f, " · {} is paused", queue.name),
            (Some(_), others) => write!(f, " · {} queues are paused", others + 1),
        }
    }
}

/// What keeps tasks waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What kind of thing it is.
    pub kind: Kind,
    /// What it is about; nothing when about all tasks.
    pub of: Option<String>,
    /// What it is called.
    pub why: String,
    /// How many it lets be in flight, if that is a number of tasks.
    pub most: Option<usize>,
    /// How many of those that it is about are.
    pub in_flight: usize,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of {
            Some(of) => write!(f, "{of}: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

impl<S: Store, I: Invoker> Dispatcher<S, I> {
    pub(super) fn overview(&mut self, now: Instant) -> Overview {
        let time = self.worker.clock.now();
        // What a person holds back waits for nothing that burstd could do.
        let lanes = || self.lanes.iter().filter(|lane| !lane.is_held());
        let candidates = || lanes().flat_map(Lane::candidates);
        let with_due = candidates().filter(|candidate| candidate.due.as_millis() > 0);
        let oldest = with_due.map(|candidate| candidate.due).min();
        let in_flight = self.tasks.len();
        let Limits { max_in_flight, .. } = self.limits;
        let (activity, waiting) = (self.activity(), self.waiting());
        let (bound_by, limit) = match self.bound(now) {
            _ if activity != POLLING => (Some(activity.to_owned()), max_in_flight),
            // What else is in flight is not limited by it.
            Some(bound) => {
                let others = in_flight - bound.in_flight.min(in_flight);
                let most = bound.most.unwrap_or(max_in_flight);
                (Some(bound.to_string()), (others + most).min(max_in_flight))
            }
            None => (None, max_in_flight),
        };
        Overview {
            activity,
            is_stopped: self.is_stopped(),
            in_flight: in_flight.saturating_sub(waiting),
            waiting,
            limit,
            bound_by,
            backlog: candidates().count(),
            oldest_due: oldest.map(|due| time.since(due)),
            waiting_to_retry: self.known.waiting_to_retry(now),
            queues: self.queues(now),
        }
    }

    fn queues(&self, now: Instant) -> Vec<QueueOverview> {
        let max = self.limits.max_in_flight;
        let lanes = self.lanes.iter().filter(|lane| lane.is_open());
        lanes
            .map(|lane| {
                let load = &self.loads[lane.load];
                let waits = self.bound_by_time(lane).or_else(|| bound_by_lambda(lane, load));
                let starts = || bound_by_function(lane, load).filter(|_| load.has_waiting());
                let limit = || self.bound_of_all().or_else(|| bound_of(lane, load, max, now));
                let bound = waits.or_else(starts).or_else(limit).filter(|_| !lane.is_held());
                QueueOverview {
                    name: lane.queue.name.clone(),
                    shards: lane.queue.shards.len(),
                    in_flight: lane.in_flight(),
                    bound,
                    is_held: lane.is_held(),
                }
            })
            .collect()
    }

    fn activity(&self) -> &'static str {
        if self.worker.shutdown.is_draining() {
            "draining"
        } else if self.worker.store_trouble.is_open() {
            "waiting for DynamoDB"
        } else if let Some(reason) = self.pause.reason() {
            reason
        } else {
            POLLING
        }
    }

    fn waiting(&self) -> usize {
        let of_function = |load: &Load| load.governor.waiting() + load.governor.are_set_back();
        self.worker.memory.awaiting() + self.loads.iter().map(of_function).sum::<usize>()
    }

    fn is_stopped(&self) -> bool {
        self.worker.shutdown.is_draining()
            || self.worker.store_trouble.is_open()
            || self.worker.backlog.is_long()
    }

    /// A queue whose leases are too short for what is known of the time.
    fn bound_by_time(&self, lane: &Lane) -> Option<Bound> {
        let (of, why) = (Some(lane.queue.name.clone()), pause::NO_TIME.to_owned());
        let is_bound = !self.worker.knows_the_time(&lane.queue);
        let in_flight = lane.in_flight();
        is_bound.then_some(Bound { kind: Kind::Waits, of, why, most: None, in_flight })
    }

    /// What keeps tasks from starting: what those that are claimed wait for, or the first limit
    /// that keeps others from being claimed, from the widest to the narrowest.
    fn bound(&self, now: Instant) -> Option<Bound> {
        let max = self.limits.max_in_flight;
        let lanes = || self.lanes.iter().filter(|lane| lane.is_open());
        let with_load = || lanes().map(|lane| (lane, &self.loads[lane.load]));
        let by_lambda = with_load().find_map(|(lane, load)| bound_by_lambda(lane, load));
        let waiting = || with_load().filter(|(_, load)| load.has_waiting());
        let starts = || waiting().find_map(|(lane, load)| bound_by_function(lane, load));
        let of_a_queue = || with_load().find_map(|(lane, load)| bound_of(lane, load, max, now));
        by_lambda.or_else(starts).or_else(|| self.bound_of_all()).or_else(of_a_queue)
    }

    /// The limit of the process that keeps a task of whichever queue from starting.
    fn bound_of_all(&self) -> Option<Bound> {
        let (max, in_flight) = (self.limits.max_in_flight, self.tasks.len());
        let (why, most) = match () {
            () if self.worker.memory.awaiting() > 0 => ("max_bytes_in_flight", None),
            () if in_flight >= max => ("max_in_flight", Some(max)),
            () => return None,
        };
        Some(Bound { kind: Kind::Limit, of: None, why: why.to_owned(), most, in_flight })
    }
}

/// What is in flight waits for Lambda, whichever limit it fills meanwhile.
fn bound_by_lambda(lane: &Lane, load: &Load) -> Option<Bound> {
    let is_bound = lane.in_flight() > 0 && load.governor.is_away(load.in_flight);
    is_bound.then(|| Bound {
        kind: Kind::Waits,
        of: Some(lane.queue.name.clone()),
        why: format!("waiting for Lambda to start {}", lane.queue.function.name),
        most: None,
        in_flight: lane.in_flight(),
    })
}

fn bound_of(lane: &Lane, load: &Load, max: usize, now: Instant) -> Option<Bound> {
    let (queue, in_flight) = (&lane.queue, lane.in_flight());
    let of_queue = |kind, why: &str, most| {
        Some(Bound { kind, of: Some(queue.name.clone()), why: why.to_owned(), most, in_flight })
    };
    if lane.is_held() {
        // That is no limit which anybody could raise.
        return None;
    }
    let function = &queue.function.name;
    if lane.is_broken(now) {
        return of_queue(Kind::Broken, &format!("the function {function} is broken"), None);
    }
    if queue.max_in_flight < max && in_flight >= queue.max_in_flight {
        let most = Some(queue.max_in_flight);
        return of_queue(Kind::Limit, "max_in_flight of the queue", most);
    }
    bound_by_function(lane, load)
}

/// A limit of its function, of which the governor knows.
fn bound_by_function(lane: &Lane, load: &Load) -> Option<Bound> {
    let (why, most) = load.governor.bound(load.in_flight)?;
    let (of, why) = (Some(lane.queue.function.name.clone()), why.to_owned());
    Some(Bound { kind: Kind::Limit, of, why, most, in_flight: load.in_flight })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_says_in_one_line_what_it_does() {
        let idle = Overview { activity: "polling", limit: 500, ..Overview::default() };
        let busy = Overview {
            in_flight: 512,
            limit: 2000,
            waiting_to_retry: 3,
            oldest_due: Some(Duration::from_millis(420)),
            ..idle.clone()
        };
        let full = Overview {
            in_flight: 200,
            waiting: 50,
            limit: 200,
            bound_by: Some("f: reserved concurrency".to_owned()),
            backlog: 7,
            ..idle.clone()
        };
        let queue = |name: &str| QueueOverview {
            name: name.to_owned(),
            shards: 1,
            in_flight: 0,
            bound: None,
            is_held: name != "free",
        };
        let held = |names: &[&str]| Overview {
            queues: names.iter().map(|name| queue(name)).collect(),
            ..idle.clone()
        };
        for (overview, line) in [
            (busy, "polling · 512/2000 in flight · 3 waiting to retry · oldest due 0.4 s"),
            (held(&["free", "thumbs"]), "polling · 0/500 in flight · thumbs is paused"),
            (held(&["a", "b", "free"]), "polling · 0/500 in flight · 2 queues are paused"),
            (idle, "polling · 0/500 in flight"),
            (
                full,
                "polling · 200/200 in flight (f: reserved concurrency) · 50 waiting to start · 7 \
                 more due",
            ),
        ] {
            assert_eq!(overview.to_string(), line);
        }
    }
}

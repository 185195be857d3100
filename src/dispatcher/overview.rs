//! What the dispatcher is at, once a second: the service's status line, and the state of things in
//! the summary.

use std::fmt;
use std::time::Duration;

use super::lane::{Lane, Load};
use super::{Dispatcher, Limits};
use crate::invoker::Invoker;
use crate::store::Store;
use tokio::time::Instant;

/// What the dispatcher is at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overview {
    /// What it does, in a word or two.
    pub activity: &'static str,
    /// Tasks in flight.
    pub in_flight: usize,
    /// How many there may be.
    pub limit: usize,
    /// Which limit keeps more from being in flight.
    pub bound_by: Option<String>,
    /// Due tasks that wait for a place, as far as the index was read.
    pub backlog: usize,
    /// How long the oldest of them has been due; of those that say since when.
    pub oldest_due: Option<Duration>,
    /// Tasks that this process will try again after their back-off.
    pub waiting_to_retry: usize,
}

impl fmt::Display for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} · {}/{} in flight", self.activity, self.in_flight, self.limit)?;
        if let Some(bound_by) = &self.bound_by {
            write!(f, " ({bound_by})")?;
        }
        if self.waiting_to_retry > 0 {
            write!(f, " · {} waiting to retry", self.waiting_to_retry)?;
        }
        match self.oldest_due {
            Some(age) => write!(f, " · oldest due {:.1} s", age.as_secs_f64()),
            None if self.backlog > 0 => write!(f, " · {} more due", self.backlog),
            None => Ok(()),
        }
    }
}

/// A limit that keeps tasks waiting: what it is called, how many it lets be in flight, and how many
/// of those that it is about are.
struct Bound {
    name: String,
    most: usize,
    of: usize,
}

impl<S: Store, I: Invoker> Dispatcher<S, I> {
    pub(super) fn overview(&mut self, now: Instant) -> Overview {
        let time = self.worker.clock.now();
        let candidates = || self.lanes.iter().flat_map(Lane::candidates);
        let with_due = candidates().filter(|candidate| candidate.due.as_millis() > 0);
        let oldest = with_due.map(|candidate| candidate.due).min();
        let in_flight = self.tasks.len();
        let Limits { max_in_flight, .. } = self.limits;
        let (bound_by, limit) = match self.bound(now) {
            // What else is in flight is not limited by it.
            Some(Bound { name, most, of }) => {
                (Some(name), (in_flight - of.min(in_flight) + most).min(max_in_flight))
            }
            None => (None, max_in_flight),
        };
        Overview {
            activity: self.activity(),
            in_flight,
            limit,
            bound_by,
            backlog: candidates().count(),
            oldest_due: oldest.map(|due| time.since(due)),
            waiting_to_retry: self.known.waiting_to_retry(now),
        }
    }

    fn activity(&self) -> &'static str {
        if self.worker.shutdown.is_draining() {
            "draining"
        } else if self.worker.store_trouble.is_open() {
            "waiting for DynamoDB"
        } else if let Some(reason) = self.pause.reason() {
            reason
        } else {
            "polling"
        }
    }

    /// The first limit that keeps a task from starting, from the widest to the narrowest.
    fn bound(&self, now: Instant) -> Option<Bound> {
        let (max, of) = (self.limits.max_in_flight, self.tasks.len());
        let of_all = |name: &str| Some(Bound { name: name.to_owned(), most: max, of });
        if of >= max {
            return of_all("max_in_flight");
        }
        if self.worker.memory.is_awaited() {
            return of_all("max_bytes_in_flight");
        }
        let lanes = self.lanes.iter().filter(|lane| lane.is_open());
        lanes.filter_map(|lane| bound_of(lane, &self.loads[lane.load], max, now)).next()
    }
}

fn bound_of(lane: &Lane, load: &Load, max: usize, now: Instant) -> Option<Bound> {
    let queue = &lane.queue;
    if lane.paused_until(now).is_some() {
        let name = format!("{}: the function is broken", queue.name);
        return Some(Bound { name, most: 1, of: lane.in_flight });
    }
    if queue.max_in_flight < max && lane.in_flight >= queue.max_in_flight {
        let name = format!("{}: max_in_flight of the queue", queue.name);
        return Some(Bound { name, most: queue.max_in_flight, of: lane.in_flight });
    }
    let (why, most) = load.governor.bound(load.in_flight)?;
    let name = format!("{}: {why}", queue.function.name);
    Some(Bound { name, most: most.unwrap_or(max), of: load.in_flight })
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
            limit: 200,
            bound_by: Some("f: reserved concurrency".to_owned()),
            backlog: 7,
            ..idle.clone()
        };
        for (overview, line) in [
            (idle, "polling · 0/500 in flight"),
            (busy, "polling · 512/2000 in flight · 3 waiting to retry · oldest due 0.4 s"),
            (full, "polling · 200/200 in flight (f: reserved concurrency) · 7 more due"),
        ] {
            assert_eq!(overview.to_string(), line);
        }
    }
}

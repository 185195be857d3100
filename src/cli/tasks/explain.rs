//! `burstd explain`: why a task does not run.

use serde_json::json;

use super::show::away;
use super::{Answer, time};
use crate::aws::Record;
use crate::config::{Config, QueueConfig};
use crate::notices::{Bound, Kind, Notices, Service};
use crate::queue::Queue;
use crate::task::{Status, TaskId, Timestamp};

/// A reason, in a word for programs and in words for people.
type Reason = (&'static str, String);

/// What an answer is made of.
pub(super) struct Circumstances<'a> {
    pub(super) record: &'a Record,
    pub(super) config: &'a Config,
    pub(super) notices: &'a Notices,
    pub(super) now: Timestamp,
}

pub(super) fn answer(id: &TaskId, circumstances: &Circumstances<'_>) -> Answer {
    let (code, words) = circumstances.reason();
    Answer {
        words: format!("{id}: {words}"),
        json: json!({ "id": id.to_string(), "reason": code, "message": words }),
        is_good: true,
    }
}

impl Circumstances<'_> {
    /// The first reason, in the order in which burstd would find them.
    fn reason(&self) -> Reason {
        let Circumstances { record, now, .. } = *self;
        ended(record)
            .or_else(|| not_in_the_index(record))
            .or_else(|| self.nobody_s())
            .or_else(|| self.somebody_s())
            .or_else(|| unreadable(record))
            .or_else(|| no_room(record))
            .or_else(|| not_yet(record, now))
            .or_else(|| self.paused())
            .or_else(|| too_late(record, now))
            .or_else(|| self.unserved())
            .unwrap_or_else(|| self.bound())
    }

    /// The queue, or shard, that the item names.
    fn shard(&self) -> &str {
        self.record.text("queue").unwrap_or_default()
    }

    fn servers(&self) -> Vec<(&str, &Service)> {
        self.notices.servers(self.shard(), self.now)
    }

    /// Neither this configuration nor a worker that was heard of knows its queue.
    fn nobody_s(&self) -> Option<Reason> {
        let name = self.shard();
        let queues = &self.config.queues;
        let shards = queues.iter().flat_map(|queue| Queue::shards(&queue.name, queue.shards));
        if shards.into_iter().any(|shard| shard == name) || !self.servers().is_empty() {
            return None;
        }
        let shard_of = |queue: &&QueueConfig| {
            name.strip_prefix(&queue.name).is_some_and(|rest| rest.starts_with('#'))
        };
        if let Some(QueueConfig { name: queue, shards, .. }) = queues.iter().find(shard_of) {
            let words = format!(
                "its queue is {name:?}, and nobody looks there: `shards` of {queue} is {shards}. \
                 Raise it, or set the item's queue to {queue:?}"
            );
            return Some(("unknown_queue", words));
        }
        let known: Vec<_> = queues.iter().map(|queue| format!("{:?}", queue.name)).collect();
        let words = format!(
            "its queue {name:?} is not in this configuration, which has {}, and no daemon that \
             serves it has been heard of",
            known.join(", ")
        );
        Some(("unknown_queue", words))
    }

    fn somebody_s(&self) -> Option<Reason> {
        let until = self.record.moment("lease_until").ok().flatten();
        let until = until.filter(|until| *until > self.now)?;
        let left = away(until, self.now);
        let left = left.trim_start_matches("in ");
        let Some(worker) = self.record.text("worker") else {
            let words = format!("a worker that left no name holds it, for {left} more");
            return Some(("leased", words));
        };
        let words = match self.notices.workers.get(worker) {
            Some(presence) if presence.is_alive(self.now) => {
                let held = format!("{worker} holds it, at the longest for {left} more");
                match self.waits_for(worker) {
                    Some(why) => format!("{held}, and is {why}: it may not have started"),
                    None => format!("it is running: {held}"),
                }
            }
            Some(presence) => format!(
                "{worker} holds it, for {left} more. That daemon was last heard of {}, so it may \
                 have died; when the lease ends another one takes the task",
                away(presence.seen_at, self.now)
            ),
            None => format!(
                "{worker} holds it, for {left} more. Nothing is known of that daemon, so it may \
                 have ended; when the lease does another one takes the task"
            ),
        };
        Some(("leased", words))
    }

    /// What a worker waits for before it starts tasks of the queue.
    fn waits_for(&self, worker: &str) -> Option<&str> {
        let servers = self.servers();
        let (_, service) = servers.into_iter().find(|(name, _)| *name == worker)?;
        let bound = service.bound.as_ref().filter(|bound| bound.kind == Kind::Waits);
        bound.map(|bound| bound.why.as_str())
    }

    fn paused(&self) -> Option<Reason> {
        let (queue, pause) = self.notices.pause(self.shard())?;
        let words = format!(
            "its queue is paused since {}, by {}. `burstd resume {queue}` lets it go on",
            time(pause.since),
            pause.by
        );
        Some(("paused", words))
    }

    /// No daemon that serves its queue was heard of lately.
    fn unserved(&self) -> Option<Reason> {
        if !self.servers().is_empty() {
            return None;
        }
        let last = self.notices.workers.iter().max_by_key(|(_, presence)| presence.seen_at);
        let heard_of = match last {
            None => "none has been heard of lately".to_owned(),
            Some((worker, presence)) if presence.is_alive(self.now) => {
                format!("{worker}, which works on this table, serves others")
            }
            Some((worker, presence)) => {
                format!("{worker} was last heard of {}", away(presence.seen_at, self.now))
            }
        };
        let words = format!("it is due, and no daemon serves its queue: {heard_of}");
        Some(("no_worker", words))
    }

    /// What keeps the workers that serve its queue.
    fn bound(&self) -> Reason {
        let servers = self.servers();
        let waits = |worker: &str| self.notices.workers[worker].waits.as_deref();
        let is_ready = |(worker, service): &&(&str, &Service)| {
            service.bound.is_none() && waits(worker).is_none()
        };
        if let Some((worker, _)) = servers.iter().find(is_ready) {
            let said = away(self.notices.workers[*worker].seen_at, self.now);
            let words = format!(
                "nothing keeps it: it is due and nobody's, and {worker}, which serves its queue, \
                 has room, as it said {said}. It is claimed when its turn comes: within `[poll] \
                 max` if nothing else of its queue is due"
            );
            return ("ready", words);
        }
        let kind = |(_, service): &(&str, &Service)| Some(service.bound.as_ref()?.kind);
        let kinds: Vec<_> = servers.iter().map(kind).collect();
        let code = match () {
            () if kinds.contains(&Some(Kind::Limit)) => "limit",
            () if kinds.contains(&Some(Kind::Broken)) => "function_broken",
            () => "worker_waits",
        };
        let told = servers.iter().map(|(worker, service)| match (&service.bound, waits(worker)) {
            (Some(bound), _) => self.told(worker, service, bound),
            (None, waits) => format!("{worker} is {}", waits.unwrap_or_default()),
        });
        let told: Vec<_> = told.collect();
        (code, format!("it is due and nobody's, and waits: {}", told.join("; ")))
    }

    /// What keeps one worker.
    fn told(&self, worker: &str, service: &Service, bound: &Bound) -> String {
        let Bound { kind, why, limit, in_flight, since } = bound;
        if *kind == Kind::Waits {
            return format!("{worker} is {why}");
        }
        if *kind == Kind::Broken {
            let since = time(*since);
            return format!(
                "{why}, since {since}: its queue waits and probes it; see `lambda.broken` in the \
                 log of {worker}"
            );
        }
        let lasted = away(*since, self.now);
        let lasted = lasted.trim_end_matches(" ago");
        let of_it = match service.in_flight {
            of_it if of_it < *in_flight => format!(", {of_it} of its queue"),
            _ => String::new(),
        };
        let allowed = match limit {
            Some(limit) => format!("of the {limit} that {why} allows"),
            None => format!("and no room for more by {why}"),
        };
        format!("{worker} has {in_flight} in flight {allowed}{of_it}, for {lasted} now")
    }
}

fn ended(record: &Record) -> Option<Reason> {
    let status = record.status().and_then(Status::parse).filter(|status| status.is_final())?;
    let at = record.moment("finished_at").ok().flatten();
    let at = at.map(|at| format!(" at {}", time(at))).unwrap_or_default();
    let why = match status {
        Status::Succeeded => String::new(),
        _ => record.error("message").map(|words| format!(": {words}")).unwrap_or_default(),
    };
    let remedy = match status {
        Status::Invalid => "Correct the item, then `burstd retry` runs it",
        _ if record.error("type") == Some("Burstd.DeadlinePassed") => {
            "Set another deadline, then `burstd retry` runs it"
        }
        _ => "`burstd retry` runs it again",
    };
    Some(("ended", format!("it has ended {}{at}{why}. {remedy}", status.as_str())))
}

/// What has no `queue` and `due` of the right types is not in the index, where burstd looks.
fn not_in_the_index(record: &Record) -> Option<Reason> {
    match record.word("queue") {
        None => return Some(("no_queue", "it has no `queue`, and so is in no queue".to_owned())),
        Some("") => return Some(("no_queue", "its `queue` is empty".to_owned())),
        Some(_) => {}
    }
    if record.text("queue").is_none() {
        let words = "its `queue` is a number; it must be a string (S), or the index leaves it out";
        return Some(("wrong_type", words.to_owned()));
    }
    match record.moment("due") {
        Ok(Some(due)) if due.is_surely_millis() => {
            let digits = record.word("due").unwrap_or_default();
            let words = format!(
                "its `due` is {digits}, which is beyond the year 5138: it counts seconds. Is this \
                 in milliseconds?"
            );
            Some(("milliseconds", words))
        }
        Ok(Some(_)) => None,
        Ok(None) => {
            let words = "it has no `due`, so there is nothing left to do for it. Set `due` to 0 to \
                         run it at once";
            Some(("no_due", words.to_owned()))
        }
        Err(wrong) => Some((
            "wrong_type",
            format!("{wrong}; the index leaves the item out, so nobody sees it"),
        )),
    }
}

fn unreadable(record: &Record) -> Option<Reason> {
    let wrong = record.objection()?;
    let words = format!("it is no task: {wrong}. The daemon that claims it makes it INVALID");
    Some(("unreadable", words))
}

fn no_room(record: &Record) -> Option<Reason> {
    let words = format!("no daemon can claim it: {}", record.no_room()?);
    Some(("no_room", words))
}

fn not_yet(record: &Record, now: Timestamp) -> Option<Reason> {
    let due = record.moment("due").ok().flatten().filter(|due| *due > now)?;
    let attempt = record.word("attempt").filter(|attempt| *attempt != "0");
    let why = match attempt {
        Some(attempt) => format!("attempt {attempt} failed and it waits to be tried again"),
        None => "it is delayed".to_owned(),
    };
    Some(("not_due", format!("{why}: due {}, at {}", away(due, now), time(due))))
}

fn too_late(record: &Record, now: Timestamp) -> Option<Reason> {
    let deadline = record.moment("deadline").ok().flatten().filter(|deadline| *deadline <= now)?;
    let words = format!(
        "its deadline passed {}: the next daemon that sees it ends it FAILED",
        away(deadline, now)
    );
    Some(("deadline_passed", words))
}

#[cfg(test)]
mod tests;

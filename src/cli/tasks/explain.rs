//! `burstd explain`: why a task does not run.

use serde_json::json;

use super::show::away;
use super::{Answer, time};
use crate::aws::Record;
use crate::config::{Config, QueueConfig};
use crate::task::{Status, TaskId, Timestamp};

/// In epoch seconds this is the year 5138: such a number is in milliseconds.
const SURELY_MILLISECONDS: u64 = 100_000_000_000;

/// A reason, in a word for programs and in words for people.
type Reason = (&'static str, String);

pub(super) fn answer(id: &TaskId, record: &Record, config: &Config, now: Timestamp) -> Answer {
    let (code, words) = reason(record, config, now);
    Answer {
        words: format!("{id}: {words}"),
        json: json!({ "id": id.to_string(), "reason": code, "message": words }),
        is_good: true,
    }
}

/// The first reason, in the order in which burstd would find them.
fn reason(record: &Record, config: &Config, now: Timestamp) -> Reason {
    ended(record)
        .or_else(|| not_in_the_index(record))
        .or_else(|| nobody_s(record, config))
        .or_else(|| not_yet(record, now))
        .or_else(|| somebody_s(record, now))
        .or_else(|| too_late(record, now))
        .unwrap_or_else(|| {
            let words = "nothing on the item keeps it: it is due and nobody's. A daemon that \
                         serves its queue claims it as soon as it has a free place: see `bound_by` \
                         and `lambda.broken` in its log";
            ("ready", words.to_owned())
        })
}

fn ended(record: &Record) -> Option<Reason> {
    let status = record.status().and_then(Status::parse).filter(|status| status.is_final())?;
    let at = record.moment("finished_at").ok().flatten();
    let at = at.map(|at| format!(" at {}", time(at))).unwrap_or_default();
    let why = match status {
        Status::Succeeded => String::new(),
        _ => record.error("message").map(|words| format!(": {words}")).unwrap_or_default(),
    };
    let words = format!("it has ended {}{at}{why}. `burstd retry` runs it again", status.as_str());
    Some(("ended", words))
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
        Ok(Some(due)) if due.as_millis() / 1000 >= SURELY_MILLISECONDS => {
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

fn nobody_s(record: &Record, config: &Config) -> Option<Reason> {
    let name = record.text("queue")?;
    let serves = |queue: &QueueConfig| {
        let shards = crate::queue::Queue::shards(&queue.name, queue.shards);
        shards.iter().any(|shard| shard == name)
    };
    if config.queues.iter().any(serves) {
        return None;
    }
    let known: Vec<_> = config.queues.iter().map(|queue| format!("{:?}", queue.name)).collect();
    let words = format!(
        "its queue {name:?} is not in this configuration, which has {}; unless another daemon \
         serves it, nobody does",
        known.join(", ")
    );
    Some(("unknown_queue", words))
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

fn somebody_s(record: &Record, now: Timestamp) -> Option<Reason> {
    let until = record.moment("lease_until").ok().flatten().filter(|until| *until > now)?;
    let worker = record.text("worker").unwrap_or("a worker that left no name");
    let words = format!(
        "it is running: {worker} holds it, at the longest for {} more",
        away(until, now).trim_start_matches("in ")
    );
    Some(("leased", words))
}

fn too_late(record: &Record, now: Timestamp) -> Option<Reason> {
    let deadline = record.moment("deadline").ok().flatten().filter(|deadline| *deadline <= now)?;
    let words = format!(
        "its deadline passed {}: the next daemon that sees it ends it FAILED",
        away(deadline, now)
    );
    Some(("deadline_passed", words))
}

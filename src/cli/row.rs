//! A task on a line of its own.

use serde_json::{Map, Value};

use super::cost::thousands;
use super::plain;
use crate::aws::{Found, Record};
use crate::task::{Status, Timestamp};

/// What stands above the lines.
pub(super) const HEADER: &str =
    "ID                         QUEUE        STATUS    TRY WHEN               ERROR";

/// What an item says that is told to programs, as it says it.
const RAW: [&str; 8] =
    ["queue", "status", "attempt", "due", "lease_until", "worker", "started_at", "finished_at"];

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

/// For people. What is longer than its column moves the rest.
pub(super) fn text(found: &Found, now: Timestamp) -> String {
    let Found { id, record } = found;
    let queue = record.word("queue").unwrap_or("-");
    let status = status(record);
    let attempt = record.word("attempt").unwrap_or("0");
    let when = when(record, now);
    let error = record.error("type").unwrap_or_default();
    let line = format!(
        "{id:<26} {queue:<12} {status:<9} {attempt:>3} {when:<18} {error}",
        id = id.to_string()
    );
    plain::one_line(line.trim_end())
}

/// So many tasks, in words.
pub(super) fn tasks(count: u64) -> String {
    match count {
        1 => "1 task".to_owned(),
        count => format!("{} tasks", thousands(count)),
    }
}

/// For programs: what the item does not have is not there.
pub(super) fn json(found: &Found) -> Value {
    let mut row = Map::from_iter([("id".to_owned(), Value::from(found.id.to_string()))]);
    let mut item = found.record.to_json();
    for attribute in RAW {
        if let Some(value) = item.get_mut(attribute) {
            row.insert(attribute.to_owned(), value.take());
        }
    }
    if let Some(kind) = found.record.error("type") {
        row.insert("error_type".to_owned(), Value::from(kind));
    }
    Value::Object(row)
}

/// What the item says of its status; `new` when it says nothing.
pub(super) fn status(record: &Record) -> &str {
    match record.has("status") {
        true => record.word("status").unwrap_or("?"),
        false => "new",
    }
}

/// The moment that matters.
fn when(record: &Record, now: Timestamp) -> String {
    let status = record.status().and_then(Status::parse);
    let moment = |attribute| match record.moment(attribute) {
        Ok(Some(at)) => Ok(at),
        Ok(None) => Err(format!("no {attribute}")),
        Err(_) => Err(format!("bad {attribute}")),
    };
    let told = match status {
        Some(Status::Running) => {
            moment("started_at").map(|at| format!("runs for {}", span(now.since(at).as_secs())))
        }
        Some(status) if status.is_final() => {
            moment("finished_at").map(|at| format!("ended {} ago", span(now.since(at).as_secs())))
        }
        _ => moment("due").map(|due| match due > now {
            true => format!("due in {}", span(due.since(now).as_secs())),
            false if due == Timestamp::default() => "due".to_owned(),
            false => format!("due for {}", span(now.since(due).as_secs())),
        }),
    };
    told.unwrap_or_else(|missing| missing)
}

/// A span by its two largest units.
fn span(seconds: u64) -> String {
    let two =
        |large: u64, letter: char, small: u64, small_letter: char| match seconds % large / small {
            0 => format!("{}{letter}", seconds / large),
            rest => format!("{}{letter} {rest}{small_letter}", seconds / large),
        };
    match seconds {
        0..MINUTE => format!("{seconds}s"),
        MINUTE..HOUR => two(MINUTE, 'm', 1, 's'),
        HOUR..DAY => two(HOUR, 'h', MINUTE, 'm'),
        DAY..YEAR => two(DAY, 'd', HOUR, 'h'),
        _ => two(YEAR, 'y', DAY, 'd'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_its_two_largest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 1s"),
            (3600, "1h"),
            (3_725, "1h 2m"),
            (90_000, "1d 1h"),
            (1_800_000_000_000, "57077y 228d"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}

//! `burstd show`: everything about a task.

use std::fmt::Write as _;

use super::{Answer, time};
use crate::aws::Record;
use crate::cli::plain;
use crate::task::{Attempt, TaskId, Timestamp};

/// What the item says, in the order of a task's life.
const MOMENTS: [(&str, &str); 6] = [
    ("due", "due"),
    ("deadline", "deadline"),
    ("started", "started_at"),
    ("leased until", "lease_until"),
    ("finished", "finished_at"),
    ("expires", "expires_at"),
];

const WORDS: [(&str, &str); 8] = [
    ("queue", "queue"),
    ("attempt", "attempt"),
    ("max attempts", "max_attempts"),
    ("worker", "worker"),
    ("request id", "request_id"),
    ("trace", "trace"),
    ("payload", "payload"),
    ("result", "result"),
];

pub(super) fn answer(id: &TaskId, record: &Record, now: Timestamp) -> Answer {
    let mut words = format!("{id}\n");
    let mut line = |label: &str, value: &str| {
        let value = plain::lines(value);
        writeln!(words, "  {label:<13} {value}").expect("writing to a string cannot fail");
    };
    line("status", record.status().unwrap_or("none: it is new"));
    for (label, attribute) in WORDS {
        if let Some(word) = record.word(attribute) {
            line(label, word);
        }
    }
    for (label, attribute) in MOMENTS {
        match record.moment(attribute) {
            Ok(Some(at)) if at == Timestamp::default() => line(label, "at once"),
            Ok(Some(at)) => line(label, &format!("{} ({})", time(at), away(at, now))),
            Ok(None) => {}
            Err(wrong) => line(label, &wrong),
        }
    }
    for part in ["type", "message", "log"] {
        if let Some(text) = record.error(part) {
            // Below one another, as they were written.
            let text = text.trim_end().replace(['\n', '\r'], "\n                ");
            line(&format!("error {part}"), &text);
        }
    }
    for attempt in record.history() {
        line(&format!("attempt {}", attempt.number), &told(&attempt));
    }
    Answer { words: words.trim_end().to_owned(), json: record.to_json(), is_good: true }
}

fn told(attempt: &Attempt) -> String {
    let mut parts = vec![attempt.outcome.clone()];
    parts.extend(attempt.error_type.clone());
    parts.extend(attempt.started_at.map(time));
    parts.extend(attempt.took.map(|took| format!("{} ms", took.as_millis())));
    parts.extend(attempt.request_id.clone());
    parts.join(" · ")
}

/// How far away a moment is.
pub(crate) fn away(at: Timestamp, now: Timestamp) -> String {
    let seconds = |time: std::time::Duration| match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        whole => humantime::format_duration(std::time::Duration::from_secs(whole)).to_string(),
    };
    match at > now {
        true => format!("in {}", seconds(at.since(now))),
        false => format!("{} ago", seconds(now.since(at))),
    }
}

//! Items: from and to DynamoDB's attribute values. What cannot be read says which attribute is
//! to blame, and never stops anything.

mod size;

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use crate::claim::Standing;
use crate::invoker::Failure;
use crate::task::{Attempt, KeyValue, Payload, Status, Task, TaskId, Timestamp};

pub(super) use size::no_room;

/// An item as DynamoDB gives it.
pub(super) type Item = HashMap<String, AttributeValue>;

/// A trace header is 100 to 250 bytes; Lambda takes no more than this.
const TRACE_LIMIT_BYTES: usize = 1024;

/// The names of the table's attributes.
pub(super) mod name {
    pub(crate) const ID: &str = "id";
    pub(crate) const QUEUE: &str = "queue";
    pub(crate) const DUE: &str = "due";
    pub(crate) const PAYLOAD: &str = "payload";
    pub(crate) const MAX_ATTEMPTS: &str = "max_attempts";
    pub(crate) const DEADLINE: &str = "deadline";
    pub(crate) const TRACE: &str = "trace";
    pub(crate) const STATUS: &str = "status";
    pub(crate) const ATTEMPT: &str = "attempt";
    pub(crate) const LEASE_UNTIL: &str = "lease_until";
    pub(crate) const WORKER: &str = "worker";
    pub(crate) const REV: &str = "rev";
    pub(crate) const STARTED_AT: &str = "started_at";
    pub(crate) const FINISHED_AT: &str = "finished_at";
    pub(crate) const REQUEST_ID: &str = "request_id";
    pub(crate) const RESULT: &str = "result";
    pub(crate) const RESULT_BYTES: &str = "result_bytes";
    pub(crate) const RESULT_OMITTED: &str = "result_omitted";
    pub(crate) const ERROR: &str = "error";
    pub(crate) const HISTORY: &str = "history";
    pub(crate) const EXPIRES_AT: &str = "expires_at";
}

pub(super) fn string(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(super) fn number(number: impl std::fmt::Display) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// The key of the item that is this task, in a table with these key attributes.
pub(super) fn key(id: &TaskId, partition: &str, sort: Option<&str>) -> Item {
    let mut key = Item::from([(partition.to_owned(), key_value(&id.partition))]);
    if let (Some(sort), Some(value)) = (sort, &id.sort) {
        key.insert(sort.to_owned(), key_value(value));
    }
    key
}

/// Whether an item has this key.
pub(super) fn has_key(item: &Item, key: &Item) -> bool {
    key.iter().all(|(name, value)| item.get(name) == Some(value))
}

/// The task whose item has this key; nothing when the key attributes are not there.
pub(super) fn task_id(item: &Item, partition: &str, sort: Option<&str>) -> Option<TaskId> {
    let partition = read_key_value(item.get(partition)?)?;
    let sort = match sort {
        Some(sort) => Some(read_key_value(item.get(sort)?)?),
        None => None,
    };
    Some(TaskId { partition, sort })
}

fn key_value(value: &KeyValue) -> AttributeValue {
    match value {
        KeyValue::S(text) => AttributeValue::S(text.clone()),
        KeyValue::N(text) => AttributeValue::N(text.clone()),
        KeyValue::B(bytes) => AttributeValue::B(Blob::new(bytes.clone())),
    }
}

pub(super) fn read_key_value(value: &AttributeValue) -> Option<KeyValue> {
    match value {
        AttributeValue::S(text) => Some(KeyValue::S(text.clone())),
        AttributeValue::N(text) => Some(KeyValue::N(text.clone())),
        AttributeValue::B(bytes) => Some(KeyValue::B(bytes.as_ref().to_vec())),
        _ => None,
    }
}

/// Reads a claimed item as a task; the reason says which attribute makes that impossible.
pub(super) fn read_task(id: &TaskId, item: &Item) -> Result<Task, String> {
    Ok(Task {
        id: id.clone(),
        attempt: attempt(item)?,
        due: seconds(item, name::DUE)?.unwrap_or_default(),
        payload: payload(item)?,
        max_attempts: max_attempts(item)?,
        deadline: deadline(item)?,
        trace: trace(item)?,
        history: history(item)?,
    })
}

/// What is wrong with the attributes that decide whether a task may be claimed, if anything is:
/// such an item could never be claimed, nor finish.
pub(super) fn unclaimable(item: &Item) -> Option<String> {
    let status = match item.get(name::STATUS) {
        None => Ok(()),
        Some(AttributeValue::S(word)) if Status::parse(word).is_some() => Ok(()),
        Some(AttributeValue::S(word)) => {
            let words = Status::ALL.map(Status::as_str).join(", ");
            Err(format!("status is {word:?}; it must be absent, or one of {words}"))
        }
        Some(other) => Err(wrong_type(name::STATUS, other, "a string (S)")),
    };
    status
        .and_then(|()| whole(item, name::ATTEMPT).map(drop))
        .and_then(|()| seconds(item, name::LEASE_UNTIL).map(drop))
        .err()
}

/// What is wrong with an item that nobody has claimed yet, if anything is: a claim makes it
/// `INVALID`.
pub(super) fn objection(item: &Item) -> Option<String> {
    unclaimable(item)
        .or_else(|| payload(item).err())
        .or_else(|| max_attempts(item).err())
        .or_else(|| deadline(item).err())
        .or_else(|| trace(item).err())
        .or_else(|| history(item).err())
}

/// How an item was found that could not be written. It believes nothing.
pub(super) fn standing(item: &Item) -> Standing {
    let text = |attribute| match item.get(attribute) {
        Some(AttributeValue::S(text)) => Some(text.clone()),
        _ => None,
    };
    Standing {
        is_there: true,
        status: text(name::STATUS),
        due: seconds(item, name::DUE).ok().flatten(),
        lease_until: seconds(item, name::LEASE_UNTIL).ok().flatten(),
        worker: text(name::WORKER),
    }
}

/// The item's `error`.
pub(super) fn error(failure: &Failure) -> AttributeValue {
    let mut error = Item::from([("type".to_owned(), string(&failure.error_type))]);
    if !failure.message.is_empty() {
        error.insert("message".to_owned(), string(&failure.message));
    }
    if let Some(log) = &failure.log {
        error.insert("log".to_owned(), string(log));
    }
    AttributeValue::M(error)
}

/// What the item's `error` says.
pub(super) fn error_message(item: &Item) -> String {
    let error = item.get(name::ERROR).and_then(|error| error.as_m().ok());
    let message = error.and_then(|error| error.get("message")?.as_s().ok());
    message.cloned().unwrap_or_default()
}

/// The item's `history`.
pub(super) fn write_history(history: &[Attempt]) -> AttributeValue {
    AttributeValue::L(history.iter().map(write_attempt).collect())
}

fn write_attempt(attempt: &Attempt) -> AttributeValue {
    let mut entry = Item::from([
        ("attempt".to_owned(), number(attempt.number)),
        ("outcome".to_owned(), string(&attempt.outcome)),
    ]);
    let millis = attempt.took.map(|took| number(took.as_millis()));
    for (name, value) in [
        ("error", attempt.error_type.as_ref().map(string)),
        ("request_id", attempt.request_id.as_ref().map(string)),
        ("started_at", attempt.started_at.map(number)),
        ("ms", millis),
    ] {
        if let Some(value) = value {
            entry.insert(name.to_owned(), value);
        }
    }
    AttributeValue::M(entry)
}

pub(super) fn history(item: &Item) -> Result<Vec<Attempt>, String> {
    match item.get(name::HISTORY) {
        None => Ok(Vec::new()),
        Some(AttributeValue::L(entries)) => entries
            .iter()
            .enumerate()
            .map(|(index, entry)| {
                read_attempt(entry)
                    .ok_or_else(|| format!("history[{index}] is not an attempt that burstd wrote"))
            })
            .collect(),
        Some(other) => Err(wrong_type(name::HISTORY, other, "a list (L)")),
    }
}

fn read_attempt(entry: &AttributeValue) -> Option<Attempt> {
    let AttributeValue::M(entry) = entry else { return None };
    let text = |name| match entry.get(name) {
        None => Some(None),
        Some(AttributeValue::S(text)) => Some(Some(text.clone())),
        Some(_) => None,
    };
    Some(Attempt {
        number: whole(entry, "attempt").ok()??,
        outcome: text("outcome")??,
        error_type: text("error")?,
        request_id: text("request_id")?,
        started_at: seconds(entry, "started_at").ok()?,
        took: whole(entry, "ms").ok()?.map(|millis| Duration::from_millis(millis.into())),
    })
}

/// The claim has counted this attempt, so there is one.
fn attempt(item: &Item) -> Result<u32, String> {
    match whole(item, name::ATTEMPT)? {
        Some(attempt @ 1..) => Ok(attempt),
        _ => Err("attempt was negative; it must be a whole number from 0 on".to_owned()),
    }
}

fn max_attempts(item: &Item) -> Result<Option<u32>, String> {
    match whole(item, name::MAX_ATTEMPTS)? {
        Some(0) => Err("max_attempts is 0; it must be at least 1".to_owned()),
        most => Ok(most),
    }
}

/// One in milliseconds would let the task start whenever it likes.
fn deadline(item: &Item) -> Result<Option<Timestamp>, String> {
    match seconds(item, name::DEADLINE)? {
        Some(at) if at.is_surely_millis() => Err("deadline is beyond the year 5138: it counts \
                                                  seconds. Is this in milliseconds?"
            .to_owned()),
        at => Ok(at),
    }
}

fn trace(item: &Item) -> Result<Option<String>, String> {
    match item.get(name::TRACE) {
        None => Ok(None),
        Some(AttributeValue::S(text))
            if text.len() <= TRACE_LIMIT_BYTES
                && text.bytes().all(|b| (0x20..0x7f).contains(&b)) =>
        {
            Ok(Some(text.clone()))
        }
        Some(AttributeValue::S(_)) => Err(format!(
            "trace cannot be an HTTP header: it must be printable ASCII, at most \
             {TRACE_LIMIT_BYTES} bytes"
        )),
        Some(other) => Err(wrong_type(name::TRACE, other, "a string (S)")),
    }
}

/// The event, as JSON text: text as it stands, anything else made into it.
fn payload(item: &Item) -> Result<Payload, String> {
    match item.get(name::PAYLOAD) {
        None => Ok(Payload("{}".to_owned())),
        Some(AttributeValue::S(text)) => {
            match serde_json::from_str::<serde::de::IgnoredAny>(text) {
                Ok(_) => Ok(Payload(text.clone())),
                Err(error) => Err(format!(
                    "payload is not JSON text (error at line {}, column {}); a plain string must \
                     be in double quotes",
                    error.line(),
                    error.column()
                )),
            }
        }
        Some(value) => {
            let mut json = String::new();
            write_json(value, name::PAYLOAD, &mut json)?;
            Ok(Payload(json))
        }
    }
}

/// Numbers keep the digits DynamoDB has; the keys of maps are sorted, so that one item always
/// makes the same event.
pub(super) fn write_json(
    value: &AttributeValue,
    path: &str,
    json: &mut String,
) -> Result<(), String> {
    match value {
        AttributeValue::S(text) => write_json_string(text, json),
        AttributeValue::N(digits) => json.push_str(digits),
        AttributeValue::Bool(true) => json.push_str("true"),
        AttributeValue::Bool(false) => json.push_str("false"),
        AttributeValue::Null(_) => json.push_str("null"),
        AttributeValue::L(list) => {
            json.push('[');
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                write_json(value, &format!("{path}[{index}]"), json)?;
            }
            json.push(']');
        }
        AttributeValue::M(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort();
            json.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                write_json_string(key, json);
                json.push(':');
                // A key may be anything, and the path is logged.
                write_json(&map[key], &format!("{path}.*"), json)?;
            }
            json.push('}');
        }
        other => {
            let expected = "S, N, BOOL, NULL, L or M, which have a JSON form";
            return Err(wrong_type(path, other, expected));
        }
    }
    Ok(())
}

fn write_json_string(text: &str, json: &mut String) {
    let quoted = serde_json::to_string(text).expect("any string has a JSON form");
    json.push_str(&quoted);
}

/// A whole number of things, from 0 on.
fn whole(item: &Item, attribute: &str) -> Result<Option<u32>, String> {
    match item.get(attribute) {
        None => Ok(None),
        Some(AttributeValue::N(digits)) => match digits.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!("{attribute} is {digits}; it must be a whole number from 0 on")),
        },
        Some(other) => Err(wrong_type(attribute, other, "a number (N)")),
    }
}

/// A moment, in epoch seconds.
pub(super) fn seconds(item: &Item, attribute: &str) -> Result<Option<Timestamp>, String> {
    match item.get(attribute) {
        None => Ok(None),
        Some(AttributeValue::N(digits)) => match digits.parse() {
            Ok(seconds) => Ok(Some(Timestamp::from_seconds(seconds))),
            Err(_) => Err(format!("{attribute} is {digits}; it must be epoch seconds")),
        },
        Some(other) => Err(wrong_type(attribute, other, "a number (N) of epoch seconds")),
    }
}

fn wrong_type(attribute: &str, value: &AttributeValue, expected: &str) -> String {
    format!("{attribute} has the type {}; it must be {expected}", type_name(value))
}

/// DynamoDB's short name of a value's type.
fn type_name(value: &AttributeValue) -> &'static str {
    match value {
        AttributeValue::S(_) => "S",
        AttributeValue::N(_) => "N",
        AttributeValue::B(_) => "B",
        AttributeValue::Bool(_) => "BOOL",
        AttributeValue::Null(_) => "NULL",
        AttributeValue::L(_) => "L",
        AttributeValue::M(_) => "M",
        AttributeValue::Ss(_) => "SS",
        AttributeValue::Ns(_) => "NS",
        AttributeValue::Bs(_) => "BS",
        _ => "unknown to this version",
    }
}

#[cfg(test)]
mod tests;

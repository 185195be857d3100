//! Which tasks are meant: as a question to DynamoDB, as a condition of a write, and as it is
//! asked of an item that was read.

use std::collections::HashMap;
use std::fmt;

use aws_sdk_dynamodb::types::AttributeValue;

use super::control::is_control;
use super::desk::Record;
use super::item::{name, number, string};
use crate::task::{Status, Timestamp};

/// What an item may say of its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing: nobody has claimed it yet.
    New,
    /// This. Who wants pending tasks wants the new ones, too.
    Is(Status),
}

impl Wanted {
    /// Everything that can be wanted.
    pub fn all() -> impl Iterator<Item = Wanted> {
        std::iter::once(Wanted::New).chain(Status::ALL.map(Wanted::Is))
    }

    /// Reads a word, in capitals or not.
    ///
    /// # Errors
    ///
    /// When there is no such status, with all that there are.
    pub fn parse(word: &str) -> Result<Wanted, String> {
        Wanted::all().find(|wanted| wanted.as_str().eq_ignore_ascii_case(word)).ok_or_else(|| {
            let words: Vec<_> = Wanted::all().map(Wanted::as_str).collect();
            format!("there is no such status; there are {}", words.join(", "))
        })
    }

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Wanted::New => "new",
            Wanted::Is(status) => status.as_str(),
        }
    }

    /// Whether such a task has something left to do.
    pub const fn is_open(self) -> bool {
        match self {
            Wanted::New => true,
            Wanted::Is(status) => !status.is_final(),
        }
    }

    /// Whether an item without a status is meant.
    const fn is_none(self) -> bool {
        matches!(self, Wanted::New | Wanted::Is(Status::Pending))
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which tasks are meant; by itself, all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of this queue, in any shard.
    pub queue: Option<String>,
    /// Those with one of these; when there is none, whatever the status says.
    pub statuses: Vec<Wanted>,
    /// Those that ended, started or became due at this moment or later.
    pub since: Option<Timestamp>,
    /// Those whose last error has this type.
    pub error_type: Option<String>,
    /// Those that a retry may act on.
    pub retryable: Option<Retryable>,
}

/// What a retry by filter may act on: what has ended, and what waits to be due; but nothing that
/// has run since the retry began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retryable {
    /// When the retry began: what ended later is left alone.
    pub began: Timestamp,
    /// What is due by now does not wait.
    pub now: Timestamp,
}

/// Conditions that must all hold, with the names and values that they use.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    pub(super) clauses: Vec<String>,
    pub(super) names: HashMap<String, String>,
    pub(super) values: HashMap<String, AttributeValue>,
}

impl Conditions {
    /// Adds a clause in which `{}` stands for the attribute.
    fn require(&mut self, attribute: &str, clause: &str) {
        self.name(attribute);
        self.clauses.push(clause.replace("{}", &format!("#{attribute}")));
    }

    fn name(&mut self, attribute: &str) {
        self.names.insert(format!("#{attribute}"), attribute.to_owned());
    }

    fn value(&mut self, placeholder: &str, value: AttributeValue) {
        self.values.insert(placeholder.to_owned(), value);
    }
}

impl Filter {
    /// Whether all that is meant has something left to do, and so stands in the index.
    pub(super) fn is_of_open_tasks(&self) -> bool {
        !self.statuses.is_empty() && self.statuses.iter().all(|wanted| wanted.is_open())
    }

    /// Whether the index has nothing that is not meant, but for other queues.
    pub(super) fn is_of_all_open_tasks(&self) -> bool {
        let rest = Filter { queue: None, statuses: Vec::new(), ..self.clone() };
        let has = |status| self.statuses.contains(&Wanted::Is(status));
        rest == Filter::default() && has(Status::Pending) && has(Status::Running)
    }

    /// Whether an item is meant.
    pub fn matches(&self, record: &Record) -> bool {
        !is_control(record.item())
            && self.queue.as_deref().is_none_or(|queue| is_of(queue, record))
            && (self.statuses.is_empty() || self.statuses.iter().any(|it| is_wanted(*it, record)))
            && self.since.is_none_or(|since| is_since(since, record))
            && self.error_type.as_deref().is_none_or(|kind| record.error("type") == Some(kind))
            && self.retryable.is_none_or(|retryable| retryable.matches(record))
    }

    /// The same, for DynamoDB.
    pub(super) fn conditions(&self) -> Conditions {
        let mut conditions = Conditions::default();
        if let Some(queue) = &self.queue {
            let clause = "({} = :of_queue OR begins_with({}, :of_shards))";
            conditions.require(name::QUEUE, clause);
            conditions.value(":of_queue", string(queue));
            conditions.value(":of_shards", string(format!("{queue}#")));
        }
        if !self.statuses.is_empty() {
            let clauses = self.statuses.iter().filter_map(|wanted| match wanted {
                Wanted::New => None,
                Wanted::Is(status) => Some(format!("{{}} = :is_{status:?}")),
            });
            let none = self.statuses.iter().any(|wanted| wanted.is_none());
            let none = none.then(|| "attribute_not_exists({})".to_owned());
            let clauses: Vec<_> = clauses.chain(none).collect();
            conditions.require(name::STATUS, &format!("({})", clauses.join(" OR ")));
            for wanted in &self.statuses {
                if let Wanted::Is(status) = wanted {
                    conditions.value(&format!(":is_{status:?}"), string(status.as_str()));
                }
            }
        }
        if let Some(since) = self.since {
            conditions.name(name::STARTED_AT);
            conditions.name(name::DUE);
            let clause = "({} >= :since OR #started_at >= :since OR #due >= :since)";
            conditions.require(name::FINISHED_AT, clause);
            conditions.value(":since", number(since));
        }
        if let Some(kind) = &self.error_type {
            conditions.names.insert("#type".to_owned(), "type".to_owned());
            conditions.require(name::ERROR, "{}.#type = :error_type");
            conditions.value(":error_type", string(kind));
        }
        if let Some(retryable) = self.retryable {
            retryable.add_to(&mut conditions);
        }
        conditions
    }
}

impl Retryable {
    fn matches(self, record: &Record) -> bool {
        let has_rested = record.moment(name::FINISHED_AT).ok().flatten();
        let has_rested = has_rested.is_none_or(|finished| finished <= self.began);
        let due = record.moment(name::DUE).ok().flatten();
        has_rested && (record.is_final() || due.is_some_and(|due| due > self.now))
    }

    /// What says nothing of its end that could be read ended before burstd.
    fn add_to(self, conditions: &mut Conditions) {
        let clause = "(NOT attribute_type({}, :is_number) OR {} <= :began)";
        conditions.require(name::FINISHED_AT, clause);
        conditions.value(":is_number", string("N"));
        conditions.value(":began", number(self.began));
        let ended = Status::ALL.into_iter().filter(|status| status.is_final());
        let ended: Vec<_> = ended.map(|status| (format!(":has_{status:?}"), status)).collect();
        let words: Vec<_> = ended.iter().map(|(placeholder, _)| placeholder.as_str()).collect();
        conditions.name(name::DUE);
        let clause = format!("({{}} IN ({}) OR #due > :by_now)", words.join(", "));
        conditions.require(name::STATUS, &clause);
        conditions.value(":by_now", number(self.now));
        for (placeholder, status) in ended {
            conditions.value(&placeholder, string(status.as_str()));
        }
    }
}

fn is_of(queue: &str, record: &Record) -> bool {
    let rest = record.text(name::QUEUE).and_then(|name| name.strip_prefix(queue));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
}

fn is_wanted(wanted: Wanted, record: &Record) -> bool {
    match (record.has(name::STATUS), wanted) {
        (false, wanted) => wanted.is_none(),
        (true, Wanted::New) => false,
        (true, Wanted::Is(status)) => record.status() == Some(status.as_str()),
    }
}

fn is_since(since: Timestamp, record: &Record) -> bool {
    [name::FINISHED_AT, name::STARTED_AT, name::DUE]
        .into_iter()
        .any(|moment| record.moment(moment).is_ok_and(|at| at.is_some_and(|at| at >= since)))
}

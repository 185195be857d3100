//! Counting tasks: those that the index lists, which is cheap, or all of the table, which is not.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::control::is_control;
use super::desk::Desk;
use super::item::{Item, name, seconds};
use super::keyed::Sizes;
use super::table::INDEX;
use crate::store::StoreError;
use crate::task::{Status, Timestamp};

/// What is left to do of a queue, or of a shard, as the index lists it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// Tasks that are due, those that run among them.
    pub due: u64,
    /// Tasks that are due later: delayed, or to be tried again.
    pub delayed: u64,
    /// Since when the oldest of those is due that say so.
    pub oldest_due: Option<Timestamp>,
}

/// Where a task stands, to the eye of somebody who counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It may be claimed.
    Due,
    /// It may be claimed later.
    Delayed,
    /// Somebody holds it.
    Running,
    /// Somebody held it, and the lease is over.
    Abandoned,
    /// It succeeded.
    Succeeded,
    /// It failed for good.
    Failed,
    /// A person called it off.
    Cancelled,
    /// It cannot be read as a task.
    Invalid,
    /// It has not ended, and nobody will ever find it: the index does not list it.
    Unlisted,
}

impl Standing {
    /// In a word or two.
    pub const fn as_str(self) -> &'static str {
        match self {
            Standing::Due => "due",
            Standing::Delayed => "delayed",
            Standing::Running => "RUNNING",
            Standing::Abandoned => "RUNNING, lease over",
            Standing::Succeeded => "SUCCEEDED",
            Standing::Failed => "FAILED",
            Standing::Cancelled => "CANCELLED",
            Standing::Invalid => "INVALID",
            Standing::Unlisted => "not in the index",
        }
    }
}

impl Desk {
    /// How much there is in the table.
    pub fn sizes(&self) -> Sizes {
        self.table.sizes
    }

    /// Counts what the index lists of these shards, or of all there are, by what the items call
    /// their queue.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses, or is away.
    pub async fn count_open(
        &self,
        shards: Option<&[String]>,
        now: Timestamp,
    ) -> Result<BTreeMap<String, Open>, StoreError> {
        let mut open = BTreeMap::new();
        let count = |entry: &Item| count_entry(&mut open, entry, now);
        match shards {
            None => self.scan_index(count).await?,
            Some(shards) => self.query_index(shards, count).await?,
        }
        Ok(open)
    }

    async fn scan_index(&self, mut count: impl FnMut(&Item)) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let request = self.table.client.scan().index_name(INDEX);
            let (entries, next) = self.table.scan(request, after).await?;
            entries.iter().for_each(&mut count);
            if next.is_none() {
                return Ok(());
            }
            after = next;
        }
    }

    async fn query_index(
        &self,
        shards: &[String],
        mut count: impl FnMut(&Item),
    ) -> Result<(), StoreError> {
        for shard in shards {
            let mut after = None;
            loop {
                let (entries, next) = self.table.listed(shard, None, after).await?;
                entries.iter().for_each(&mut count);
                if next.is_none() {
                    break;
                }
                after = next;
            }
        }
        Ok(())
    }

    /// Counts all tasks, by what the items call their queue and by where they stand. It reads the
    /// whole table.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses, or is away.
    pub async fn count_all(
        &self,
        now: Timestamp,
    ) -> Result<BTreeMap<(String, Standing), u64>, StoreError> {
        let (mut counts, mut after) = (BTreeMap::new(), None);
        loop {
            let request = self.table.client.scan();
            let request = request
                .projection_expression("#queue, #due, #status, #lease, #mark")
                .expression_attribute_names("#queue", name::QUEUE)
                .expression_attribute_names("#due", name::DUE)
                .expression_attribute_names("#status", name::STATUS)
                .expression_attribute_names("#lease", name::LEASE_UNTIL)
                .expression_attribute_names("#mark", super::control::MARK);
            let (items, next) = self.table.scan(request, after).await?;
            for item in items.iter().filter(|item| !is_control(item)) {
                *counts.entry((queue(item), standing(item, now))).or_default() += 1;
            }
            if next.is_none() {
                return Ok(counts);
            }
            after = next;
        }
    }
}

fn count_entry(counts: &mut BTreeMap<String, Open>, entry: &Item, now: Timestamp) {
    let Ok(Some(due)) = seconds(entry, name::DUE) else { return };
    let open = counts.entry(queue(entry)).or_default();
    if due > now {
        open.delayed += 1;
        return;
    }
    open.due += 1;
    // `due = 0` says "at once", and not since when.
    if due > Timestamp::default() {
        open.oldest_due = Some(open.oldest_due.map_or(due, |oldest| oldest.min(due)));
    }
}

/// What an item calls its queue; nothing when that is no text.
fn queue(item: &Item) -> String {
    match item.get(name::QUEUE) {
        Some(AttributeValue::S(queue)) => queue.clone(),
        _ => String::new(),
    }
}

fn standing(item: &Item, now: Timestamp) -> Standing {
    let status = item.get(name::STATUS).and_then(|status| status.as_s().ok());
    let status = status.and_then(|word| Status::parse(word)).unwrap_or(Status::Pending);
    match status {
        Status::Succeeded => return Standing::Succeeded,
        Status::Failed => return Standing::Failed,
        Status::Cancelled => return Standing::Cancelled,
        Status::Invalid => return Standing::Invalid,
        Status::Pending | Status::Running => {}
    }
    let is_listed = !queue(item).is_empty();
    let due = seconds(item, name::DUE).ok().flatten().filter(|_| is_listed);
    let lease = seconds(item, name::LEASE_UNTIL).ok().flatten();
    match (due, lease) {
        (None, _) => Standing::Unlisted,
        (Some(_), Some(until)) if until >= now => Standing::Running,
        (Some(due), _) if due > now => Standing::Delayed,
        (Some(_), None) => Standing::Due,
        (Some(_), Some(_)) => Standing::Abandoned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::item::{number, string};

    #[test]
    fn where_a_task_stands_is_told_from_status_due_and_lease() {
        let now = Timestamp::from_millis(1_000_000);
        let item = |attributes: &[(&str, &str)]| {
            let value = |name: &str, text: &str| match name {
                "due" | "lease_until" => number(text),
                _ => string(text),
            };
            let attributes = attributes.iter();
            attributes.map(|(name, text)| ((*name).to_owned(), value(name, text))).collect::<Item>()
        };
        let (queue, past, later) = (("queue", "q"), ("due", "999"), ("due", "1001"));
        for (attributes, expected) in [
            (vec![queue, past], Standing::Due),
            (vec![queue, past, ("status", "nonsense")], Standing::Due),
            (vec![queue, later], Standing::Delayed),
            (vec![queue, past, ("lease_until", "1001"), ("status", "RUNNING")], Standing::Running),
            (vec![queue, past, ("lease_until", "999")], Standing::Abandoned),
            (vec![queue], Standing::Unlisted),
            (vec![past], Standing::Unlisted),
            (vec![queue, ("status", "SUCCEEDED")], Standing::Succeeded),
            (vec![queue, past, ("status", "FAILED")], Standing::Failed),
            (vec![("status", "INVALID")], Standing::Invalid),
            (vec![("status", "CANCELLED")], Standing::Cancelled),
        ] {
            assert_eq!(standing(&item(&attributes), now), expected, "{attributes:?}");
        }
    }

    #[test]
    fn a_task_that_is_due_at_once_has_no_age() {
        let now = Timestamp::from_millis(1_000_000);
        let mut counts = BTreeMap::new();
        for due in ["0", "900", "800.5", "1001"] {
            let entry = [("queue", string("q")), ("due", number(due))];
            let entry = entry.map(|(name, value)| (name.to_owned(), value)).into();
            count_entry(&mut counts, &entry, now);
        }
        let oldest_due = Some(Timestamp::from_millis(800_500));
        assert_eq!(counts["q"], Open { due: 3, delayed: 1, oldest_due });
    }
}

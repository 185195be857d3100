//! Counting tasks: those that the index lists, which is cheap, or all of the table, which is not.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use aws_sdk_dynamodb::types::AttributeValue;

use super::control::{self, MARK, is_control};
use super::desk::Desk;
use super::extent::Sizes;
use super::item::{Item, has_key, name, seconds};
use super::keyed::{KeyedTable, Paged};
use super::patience::patiently;
use super::table::INDEX;
use crate::store::StoreError;
use crate::task::{Status, Timestamp};

/// No more unknown queues than these are told apart, ...
const OTHERS_TOLD: usize = 1000;

/// ... and the others are counted under this name.
const OTHERS: &str = "(others)";

/// What a count of the table looks at.
const TOLD: [(&str, &str); 5] = [
    ("#due", name::DUE),
    ("#lease", name::LEASE_UNTIL),
    ("#mark", MARK),
    ("#queue", name::QUEUE),
    ("#status", name::STATUS),
];

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

/// A count under way, page by page.
#[derive(Debug)]
pub struct Census {
    table: KeyedTable,
    now: Timestamp,
    /// What is left to be read, the first first, ...
    left: VecDeque<Part>,
    /// ... and where its next page begins.
    after: Option<Item>,
    /// Which shards belong to which queue.
    queues: HashMap<String, String>,
    /// Names of others that were met.
    others: HashSet<String>,
    /// What the index lists, by queue; by what the items say there, where nobody knows it.
    pub open: BTreeMap<String, Open>,
    /// All tasks, by that and by where they stand.
    pub all: BTreeMap<(String, Standing), u64>,
}

/// Where tasks are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// This shard of the index.
    Shard(String),
    /// The index.
    Index,
    /// The table.
    Table,
}

impl Desk {
    /// How much there is in the table.
    pub fn sizes(&self) -> Sizes {
        self.table.sizes
    }

    /// A count of these parts, where the queues are known by their shards.
    pub fn census(
        &self,
        parts: impl IntoIterator<Item = Part>,
        queues: HashMap<String, String>,
        now: Timestamp,
    ) -> Census {
        Census {
            table: self.table.clone(),
            now,
            left: parts.into_iter().collect(),
            after: None,
            queues,
            others: HashSet::new(),
            open: BTreeMap::new(),
            all: BTreeMap::new(),
        }
    }
}

impl Census {
    /// Counts the next page. False when there is none.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses, or stays away.
    pub async fn next_page(&mut self) -> Result<bool, StoreError> {
        let Some(part) = self.left.front() else { return Ok(false) };
        let (items, after) = patiently(|| self.read(part)).await?;
        let is_all = *part == Part::Table;
        // In the index, whose entries have nothing else, the control item is known by its key.
        let key = control::key(&self.table);
        for item in items.iter().filter(|item| !is_control(item) && !has_key(item, &key)) {
            let queue = name_of(item, &self.queues, &mut self.others);
            match is_all {
                true => *self.all.entry((queue, standing(item, self.now))).or_default() += 1,
                false => count_entry(&mut self.open, queue, item, self.now),
            }
        }
        self.after = after;
        if self.after.is_none() {
            self.left.pop_front();
        }
        Ok(true)
    }

    async fn read(&self, part: &Part) -> Paged {
        let after = self.after.clone();
        match part {
            Part::Shard(shard) => self.table.listed(shard, None, after).await,
            Part::Index => self.table.scan(self.table.client.scan().index_name(INDEX), after).await,
            Part::Table => {
                let placeholders = TOLD.map(|(placeholder, _)| placeholder).join(", ");
                let request = self.table.client.scan().projection_expression(placeholders);
                let request = TOLD.into_iter().fold(request, |request, (placeholder, name)| {
                    request.expression_attribute_names(placeholder, name)
                });
                self.table.scan(request, after).await
            }
        }
    }
}

/// The queue to count an item under. Items may have anything there: of names that are not known
/// only so many are told apart.
fn name_of(item: &Item, queues: &HashMap<String, String>, others: &mut HashSet<String>) -> String {
    let name = queue(item);
    if let Some(queue) = queues.get(&name) {
        return queue.clone();
    }
    if !others.contains(&name) {
        if others.len() >= OTHERS_TOLD {
            return OTHERS.to_owned();
        }
        others.insert(name.clone());
    }
    name
}

fn count_entry(counts: &mut BTreeMap<String, Open>, queue: String, entry: &Item, now: Timestamp) {
    let Ok(Some(due)) = seconds(entry, name::DUE) else { return };
    let open = counts.entry(queue).or_default();
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
    fn shards_are_their_queue_s_and_a_table_full_of_nonsense_is_counted_in_little_memory() {
        let queues = HashMap::from([("q#7".to_owned(), "q".to_owned())]);
        let mut others = HashSet::new();
        let mut of = |name: &str| {
            let item = Item::from([("queue".to_owned(), string(name))]);
            name_of(&item, &queues, &mut others)
        };
        let names: HashSet<_> = (0..3000).map(|index| of(&format!("x{index}"))).collect();
        assert_eq!(names.len(), 1001);
        assert_eq!((of("x2999"), of("x7"), of("q#7")), (OTHERS.into(), "x7".into(), "q".into()));
    }

    #[test]
    fn a_task_that_is_due_at_once_has_no_age() {
        let now = Timestamp::from_millis(1_000_000);
        let mut counts = BTreeMap::new();
        for due in ["0", "900", "800.5", "1001"] {
            let entry = [("queue", string("q")), ("due", number(due))];
            let entry = entry.map(|(name, value)| (name.to_owned(), value)).into();
            count_entry(&mut counts, "q".to_owned(), &entry, now);
        }
        let oldest_due = Some(Timestamp::from_millis(800_500));
        assert_eq!(counts["q"], Open { due: 3, delayed: 1, oldest_due });
    }
}

//! Many tasks, page by page: never the whole table in memory.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use aws_sdk_dynamodb::types::{KeysAndAttributes, ReturnConsumedCapacity};
use rand::make_rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::control::MARK;
use super::desk::Record;
use super::errors::store_error;
use super::extent::Extent;
use super::filter::{Conditions, Filter};
use super::item::{Item, name};
use super::keyed::{KeyedTable, Paged};
use super::patience::{BACKOFF, TRIES, patiently};
use super::table::INDEX;
use crate::store::{Fault, StoreError};
use crate::task::TaskId;

/// BatchGetItem takes no more keys in one call
/// (docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html).
const KEYS_AT_ONCE: i32 = 100;

const BATCH: &str = "dynamodb:BatchGetItem";

/// What is told of each task; payloads and results stay where they are.
const TOLD: [&str; 9] = [
    name::QUEUE,
    name::STATUS,
    name::ATTEMPT,
    name::DUE,
    name::LEASE_UNTIL,
    name::WORKER,
    name::STARTED_AT,
    name::FINISHED_AT,
    MARK,
];

/// A task that was found, as it stood then. Of its attributes it has those that a list tells.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name.
    pub id: TaskId,
    /// Its item.
    pub record: Record,
}

/// The tasks that a filter means, in the order in which they are found.
#[derive(Debug)]
pub struct Listing {
    table: KeyedTable,
    filter: Filter,
    place: Place,
    /// Where the next page begins.
    after: Option<Item>,
    /// Items of a page of the table; as many as fit in a megabyte when absent.
    page: Option<i32>,
    is_over: bool,
}

/// Where tasks are looked for.
#[derive(Debug)]
enum Place {
    Table,
    /// The index of open tasks.
    Index,
    /// These partitions of it that are left to be read, the first first.
    Shards(VecDeque<String>),
}

impl Listing {
    /// The tasks that `filter` means, of which nobody needs more than `most`. Open tasks of a
    /// queue whose `shards` are known are looked for in these; of an unknown one, everywhere.
    pub(super) fn new(
        table: KeyedTable,
        filter: Filter,
        shards: Vec<String>,
        most: Option<u32>,
    ) -> (Listing, Extent) {
        let place = match (filter.is_of_open_tasks(), shards.is_empty()) {
            (false, _) => Place::Table,
            (true, true) => Place::Index,
            (true, false) => Place::Shards(shards.into()),
        };
        let means_all = match place {
            Place::Table => filter == Filter::default(),
            Place::Index => filter.is_of_all_open_tasks() && filter.queue.is_none(),
            Place::Shards(_) => filter.is_of_all_open_tasks(),
        };
        // One more shows whether there are more; and the control item is none.
        let most = most.filter(|_| means_all).map(|most| most.saturating_add(2));
        let sizes = table.sizes;
        let extent = match place {
            Place::Table => Extent::of_table(&sizes, most),
            Place::Index | Place::Shards(_) => Extent::of_index_and_items(&sizes, most),
        };
        let page = most.and_then(|most| i32::try_from(most).ok());
        (Listing { table, filter, place, after: None, page, is_over: false }, extent)
    }

    /// Whether all is read.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// The next tasks, perhaps none; nothing when all is read.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses, or stays away.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Found>>, StoreError> {
        if self.is_over {
            return Ok(None);
        }
        let (items, after) = patiently(|| self.read()).await?;
        let items = match self.place {
            Place::Table => items,
            _ => self.look_up(items).await?,
        };
        self.after = after;
        if self.after.is_none() {
            self.is_over = match &mut self.place {
                Place::Table | Place::Index => true,
                Place::Shards(left) => {
                    left.pop_front();
                    left.is_empty()
                }
            };
        }
        let found = items.into_iter().filter_map(|item| {
            let id = self.table.task_id(&item)?;
            Some(Found { id, record: Record::new(item) })
        });
        Ok(Some(found.filter(|found| self.filter.matches(&found.record)).collect()))
    }

    /// A page of items, or of index entries, and where the next one begins.
    async fn read(&self) -> Paged {
        match &self.place {
            Place::Table => self.scan().await,
            Place::Index => self.scan_index().await,
            Place::Shards(left) => {
                let shard = left.front().expect("it is not over");
                self.table.listed(shard, Some(self.keys_at_once()), self.after.clone()).await
            }
        }
    }

    /// Entries of the index to read at once, which are looked up together.
    fn keys_at_once(&self) -> i32 {
        self.page.map_or(KEYS_AT_ONCE, |page| page.min(KEYS_AT_ONCE))
    }

    async fn scan(&self) -> Paged {
        let Conditions { clauses, mut names, values } = self.filter.conditions();
        let projection = self.projection(&mut names);
        let request = self.table.client.scan().set_limit(self.page);
        let request = request
            .projection_expression(projection)
            .set_filter_expression((!clauses.is_empty()).then(|| clauses.join(" AND ")))
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values((!values.is_empty()).then_some(values));
        self.table.scan(request, self.after.clone()).await
    }

    async fn scan_index(&self) -> Paged {
        let of_queue = Filter { queue: self.filter.queue.clone(), ..Filter::default() };
        let Conditions { clauses, names, values } = of_queue.conditions();
        let request = self.table.client.scan().index_name(INDEX).limit(self.keys_at_once());
        let request = request
            .set_filter_expression((!clauses.is_empty()).then(|| clauses.join(" AND ")))
            .set_expression_attribute_names((!names.is_empty()).then_some(names))
            .set_expression_attribute_values((!values.is_empty()).then_some(values));
        self.table.scan(request, self.after.clone()).await
    }

    /// The items of index entries, in the entries' order. What is gone is left out.
    async fn look_up(&self, entries: Vec<Item>) -> Result<Vec<Item>, StoreError> {
        let ids: Vec<_> = entries.iter().filter_map(|entry| self.table.task_id(entry)).collect();
        // An entry that is on its way to another place may stand in two.
        let once: HashSet<_> = ids.iter().collect();
        let mut keys: Vec<_> = once.into_iter().map(|id| self.table.key(id)).collect();
        let mut items = HashMap::new();
        let mut rng: StdRng = make_rng();
        let mut tries = 0;
        while !keys.is_empty() {
            let asked = keys.len();
            let (found, left) = patiently(|| self.get(keys.clone())).await?;
            keys = left;
            items.extend(found.into_iter().filter_map(|it| Some((self.table.task_id(&it)?, it))));
            tries = if keys.len() < asked { 0 } else { tries + 1 };
            if tries >= TRIES {
                let message = format!("{asked} items were left unread again and again");
                let code = "Burstd.Unprocessed".to_owned();
                return Err(StoreError::Unavailable(Fault { operation: BATCH, code, message }));
            }
            if !keys.is_empty() {
                sleep(BACKOFF.after(tries + 1, &mut rng)).await;
            }
        }
        Ok(ids.iter().filter_map(|id| items.remove(id)).collect())
    }

    /// One call: the items, and the keys that are still to be read.
    async fn get(&self, keys: Vec<Item>) -> Result<(Vec<Item>, Vec<Item>), StoreError> {
        let mut names = HashMap::new();
        let projection = self.projection(&mut names);
        let keys = KeysAndAttributes::builder()
            .set_keys(Some(keys))
            .projection_expression(projection)
            .set_expression_attribute_names(Some(names))
            .build()
            .expect("the keys are set");
        let request = self
            .table
            .client
            .batch_get_item()
            .request_items(&self.table.name, keys)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = request.send().await.map_err(|error| store_error(BATCH, &error))?;
        for consumed in output.consumed_capacity() {
            self.table.meter.read(Some(consumed));
        }
        let found = output.responses.unwrap_or_default().into_values().flatten().collect();
        let left = output.unprocessed_keys.unwrap_or_default().into_values();
        Ok((found, left.flat_map(|left| left.keys).collect()))
    }

    /// Everything that is told, whichever of it is a key, too.
    fn projection(&self, names: &mut HashMap<String, String>) -> String {
        let mut paths: BTreeMap<&str, String> = BTreeMap::new();
        let keys = [Some(&self.table.partition), self.table.sort.as_ref()].into_iter().flatten();
        for (number, key) in keys.enumerate() {
            paths.insert(&key.name, format!("#key{number}"));
        }
        for attribute in TOLD {
            paths.entry(attribute).or_insert_with(|| format!("#{attribute}"));
        }
        // DynamoDB takes no name that nothing uses, and no path twice.
        names.extend(paths.iter().map(|(name, path)| (path.clone(), (*name).to_owned())));
        if !paths.contains_key(name::ERROR) {
            names.insert("#error".to_owned(), name::ERROR.to_owned());
            names.insert("#type".to_owned(), "type".to_owned());
            paths.insert(name::ERROR, "#error.#type".to_owned());
        }
        paths.into_values().collect::<Vec<_>>().join(", ")
    }
}

//! Inserting tasks, as `burstd put` and `burstd demo` do it. Nobody has to use it: an item put
//! by any other means is as good.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeValue, PutRequest, ReturnConsumedCapacity, ScalarAttributeType, WriteRequest,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, make_rng};
use tokio::time::sleep;

use super::control;
use super::errors::store_error;
use super::item::{Item, has_key, name, no_room, number, objection, string};
use super::keyed::{KeyAttribute, KeyedTable};
use super::patience::{BACKOFF, TRIES};
use crate::store::{Consumed, Fault, StoreError};
use crate::task::Timestamp;

/// BatchWriteItem takes no more items in one call
/// (docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html).
pub const BATCH_LIMIT: usize = 25;

const BATCH: &str = "dynamodb:BatchWriteItem";

/// A task to be inserted.
#[derive(Clone, Debug, Default)]
pub struct NewTask {
    /// The partition key's value as text; bytes in hexadecimal. A random one when absent.
    pub id: Option<String>,
    /// The sort key's value, likewise, in a table that has one.
    pub sort: Option<String>,
    /// Queue or shard.
    pub queue: String,
    /// When it is due.
    pub due: Timestamp,
    /// The event, as JSON text.
    pub payload: Option<String>,
    /// Its own limit of attempts.
    pub max_attempts: Option<u32>,
    /// After this no attempt starts.
    pub deadline: Option<Timestamp>,
    /// An X-Ray trace header.
    pub trace: Option<String>,
}

/// Why a task was not inserted.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// There is a task of this name already; it was left as it is.
    #[error("task {0:?} exists already; it was left as it is")]
    Exists(String),
    /// The task cannot be an item of this table.
    #[error("{0}")]
    Task(String),
    /// DynamoDB did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A task of a batch that cannot be inserted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// Why.
    pub reason: String,
}

/// Inserts tasks into one table.
#[derive(Clone, Debug)]
pub struct Producer {
    table: KeyedTable,
}

impl Producer {
    pub(super) fn new(table: KeyedTable) -> Self {
        Producer { table }
    }

    /// Inserts one task, unless there is one of its name. Says the name.
    ///
    /// # Errors
    ///
    /// When there is one, or the task or DynamoDB forbids it.
    pub async fn put(&self, task: &NewTask) -> Result<String, PutError> {
        let (id, item) = self.item(task).map_err(PutError::Task)?;
        let request = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(#key)")
            .expression_attribute_names("#key", &self.table.partition.name)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match request.send().await {
            Ok(output) => {
                self.table.meter.wrote(output.consumed_capacity());
                Ok(id)
            }
            Err(SdkError::ServiceError(error))
                if error.err().is_conditional_check_failed_exception() =>
            {
                self.table.meter.refused(None);
                Err(PutError::Exists(id))
            }
            Err(error) => Err(store_error("dynamodb:PutItem", &error).into()),
        }
    }

    /// Inserts up to 25 tasks in one call, replacing those of the same names. What DynamoDB
    /// leaves unprocessed is sent again; what it cannot take is returned, and does not stop the
    /// rest.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses them all, or stays away.
    ///
    /// # Panics
    ///
    /// When there are more than 25.
    pub async fn put_all(&self, tasks: &[NewTask]) -> Result<Vec<Rejected>, StoreError> {
        assert!(tasks.len() <= BATCH_LIMIT, "BatchWriteItem takes no more than {BATCH_LIMIT}");
        let mut rejected = Vec::new();
        let mut items = Vec::new();
        for (index, task) in tasks.iter().enumerate() {
            match self.item(task) {
                Ok((_, item)) => items.push((index, item)),
                Err(reason) => rejected.push(Rejected { index, reason }),
            }
        }
        let all: Vec<_> = items.iter().map(|(_, item)| item.clone()).collect();
        match self.write(all).await {
            Ok(()) => {}
            // One bad item spoils a batch, and DynamoDB does not say which.
            Err(StoreError::Rejected(_)) => {
                for (index, item) in items {
                    match self.write(vec![item]).await {
                        Ok(()) => {}
                        Err(StoreError::Rejected(fault)) => {
                            rejected.push(Rejected { index, reason: fault.message });
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
            Err(error) => return Err(error),
        }
        rejected.sort_by_key(|rejected| rejected.index);
        Ok(rejected)
    }

    /// What all insertions so far have cost.
    pub fn consumed(&self) -> Consumed {
        self.table.meter.consumed()
    }

    /// Writes items until all are processed.
    async fn write(&self, mut items: Vec<Item>) -> Result<(), StoreError> {
        let mut rng: StdRng = make_rng();
        for tries in 1.. {
            if items.is_empty() {
                break;
            }
            let last = match self.write_once(std::mem::take(&mut items)).await {
                (unprocessed, None) => {
                    items = unprocessed;
                    Fault {
                        operation: BATCH,
                        code: "Burstd.Unprocessed".to_owned(),
                        message: format!("{} items were left unprocessed again", items.len()),
                    }
                }
                (unsent, Some(StoreError::Unavailable(fault))) => {
                    items = unsent;
                    fault
                }
                (_, Some(error)) => return Err(error),
            };
            if tries >= TRIES && !items.is_empty() {
                return Err(StoreError::Unavailable(last));
            }
            if !items.is_empty() {
                sleep(BACKOFF.after(tries, &mut rng)).await;
            }
        }
        Ok(())
    }

    /// One call: the items that are still to be written, and what went wrong if all are.
    async fn write_once(&self, items: Vec<Item>) -> (Vec<Item>, Option<StoreError>) {
        let put = |item: &Item| {
            let put = PutRequest::builder().set_item(Some(item.clone())).build();
            WriteRequest::builder().put_request(put.expect("the item is set")).build()
        };
        let requests = items.iter().map(put).collect();
        let request = self
            .table
            .client
            .batch_write_item()
            .request_items(&self.table.name, requests)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match request.send().await {
            Ok(output) => {
                for consumed in output.consumed_capacity() {
                    self.table.meter.wrote(Some(consumed));
                }
                let left: HashMap<_, _> = output.unprocessed_items.unwrap_or_default();
                let left = left.into_values().flatten();
                (left.filter_map(|request| Some(request.put_request?.item)).collect(), None)
            }
            Err(error) => (items, Some(store_error(BATCH, &error))),
        }
    }

    /// The item of a task, and the name it goes by.
    fn item(&self, task: &NewTask) -> Result<(String, Item), String> {
        let KeyedTable { partition, sort, .. } = &self.table;
        let id = match &task.id {
            Some(id) => id.clone(),
            None if partition.kind == ScalarAttributeType::S => random_id(),
            None => {
                return Err(format!(
                    "an id is needed: the partition key {} has the type {}",
                    partition.name, partition.kind
                ));
            }
        };
        let mut item = Item::from([
            (name::QUEUE.to_owned(), string(&task.queue)),
            (name::DUE.to_owned(), number(task.due)),
        ]);
        for (name, value) in [
            (name::PAYLOAD, task.payload.as_ref().map(string)),
            (name::MAX_ATTEMPTS, task.max_attempts.map(number)),
            (name::DEADLINE, task.deadline.map(number)),
            (name::TRACE, task.trace.as_ref().map(string)),
        ] {
            if let Some(value) = value {
                item.insert(name.to_owned(), value);
            }
        }
        item.entry(partition.name.clone()).or_insert(key_value(partition, &id)?);
        match (sort, &task.sort) {
            (None, None) => {}
            (Some(sort), Some(value)) => {
                item.entry(sort.name.clone()).or_insert(key_value(sort, value)?);
            }
            (Some(sort), None) if item.contains_key(&sort.name) => {}
            (Some(sort), None) => {
                return Err(format!("a sort is needed: the table has the sort key {}", sort.name));
            }
            (None, Some(_)) => return Err("the table has no sort key, so no sort is taken".into()),
        }
        if has_key(&item, &control::key(&self.table)) {
            return Err(format!("{id:?} is the name of burstd's own notes; give it another"));
        }
        if let Some(wrong) = objection(&item).or_else(|| no_room(&item)) {
            return Err(wrong);
        }
        Ok((id, item))
    }
}

pub(super) fn key_value(key: &KeyAttribute, text: &str) -> Result<AttributeValue, String> {
    let wrong =
        |expected| format!("{text:?} cannot be the key {}: it must be {expected}", key.name);
    match key.kind {
        ScalarAttributeType::N => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(AttributeValue::N(text.to_owned())),
            _ => Err(wrong("a number")),
        },
        ScalarAttributeType::B => {
            let digits = text.as_bytes().chunks(2).map(|pair| {
                let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
                u8::from_str_radix(pair, 16).ok()
            });
            let bytes: Option<Vec<u8>> = digits.collect();
            bytes
                .map(|bytes| AttributeValue::B(Blob::new(bytes)))
                .ok_or_else(|| wrong("bytes in hexadecimal"))
        }
        _ if text.is_empty() => Err(wrong("a text that is not empty")),
        _ => Ok(string(text)),
    }
}

/// 128 random bits.
fn random_id() -> String {
    format!("{:032x}", make_rng::<StdRng>().random::<u128>())
}

//! The operator's desk: single tasks, read and changed from any machine with the rights to the
//! table, whether or not a daemon is up.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure,
};
use serde_json::{Map, Value};

use super::control::{Control, MARK, MARKED, is_control};
use super::errors::store_error;
use super::extent::Extent;
use super::filter::Filter;
use super::item::{
    Item, history, name, no_room, number, objection, read_key_value, seconds, string, write_json,
};
use super::keyed::KeyedTable;
use super::listing::{Found, Listing};
use super::meter::Meter;
use super::patience::patiently;
use super::producer::key_value;
use super::store::read_item;
use super::update::Update;
use crate::claim::Rev;
use crate::store::{Consumed, StoreError};
use crate::task::{Attempt, Status, TaskId, Timestamp};

/// Tasks of one table, one at a time.
#[derive(Clone, Debug)]
pub struct Desk {
    pub(super) table: KeyedTable,
}

/// An item as it stands, whatever it says.
#[derive(Clone, Debug)]
pub struct Record {
    item: Item,
}

/// What came of a change.
#[derive(Clone, Debug)]
pub enum Changed {
    /// It was made; this is how the item was before.
    Made(Record),
    /// The task's status does not allow it; this is how the item is.
    Refused(Record),
    /// There is no such task.
    Missing,
}

impl Desk {
    pub(super) fn new(table: KeyedTable) -> Self {
        Desk { table }
    }

    /// The task with this name, as the log writes it: the partition key's value, bytes in
    /// hexadecimal; in a table with a sort key, then `/` and that key's value.
    ///
    /// # Errors
    ///
    /// When no item of this table can have that name.
    pub fn id(&self, text: &str) -> Result<TaskId, String> {
        let value = |key, text| {
            let value = key_value(key, text)?;
            Ok::<_, String>(read_key_value(&value).expect("a key has a key's type"))
        };
        let table = &self.table;
        let Some(sort) = &table.sort else {
            return Ok(TaskId { partition: value(&table.partition, text)?, sort: None });
        };
        let (partition, rest) = text.split_once('/').ok_or_else(|| {
            format!("{text:?} lacks the sort key: write {}/{}", table.partition.name, sort.name)
        })?;
        let partition = value(&table.partition, partition)?;
        Ok(TaskId { partition, sort: Some(value(sort, rest)?) })
    }

    /// The item as it is now.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses, or is away.
    pub async fn read(&self, id: &TaskId) -> Result<Option<Record>, StoreError> {
        let table = &self.table;
        let request = table.client.get_item().table_name(&table.name);
        let item = read_item(request, table.key(id), &table.meter).await?;
        Ok(item.filter(|item| !is_control(item)).map(|item| Record { item }))
    }

    /// Calls a task off that has not ended. One that runs goes on in Lambda, and what comes of it
    /// is discarded.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses, or is away.
    pub async fn cancel(&self, id: &TaskId, now: Timestamp) -> Result<Changed, StoreError> {
        self.change(id, cancelling(now)).await
    }

    /// The same, of a task that was found, if it is still one that `filter` means.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses, or stays away.
    pub async fn cancel_found(
        &self,
        found: &Found,
        filter: &Filter,
        now: Timestamp,
    ) -> Result<Changed, StoreError> {
        self.change_patiently(&found.id, cancelling(now).require_all(filter.conditions())).await
    }

    /// Has a task run again: one that has ended, from its first attempt on; one that waits for its
    /// `due`, at once. One that runs is left alone.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses, or is away.
    pub async fn retry(&self, id: &TaskId, now: Timestamp) -> Result<Changed, StoreError> {
        match self.change(id, restarting(now)).await? {
            Changed::Refused(record) if record.status() != Some(Status::Running.as_str()) => {
                self.change(id, hastening(now)).await
            }
            changed => Ok(changed),
        }
    }

    /// The same, of a task that was found, if it is still one that `filter` means.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses, or stays away.
    pub async fn retry_found(
        &self,
        found: &Found,
        filter: &Filter,
        now: Timestamp,
    ) -> Result<Changed, StoreError> {
        let update = match found.record.is_final() {
            true => restarting(now),
            false => hastening(now),
        };
        self.change_patiently(&found.id, update.require_all(filter.conditions())).await
    }

    /// The tasks that `filter` means, of which nobody needs more than `most`, and what it takes
    /// to find them. `shards` are those of the filter's queue, where they are known.
    pub fn list(
        &self,
        filter: Filter,
        shards: Vec<String>,
        most: Option<u32>,
    ) -> (Listing, Extent) {
        Listing::new(self.table.clone(), filter, shards, most)
    }

    /// The table's control item.
    pub fn control(&self) -> Control {
        Control::new(self.table.clone())
    }

    async fn change(&self, id: &TaskId, update: Update) -> Result<Changed, StoreError> {
        let rev = Rev::random(&mut rand::make_rng::<rand::rngs::StdRng>());
        send(&self.request(id, update, &rev), &rev, &self.table.meter).await
    }

    /// The same, for as long as it takes.
    async fn change_patiently(&self, id: &TaskId, update: Update) -> Result<Changed, StoreError> {
        let rev = Rev::random(&mut rand::make_rng::<rand::rngs::StdRng>());
        let request = self.request(id, update, &rev);
        patiently(|| send(&request, &rev, &self.table.meter)).await
    }

    fn request(&self, id: &TaskId, update: Update, rev: &Rev) -> UpdateItemFluentBuilder {
        let update = update
            .set(name::REV, string(rev.as_str()))
            .require(&self.table.partition.name, "attribute_exists({})")
            .require(MARK, "(attribute_not_exists({}) OR {} <> :marked)")
            .value(":marked", string(MARKED));
        let request = self
            .table
            .client
            .update_item()
            .table_name(&self.table.name)
            .set_key(Some(self.table.key(id)))
            .return_values(aws_sdk_dynamodb::types::ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        update.into_request(request)
    }

    /// What all calls so far have cost.
    pub fn consumed(&self) -> Consumed {
        self.table.meter.consumed()
    }
}

/// One try of a change.
async fn send(
    request: &UpdateItemFluentBuilder,
    rev: &Rev,
    meter: &Meter,
) -> Result<Changed, StoreError> {
    match request.clone().send().await {
        Ok(output) => {
            meter.wrote(output.consumed_capacity());
            Ok(Changed::Made(Record { item: output.attributes.unwrap_or_default() }))
        }
        Err(SdkError::ServiceError(failure))
            if failure.err().is_conditional_check_failed_exception() =>
        {
            let UpdateItemError::ConditionalCheckFailedException(failure) = failure.into_err()
            else {
                unreachable!("it is one");
            };
            meter.refused(failure.item.as_ref());
            Ok(match failure.item {
                // A call that was sent again after its reply was lost finds its own write.
                Some(item) if text(&item, name::REV) == Some(rev.as_str()) => {
                    Changed::Made(Record { item })
                }
                Some(item) if !is_control(&item) => Changed::Refused(Record { item }),
                _ => Changed::Missing,
            })
        }
        Err(error) => Err(store_error("dynamodb:UpdateItem", &error)),
    }
}

/// Calls an open task off. If it runs, its lease stays on the item, so that nobody runs it again
/// beside its former self.
fn cancelling(now: Timestamp) -> Update {
    let update = Update::default()
        .set(name::STATUS, string(Status::Cancelled.as_str()))
        .set(name::FINISHED_AT, number(now))
        .remove(name::DUE);
    allowing(update, &[Status::Pending, Status::Running], true)
}

/// Has a task that has ended run again, from its first attempt on; one that was cancelled while it
/// ran, when its lease has ended.
fn restarting(now: Timestamp) -> Update {
    let update = Update::default()
        .set(name::DUE, number(now))
        .remove(name::STATUS)
        .remove(name::ATTEMPT)
        .remove(name::FINISHED_AT)
        .remove(name::EXPIRES_AT);
    let ended = Status::ALL.into_iter().filter(|status| status.is_final()).collect::<Vec<_>>();
    allowing(update, &ended, false)
}

/// Has a task that waits run at once.
fn hastening(now: Timestamp) -> Update {
    allowing(Update::default().set(name::DUE, number(now)), &[Status::Pending], true)
}

/// Allows a write to a task with one of these statuses; or with none, as a new one has.
fn allowing(update: Update, statuses: &[Status], or_none: bool) -> Update {
    let names: Vec<_> = statuses.iter().map(|status| format!(":{}", status.as_str())).collect();
    let is_one = format!("{{}} IN ({})", names.join(", "));
    let condition = match or_none {
        true => format!("(attribute_not_exists({{}}) OR {is_one})"),
        false => is_one,
    };
    let update = update.require(name::STATUS, &condition);
    statuses
        .iter()
        .zip(names)
        .fold(update, |update, (status, name)| update.value(&name, string(status.as_str())))
}

fn text<'a>(item: &'a Item, attribute: &str) -> Option<&'a str> {
    item.get(attribute)?.as_s().ok().map(String::as_str)
}

impl Record {
    pub(super) fn new(item: Item) -> Self {
        Record { item }
    }

    /// An item that says this, in texts and in numbers.
    #[cfg(test)]
    pub(crate) fn saying(texts: &[(&str, &str)], numbers: &[(&str, &str)]) -> Self {
        let texts = texts.iter().map(|(name, text)| ((*name).to_owned(), string(*text)));
        let numbers = numbers.iter().map(|(name, text)| ((*name).to_owned(), number(text)));
        Record { item: texts.chain(numbers).collect() }
    }

    pub(super) fn item(&self) -> &Item {
        &self.item
    }

    /// Whether it has an attribute, of whatever type.
    pub fn has(&self, attribute: &str) -> bool {
        self.item.contains_key(attribute)
    }

    /// Whether its task has ended.
    pub fn is_final(&self) -> bool {
        self.status().and_then(Status::parse).is_some_and(Status::is_final)
    }

    /// Its status; nothing on a new item.
    pub fn status(&self) -> Option<&str> {
        text(&self.item, name::STATUS)
    }

    /// A text attribute.
    pub fn text(&self, attribute: &str) -> Option<&str> {
        text(&self.item, attribute)
    }

    /// A number's digits, or a text.
    pub fn word(&self, attribute: &str) -> Option<&str> {
        match self.item.get(attribute)? {
            AttributeValue::S(word) | AttributeValue::N(word) => Some(word),
            _ => None,
        }
    }

    /// A moment.
    ///
    /// # Errors
    ///
    /// When there is something else, with what is wrong about it.
    pub fn moment(&self, attribute: &str) -> Result<Option<Timestamp>, String> {
        seconds(&self.item, attribute)
    }

    /// Why it cannot be read as a task, if it cannot.
    pub fn objection(&self) -> Option<String> {
        objection(&self.item)
    }

    /// Why it has no room for a claim, if it has none.
    pub fn no_room(&self) -> Option<String> {
        no_room(&self.item)
    }

    /// The last few attempts, oldest first; none when they cannot be read.
    pub fn history(&self) -> Vec<Attempt> {
        history(&self.item).unwrap_or_default()
    }

    /// A part of the last error: `type`, `message` or `log`.
    pub fn error(&self, part: &str) -> Option<&str> {
        text(self.item.get(name::ERROR)?.as_m().ok()?, part)
    }

    /// All of it, each attribute as the JSON that it would be in a payload. Sets and bytes, which
    /// JSON does not have, are described.
    pub fn to_json(&self) -> Value {
        let mut names: Vec<_> = self.item.keys().collect();
        names.sort();
        let value = |name: &String| {
            let mut json = String::new();
            let written = write_json(&self.item[name], name, &mut json);
            let value = written.ok().and_then(|()| serde_json::from_str(&json).ok());
            value.unwrap_or_else(|| Value::from(format!("{:?}", self.item[name])))
        };
        let members = names.into_iter().map(|name| (name.clone(), value(name)));
        Value::Object(members.collect::<Map<_, _>>())
    }
}

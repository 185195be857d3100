//! The table of tasks in DynamoDB. Each write is one UpdateItem whose condition is its proof of
//! right, and which recognises itself when its reply was lost.

use std::sync::Arc;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::get_item::builders::GetItemFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::control::Control;
use super::errors::store_error;
use super::item::{self, Item, name, number, string};
use super::keyed::KeyedTable;
use super::meter::Meter;
use super::settling::{make_room, settling};
use super::table::INDEX;
use super::update::Update;
use crate::claim::{Rev, Standing, Terms};
use crate::invoker::Failure;
use crate::retry::Settlement;
use crate::store::{
    CLAIMS_AT_ONCE, Candidate, Claimed, Consumed, Cursor, DueQuery, Fault, Page, Store, StoreError,
    Write,
};
use crate::task::{Status, TaskId};

/// Calls to DynamoDB under way at once. More only wait in line at the other end.
const CALLS_AT_ONCE: usize = CLAIMS_AT_ONCE + 16;

const QUERY: &str = "dynamodb:Query";
const UPDATE: &str = "dynamodb:UpdateItem";
const GET: &str = "dynamodb:GetItem";

/// A table whose keys and index are known to be as burstd needs them.
#[derive(Clone, Debug)]
pub struct DynamoStore {
    table: KeyedTable,
    control: Control,
    calls: Arc<Semaphore>,
}

/// What came of an update.
enum Updated {
    /// It is written; the item as it is now, if that was asked for.
    Yes(Item),
    /// The condition did not hold; the item as it was found, if there is one.
    No(Option<Item>),
}

impl DynamoStore {
    pub(super) fn new(table: KeyedTable) -> Self {
        let calls = Arc::new(Semaphore::new(CALLS_AT_ONCE));
        let control = Control::new(KeyedTable { meter: Arc::default(), ..table.clone() });
        DynamoStore { table, control, calls }
    }

    /// What the calls about tasks have cost, those about the control item aside.
    pub fn spent_on_tasks(&self) -> Consumed {
        self.table.meter.consumed()
    }

    /// The table's control item.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    async fn slot(&self) -> SemaphorePermit<'_> {
        self.calls.acquire().await.expect("the semaphore is never closed")
    }

    async fn update(
        &self,
        id: &TaskId,
        update: Update,
        values: ReturnValue,
    ) -> Result<Updated, StoreError> {
        let slot = self.slot().await;
        let request = self
            .table
            .client
            .update_item()
            .table_name(&self.table.name)
            .set_key(Some(self.table.key(id)))
            .return_values(values)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = update.into_request(request).send().await;
        drop(slot);
        match answer {
            Ok(output) => {
                self.table.meter.wrote(output.consumed_capacity());
                Ok(Updated::Yes(output.attributes.unwrap_or_default()))
            }
            Err(error) => match refused(&error) {
                None => Err(store_error(UPDATE, &error)),
                Some(found) => {
                    self.table.meter.refused(found);
                    // Older emulators do not say what they found; and there may be no item.
                    Ok(Updated::No(match found {
                        Some(found) => Some(found.clone()),
                        None => self.read(id).await?,
                    }))
                }
            },
        }
    }

    /// The item as it stands, by a consistent read.
    async fn read(&self, id: &TaskId) -> Result<Option<Item>, StoreError> {
        let _slot = self.slot().await;
        let table = &self.table;
        let request = table.client.get_item().table_name(&table.name);
        read_item(request, table.key(id), &table.meter).await
    }

    /// A write under a held claim.
    async fn write(&self, id: &TaskId, rev: &Rev, update: Update) -> Result<Write, StoreError> {
        match self.update(id, update, ReturnValue::None).await? {
            Updated::Yes(_) => Ok(Write::Applied),
            Updated::No(Some(found)) if has_rev(&found, rev.as_str()) => Ok(Write::Applied),
            Updated::No(found) => Ok(Write::Lost(standing(found.as_ref()))),
        }
    }

    /// Marks an item that is no task, provided that it is still the one that was read.
    async fn invalidate(
        &self,
        id: &TaskId,
        found: &Item,
        terms: &Terms,
        reason: String,
    ) -> Result<Claimed, StoreError> {
        let failure = Failure::new("Burstd.Invalid", reason.clone());
        let rev = rev_of_invalidation(terms);
        let update = Update::default()
            .set(name::STATUS, string(Status::Invalid.as_str()))
            .set(name::ERROR, item::error(&failure))
            .set(name::FINISHED_AT, number(terms.now))
            .set(name::REV, string(&rev))
            .remove(name::LEASE_UNTIL)
            .remove(name::DUE)
            .require(name::DUE, "attribute_exists({})");
        let update = match found.get(name::REV) {
            Some(seen) => update.require(name::REV, "{} = :seen").value(":seen", seen.clone()),
            None => update.require(name::REV, "attribute_not_exists({})"),
        };
        // A claim that was won counted an attempt, and no function ran.
        let update = if has_rev(found, terms.rev.as_str()) {
            update.set_to(name::ATTEMPT, "{} = {} - :one").value(":one", number(1))
        } else {
            update
        };
        match self.update(id, update, ReturnValue::None).await? {
            Updated::Yes(_) => Ok(Claimed::Invalid(reason)),
            Updated::No(Some(now)) if has_rev(&now, &rev) => Ok(Claimed::Invalid(reason)),
            Updated::No(now) => Ok(Claimed::Lost(standing(now.as_ref()))),
        }
    }

    /// A won claim, or the reason why there is nothing to run.
    async fn won(&self, id: &TaskId, item: Item, terms: &Terms) -> Result<Claimed, StoreError> {
        match item::read_task(id, &item) {
            Ok(task) => Ok(Claimed::Won(Box::new(task))),
            Err(reason) => self.invalidate(id, &item, terms, reason).await,
        }
    }
}

/// The item with this key as it stands, by a consistent read.
pub(super) async fn read_item(
    request: GetItemFluentBuilder,
    key: Item,
    meter: &Meter,
) -> Result<Option<Item>, StoreError> {
    let request = request.set_key(Some(key)).consistent_read(true);
    let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
    let output = request.send().await.map_err(|error| store_error(GET, &error))?;
    meter.read(output.consumed_capacity());
    Ok(output.item)
}

impl Store for DynamoStore {
    async fn due(&self, query: DueQuery<'_>) -> Result<Page, StoreError> {
        let _slot = self.slot().await;
        let after = query.after.map(|cursor| {
            let mut key = self.table.key(&cursor.id);
            key.insert(name::QUEUE.to_owned(), string(query.shard));
            key.insert(name::DUE.to_owned(), AttributeValue::N(cursor.due.clone()));
            key
        });
        let output = self
            .table
            .client
            .query()
            .table_name(&self.table.name)
            .index_name(INDEX)
            .key_condition_expression("#queue = :queue AND #due <= :now")
            .expression_attribute_names("#queue", name::QUEUE)
            .expression_attribute_names("#due", name::DUE)
            .expression_attribute_values(":queue", string(query.shard))
            .expression_attribute_values(":now", number(query.now))
            .limit(i32::try_from(query.limit).unwrap_or(i32::MAX))
            .set_exclusive_start_key(after)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await
            .map_err(|error| store_error(QUERY, &error))?;
        self.table.meter.read(output.consumed_capacity());
        let entries = output.items.as_deref().unwrap_or_default();
        let candidates = entries.iter().filter_map(|entry| {
            let due = item::seconds(entry, name::DUE).ok().flatten()?;
            Some(Candidate { id: self.table.task_id(entry)?, due })
        });
        let next = output.last_evaluated_key.as_ref().and_then(|key| {
            let due = key.get(name::DUE)?.as_n().ok()?.clone();
            Some(Cursor { id: self.table.task_id(key)?, due })
        });
        Ok(Page { candidates: candidates.collect(), next })
    }

    async fn claim(&self, id: &TaskId, terms: &Terms) -> Result<Claimed, StoreError> {
        let mut updated = self.update(id, claiming(terms), ReturnValue::AllNew).await;
        // An attempt before may have filled the item.
        if matches!(&updated, Err(StoreError::Rejected(fault)) if is_too_large(fault)) {
            let update = make_room(claiming(terms)).remove(name::FINISHED_AT);
            updated = self.update(id, update, ReturnValue::AllNew).await;
        }
        let found = match updated? {
            // A claim that is sent again recognises itself, and shows the item then.
            Updated::Yes(item) if item.is_empty() => {
                let message = "the reply to a claim does not show the item".to_owned();
                let code = "Burstd.EmptyReply".to_owned();
                return Err(StoreError::Unavailable(Fault { operation: UPDATE, code, message }));
            }
            Updated::Yes(item) => return self.won(id, item, terms).await,
            Updated::No(None) => return Ok(Claimed::Lost(Standing::default())),
            Updated::No(Some(found)) => found,
        };
        if has_rev(&found, terms.rev.as_str()) {
            return self.won(id, found, terms).await;
        }
        if has_rev(&found, &rev_of_invalidation(terms)) {
            return Ok(Claimed::Invalid(item::error_message(&found)));
        }
        let is_due = item::seconds(&found, name::DUE).ok().flatten();
        let is_due = is_due.is_some_and(|due| due <= terms.now);
        match item::unclaimable(&found).filter(|_| is_due) {
            Some(reason) => self.invalidate(id, &found, terms, reason).await,
            None => Ok(Claimed::Lost(item::standing(&found))),
        }
    }

    async fn extend(&self, id: &TaskId, held: &Rev, terms: &Terms) -> Result<Write, StoreError> {
        let update = held_by(held)
            .set(name::LEASE_UNTIL, number(terms.lease_until))
            .set(name::REV, string(terms.rev.as_str()));
        self.write(id, &terms.rev, update).await
    }

    async fn settle(
        &self,
        id: &TaskId,
        held: &Rev,
        settlement: &Settlement,
    ) -> Result<Write, StoreError> {
        self.write(id, &settlement.rev, settling(held, settlement)).await
    }

    fn table(&self) -> &str {
        &self.table.name
    }

    fn consumed(&self) -> Consumed {
        self.table.meter.consumed() + self.control.consumed()
    }
}

/// The update that takes a task.
fn claiming(terms: &Terms) -> Update {
    Update::default()
        .set(name::STATUS, string(Status::Running.as_str()))
        .set(name::LEASE_UNTIL, number(terms.lease_until))
        .set(name::WORKER, string(&terms.worker))
        .set(name::REV, string(terms.rev.as_str()))
        .set(name::STARTED_AT, number(terms.now))
        .set_to(name::ATTEMPT, "{} = if_not_exists({}, :zero) + :one")
        .require(name::DUE, "{} <= :now")
        .require(name::LEASE_UNTIL, "(attribute_not_exists({}) OR {} < :now)")
        .require(name::STATUS, "(attribute_not_exists({}) OR {} IN (:pending, :status))")
        .require(name::ATTEMPT, "(attribute_not_exists({}) OR attribute_type({}, :n))")
        // Sent again after its own lease it must not count twice.
        .require(name::REV, "(attribute_not_exists({}) OR {} <> :rev)")
        .value(":now", number(terms.now))
        .value(":zero", number(0))
        .value(":one", number(1))
        .value(":n", string("N"))
        .value(":pending", string(Status::Pending.as_str()))
}

/// An update that only the holder of the claim may do. A person who changed the status by hand
/// has taken the claim away, whatever the token says.
pub(super) fn held_by(held: &Rev) -> Update {
    Update::default()
        .require(name::REV, "{} = :held")
        .require(name::STATUS, "{} = :running")
        .value(":held", string(held.as_str()))
        .value(":running", string(Status::Running.as_str()))
}

/// The token of the write that makes an item `INVALID`: as fresh as the claim's, and the same
/// when the claim is sent again.
fn rev_of_invalidation(terms: &Terms) -> String {
    format!("{}-invalid", terms.rev.as_str())
}

/// Whether the item would be larger than DynamoDB allows, which has no code of its own.
fn is_too_large(fault: &Fault) -> bool {
    fault.message.contains("Item size")
}

fn has_rev(item: &Item, rev: &str) -> bool {
    matches!(item.get(name::REV), Some(AttributeValue::S(found)) if found == rev)
}

fn standing(found: Option<&Item>) -> Standing {
    found.map(item::standing).unwrap_or_default()
}

/// Whether the error says that the condition did not hold, and the item if it shows it.
fn refused<R>(error: &SdkError<UpdateItemError, R>) -> Option<Option<&Item>> {
    match error.as_service_error()? {
        UpdateItemError::ConditionalCheckFailedException(refusal) => {
            Some(refusal.item().filter(|item| !item.is_empty()))
        }
        _ => None,
    }
}

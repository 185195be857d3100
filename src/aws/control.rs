//! The control item: the one item of the table that is no task. burstd keeps there what must hold
//! whichever machine it is asked on: the runs of `burstd retry` by filter that are unfinished, the
//! queues that are paused, and how things stand with each worker.

use std::time::Duration;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValue, ScalarAttributeType,
};

use super::errors::store_error;
use super::item::{Item, number, seconds, string};
use super::keyed::{KeyAttribute, KeyedTable};
use super::store::read_item;
use crate::store::{Consumed, Fault, StoreError};
use crate::task::Timestamp;

/// The control item's key, in a table whose keys are texts or bytes, ...
const NAME: &str = "burstd#control";

/// ... and where they are numbers.
const NUMBER: &str = "-108262613644388";

/// The attribute by which the control item is known, ...
pub(super) const MARK: &str = "burstd";

/// ... and what it says there.
pub(super) const MARKED: &str = "control";

/// Nobody goes on with a run that began longer ago.
const RUN_LASTS: Duration = Duration::from_secs(24 * 3600);

/// As many old runs are cleared away at once.
const CLEARED: usize = 50;

const UPDATE: &str = "dynamodb:UpdateItem";

/// The control item of one table.
#[derive(Clone, Debug)]
pub struct Control {
    table: KeyedTable,
}

/// An unfinished run of a command by filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: String,
    /// Its filter, in words that mean one filter only.
    pub filter: String,
    /// When it began.
    pub began: Timestamp,
    /// Who began it: user@host.
    pub by: String,
}

impl Control {
    pub(super) fn new(table: KeyedTable) -> Self {
        Control { table }
    }

    /// Notes that a run begins. If the same run was begun within a day and never ended, that one
    /// goes on: it is returned. Otherwise this one is.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses or is away, or a task has the control item's name.
    pub async fn begin_run(&self, run: &Run) -> Result<Run, StoreError> {
        let item = self.item().await?;
        let is_over = item.contains_key(&run.attribute()) && unfinished_in(&item, run)?.is_none();
        // Of two who begin at the same moment, the second goes on with the first one's.
        let clause = if is_over { "#run = :run" } else { "#run = if_not_exists(#run, :run)" };
        self.note_run(run, clause, &old_runs(&item, run)).await
    }

    /// Notes that a run begins, whether or not the same run has ended.
    ///
    /// # Errors
    ///
    /// As [`Control::begin_run`].
    pub async fn begin_run_afresh(&self, run: &Run) -> Result<Run, StoreError> {
        let item = self.item().await?;
        self.note_run(run, "#run = :run", &old_runs(&item, run)).await
    }

    /// Notes a run, and clears away the `old` ones.
    async fn note_run(&self, run: &Run, clause: &str, old: &[String]) -> Result<Run, StoreError> {
        let (own, value) = (run.attribute(), (":run", run.to_attribute()));
        let item = self.set(clause, ("#run", &own), value, old).await?;
        item.get(&run.attribute()).and_then(Run::read).ok_or_else(|| unreadable(run))
    }

    /// The same run, if it was begun within a day and has not ended.
    ///
    /// # Errors
    ///
    /// As [`Control::begin_run`].
    pub async fn unfinished(&self, run: &Run) -> Result<Option<Run>, StoreError> {
        unfinished_in(&self.item().await?, run)
    }

    /// Notes that a run has ended. One that began after it stays.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses, or is away.
    pub async fn end_run(&self, run: &Run) -> Result<(), StoreError> {
        let request = self
            .request()
            .update_expression("REMOVE #run")
            .condition_expression("#run.#began = :began")
            .expression_attribute_names("#run", run.attribute())
            .expression_attribute_names("#began", "began")
            .expression_attribute_values(":began", number(run.began));
        self.send(request).await.map(drop)
    }

    /// Sets an attribute of the item, which is made if it is not there, and takes others off it.
    /// Returns the item as it is then.
    pub(super) async fn set(
        &self,
        clause: &str,
        (name, attribute): (&str, &str),
        (placeholder, value): (&str, AttributeValue),
        gone: &[String],
    ) -> Result<Item, StoreError> {
        let mut update = format!("SET #mark = :marked, {clause}");
        let mut request = self
            .request()
            .condition_expression("attribute_not_exists(#key) OR #mark = :marked")
            .expression_attribute_names("#mark", MARK)
            .expression_attribute_names("#key", &self.table.partition.name)
            .expression_attribute_names(name, attribute)
            .expression_attribute_values(":marked", string(MARKED))
            .expression_attribute_values(placeholder, value)
            .return_values(ReturnValue::AllNew);
        for (number, attribute) in gone.iter().enumerate() {
            let before = if number == 0 { " REMOVE" } else { "," };
            update += &format!("{before} #gone{number}");
            request = request.expression_attribute_names(format!("#gone{number}"), attribute);
        }
        let answer = self.send(request.update_expression(update)).await?;
        answer.ok_or_else(|| self.taken())
    }

    /// Takes an attribute off the item, if it is there.
    pub(super) async fn remove(&self, attribute: &str) -> Result<(), StoreError> {
        let request = self
            .request()
            .update_expression("REMOVE #attribute")
            .condition_expression("#mark = :marked AND attribute_exists(#attribute)")
            .expression_attribute_names("#attribute", attribute)
            .expression_attribute_names("#mark", MARK)
            .expression_attribute_values(":marked", string(MARKED));
        self.send(request).await.map(drop)
    }

    fn request(&self) -> UpdateItemFluentBuilder {
        let request = self.table.client.update_item().table_name(&self.table.name);
        let request = request.set_key(Some(self.key()));
        request.return_consumed_capacity(ReturnConsumedCapacity::Total)
    }

    /// The attributes that an update shows; nothing when its condition did not hold.
    async fn send(&self, request: UpdateItemFluentBuilder) -> Result<Option<Item>, StoreError> {
        match request.send().await {
            Ok(output) => {
                self.table.meter.wrote(output.consumed_capacity());
                Ok(Some(output.attributes.unwrap_or_default()))
            }
            Err(SdkError::ServiceError(failure))
                if failure.err().is_conditional_check_failed_exception() =>
            {
                self.table.meter.refused(None);
                Ok(None)
            }
            Err(error) => Err(store_error(UPDATE, &error)),
        }
    }

    /// The item as it is; empty when there is none yet.
    pub(super) async fn item(&self) -> Result<Item, StoreError> {
        let request = self.table.client.get_item().table_name(&self.table.name);
        match read_item(request, self.key(), &self.table.meter).await? {
            None => Ok(Item::new()),
            Some(item) if is_control(&item) => Ok(item),
            Some(_) => Err(self.taken()),
        }
    }

    fn key(&self) -> Item {
        key(&self.table)
    }

    fn taken(&self) -> StoreError {
        let id = self.table.task_id(&self.key()).expect("its key is a key");
        let message = format!(
            "a task of {:?} has the name {id}, under which burstd keeps its own notes: give the \
             task another name",
            self.table.name
        );
        refused("Burstd.NameTaken", message)
    }

    /// What all calls so far have cost.
    pub fn consumed(&self) -> Consumed {
        self.table.meter.consumed()
    }
}

/// The control item's key in this table.
pub(super) fn key(table: &KeyedTable) -> Item {
    let value = |key: &KeyAttribute| match key.kind {
        ScalarAttributeType::N => AttributeValue::N(NUMBER.to_owned()),
        ScalarAttributeType::B => AttributeValue::B(Blob::new(NAME)),
        _ => string(NAME),
    };
    let keys = [Some(&table.partition), table.sort.as_ref()].into_iter().flatten();
    keys.map(|key| (key.name.clone(), value(key))).collect()
}

/// Whether this is the control item, and so no task.
pub(super) fn is_control(item: &Item) -> bool {
    matches!(item.get(MARK), Some(AttributeValue::S(mark)) if mark == MARKED)
}

fn refused(code: &str, message: String) -> StoreError {
    StoreError::Refused(Fault { operation: UPDATE, code: code.to_owned(), message })
}

/// The same run on the item, if it was begun within a day and has not ended.
fn unfinished_in(item: &Item, run: &Run) -> Result<Option<Run>, StoreError> {
    let Some(noted) = item.get(&run.attribute()) else { return Ok(None) };
    let noted = Run::read(noted).ok_or_else(|| unreadable(run))?;
    Ok((!noted.is_old(run.began)).then_some(noted))
}

/// The attributes of other runs that nobody goes on with any more; not too many at once.
fn old_runs(item: &Item, run: &Run) -> Vec<String> {
    let runs = item.iter().filter_map(|(name, value)| Some((name, Run::read(value)?)));
    let old = runs.filter(|(name, noted)| noted.is_old(run.began) && **name != run.attribute());
    old.map(|(name, _)| name.clone()).take(CLEARED).collect()
}

fn unreadable(run: &Run) -> StoreError {
    let message = format!("what is noted as {:?} on the control item is no run", run.attribute());
    refused("Burstd.NoRun", message)
}

impl Run {
    /// The attribute of the control item that stands for it.
    fn attribute(&self) -> String {
        format!("run {:016x}", hash(&format!("{} {}", self.command, self.filter)))
    }

    fn is_old(&self, now: Timestamp) -> bool {
        now.since(self.began) > RUN_LASTS
    }

    fn to_attribute(&self) -> AttributeValue {
        let run = Item::from([
            ("command".to_owned(), string(&self.command)),
            ("filter".to_owned(), string(&self.filter)),
            ("began".to_owned(), number(self.began)),
            ("by".to_owned(), string(&self.by)),
        ]);
        AttributeValue::M(run)
    }

    fn read(value: &AttributeValue) -> Option<Run> {
        let run = value.as_m().ok()?;
        let text = |name| run.get(name)?.as_s().ok().cloned();
        Some(Run {
            command: text("command")?,
            filter: text("filter")?,
            began: seconds(run, "began").ok()??,
            by: text("by")?,
        })
    }
}

/// FNV-1a: the same in every version of burstd, unlike the hashes of the standard library.
fn hash(text: &str) -> u64 {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read_back_as_it_was_noted() {
        let run = Run {
            command: "retry".to_owned(),
            filter: "--status FAILED".to_owned(),
            began: Timestamp::from_millis(1_763_800_000_250),
            by: "ada@host".to_owned(),
        };
        assert_eq!(Run::read(&run.to_attribute()), Some(run.clone()));
        assert_eq!(Run::read(&string("no run")), None);
        let other = Run { filter: "--status INVALID".to_owned(), ..run.clone() };
        assert_ne!(run.attribute(), other.attribute());
    }

    #[test]
    fn the_hash_is_fnv_1a_whose_values_are_published() {
        // www.isthe.com/chongo/src/fnv/test_fnv.c
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }
}

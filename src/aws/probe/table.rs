//! The table: how it looks, and what we may do with its items.

use aws_sdk_dynamodb::types::{IndexStatus, KeyType, ReturnConsumedCapacity, TableStatus};

use super::{Endpoint, Probe, ask, measure};
use crate::aws::item::{Item, name, number, string};
use crate::aws::keyed::KeyAttribute;
use crate::aws::producer::key_value;
use crate::aws::table::{
    Difference, INDEX, index, index_differences, key_attribute, ttl_difference,
};
use crate::aws::update::Update;
use crate::store::Fault;
use crate::task::Timestamp;

const DESCRIBE: &str = "dynamodb:DescribeTable";
const GET: &str = "dynamodb:GetItem";
const UPDATE: &str = "dynamodb:UpdateItem";

/// How a table looks.
#[derive(Clone, Debug)]
pub struct Survey {
    /// What it is doing instead of being ready, if it is not.
    pub busy: Option<String>,
    /// What its index is doing instead of being ready, if it is not.
    pub index_busy: Option<String>,
    /// How the index differs from what burstd needs.
    pub differences: Vec<Difference>,
    partition: KeyAttribute,
    sort: Option<KeyAttribute>,
}

impl Survey {
    /// The primary key in words.
    pub fn keys(&self) -> String {
        let word = |key: &KeyAttribute| format!("{} ({})", key.name, key.kind);
        match &self.sort {
            None => word(&self.partition),
            Some(sort) => format!("{} and {}", word(&self.partition), word(sort)),
        }
    }

    /// A key of this table that no item has.
    fn nobody(&self, text: &str) -> Item {
        let keys = std::iter::once(&self.partition).chain(&self.sort);
        let value = |key| key_value(key, text).expect("digits are a key of any type");
        keys.map(|key| (key.name.clone(), value(key))).collect()
    }
}

impl Probe {
    /// How far away DynamoDB is.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn dynamodb(&self) -> Result<Endpoint, Fault> {
        // In another table's key this is an error, which is an answer, too.
        let key = Item::from([(name::ID.to_owned(), string(&self.nobody))]);
        measure(GET, &self.clients.tables, async || {
            let request = self.clients.dynamodb.get_item().table_name(&self.table);
            let request = request.set_key(Some(key.clone()));
            let answer =
                request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await;
            if let Ok(output) = &answer {
                self.meter.read(output.consumed_capacity());
            }
            answer
        })
        .await
    }

    /// How the table looks.
    ///
    /// # Errors
    ///
    /// When it is not told, or there is none.
    pub async fn survey(&self) -> Result<Survey, Fault> {
        let request = self.clients.dynamodb.describe_table().table_name(&self.table);
        let output = ask(DESCRIBE, request.send()).await?;
        let empty = || {
            let message = "the reply does not describe the table".to_owned();
            Fault { operation: DESCRIBE, code: "Burstd.EmptyReply".to_owned(), message }
        };
        let table = output.table.ok_or_else(empty)?;
        let schema = table.key_schema();
        let partition = key_attribute(&table, schema, &KeyType::Hash).ok_or_else(empty)?;
        let busy = match table.table_status() {
            Some(TableStatus::Active | TableStatus::Updating) | None => None,
            Some(status) => Some(status.as_str().to_owned()),
        };
        let index_busy = match index(&table).and_then(|index| index.index_status()) {
            Some(IndexStatus::Active | IndexStatus::Updating) | None => None,
            Some(status) => Some(status.as_str().to_owned()),
        };
        let sort = key_attribute(&table, schema, &KeyType::Range);
        Ok(Survey { busy, index_busy, differences: index_differences(&table), partition, sort })
    }

    /// How TTL differs from what deletes finished tasks; nothing when it does not.
    ///
    /// # Errors
    ///
    /// When it is not told.
    pub async fn ttl(&self) -> Result<Option<Difference>, Fault> {
        let request = self.clients.dynamodb.describe_time_to_live().table_name(&self.table);
        let output = ask("dynamodb:DescribeTimeToLive", request.send()).await?;
        Ok(ttl_difference(&output))
    }

    /// Reads an item that is not there.
    ///
    /// # Errors
    ///
    /// When we may not, or could not.
    pub async fn try_read(&self, survey: &Survey) -> Result<(), Fault> {
        let request = self.clients.dynamodb.get_item().table_name(&self.table);
        let request = request.set_key(Some(survey.nobody(&self.nobody))).consistent_read(true);
        let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = ask(GET, request.send()).await?;
        self.meter.read(output.consumed_capacity());
        Ok(())
    }

    /// Updates an item that is not there, under a condition that no item can meet.
    ///
    /// # Errors
    ///
    /// When we may not, or could not.
    pub async fn try_update(&self, survey: &Survey) -> Result<(), Fault> {
        let key = &survey.partition.name;
        let never = Update::default()
            .set(name::REV, string("burstd-doctor"))
            .require(key, "attribute_exists({}) AND attribute_not_exists({})");
        let request = self.clients.dynamodb.update_item().table_name(&self.table);
        let request = request.set_key(Some(survey.nobody(&self.nobody)));
        let answer = ask(UPDATE, never.into_request(request).send()).await;
        match answer {
            Err(fault) if fault.code == "ConditionalCheckFailedException" => {
                self.meter.refused(None);
                Ok(())
            }
            Ok(_) => {
                let message = "it was made under a condition that nothing meets".to_owned();
                let code = "Burstd.ConditionIgnored".to_owned();
                Err(Fault { operation: UPDATE, code, message })
            }
            Err(fault) => Err(fault),
        }
    }

    /// Asks the index for one due task.
    ///
    /// # Errors
    ///
    /// When we may not, or could not.
    pub async fn try_query(&self, shard: &str, now: Timestamp) -> Result<(), Fault> {
        let request = self
            .clients
            .dynamodb
            .query()
            .table_name(&self.table)
            .index_name(INDEX)
            .key_condition_expression("#queue = :queue AND #due <= :now")
            .expression_attribute_names("#queue", name::QUEUE)
            .expression_attribute_names("#due", name::DUE)
            .expression_attribute_values(":queue", string(shard))
            .expression_attribute_values(":now", number(now))
            .limit(1)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = ask("dynamodb:Query", request.send()).await?;
        self.meter.read(output.consumed_capacity());
        Ok(())
    }
}

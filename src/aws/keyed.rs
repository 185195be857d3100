//! A table whose key attributes are known: what every adapter to its items works with.

use std::sync::Arc;

use aws_sdk_dynamodb::operation::scan::builders::ScanFluentBuilder;
use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, ScalarAttributeType};

use super::errors::store_error;
use super::extent::Sizes;
use super::item::{self, Item, name};
use super::meter::Meter;
use super::table::INDEX;
use crate::store::StoreError;
use crate::task::TaskId;

/// A key attribute: its name and type.
#[derive(Clone, Debug)]
pub(super) struct KeyAttribute {
    pub(super) name: String,
    pub(super) kind: ScalarAttributeType,
}

/// A page of items, and where the next one begins; nothing when this was the last.
pub(super) type Paged = Result<(Vec<Item>, Option<Item>), StoreError>;

/// The table, its keys, and what calls to it cost. Clones count together.
#[derive(Clone, Debug)]
pub(super) struct KeyedTable {
    pub(super) client: aws_sdk_dynamodb::Client,
    pub(super) name: String,
    pub(super) partition: KeyAttribute,
    pub(super) sort: Option<KeyAttribute>,
    pub(super) sizes: Sizes,
    pub(super) meter: Arc<Meter>,
}

impl KeyedTable {
    /// The key of a task's item.
    pub(super) fn key(&self, id: &TaskId) -> Item {
        item::key(id, &self.partition.name, self.sort_name())
    }

    /// The task whose item has this key.
    pub(super) fn task_id(&self, item: &Item) -> Option<TaskId> {
        item::task_id(item, &self.partition.name, self.sort_name())
    }

    /// A page of what a Scan finds, and where the next one begins.
    pub(super) async fn scan(&self, request: ScanFluentBuilder, after: Option<Item>) -> Paged {
        let request = request.table_name(&self.name).set_exclusive_start_key(after);
        let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = request.send().await;
        let output = answer.map_err(|error| store_error("dynamodb:Scan", &error))?;
        self.meter.read(output.consumed_capacity());
        Ok((output.items.unwrap_or_default(), output.last_evaluated_key))
    }

    /// A page of what the index lists of a shard, and where the next one begins.
    pub(super) async fn listed(
        &self,
        shard: &str,
        limit: Option<i32>,
        after: Option<Item>,
    ) -> Paged {
        let request = self.client.query().table_name(&self.name).index_name(INDEX);
        let answer = request
            .set_limit(limit)
            .key_condition_expression("#queue = :queue")
            .expression_attribute_names("#queue", name::QUEUE)
            .expression_attribute_values(":queue", item::string(shard))
            .set_exclusive_start_key(after)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        let output = answer.map_err(|error| store_error("dynamodb:Query", &error))?;
        self.meter.read(output.consumed_capacity());
        Ok((output.items.unwrap_or_default(), output.last_evaluated_key))
    }

    fn sort_name(&self) -> Option<&str> {
        self.sort.as_ref().map(|sort| sort.name.as_str())
    }
}

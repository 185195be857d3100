//! A table whose key attributes are known: what every adapter to its items works with.

use std::sync::Arc;

use aws_sdk_dynamodb::types::ScalarAttributeType;

use super::item::{self, Item};
use super::meter::Meter;
use crate::task::TaskId;

/// A key attribute: its name and type.
#[derive(Clone, Debug)]
pub(super) struct KeyAttribute {
    pub(super) name: String,
    pub(super) kind: ScalarAttributeType,
}

/// How much there is, as DescribeTable tells it: DynamoDB counts every six hours or so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes in the table.
    pub table_bytes: u64,
    /// Items in the table.
    pub table_items: u64,
    /// Bytes in the index.
    pub index_bytes: u64,
    /// Entries in the index.
    pub index_items: u64,
}

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

    fn sort_name(&self) -> Option<&str> {
        self.sort.as_ref().map(|sort| sort.name.as_str())
    }
}

//! Reading the whole table.

use aws_sdk_dynamodb::types::AttributeValue;

use super::control::is_control;
use super::errors::store_error;
use super::item::{Item, name};
use super::table::Table;
use crate::store::StoreError;

/// What an item says of its task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The item's `id`.
    pub id: String,
    /// Its status; nothing on a new item.
    pub status: Option<String>,
    /// Attempts so far.
    pub attempt: u32,
    /// The function's response.
    pub result: Option<String>,
    /// Whether there is something left to do.
    pub is_due: bool,
}

impl Table {
    /// Reads every task, consistently. A small table's cost is small; a large one's is not.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses, or is away.
    pub async fn read_all(&self) -> Result<Vec<Snapshot>, StoreError> {
        let mut snapshots = Vec::new();
        let mut after = None;
        loop {
            let request = self.client().scan().table_name(self.name()).consistent_read(true);
            let output = request
                .set_exclusive_start_key(after)
                .send()
                .await
                .map_err(|error| store_error("dynamodb:Scan", &error))?;
            let tasks = output.items().iter().filter(|item| !is_control(item));
            snapshots.extend(tasks.map(snapshot));
            after = output.last_evaluated_key;
            if after.is_none() {
                return Ok(snapshots);
            }
        }
    }
}

fn snapshot(item: &Item) -> Snapshot {
    let text = |attribute| match item.get(attribute) {
        Some(AttributeValue::S(text)) => Some(text.clone()),
        _ => None,
    };
    let attempt = match item.get(name::ATTEMPT) {
        Some(AttributeValue::N(digits)) => digits.parse().unwrap_or_default(),
        _ => 0,
    };
    Snapshot {
        id: text(name::ID).unwrap_or_default(),
        status: text(name::STATUS),
        attempt,
        result: text(name::RESULT),
        is_due: item.contains_key(name::DUE),
    }
}

//! The table as a whole: what it must look like, whether it does, and how it is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::operation::describe_time_to_live::DescribeTimeToLiveOutput;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, GlobalSecondaryIndexDescription,
    IndexStatus, KeySchemaElement, KeyType, Projection, ProjectionType, ScalarAttributeType,
    TableDescription, TableStatus, TimeToLiveSpecification, TimeToLiveStatus,
};
use tokio::time::sleep;

use super::control::Control;
use super::desk::Desk;
use super::errors::store_error;
use super::extent::Sizes;
use super::item::name;
use super::keyed::{KeyAttribute, KeyedTable};
use super::producer::Producer;
use super::store::DynamoStore;
use crate::store::{Fault, StoreError};

/// The index behind every poll.
pub(super) const INDEX: &str = "due-index";

const DESCRIBE: &str = "dynamodb:DescribeTable";

/// How often a table that is being made is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A table by name, whether it exists or not.
#[derive(Clone, Debug)]
pub struct Table {
    client: aws_sdk_dynamodb::Client,
    name: String,
    region: String,
}

/// What `burstd table create` did.
#[derive(Debug)]
pub enum Created {
    /// There was none; now there is.
    New,
    /// It was there and right.
    Already,
    /// It is there, and differs. Nothing was changed.
    Differs(Vec<Difference>),
}

/// One way in which a table is not as burstd needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    what: &'static str,
    found: String,
    needed: &'static str,
    /// Whether burstd cannot work with it; otherwise it only costs more, or deletes nothing.
    pub is_fatal: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}; burstd needs {}", self.what, self.found, self.needed)
    }
}

impl Table {
    pub(super) fn new(client: aws_sdk_dynamodb::Client, name: String, region: String) -> Self {
        Table { client, name, region }
    }

    pub(super) fn client(&self) -> &aws_sdk_dynamodb::Client {
        &self.client
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Opens the table for work, once it is there, active, and has the index.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`] when it is missing or cannot be worked with;
    /// [`StoreError::Unavailable`] while it or its index is being made, or AWS is away.
    pub async fn open(&self) -> Result<DynamoStore, StoreError> {
        let table = self.describe().await?.ok_or_else(|| self.missing())?;
        self.check_active(&table)?;
        let fatal: Vec<_> = index_differences(&table)
            .into_iter()
            .filter(|difference| difference.is_fatal)
            .map(|difference| difference.to_string())
            .collect();
        if !fatal.is_empty() {
            let message = format!("table {:?}: {}", self.name, fatal.join("; "));
            return Err(StoreError::Refused(fault("Burstd.WrongTable", message)));
        }
        Ok(DynamoStore::new(self.keyed_as(&table)?))
    }

    /// Opens the table for inserting.
    ///
    /// # Errors
    ///
    /// As [`Table::open`], but the index does not matter.
    pub async fn producer(&self) -> Result<Producer, StoreError> {
        Ok(Producer::new(self.keyed().await?))
    }

    /// Opens the table for looking at tasks and changing them.
    ///
    /// # Errors
    ///
    /// As [`Table::open`], but the index does not matter.
    pub async fn desk(&self) -> Result<Desk, StoreError> {
        Ok(Desk::new(self.keyed().await?))
    }

    /// Opens the table for its control item.
    ///
    /// # Errors
    ///
    /// As [`Table::open`], but the index does not matter.
    pub async fn control(&self) -> Result<Control, StoreError> {
        Ok(Control::new(self.keyed().await?))
    }

    async fn keyed(&self) -> Result<KeyedTable, StoreError> {
        let table = self.describe().await?.ok_or_else(|| self.missing())?;
        self.keyed_as(&table)
    }

    fn keyed_as(&self, table: &TableDescription) -> Result<KeyedTable, StoreError> {
        let (partition, sort) = self.keys(table)?;
        Ok(KeyedTable {
            client: self.client.clone(),
            name: self.name.clone(),
            partition,
            sort,
            sizes: sizes(table),
            meter: Arc::default(),
        })
    }

    /// Makes the table, with index and TTL, and waits until it can be used. A table that is
    /// there is left as it is.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses, or is away.
    pub async fn create(&self) -> Result<Created, StoreError> {
        if let Some(table) = self.describe().await? {
            let mut differences = index_differences(&table);
            differences.extend(self.ttl_difference().await?);
            return Ok(match differences.is_empty() {
                true => Created::Already,
                false => Created::Differs(differences),
            });
        }
        definition(self.client.create_table().table_name(&self.name))
            .send()
            .await
            .map_err(|error| store_error("dynamodb:CreateTable", &error))?;
        loop {
            match self.describe().await? {
                Some(table) if self.check_active(&table).is_ok() => break,
                _ => sleep(LOOK_EVERY).await,
            }
        }
        self.enable_ttl().await?;
        Ok(Created::New)
    }

    async fn enable_ttl(&self) -> Result<(), StoreError> {
        let specification = TimeToLiveSpecification::builder()
            .enabled(true)
            .attribute_name(name::EXPIRES_AT)
            .build()
            .expect("both required fields are set");
        let request = self.client.update_time_to_live().table_name(&self.name);
        let answer = request.time_to_live_specification(specification).send().await;
        answer.map(drop).map_err(|error| store_error("dynamodb:UpdateTimeToLive", &error))
    }

    async fn ttl_difference(&self) -> Result<Option<Difference>, StoreError> {
        let request = self.client.describe_time_to_live().table_name(&self.name);
        let answer = request.send().await;
        let output = answer.map_err(|error| store_error("dynamodb:DescribeTimeToLive", &error))?;
        Ok(ttl_difference(&output))
    }

    /// The table's description; nothing when there is no such table.
    async fn describe(&self) -> Result<Option<TableDescription>, StoreError> {
        match self.client.describe_table().table_name(&self.name).send().await {
            Ok(output) if output.table.is_none() => {
                let message = "the reply does not describe the table".to_owned();
                Err(StoreError::Unavailable(fault("Burstd.EmptyReply", message)))
            }
            Ok(output) => Ok(output.table),
            Err(SdkError::ServiceError(error)) if error.err().is_resource_not_found_exception() => {
                Ok(None)
            }
            Err(error) => Err(store_error(DESCRIBE, &error)),
        }
    }

    fn missing(&self) -> StoreError {
        let message = format!(
            "there is no table {:?} in {}: make it with `burstd table create`, or correct the \
             table's name or the region",
            self.name, self.region
        );
        StoreError::Refused(fault("ResourceNotFoundException", message))
    }

    fn check_active(&self, table: &TableDescription) -> Result<(), StoreError> {
        let unavailable = |what: &str, status: &str| {
            let message = format!("{what} of {:?} is {status}; burstd waits for it", self.name);
            Err(StoreError::Unavailable(fault("Burstd.TableNotActive", message)))
        };
        match table.table_status() {
            Some(TableStatus::Active | TableStatus::Updating) | None => {}
            Some(status) => return unavailable("the table", status.as_str()),
        }
        match index(table).and_then(|index| index.index_status()) {
            Some(IndexStatus::Active | IndexStatus::Updating) | None => Ok(()),
            Some(status) => unavailable("the index due-index", status.as_str()),
        }
    }

    fn keys(
        &self,
        table: &TableDescription,
    ) -> Result<(KeyAttribute, Option<KeyAttribute>), StoreError> {
        let schema = table.key_schema();
        let partition = key_attribute(table, schema, &KeyType::Hash).ok_or_else(|| {
            let message = format!("DynamoDB does not tell the primary key of {:?}", self.name);
            StoreError::Unavailable(fault("Burstd.NoKeySchema", message))
        })?;
        Ok((partition, key_attribute(table, schema, &KeyType::Range)))
    }
}

fn fault(code: &str, message: String) -> Fault {
    Fault { operation: DESCRIBE, code: code.to_owned(), message }
}

pub(super) fn index(table: &TableDescription) -> Option<&GlobalSecondaryIndexDescription> {
    table.global_secondary_indexes().iter().find(|index| index.index_name() == Some(INDEX))
}

fn sizes(table: &TableDescription) -> Sizes {
    let size = |told: Option<i64>| told.and_then(|told| u64::try_from(told).ok()).unwrap_or(0);
    let index = index(table);
    Sizes {
        table_bytes: size(table.table_size_bytes()),
        table_items: size(table.item_count()),
        index_bytes: size(index.and_then(GlobalSecondaryIndexDescription::index_size_bytes)),
        index_items: size(index.and_then(GlobalSecondaryIndexDescription::item_count)),
    }
}

pub(super) fn key_attribute(
    table: &TableDescription,
    schema: &[KeySchemaElement],
    key_type: &KeyType,
) -> Option<KeyAttribute> {
    let name = schema.iter().find(|element| element.key_type() == key_type)?.attribute_name();
    let mut definitions = table.attribute_definitions().iter();
    let kind = definitions.find(|definition| definition.attribute_name() == name)?.attribute_type();
    Some(KeyAttribute { name: name.to_owned(), kind: kind.clone() })
}

/// How TTL differs from what deletes finished tasks.
pub(super) fn ttl_difference(output: &DescribeTimeToLiveOutput) -> Option<Difference> {
    let ttl = output.time_to_live_description();
    let attribute = ttl.and_then(|ttl| ttl.attribute_name()).unwrap_or_default();
    let found = match ttl.and_then(|ttl| ttl.time_to_live_status()) {
        Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling) => {
            if attribute == name::EXPIRES_AT {
                return None;
            }
            format!("on the attribute {attribute:?}")
        }
        _ => "switched off".to_owned(),
    };
    let needed = "it on the attribute \"expires_at\", to delete finished tasks";
    Some(Difference { what: "TTL", found, needed, is_fatal: false })
}

/// How the index differs from what polls need.
pub(super) fn index_differences(table: &TableDescription) -> Vec<Difference> {
    let Some(index) = index(table) else {
        return vec![Difference {
            what: "the index due-index",
            found: "missing".to_owned(),
            needed: "a global secondary index due-index with the partition key queue (S), the \
                     sort key due (N) and the projection KEYS_ONLY",
            is_fatal: true,
        }];
    };
    let key = |what, key_type, needed| {
        let key = key_attribute(table, index.key_schema(), &key_type);
        let found = key.map_or("missing".to_owned(), |key| format!("{} ({})", key.name, key.kind));
        Difference { what, found, needed, is_fatal: true }
    };
    let projection = index.projection().and_then(Projection::projection_type);
    [
        key("the partition key of due-index", KeyType::Hash, "queue (S)"),
        key("the sort key of due-index", KeyType::Range, "due (N)"),
        Difference {
            what: "the projection of due-index",
            found: projection.map_or("missing", ProjectionType::as_str).to_owned(),
            needed: "KEYS_ONLY",
            is_fatal: false,
        },
    ]
    .into_iter()
    .filter(|difference| difference.found != difference.needed)
    .collect()
}

/// The table that `burstd table create` makes.
fn definition(request: CreateTableFluentBuilder) -> CreateTableFluentBuilder {
    let key = |attribute: &str, key_type| {
        let element = KeySchemaElement::builder().attribute_name(attribute).key_type(key_type);
        element.build().expect("both required fields are set")
    };
    let attribute = |attribute: &str, kind| {
        let definition = AttributeDefinition::builder().attribute_name(attribute);
        definition.attribute_type(kind).build().expect("both required fields are set")
    };
    let index = GlobalSecondaryIndex::builder()
        .index_name(INDEX)
        .key_schema(key(name::QUEUE, KeyType::Hash))
        .key_schema(key(name::DUE, KeyType::Range))
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build());
    request
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute(name::ID, ScalarAttributeType::S))
        .attribute_definitions(attribute(name::QUEUE, ScalarAttributeType::S))
        .attribute_definitions(attribute(name::DUE, ScalarAttributeType::N))
        .key_schema(key(name::ID, KeyType::Hash))
        .global_secondary_indexes(index.build().expect("all required fields are set"))
}

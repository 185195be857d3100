//! `burstd table template`: the table for those who describe what they run as code.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::ConfigFile;
use crate::cli::exit::{Exit, say};

const HELP: &str = "\
All of them are JSON, which each of these tools reads:
  burstd table template > table.json           aws cloudformation deploy …
  burstd table template --format terraform > table.tf.json
  burstd table template --format pulumi > Pulumi.yaml";

#[derive(Args)]
#[command(after_help = HELP)]
pub(in crate::cli) struct Template {
    #[command(flatten)]
    config: ConfigFile,
    /// Whose language
    #[arg(long, value_enum, default_value_t = Format::Cloudformation)]
    format: Format,
    /// On one line; it is JSON in any case
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Cloudformation,
    Terraform,
    Pulumi,
}

impl Template {
    pub(in crate::cli) fn run(self) -> Result<(), Exit> {
        let table = self.config.load()?.table;
        // An ARN ends with the name.
        let name = table.rsplit('/').next().unwrap_or(&table);
        let template = match self.format {
            Format::Cloudformation => cloudformation(name),
            Format::Terraform => terraform(name),
            Format::Pulumi => pulumi(name),
        };
        match self.json {
            true => say(template),
            false => say(format!("{template:#}")),
        }
    }
}

/// docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-dynamodb-table.html
fn cloudformation(name: &str) -> Value {
    let attribute = |name, kind| json!({ "AttributeName": name, "AttributeType": kind });
    let key = |name, kind| json!({ "AttributeName": name, "KeyType": kind });
    json!({
        "AWSTemplateFormatVersion": "2010-09-09",
        "Resources": { "Tasks": {
            "Type": "AWS::DynamoDB::Table",
            // The tasks are not to go with the stack.
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "TableName": name,
                "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions":
                    [attribute("id", "S"), attribute("queue", "S"), attribute("due", "N")],
                "KeySchema": [key("id", "HASH")],
                "GlobalSecondaryIndexes": [{
                    "IndexName": "due-index",
                    "KeySchema": [key("queue", "HASH"), key("due", "RANGE")],
                    "Projection": { "ProjectionType": "KEYS_ONLY" }
                }],
                "TimeToLiveSpecification": { "AttributeName": "expires_at", "Enabled": true }
            }
        } }
    })
}

/// registry.terraform.io/providers/hashicorp/aws/latest/docs/resources/dynamodb_table
fn terraform(name: &str) -> Value {
    let attribute = |name, kind| json!({ "name": name, "type": kind });
    json!({ "resource": { "aws_dynamodb_table": { "tasks": {
        "name": name,
        "billing_mode": "PAY_PER_REQUEST",
        "hash_key": "id",
        "attribute": [attribute("id", "S"), attribute("queue", "S"), attribute("due", "N")],
        "global_secondary_index": [{
            "name": "due-index",
            "hash_key": "queue",
            "range_key": "due",
            "projection_type": "KEYS_ONLY"
        }],
        "ttl": [{ "attribute_name": "expires_at", "enabled": true }],
        "lifecycle": [{ "prevent_destroy": true }]
    } } } })
}

/// www.pulumi.com/registry/packages/aws/api-docs/dynamodb/table
fn pulumi(name: &str) -> Value {
    let attribute = |name, kind| json!({ "name": name, "type": kind });
    json!({
        "name": "burstd-table",
        "runtime": "yaml",
        "resources": { "tasks": {
            "type": "aws:dynamodb:Table",
            "properties": {
                "name": name,
                "billingMode": "PAY_PER_REQUEST",
                "hashKey": "id",
                "attributes":
                    [attribute("id", "S"), attribute("queue", "S"), attribute("due", "N")],
                "globalSecondaryIndexes": [{
                    "name": "due-index",
                    "hashKey": "queue",
                    "rangeKey": "due",
                    "projectionType": "KEYS_ONLY"
                }],
                "ttl": { "attributeName": "expires_at", "enabled": true }
            },
            "options": { "protect": true }
        } }
    })
}

//! Faults on the way to AWS and back, one for each request: each leads to what is documented and
//! to nothing else.

mod credentials;
mod dynamodb;
mod lambda;

use serde_json::json;

/// A table as it should be, as DynamoDB describes it.
pub fn description() -> String {
    let key = |name, kind| json!({ "AttributeName": name, "KeyType": kind });
    let attribute = |name, kind| json!({ "AttributeName": name, "AttributeType": kind });
    let index = json!({
        "IndexName": "due-index",
        "IndexStatus": "ACTIVE",
        "KeySchema": [key("queue", "HASH"), key("due", "RANGE")],
        "Projection": { "ProjectionType": "KEYS_ONLY" },
    });
    let table = json!({
        "TableStatus": "ACTIVE",
        "KeySchema": [key("id", "HASH")],
        "AttributeDefinitions": [
            attribute("id", "S"), attribute("queue", "S"), attribute("due", "N")
        ],
        "GlobalSecondaryIndexes": [index],
    });
    json!({ "Table": table }).to_string()
}

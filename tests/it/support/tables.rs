//! Tables with other keys than that of `burstd table create`.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, GlobalSecondaryIndex, KeySchemaElement,
    KeyType, Projection, ProjectionType, ScalarAttributeType,
};

use super::world::World;

/// A table with this key, the last of which is the sort key if there are two.
pub async fn create_table(
    world: &World,
    name: &str,
    key: &[(&str, ScalarAttributeType, AttributeValue)],
) {
    let element = |name: &str, key_type| {
        let element = KeySchemaElement::builder().attribute_name(name).key_type(key_type);
        element.build().expect("it is complete")
    };
    let attribute = |name: &str, kind: &ScalarAttributeType| {
        let definition = AttributeDefinition::builder().attribute_name(name);
        definition.attribute_type(kind.clone()).build().expect("it is complete")
    };
    let mut request = world
        .client
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .global_secondary_indexes(
            GlobalSecondaryIndex::builder()
                .index_name("due-index")
                .key_schema(element("queue", KeyType::Hash))
                .key_schema(element("due", KeyType::Range))
                .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
                .build()
                .expect("it is complete"),
        );
    let mut definitions = vec![("queue", ScalarAttributeType::S), ("due", ScalarAttributeType::N)];
    for (index, (name, kind, _)) in key.iter().enumerate() {
        let key_type = if index == 0 { KeyType::Hash } else { KeyType::Range };
        request = request.key_schema(element(name, key_type));
        if !definitions.iter().any(|(defined, _)| defined == name) {
            definitions.push((name, kind.clone()));
        }
    }
    for (name, kind) in definitions {
        request = request.attribute_definitions(attribute(name, &kind));
    }
    request.send().await.expect("the table is made");
}

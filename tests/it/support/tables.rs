//! Tables with other keys than that of `burstd table create`.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType,
};

use super::world::World;

/// A table with this key, the last of which is the sort key if there are two; and with an index
/// that shows so much, if it is to have one.
pub async fn create_table(
    world: &World,
    table: &str,
    key: &[(&str, ScalarAttributeType)],
    index: Option<ProjectionType>,
) {
    let schema = |names: &[&str]| {
        let element = |(name, kind): (&&str, KeyType)| {
            let element = KeySchemaElement::builder().attribute_name(*name).key_type(kind);
            element.build().expect("it is complete")
        };
        names.iter().zip([KeyType::Hash, KeyType::Range]).map(element).collect::<Vec<_>>()
    };
    let mut attributes = key.to_vec();
    let of_index = [("queue", ScalarAttributeType::S), ("due", ScalarAttributeType::N)];
    for (name, kind) in of_index.into_iter().filter(|_| index.is_some()) {
        if !attributes.iter().any(|(known, _)| *known == name) {
            attributes.push((name, kind));
        }
    }
    let names: Vec<_> = key.iter().map(|(name, _)| *name).collect();
    let mut request = world.client.create_table().table_name(table);
    request = request.billing_mode(BillingMode::PayPerRequest);
    request = request.set_key_schema(Some(schema(&names)));
    for (name, kind) in attributes {
        let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(kind);
        request = request.attribute_definitions(attribute.build().expect("it is complete"));
    }
    if let Some(projection) = index {
        let index = GlobalSecondaryIndex::builder()
            .index_name("due-index")
            .set_key_schema(Some(schema(&["queue", "due"])))
            .projection(Projection::builder().projection_type(projection).build());
        request = request.global_secondary_indexes(index.build().expect("it is complete"));
    }
    request.send().await.expect("the table is made");
}

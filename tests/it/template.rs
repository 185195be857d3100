//! The table as it is printed for other tools.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, Projection,
    TimeToLiveSpecification,
};
use serde_json::Value;

use crate::support::program::{Program, success};
use crate::support::world::{World, config};

fn template(program: &Program, format: &str) -> Value {
    let printed = success(&program.run(&["table", "template", "--format", format]));
    serde_json::from_str(&printed).expect("it is JSON")
}

fn texts<'a>(list: &'a Value, names: [&'a str; 2]) -> Vec<[&'a str; 2]> {
    let text = |entry: &'a Value, name| entry[name].as_str().expect("it is text");
    let list = list.as_array().expect("an array").iter();
    list.map(|entry| names.map(|name| text(entry, name))).collect()
}

fn keys(schema: &Value) -> Vec<KeySchemaElement> {
    let keys = texts(schema, ["AttributeName", "KeyType"]).into_iter();
    let key = |[name, kind]: [&str; 2]| {
        let key = KeySchemaElement::builder().attribute_name(name).key_type(kind.into());
        key.build().expect("it is complete")
    };
    keys.map(key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cloudformation_makes_is_as_burstd_needs_it() {
    let world = World::echoing().await;
    let other = config().replace("table = \"tasks\"", "table = \"made\"");
    let program = Program::in_world(&world, &other);
    let template = template(&program, "cloudformation");
    let table = &template["Resources"]["Tasks"]["Properties"];
    let attributes = texts(&table["AttributeDefinitions"], ["AttributeName", "AttributeType"]);
    let attribute = |[name, kind]: [&str; 2]| {
        let attribute = AttributeDefinition::builder().attribute_name(name);
        attribute.attribute_type(kind.into()).build().expect("it is complete")
    };
    let index = &table["GlobalSecondaryIndexes"][0];
    let projected = index["Projection"]["ProjectionType"].as_str().expect("it is text");
    let index = GlobalSecondaryIndex::builder()
        .index_name(index["IndexName"].as_str().expect("it is text"))
        .set_key_schema(Some(keys(&index["KeySchema"])))
        .projection(Projection::builder().projection_type(projected.into()).build())
        .build()
        .expect("it is complete");
    let name = table["TableName"].as_str().expect("it is text");
    let billing = table["BillingMode"].as_str().expect("it is text");
    let request = world.client.create_table().table_name(name);
    let request = request.billing_mode(BillingMode::from(billing)).global_secondary_indexes(index);
    let definitions = attributes.into_iter().map(attribute).collect();
    request
        .set_attribute_definitions(Some(definitions))
        .set_key_schema(Some(keys(&table["KeySchema"])))
        .send()
        .await
        .expect("the table is made");
    let ttl = &table["TimeToLiveSpecification"];
    let ttl = TimeToLiveSpecification::builder()
        .attribute_name(ttl["AttributeName"].as_str().expect("it is text"))
        .enabled(ttl["Enabled"].as_bool().expect("yes or no"))
        .build()
        .expect("it is complete");
    let request = world.client.update_time_to_live().table_name(name);
    request.time_to_live_specification(ttl).send().await.expect("it is set");
    let said = success(&program.run(&["table", "create"]));
    assert!(said.contains("table \"made\" in us-east-1 is there and right"), "{said}");
}

#[test]
fn terraform_and_pulumi_describe_the_same_table() {
    let program = Program::with(&config());
    let told = template(&program, "cloudformation");
    let told = &told["Resources"]["Tasks"]["Properties"];
    let attributes = texts(&told["AttributeDefinitions"], ["AttributeName", "AttributeType"]);
    let terraform = template(&program, "terraform");
    let terraform = &terraform["resource"]["aws_dynamodb_table"]["tasks"];
    let pulumi = template(&program, "pulumi");
    let pulumi = &pulumi["resources"]["tasks"]["properties"];
    assert_eq!(texts(&terraform["attribute"], ["name", "type"]), attributes);
    assert_eq!(texts(&pulumi["attributes"], ["name", "type"]), attributes);
    let index = &told["GlobalSecondaryIndexes"][0];
    let ttl = &told["TimeToLiveSpecification"];
    for (terraform, pulumi, told) in [
        (&terraform["name"], &pulumi["name"], &told["TableName"]),
        (&terraform["billing_mode"], &pulumi["billingMode"], &told["BillingMode"]),
        (&terraform["hash_key"], &pulumi["hashKey"], &told["KeySchema"][0]["AttributeName"]),
        (
            &terraform["ttl"][0]["attribute_name"],
            &pulumi["ttl"]["attributeName"],
            &ttl["AttributeName"],
        ),
        (&terraform["ttl"][0]["enabled"], &pulumi["ttl"]["enabled"], &ttl["Enabled"]),
    ] {
        assert!(told.is_string() || told.is_boolean(), "{told}");
        assert_eq!((terraform, pulumi), (told, told));
    }
    let (there, here) =
        (&terraform["global_secondary_index"][0], &pulumi["globalSecondaryIndexes"][0]);
    for (terraform, pulumi, told) in [
        ("name", "name", &index["IndexName"]),
        ("hash_key", "hashKey", &index["KeySchema"][0]["AttributeName"]),
        ("range_key", "rangeKey", &index["KeySchema"][1]["AttributeName"]),
        ("projection_type", "projectionType", &index["Projection"]["ProjectionType"]),
    ] {
        assert!(told.is_string(), "{told}");
        assert_eq!((&there[terraform], &here[pulumi]), (told, told));
    }
}

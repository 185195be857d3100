//! An update expression as it is put together.

use std::collections::HashMap;

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;

use super::filter::Conditions;

/// What an UpdateItem sets, removes and requires. Every attribute goes by a placeholder, since
/// several of burstd's names are DynamoDB's reserved words.
#[derive(Debug, Default)]
pub(super) struct Update {
    set: Vec<String>,
    remove: Vec<String>,
    condition: Vec<String>,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Update {
    /// Sets an attribute.
    pub(super) fn set(mut self, attribute: &str, value: AttributeValue) -> Self {
        let name = self.name(attribute);
        let placeholder = format!(":{attribute}");
        self.values.insert(placeholder.clone(), value);
        self.set.push(format!("{name} = {placeholder}"));
        self
    }

    /// Sets an attribute if there is a value for it.
    pub(super) fn set_some(self, attribute: &str, value: Option<AttributeValue>) -> Self {
        match value {
            Some(value) => self.set(attribute, value),
            None => self,
        }
    }

    /// Adds a clause to SET in which `{}` stands for the attribute.
    pub(super) fn set_to(mut self, attribute: &str, clause: &str) -> Self {
        let name = self.name(attribute);
        self.set.push(clause.replace("{}", &name));
        self
    }

    /// Removes an attribute.
    pub(super) fn remove(mut self, attribute: &str) -> Self {
        let name = self.name(attribute);
        self.remove.push(name);
        self
    }

    /// Requires a condition in which `{}` stands for the attribute.
    pub(super) fn require(mut self, attribute: &str, condition: &str) -> Self {
        let name = self.name(attribute);
        self.condition.push(condition.replace("{}", &name));
        self
    }

    /// Requires all of these, beside the rest.
    pub(super) fn require_all(mut self, conditions: Conditions) -> Self {
        self.condition.extend(conditions.clauses);
        self.names.extend(conditions.names);
        self.values.extend(conditions.values);
        self
    }

    /// Gives a value that conditions or clauses name.
    pub(super) fn value(mut self, placeholder: &str, value: AttributeValue) -> Self {
        self.values.insert(placeholder.to_owned(), value);
        self
    }

    /// Puts the whole into a request.
    pub(super) fn into_request(self, request: UpdateItemFluentBuilder) -> UpdateItemFluentBuilder {
        let mut expression = format!("SET {}", self.set.join(", "));
        if !self.remove.is_empty() {
            expression += &format!(" REMOVE {}", self.remove.join(", "));
        }
        request
            .update_expression(expression)
            .condition_expression(self.condition.join(" AND "))
            .set_expression_attribute_names(Some(self.names))
            .set_expression_attribute_values(Some(self.values))
    }

    fn name(&mut self, attribute: &str) -> String {
        let name = placeholder(attribute);
        self.names.insert(name.clone(), attribute.to_owned());
        name
    }
}

/// A placeholder for an attribute. DynamoDB takes letters, digits and underscores; a table's key
/// may be called otherwise (docs.aws.amazon.com/amazondynamodb/latest/developerguide,
/// Expressions.ExpressionAttributeNames.html).
fn placeholder(attribute: &str) -> String {
    let mut placeholder = "#".to_owned();
    for c in attribute.chars() {
        match c.is_ascii_alphanumeric() || c == '_' {
            true => placeholder.push(c),
            false => placeholder += &format!("_x{:x}_", u32::from(c)),
        }
    }
    placeholder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_has_only_what_dynamodb_takes_whatever_the_key_is_called() {
        for (attribute, expected) in [
            ("status", "#status"),
            ("started_at", "#started_at"),
            ("started-at", "#started_x2d_at"),
            ("a.b é", "#a_x2e_b_x20__xe9_"),
        ] {
            assert_eq!(placeholder(attribute), expected);
        }
    }
}

//! Counts what DynamoDB says it has consumed.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_dynamodb::types::{AttributeValue, ConsumedCapacity};

use super::item::Item;
use crate::store::Consumed;

/// Units consumed by all calls of one adapter, of table and indexes together.
#[derive(Debug, Default)]
pub(super) struct Meter {
    read_milli: AtomicU64,
    write_milli: AtomicU64,
}

impl Meter {
    pub(super) fn read(&self, consumed: Option<&ConsumedCapacity>) {
        self.read_milli.fetch_add(milli(consumed), Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, consumed: Option<&ConsumedCapacity>) {
        self.write_milli.fetch_add(milli(consumed), Ordering::Relaxed);
    }

    /// A write whose condition did not hold: DynamoDB counts a unit for each begun KB of the item
    /// that it found, one where there was none, and does not say so
    /// (docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html).
    pub(super) fn refused(&self, found: Option<&Item>) {
        let kilobytes = found.map_or(0, size).div_ceil(1024).max(1);
        self.write_milli.fetch_add(1000 * kilobytes as u64, Ordering::Relaxed);
    }

    pub(super) fn consumed(&self) -> Consumed {
        Consumed {
            read_milli: self.read_milli.load(Ordering::Relaxed),
            write_milli: self.write_milli.load(Ordering::Relaxed),
        }
    }
}

/// How large an item is, roughly: names, texts and bytes as they are, numbers by their digits
/// (docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html).
fn size(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + size_of_value(value)).sum()
}

fn size_of_value(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(digits) => digits.len() / 2 + 1,
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::M(members) => 3 + size(members),
        AttributeValue::L(members) => {
            3 + members.iter().map(|it| 1 + size_of_value(it)).sum::<usize>()
        }
        AttributeValue::Ss(all) | AttributeValue::Ns(all) => all.iter().map(String::len).sum(),
        AttributeValue::Bs(all) => all.iter().map(|bytes| bytes.as_ref().len()).sum(),
        _ => 1,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "units are few")]
fn milli(consumed: Option<&ConsumedCapacity>) -> u64 {
    let units = consumed.and_then(ConsumedCapacity::capacity_units).unwrap_or_default();
    (units * 1e3).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::item::{number, string};

    #[test]
    fn a_refused_write_costs_what_the_item_that_was_found_would() {
        let item = |bytes: usize| Item::from([("payload".to_owned(), string("x".repeat(bytes)))]);
        for (found, units) in
            [(None, 1), (Some(item(9)), 1), (Some(item(1017)), 1), (Some(item(1018)), 2)]
        {
            let meter = Meter::default();
            meter.refused(found.as_ref());
            assert_eq!(meter.consumed().write_milli, units * 1000);
        }
        let nested = AttributeValue::M([("n".to_owned(), number(12_345))].into());
        assert_eq!(size_of_value(&AttributeValue::L(vec![nested])), 3 + 1 + 3 + 1 + 3);
    }
}

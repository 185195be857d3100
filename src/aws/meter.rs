//! Counts what DynamoDB says it has consumed.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_dynamodb::types::ConsumedCapacity;

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

    /// A write whose condition did not hold, of an item that is not there: DynamoDB counts it as
    /// one unit, and does not say so
    /// (docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html).
    pub(super) fn refused(&self) {
        self.write_milli.fetch_add(1000, Ordering::Relaxed);
    }

    pub(super) fn consumed(&self) -> Consumed {
        Consumed {
            read_milli: self.read_milli.load(Ordering::Relaxed),
            write_milli: self.write_milli.load(Ordering::Relaxed),
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "units are few")]
fn milli(consumed: Option<&ConsumedCapacity>) -> u64 {
    let units = consumed.and_then(ConsumedCapacity::capacity_units).unwrap_or_default();
    (units * 1e3).round() as u64
}

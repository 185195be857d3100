//! What becomes known of the table's health while tasks live.

use std::sync::atomic::Ordering;

use super::{Worker, log};
use crate::invoker::Invoker;
use crate::store::{Store, StoreError};

impl<S: Store, I: Invoker> Worker<S, I> {
    /// Notes what an answer about an item says of the table. That the item is wrong says nothing.
    pub(super) fn heard<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        match &answer {
            Ok(_) => self.store_works(),
            Err(StoreError::Rejected(_)) => {}
            Err(error) => self.store_fails(error),
        }
        answer
    }

    /// Notes that the table answered.
    pub(crate) fn store_works(&self) {
        if let Some(over) = self.store_trouble.success() {
            log::table_works(over);
        }
    }

    /// Notes that the table did not; the first time in an episode it is said.
    pub(crate) fn store_fails(&self, error: &StoreError) {
        if error.fault().is_throttle() {
            self.store_throttles.fetch_add(1, Ordering::Relaxed);
        }
        if self.store_trouble.fault() {
            log::table_fails(error);
        }
    }

    /// How often the table had no capacity left.
    pub(crate) fn store_throttles(&self) -> u64 {
        self.store_throttles.load(Ordering::Relaxed)
    }
}

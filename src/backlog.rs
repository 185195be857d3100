//! Whether the log is behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether so many lines wait to be written that no more work should be taken on. Clones share
/// it.
#[derive(Clone, Debug, Default)]
pub struct Backlog(Arc<AtomicBool>);

impl Backlog {
    /// Says whether it is so.
    pub fn set(&self, is_long: bool) {
        self.0.store(is_long, Ordering::Relaxed);
    }

    /// Whether it is so.
    pub fn is_long(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

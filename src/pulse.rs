//! Whether a loop goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A loop's sign of life. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// The loop has come round.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it has.
    pub fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

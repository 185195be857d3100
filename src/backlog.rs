//! Whether the log is behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whether so many lines wait to be written that no more work should be taken on, and how many
/// were given up. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Backlog(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_long: AtomicBool,
    dropped: AtomicU64,
    is_broken: AtomicBool,
}

impl Backlog {
    /// Says whether it is so.
    pub fn set(&self, is_long: bool) {
        self.0.is_long.store(is_long, Ordering::Relaxed);
    }

    /// Whether it is so.
    pub fn is_long(&self) -> bool {
        self.0.is_long.load(Ordering::Relaxed)
    }

    /// Nobody will write the lines any more: a bug.
    pub fn break_off(&self) {
        self.0.is_broken.store(true, Ordering::Relaxed);
    }

    /// Whether it is so.
    pub fn is_broken(&self) -> bool {
        self.0.is_broken.load(Ordering::Relaxed)
    }

    /// So many lines more were given up.
    pub fn drop_lines(&self, lines: u64) {
        self.0.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    /// Lines that were given up so far.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

//! The caps and paces of one process.

use std::time::Duration;

use super::Pace;

/// The caps and paces of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tasks in flight in all queues together.
    pub max_in_flight: usize,
    /// Bytes of their payloads and results in memory.
    pub max_bytes_in_flight: usize,
    /// How often the index is asked.
    pub pace: Pace,
    /// How long what is in flight is awaited when burstd stops.
    pub drain: Duration,
}

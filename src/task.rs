//! A task: one item of the table that is to be run, as the engine sees it.

use std::fmt;
use std::time::Duration;

/// A moment, in milliseconds since the Unix epoch, UTC.
///
/// The table counts in epoch *seconds* with a fraction, as DynamoDB's TTL does; a double holds
/// milliseconds exactly until the year 287396.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Timestamp(millis)
    }

    /// The moment `seconds` after the epoch; what is negative is the epoch, what is too large is
    /// the end of time.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    pub fn from_seconds(seconds: f64) -> Self {
        Timestamp((seconds * 1e3).round() as u64)
    }

    /// Whether what was read as seconds since the epoch was in milliseconds: it is beyond the year
    /// 5138.
    pub const fn is_surely_millis(self) -> bool {
        self.0 / 1000 >= 100_000_000_000
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this moment is; zero when it is before.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_add(millis))
    }
}

/// No moment is before the epoch.
impl std::ops::Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, duration: Duration) -> Timestamp {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_sub(millis))
    }
}

/// Epoch seconds, as the table has it: `1763800000` or `1763800000.25`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0 / 1000, self.0 % 1000);
        match millis {
            0 => write!(f, "{seconds}"),
            _ => write!(f, "{seconds}{}", format!(".{millis:03}").trim_end_matches('0')),
        }
    }
}

/// One value of a primary key: what DynamoDB allows there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyValue {
    /// A string.
    S(String),
    /// A number, in the text DynamoDB gives it.
    N(String),
    /// Bytes.
    B(Vec<u8>),
}

impl fmt::Display for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyValue::S(text) | KeyValue::N(text) => f.write_str(text),
            KeyValue::B(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// What names a task: the primary key of its item, whatever the table has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The partition key's value.
    pub partition: KeyValue,
    /// The sort key's value, in a table that has one.
    pub sort: Option<KeyValue>,
}

impl TaskId {
    /// The task named `id` in a table with a string partition key alone.
    pub fn named(id: impl Into<String>) -> Self {
        TaskId { partition: KeyValue::S(id.into()), sort: None }
    }
}

/// The partition key, then `/` and the sort key where there is one; bytes in hexadecimal.
impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sort {
            None => self.partition.fmt(f),
            Some(sort) => write!(f, "{}/{sort}", self.partition),
        }
    }
}

/// Where a task stands, as the table says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Waiting for its `due`; an item without a status is pending too.
    Pending,
    /// Claimed by a worker.
    Running,
    /// Done.
    Succeeded,
    /// Given up.
    Failed,
    /// Called off by a person.
    Cancelled,
    /// Cannot be read as a task; the item says why.
    Invalid,
}

impl Status {
    /// Every status.
    pub const ALL: [Status; 6] = [
        Status::Pending,
        Status::Running,
        Status::Succeeded,
        Status::Failed,
        Status::Cancelled,
        Status::Invalid,
    ];

    /// The word in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "PENDING",
            Status::Running => "RUNNING",
            Status::Succeeded => "SUCCEEDED",
            Status::Failed => "FAILED",
            Status::Cancelled => "CANCELLED",
            Status::Invalid => "INVALID",
        }
    }

    /// The status with this word.
    pub fn parse(word: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Whether a task with this status has nothing left to do.
    pub const fn is_final(self) -> bool {
        !matches!(self, Status::Pending | Status::Running)
    }
}

/// The event a function is called with: JSON text. It has no `Debug` on purpose: payloads are
/// never logged.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload(pub String);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// One attempt, as the item's `history` keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    /// What became of it.
    pub outcome: String,
    /// The kind of error, when it was one.
    pub error_type: Option<String>,
    /// Lambda's request id, when one is known.
    pub request_id: Option<String>,
    /// When it was claimed; unknown for an attempt whose holder died.
    pub started_at: Option<Timestamp>,
    /// How long the invocation took; unknown for an attempt whose holder died.
    pub took: Option<Duration>,
}

/// What a won claim tells of its task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its name.
    pub id: TaskId,
    /// Which attempt this claim is, counted from 1.
    pub attempt: u32,
    /// From when it could have been claimed.
    pub due: Timestamp,
    /// The function's event.
    pub payload: Payload,
    /// The task's own limit of attempts; it may lower the queue's, never raise it.
    pub max_attempts: Option<u32>,
    /// After this no attempt starts.
    pub deadline: Option<Timestamp>,
    /// An X-Ray trace header to pass on.
    pub trace: Option<String>,
    /// The last few attempts, oldest first.
    pub history: Vec<Attempt>,
}

impl Task {
    /// The attempt before this one when nobody wrote down how it ended: its holder died.
    pub fn abandoned_attempt(&self) -> Option<u32> {
        let previous = self.attempt.checked_sub(1).filter(|number| *number > 0)?;
        let recorded = self.history.last().is_some_and(|last| last.number >= previous);
        (!recorded).then_some(previous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_reads_as_epoch_seconds_with_only_the_fraction_it_has() {
        for (millis, text) in [
            (0, "0"),
            (1_763_800_000_000, "1763800000"),
            (1_763_800_000_250, "1763800000.25"),
            (1_763_800_000_007, "1763800000.007"),
        ] {
            assert_eq!(Timestamp::from_millis(millis).to_string(), text);
        }
    }

    #[test]
    fn a_timestamp_from_seconds_keeps_milliseconds_and_never_overflows() {
        for (seconds, millis) in
            [(1_763_800_000.123, 1_763_800_000_123), (-5.0, 0), (1e40, u64::MAX), (f64::NAN, 0)]
        {
            assert_eq!(Timestamp::from_seconds(seconds).as_millis(), millis);
        }
    }

    #[test]
    fn every_status_is_read_back_from_its_word() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("succeeded"), None);
    }
}

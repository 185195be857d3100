//! The port to the table of tasks.

use std::fmt;

use crate::claim::{Rev, Standing, Terms};
use crate::retry::Settlement;
use crate::task::{Task, TaskId, Timestamp};

/// Claims under way at once. What else the table can take is kept for what frees slots, the
/// results of finished tasks.
pub const CLAIMS_AT_ONCE: usize = 48;

/// The table. Every write is conditional and sets a fresh [`Rev`]; a write that is sent again
/// after its reply was lost recognises itself by it, so each method may be called again with
/// the same arguments until it answers.
pub trait Store: Send + Sync + 'static {
    /// A page of the tasks that are due, oldest first. The index behind it may lag: what it
    /// lists may be running, finished or gone, and only a claim tells.
    fn due(&self, query: DueQuery<'_>) -> impl Future<Output = Result<Page, StoreError>> + Send;

    /// Takes the task if it is due, unfinished and nobody's.
    fn claim(
        &self,
        id: &TaskId,
        terms: &Terms,
    ) -> impl Future<Output = Result<Claimed, StoreError>> + Send;

    /// Moves the end of a held lease; `terms.rev` is the claim's new token.
    fn extend(
        &self,
        id: &TaskId,
        held: &Rev,
        terms: &Terms,
    ) -> impl Future<Output = Result<Write, StoreError>> + Send;

    /// Writes what became of a held task.
    fn settle(
        &self,
        id: &TaskId,
        held: &Rev,
        settlement: &Settlement,
    ) -> impl Future<Output = Result<Write, StoreError>> + Send;

    /// The table's name, for the log.
    fn table(&self) -> &str;

    /// What all calls so far have cost.
    fn consumed(&self) -> Consumed;
}

/// Which due tasks are asked for.
#[derive(Clone, Copy, Debug)]
pub struct DueQuery<'a> {
    /// A queue's name, or one of its shards'.
    pub shard: &'a str,
    /// Tasks due until then.
    pub now: Timestamp,
    /// No more than these.
    pub limit: usize,
    /// Go on after this one.
    pub after: Option<&'a Cursor>,
}

/// A page of due tasks.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// What is due, oldest first.
    pub candidates: Vec<Candidate>,
    /// Where the next page begins; nothing when this was the last.
    pub next: Option<Cursor>,
}

/// A task that looked due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub id: TaskId,
    /// Since when.
    pub due: Timestamp,
}

/// The last index entry that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The entry's task.
    pub id: TaskId,
    /// The entry's `due`, in the very digits of the table.
    pub due: String,
}

/// What came of a claim. Losing a race is an answer like any other.
#[derive(Debug)]
#[must_use]
pub enum Claimed {
    /// The task is ours.
    Won(Box<Task>),
    /// It is not: this is how the item was found.
    Lost(Standing),
    /// It cannot be read as a task. The item is `INVALID` now and says why; so does this.
    Invalid(String),
}

/// What came of a write under a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Write {
    /// It stands in the table.
    Applied,
    /// The claim is no longer ours, and nothing was changed.
    Lost(Standing),
}

/// Read and write units consumed, in thousandths, as DynamoDB counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consumed {
    /// Thousandths of read units.
    pub read_milli: u64,
    /// Thousandths of write units.
    pub write_milli: u64,
}

impl std::ops::Add for Consumed {
    type Output = Consumed;

    fn add(self, other: Consumed) -> Consumed {
        Consumed {
            read_milli: self.read_milli + other.read_milli,
            write_milli: self.write_milli + other.write_milli,
        }
    }
}

/// An error of the table; each variant is the caller's reaction.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Throttled, unreachable, no credentials at the moment: back off and stay.
    #[error("{0}")]
    Unavailable(Fault),
    /// Missing table, index or right: tell the operator; trying again helps only when somebody
    /// has changed something.
    #[error("{0}")]
    Refused(Fault),
    /// The table will never take this write to this item: leave the item alone.
    #[error("{0}")]
    Rejected(Fault),
}

impl StoreError {
    /// What happened, whatever the reaction.
    pub fn fault(&self) -> &Fault {
        match self {
            StoreError::Unavailable(fault)
            | StoreError::Refused(fault)
            | StoreError::Rejected(fault) => fault,
        }
    }
}

/// What an AWS service answered, or that it did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The call, such as `dynamodb:UpdateItem`.
    pub operation: &'static str,
    /// AWS's error code, or one of ours (`Burstd.…`).
    pub code: String,
    /// In words.
    pub message: String,
}

impl Fault {
    /// Whether the table, or the account, had no capacity left for the call
    /// (docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html).
    pub fn is_throttle(&self) -> bool {
        let code = self.code.as_str();
        code.contains("Throttl")
            || ["ProvisionedThroughputExceededException", "RequestLimitExceeded"].contains(&code)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.operation, self.code, self.message)
    }
}

//! What the dispatcher has counted since it began.

/// How many of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Claims won.
    pub claimed: u64,
    /// Tasks that ended `SUCCEEDED`.
    pub succeeded: u64,
    /// Tasks that ended `FAILED`.
    pub failed: u64,
    /// Attempts that are to be made again.
    pub retried: u64,
    /// Attempts of unknown outcome, left to their leases.
    pub unknown: u64,
    /// Claims given back without costing an attempt.
    pub released: u64,
    /// Items that are no tasks: `INVALID` now, or of which DynamoDB takes no claim.
    pub invalid: u64,
    /// Claims refused: somebody else's, finished, or gone.
    pub lost: u64,
    /// Settling writes refused because the claim was no longer held.
    pub refused: u64,
    /// Tasks of dead workers taken over.
    pub rescued: u64,
    /// Claimed and not yet settled, or being claimed.
    pub in_flight: u64,
    /// Left to their leases when burstd stopped.
    pub abandoned: u64,
}

impl Counts {
    /// Attempts that ended, well or not.
    pub fn attempts(&self) -> u64 {
        self.succeeded + self.failed + self.retried + self.unknown
    }
}

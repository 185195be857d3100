//! What a function has used, and what that would cost on AWS.

use std::fmt;
use std::time::Duration;

use super::lambda::Answer;

/// Dollars for a gigabyte in memory for a second, and for an invocation, x86 in most regions
/// (aws.amazon.com/lambda/pricing).
const GB_SECOND: f64 = 0.000_016_666_7;
const INVOCATION: f64 = 0.000_000_2;

/// What a function has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Memory of each environment, in megabytes.
    pub memory_mb: u32,
    /// Environments that were started.
    pub environments: u64,
    /// Invocations that have ended.
    pub invocations: u64,
    /// Of these, those that failed, whichever way.
    pub failed: u64,
    /// Milliseconds that Lambda would bill, initialisation included.
    pub billed_ms: u64,
}

impl Usage {
    /// What it would cost on AWS, in dollars.
    pub fn dollars(&self) -> f64 {
        let gigabytes = f64::from(self.memory_mb) / 1024.0;
        let seconds = self.billed_ms as f64 / 1e3;
        gigabytes * seconds * GB_SECOND + self.invocations as f64 * INVOCATION
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usage { memory_mb, environments, invocations, failed, billed_ms } = self;
        let seconds = *billed_ms as f64 / 1e3;
        write!(
            f,
            "{invocations} invocations, {failed} failed, {environments} environments, \
             {seconds:.1} s at {memory_mb} MB: ${:.6} on AWS",
            self.dollars()
        )
    }
}

/// Counts it.
#[derive(Debug)]
pub(super) struct Ledger(Usage);

impl Ledger {
    pub(super) fn new(memory_mb: u32) -> Self {
        Ledger(Usage { memory_mb, ..Usage::default() })
    }

    pub(super) fn usage(&self) -> Usage {
        self.0
    }

    pub(super) fn started(&mut self) {
        self.0.environments += 1;
    }

    /// Lambda's line about an invocation that has ended.
    pub(super) fn bill(
        &mut self,
        took: Duration,
        init: Option<Duration>,
        request_id: &str,
        answer: &Answer,
    ) -> String {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let init_ms = init.map(millis);
        let billed = took + init.unwrap_or_default();
        let billed = u64::try_from(billed.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self.0.invocations += 1;
        self.0.failed += u64::from(!matches!(answer, Answer::Returned(_)));
        self.0.billed_ms += billed;
        let took = millis(took);
        let init = init_ms.map(|init| format!("Init Duration: {init:.2} ms\t")).unwrap_or_default();
        format!(
            "REPORT RequestId: {request_id}\tDuration: {took:.2} ms\tBilled Duration: {billed} ms\t\
             Memory Size: {} MB\t{init}\n",
            self.0.memory_mb
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_is_billed_whole_and_the_initialisation_with_it() {
        let mut ledger = Ledger::new(512);
        let (took, init) = (Duration::from_micros(99_100), Duration::from_millis(20));
        let answer = Answer::Returned(Vec::new());
        let line = ledger.bill(took, Some(init), "r-1", &answer);
        let expected = "REPORT RequestId: r-1\tDuration: 99.10 ms\tBilled Duration: 120 ms\tMemory \
                        Size: 512 MB\tInit Duration: 20.00 ms\t\n";
        assert_eq!(line, expected);
        for _ in 1..10 {
            ledger.bill(Duration::from_millis(100), None, "r", &Answer::TooLarge);
        }
        let usage = ledger.usage();
        assert_eq!((usage.invocations, usage.failed, usage.billed_ms), (10, 9, 1020));
        let expected = 0.5 * 1.02 * 0.000_016_666_7 + 10.0 * 0.000_000_2;
        assert!((usage.dollars() - expected).abs() < 1e-12, "{}", usage.dollars());
    }
}

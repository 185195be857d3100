//! The summary line: what was done since the last one, how long it took, and how things stand.

use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;
use tracing::info;

use super::log::millis;
use super::{Dispatcher, Overview};
use crate::counts::Counts;
use crate::invoker::Invoker;
use crate::store::{Consumed, Store};
use crate::usage;
use crate::worker::Attempted;

/// It comes this often while there is work, ...
const WORKING: Duration = Duration::from_secs(10);

/// ... and this often while there is none.
const IDLE: Duration = Duration::from_secs(300);

/// Nothing takes longer than this: a function's longest timeout and its wait.
const LONGEST: Duration = Duration::from_secs(3600);

/// What was counted and measured since the last summary.
#[derive(Debug)]
pub(super) struct Tally {
    since: Instant,
    before: Totals,
    queue_wait: Times,
    invoke: Times,
    write: Times,
}

/// What only ever grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    counts: Counts,
    consumed: Consumed,
    throttled: u64,
    store_throttled: u64,
    store_faults: u64,
    memory_waits: u64,
    log_dropped: u64,
}

impl Tally {
    pub(super) fn new(now: Instant) -> Self {
        Tally {
            since: now,
            before: Totals::default(),
            queue_wait: Times::new(),
            invoke: Times::new(),
            write: Times::new(),
        }
    }

    /// An attempt ended.
    pub(super) fn add(&mut self, attempted: &Attempted) {
        self.write.add(attempted.write_took);
        // What was given back is waiting still.
        if attempted.not_run.is_none() {
            self.invoke.add(attempted.invoke_took);
            if let Some(wait) = attempted.queue_wait() {
                self.queue_wait.add(wait);
            }
        }
    }
}

/// How long something took, to a hundredth of it.
#[derive(Debug)]
struct Times(Histogram<u64>);

impl Times {
    fn new() -> Self {
        let longest = u64::try_from(LONGEST.as_micros()).expect("an hour fits");
        Times(Histogram::new_with_bounds(1, longest, 2).expect("the bounds are right"))
    }

    fn add(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Milliseconds within which this share of them was done; nothing when there were none.
    fn at(&self, quantile: f64) -> Option<f64> {
        let took = Duration::from_micros(self.0.value_at_quantile(quantile));
        (!self.0.is_empty()).then(|| millis(took))
    }
}

impl<S: Store, I: Invoker> Dispatcher<S, I> {
    /// Says what was done, when it is time.
    pub(super) fn summarise_in_time(&mut self, now: Instant) {
        let is_working = !self.tasks.is_empty() || self.counts != self.tally.before.counts;
        let after = if is_working { WORKING } else { IDLE };
        if now.saturating_duration_since(self.tally.since) >= after {
            self.summarise();
        }
    }

    /// Says what was done since the last summary.
    pub(super) fn summarise(&mut self) {
        let now = Instant::now();
        let (totals, overview) = (self.totals(), self.overview(now));
        let next = Tally { before: totals, ..Tally::new(now) };
        let tally = std::mem::replace(&mut self.tally, next);
        say(self.worker.store.table(), &tally, &totals, &overview, self.worker.memory.taken(), now);
    }

    fn totals(&self) -> Totals {
        Totals {
            counts: self.counts,
            consumed: self.worker.store.consumed(),
            throttled: self.loads.iter().map(|load| load.governor.throttles()).sum(),
            store_throttled: self.worker.store_throttles(),
            store_faults: self.worker.store_trouble.faults(),
            memory_waits: self.worker.memory.waits(),
            log_dropped: self.worker.backlog.dropped(),
        }
    }
}

fn say(
    table: &str,
    tally: &Tally,
    totals: &Totals,
    overview: &Overview,
    bytes_in_flight: usize,
    now: Instant,
) {
    let (counts, before) = (&totals.counts, &tally.before.counts);
    let (consumed, consumed_before) = (totals.consumed, tally.before.consumed);
    let units = |now: u64, before: u64| (now - before) as f64 / 1e3;
    info!(
        event = "stats.summary",
        table,
        span_s = now.saturating_duration_since(tally.since).as_secs_f64().round(),
        claimed = counts.claimed - before.claimed,
        succeeded = counts.succeeded - before.succeeded,
        failed = counts.failed - before.failed,
        retried = counts.retried - before.retried,
        unknown = counts.unknown - before.unknown,
        released = counts.released - before.released,
        rejected = counts.invalid - before.invalid,
        rescued = counts.rescued - before.rescued,
        refused = counts.refused - before.refused,
        claims_lost = counts.lost - before.lost,
        in_flight = overview.in_flight,
        waiting = overview.waiting,
        limit = overview.limit,
        bound_by = overview.bound_by.as_deref(),
        backlog = overview.backlog,
        oldest_due_s = overview.oldest_due.map(|age| millis(age) / 1e3),
        waiting_to_retry = overview.waiting_to_retry,
        queue_p50_ms = tally.queue_wait.at(0.5),
        queue_p95_ms = tally.queue_wait.at(0.95),
        queue_p99_ms = tally.queue_wait.at(0.99),
        invoke_p50_ms = tally.invoke.at(0.5),
        invoke_p95_ms = tally.invoke.at(0.95),
        invoke_p99_ms = tally.invoke.at(0.99),
        write_p50_ms = tally.write.at(0.5),
        write_p95_ms = tally.write.at(0.95),
        write_p99_ms = tally.write.at(0.99),
        throttled = totals.throttled - tally.before.throttled,
        store_throttled = totals.store_throttled - tally.before.store_throttled,
        store_faults = totals.store_faults - tally.before.store_faults,
        read_units = units(consumed.read_milli, consumed_before.read_milli),
        write_units = units(consumed.write_milli, consumed_before.write_milli),
        bytes_in_flight,
        memory_waits = totals.memory_waits - tally.before.memory_waits,
        // A figure that the kernel does not tell is left out.
        resident_bytes = usage::resident_kb("self").ok().map(|kilobytes| kilobytes * 1024),
        descriptors = usage::descriptors("self").ok(),
        log_dropped = totals.log_dropped - tally.before.log_dropped,
        "summary"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_hundred_times_half_the_nearly_all_and_the_last_are_told_to_a_hundredth() {
        let mut times = Times::new();
        assert_eq!(times.at(0.5), None);
        (1..=100).for_each(|millis| times.add(Duration::from_millis(millis)));
        for (quantile, expected) in [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0)] {
            let told = times.at(quantile).expect("there were some");
            assert!((told - expected).abs() <= expected / 100.0, "{quantile}: {told}");
        }
        times.add(Duration::from_secs(1_000_000));
        assert!(times.at(1.0).is_some_and(|longest| longest >= 3.6e6), "more than can be told");
    }
}

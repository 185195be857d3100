//! Notices bursts: the rises of the number in flight that are worth a line in the log.

use std::time::Duration;

use tokio::time::Instant;

/// A rise is over when there was no new peak for this long.
const OVER: Duration = Duration::from_secs(1);

/// A smaller rise is everyday life.
const LEAST: usize = 10;

/// A burst that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Burst {
    /// How many were in flight before.
    pub(super) from: usize,
    /// How many were at most.
    pub(super) peak: usize,
    /// From the first start to the last before the peak.
    pub(super) took: Duration,
    /// How many starts were throttled.
    pub(super) throttled: usize,
}

/// Watches the number in flight.
#[derive(Debug, Default)]
pub(super) struct Bursts {
    rise: Option<Rise>,
    /// The last peak.
    level: usize,
}

#[derive(Debug)]
struct Rise {
    from: usize,
    began: Instant,
    peak: usize,
    peak_at: Instant,
    throttled: usize,
    unused: usize,
}

impl Bursts {
    /// One more runs: so many do now.
    pub(super) fn started(&mut self, running: usize, now: Instant) {
        match &mut self.rise {
            Some(rise) if running > rise.peak => (rise.peak, rise.peak_at) = (running, now),
            Some(_) => {}
            None if 2 * (running - 1) <= self.level || 2 * running > 3 * self.level => {
                let (from, peak) = (running - 1, running);
                let (began, peak_at) = (now, now);
                self.rise = Some(Rise { from, began, peak, peak_at, throttled: 0, unused: 0 });
            }
            None => {}
        }
    }

    /// A start was throttled.
    pub(super) fn throttled(&mut self) {
        if let Some(rise) = &mut self.rise {
            rise.throttled += 1;
        }
    }

    /// A start failed, and it was no limit's fault.
    pub(super) fn unused(&mut self) {
        if let Some(rise) = &mut self.rise {
            rise.unused += 1;
        }
    }

    /// When the rise under way is to be looked at again.
    pub(super) fn over_at(&self) -> Option<Instant> {
        self.rise.as_ref().map(|rise| rise.peak_at + OVER)
    }

    /// The burst that has ended by now.
    pub(super) fn over(&mut self, now: Instant) -> Option<Burst> {
        let rise = self.rise.take_if(|rise| now >= rise.peak_at + OVER)?;
        let Rise { from, began, throttled, unused, .. } = rise;
        // Those had been counted, and never ran.
        let peak = rise.peak.saturating_sub(throttled + unused).max(from);
        self.level = peak;
        let burst = Burst { from, peak, took: rise.peak_at - began, throttled };
        (peak - from >= LEAST).then_some(burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn five_hundred_put_in_flight_are_one_burst() {
        let (mut bursts, began) = (Bursts::default(), Instant::now());
        for running in 1..=500 {
            bursts.started(running, began + millis(running as u64));
        }
        for _ in 0..300 {
            bursts.throttled();
        }
        assert_eq!(bursts.over(began + millis(1499)), None);
        let burst = Burst { from: 0, peak: 200, took: millis(499), throttled: 300 };
        assert_eq!(bursts.over(began + millis(1500)), Some(burst));
        assert_eq!(bursts.over(began + millis(9000)), None, "it is told once");
    }

    #[test]
    fn what_lambda_could_not_start_is_no_burst() {
        let (mut bursts, now) = (Bursts::default(), Instant::now());
        for running in 1..=500 {
            bursts.started(running, now);
        }
        for _ in 0..500 {
            bursts.unused();
        }
        assert_eq!(bursts.over(now + OVER), None);
    }

    #[test]
    fn places_taken_again_while_it_is_full_are_none() {
        let (mut bursts, mut now) = (Bursts::default(), Instant::now());
        (1..=100).for_each(|running| bursts.started(running, now));
        assert!(bursts.over(now + OVER).is_some());
        for running in [100, 99, 60, 100] {
            now += millis(2000);
            bursts.started(running, now);
            assert_eq!(bursts.over(now + OVER), None);
        }
        (1..=100).for_each(|running| bursts.started(running, now));
        assert!(bursts.over(now + OVER).is_some(), "after it was empty it is one");
    }

    #[test]
    fn a_few_tasks_now_and_then_are_none() {
        let (mut bursts, mut now) = (Bursts::default(), Instant::now());
        for _ in 0..50 {
            bursts.started(1, now);
            now += millis(3000);
            assert_eq!(bursts.over(now), None);
        }
    }
}

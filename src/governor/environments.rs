//! A model of the environments Lambda keeps for a function: those that are warm can be used
//! again at once; new ones it makes only so many of in a time
//! (docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html, "Concurrency scaling rate").

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::bucket::Bucket;

/// Lambda keeps an idle environment for a while that it does not promise; this is believed.
const WARM: Duration = Duration::from_secs(300);

/// Lambda's clock and ours are not the same: a little below its rate.
const CAUTION: f64 = 0.98;

/// The environments of one function.
#[derive(Debug)]
pub(super) struct Environments {
    new: Bucket,
    /// Since when each idle one is idle, the longest first. Lambda is taken to use the one that
    /// was used last, so that the others end in time.
    idle: VecDeque<Instant>,
}

impl Environments {
    /// At most so many new ones in 10 s.
    pub(super) fn new(per_10_s: u32) -> Self {
        let capacity = f64::from(per_10_s);
        Environments {
            new: Bucket::new(capacity / 10.0 * CAUTION, capacity),
            idle: VecDeque::new(),
        }
    }

    /// At most so many new ones in 10 s from now on.
    pub(super) fn set_ramp(&mut self, per_10_s: u32, now: Instant) {
        let capacity = f64::from(per_10_s);
        self.new.set(capacity / 10.0 * CAUTION, capacity, now);
    }

    /// When one is to be had; nothing when one is now.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Instant> {
        self.let_go(now);
        if self.idle.is_empty() { self.new.wait(now) } else { None }
    }

    /// Takes one; true when it is a new one.
    pub(super) fn start(&mut self) -> bool {
        let is_new = self.idle.pop_back().is_none();
        if is_new {
            self.new.take();
        }
        is_new
    }

    /// One has become idle.
    pub(super) fn ended(&mut self, now: Instant) {
        self.idle.push_back(now);
    }

    /// None was used: the function did not start.
    pub(super) fn refused(&mut self, was_new: bool, now: Instant) {
        if was_new {
            self.new.give_back();
        } else {
            self.idle.push_back(now);
        }
    }

    /// Lambda made no new one, although one was due by this model.
    pub(super) fn none_left(&mut self) {
        self.new.empty();
    }

    pub(super) fn within(&mut self, span: Duration, now: Instant) -> f64 {
        self.let_go(now);
        self.idle.len() as f64 + self.new.within(span, now)
    }

    fn let_go(&mut self, now: Instant) {
        while self.idle.front().is_some_and(|since| now - *since >= WARM) {
            self.idle.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(environments: &mut Environments, now: Instant) -> usize {
        std::iter::from_fn(|| environments.wait(now).is_none().then(|| environments.start()))
            .count()
    }

    #[test]
    fn a_thousand_start_at_once_then_a_hundred_each_second() {
        let (mut environments, now) = (Environments::new(1000), Instant::now());
        assert_eq!(fill(&mut environments, now), 1000);
        let started = fill(&mut environments, now + Duration::from_secs(10));
        assert_eq!(started, 980, "a little less than Lambda makes");
    }

    #[test]
    fn warm_ones_do_not_count() {
        let (mut environments, now) = (Environments::new(1000), Instant::now());
        fill(&mut environments, now);
        for _ in 0..1000 {
            environments.ended(now);
        }
        assert_eq!(fill(&mut environments, now), 1000);
    }

    #[test]
    fn one_that_was_idle_for_five_minutes_is_gone() {
        let (mut environments, now) = (Environments::new(10), Instant::now());
        for _ in 0..500 {
            environments.ended(now);
        }
        assert_eq!(fill(&mut environments, now + WARM), 10);
    }
}

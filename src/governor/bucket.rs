//! A token bucket: how many may start in a time.

use std::time::Duration;

use tokio::time::Instant;

/// Fills at a steady rate up to a capacity; each start takes one token out.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: f64,
    capacity: f64,
    tokens: f64,
    filled_at: Option<Instant>,
}

impl Bucket {
    /// A full bucket; one that fills infinitely fast never makes anybody wait.
    pub(super) fn new(per_second: f64, capacity: f64) -> Self {
        Bucket { per_second, capacity, tokens: capacity, filled_at: None }
    }

    pub(super) fn unlimited() -> Self {
        Bucket::new(f64::INFINITY, f64::INFINITY)
    }

    pub(super) fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Fills at another rate from now on; what is in it stays, as far as it fits.
    pub(super) fn set(&mut self, per_second: f64, capacity: f64, now: Instant) {
        self.fill(now);
        (self.per_second, self.capacity) = (per_second, capacity);
        self.tokens = self.tokens.min(capacity);
    }

    /// When the next token is there; nothing when there is one.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Instant> {
        self.fill(now);
        // As much short of a whole token as sums of fractions may be.
        if self.tokens > 0.999_999 {
            return None;
        }
        Some(now + Duration::from_secs_f64((1.0 - self.tokens) / self.per_second))
    }

    pub(super) fn take(&mut self) {
        self.tokens -= 1.0;
    }

    /// A token that was taken was not used.
    pub(super) fn give_back(&mut self) {
        self.tokens = (self.tokens + 1.0).min(self.capacity);
    }

    /// What is in it is of no use: there was less than was thought.
    pub(super) fn empty(&mut self) {
        if self.per_second.is_finite() {
            self.tokens = self.tokens.min(0.0);
        }
    }

    /// How many there are, and come within a time.
    pub(super) fn within(&mut self, span: Duration, now: Instant) -> f64 {
        self.fill(now);
        self.tokens.max(0.0) + self.per_second * span.as_secs_f64()
    }

    fn fill(&mut self, now: Instant) {
        let since = self.filled_at.replace(now).map_or(Duration::ZERO, |at| now - at);
        if self.per_second.is_finite() {
            let more = self.per_second * since.as_secs_f64();
            self.tokens = (self.tokens + more).min(self.capacity);
        } else {
            self.tokens = self.capacity;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bucket_gives_its_capacity_at_once_and_then_its_rate() {
        let (mut bucket, start) = (Bucket::new(100.0, 1000.0), Instant::now());
        let mut given_until = |millis: u64| {
            let now = start + Duration::from_millis(millis);
            let mut given = 0;
            while bucket.wait(now).is_none() {
                bucket.take();
                given += 1;
            }
            given
        };
        assert_eq!([given_until(0), given_until(1000), given_until(1500)], [1000, 100, 50]);
        assert_eq!(given_until(60_000), 1000, "never more than its capacity");
    }

    #[test]
    fn who_waits_is_told_until_when() {
        let (mut bucket, now) = (Bucket::new(50.0, 1.0), Instant::now());
        bucket.take();
        let next = bucket.wait(now).expect("it is empty");
        assert_eq!((next - now).as_millis(), 20);
        assert_eq!(bucket.wait(next), None);
    }

    #[test]
    fn an_unlimited_bucket_stays_so_whatever_is_taken() {
        let (mut bucket, now) = (Bucket::unlimited(), Instant::now());
        for _ in 0..5 {
            bucket.empty();
            assert_eq!(bucket.wait(now), None);
            bucket.take();
        }
    }
}

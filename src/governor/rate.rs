//! How many starts in a second Lambda takes, as far as its throttles have told.

use std::time::Duration;

use tokio::time::Instant;

use super::bucket::Bucket;

/// What is left after a throttle of what was accepted in the last second.
const DECREASE: f64 = 0.9;

/// How fast it grows again: this share of it each second.
const GROWTH: f64 = 0.05;

/// How much of a second's starts may come at one moment.
const AT_ONCE: f64 = 0.1;

const SECOND: Duration = Duration::from_secs(1);

/// A rate of starts: unlimited until something was throttled or a ceiling is known.
#[derive(Debug)]
pub(super) struct Rate {
    learned: f64,
    ceiling: f64,
    bucket: Bucket,
    recent: Recent,
    grown_at: Option<Instant>,
}

/// Starts in the last second: those of the one before it by the share that still counts.
#[derive(Debug, Default)]
struct Recent {
    began: Option<Instant>,
    this: u32,
    before: u32,
}

impl Rate {
    pub(super) fn unlimited() -> Self {
        Rate {
            learned: f64::INFINITY,
            ceiling: f64::INFINITY,
            bucket: Bucket::unlimited(),
            recent: Recent::default(),
            grown_at: None,
        }
    }

    /// Starts in a second.
    pub(super) fn per_second(&self) -> f64 {
        self.bucket.per_second()
    }

    /// Lambda's own limit is known.
    pub(super) fn set_ceiling(&mut self, ceiling: f64, now: Instant) {
        self.ceiling = ceiling;
        self.apply(now);
    }

    /// When one more may start; nothing when it may now.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Instant> {
        self.grow(now);
        self.bucket.wait(now)
    }

    pub(super) fn started(&mut self, now: Instant) {
        self.bucket.take();
        self.recent.roll(now);
        self.recent.this += 1;
    }

    /// A start failed for another reason than this rate.
    pub(super) fn refused(&mut self) {
        self.recent.this = self.recent.this.saturating_sub(1);
    }

    /// Starts came too fast: what was accepted in the last second is what Lambda takes.
    pub(super) fn throttled(&mut self, now: Instant) {
        self.refused();
        let accepted = self.recent.in_a_second(now);
        self.learned = self.learned.min((accepted * DECREASE).max(1.0));
        self.grown_at = Some(now + SECOND);
        self.apply(now);
        self.bucket.empty();
    }

    pub(super) fn within(&mut self, span: Duration, now: Instant) -> f64 {
        self.bucket.within(span, now)
    }

    fn grow(&mut self, now: Instant) {
        let Some(since) = self.grown_at.filter(|at| *at <= now && self.learned.is_finite()) else {
            return;
        };
        self.grown_at = Some(now);
        self.learned *= 1.0 + GROWTH * (now - since).as_secs_f64();
        self.apply(now);
    }

    fn apply(&mut self, now: Instant) {
        let per_second = self.learned.min(self.ceiling);
        self.bucket.set(per_second, (per_second * AT_ONCE).max(1.0), now);
    }
}

impl Recent {
    fn roll(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        if now - began >= SECOND {
            self.before = if now - began < 2 * SECOND { self.this } else { 0 };
            (self.this, self.began) = (0, Some(now));
        }
    }

    fn in_a_second(&mut self, now: Instant) -> f64 {
        self.roll(now);
        let elapsed = self.began.map_or(SECOND, |began| now - began);
        f64::from(self.this) + f64::from(self.before) * (1.0 - elapsed.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Starts as many as may, and says how many.
    fn fill(rate: &mut Rate, now: Instant, most: usize) -> usize {
        let mut start = || rate.wait(now).is_none().then(|| rate.started(now));
        (0..most).map_while(|_| start()).count()
    }

    #[test]
    fn after_a_throttle_nine_tenths_of_what_was_accepted_start_in_a_second() {
        let (mut rate, now) = (Rate::unlimited(), Instant::now());
        assert_eq!(fill(&mut rate, now, 500), 500);
        for _ in 0..400 {
            rate.throttled(now + millis(30));
        }
        assert_eq!(rate.per_second().round(), 90.0);
        let started: usize =
            (1..=100).map(|step| fill(&mut rate, now + millis(30 + 10 * step), 500)).sum();
        assert!((89..=91).contains(&started), "{started} in the next second");
    }

    #[test]
    fn it_grows_by_a_twentieth_each_second_after_a_second_s_calm() {
        let (mut rate, now) = (Rate::unlimited(), Instant::now());
        fill(&mut rate, now, 101);
        rate.throttled(now);
        for tenth in 1..=30 {
            rate.wait(now + millis(100) * tenth);
        }
        assert!((98.0..100.0).contains(&rate.per_second()), "{}", rate.per_second());
    }

    #[test]
    fn a_known_ceiling_leaves_a_tenth_of_a_second_s_starts_at_one_moment() {
        let (mut rate, now) = (Rate::unlimited(), Instant::now());
        rate.set_ceiling(2000.0, now);
        assert_eq!(fill(&mut rate, now, 5000), 200);
    }
}

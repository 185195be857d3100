//! The only place that asks what time it is.
//!
//! Leases and `due` are compared by machines whose clocks may be wrong, so the time of day here
//! is AWS's: every answer of DynamoDB carries a `Date`, and the machine's clock is believed only
//! as far as it agrees with that.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::task::Timestamp;

/// A `Date` counts whole seconds, ...
const DATE_STEP: Duration = Duration::from_secs(1);

/// ... and AWS's own machines differ by less than this.
const AWS_DIFFERS: Duration = Duration::from_millis(250);

/// So the clocks of two machines that both have heard AWS differ by less than this, half a second
/// for the ways of its answers included.
pub const CLOCKS_DIFFER: Duration = Duration::from_secs(2);

/// The monotonic clock loses or gains no more than a part in so many.
const DRIFT: u32 = 20;

/// A machine's clock that is wrong by this is worth a word, ...
const WORTH_A_WARNING: Duration = Duration::from_secs(2);

/// ... and by less than this it is right again.
const RIGHT: Duration = Duration::from_secs(1);

/// Tells the time of day, which the table counts in. Spans are measured with tokio's monotonic
/// [`Instant`], which a test can pause. Clones share what they have heard.
#[derive(Clone, Debug)]
pub struct Clock {
    wall: Wall,
    heard: Arc<Mutex<Option<Heard>>>,
}

/// The machine's own clock, or a test's.
#[derive(Clone)]
struct Wall(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wall").field(&(self.0)()).finish()
    }
}

/// What AWS has said of the time.
#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Instant,
    /// AWS's time at that moment, as far as it is known.
    bounds: Bounds,
    /// How far the machine's clock was from it then.
    distance: i64,
    is_told: bool,
}

/// Milliseconds since the epoch that AWS's clock may show.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    earliest: u64,
    latest: u64,
}

/// How the machine's clock compares with AWS's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offset {
    /// Seconds that it is ahead; negative when it is behind.
    pub seconds: f64,
    /// Whether that is worth a word.
    pub is_wrong: bool,
    /// Whether AWS's time has to be used instead, which is known less well.
    pub is_doubtful: bool,
}

/// What there is to say about the machine's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Skew {
    /// It is wrong by so many seconds; positive when it is ahead of AWS's.
    Wrong(f64),
    /// It is right again.
    Right,
}

impl Clock {
    /// The machine's clock.
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn system() -> Self {
        Clock::reading(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            Timestamp::default() + since
        })
    }

    /// A machine's clock that is read like this: two workers whose clocks differ are two of
    /// these.
    pub fn reading(wall: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Clock { wall: Wall(Arc::new(wall)), heard: Arc::default() }
    }

    /// The time of day: the machine's, unless AWS's answers say that it cannot be.
    pub fn now(&self) -> Timestamp {
        let wall = (self.wall.0)();
        let bounds = self.heard().map(|heard| heard.bounds_at(Instant::now()));
        match bounds.filter(|bounds| bounds.distance(wall) != 0) {
            None => wall,
            Some(bounds) => Timestamp::from_millis(bounds.middle()),
        }
    }

    /// How wrong [`Clock::now`] may be. Nothing while the machine's clock agrees with AWS; a
    /// great deal after either clock of the machine has jumped, until AWS has answered again.
    pub fn doubt(&self) -> Duration {
        let Some(heard) = self.heard() else { return Duration::ZERO };
        let bounds = heard.bounds_at(Instant::now());
        let distance = bounds.distance((self.wall.0)());
        if distance == 0 && heard.distance == 0 {
            return Duration::ZERO;
        }
        Duration::from_millis(bounds.width() / 2 + distance.abs_diff(heard.distance))
    }

    /// How the machine's clock compares with AWS's; nothing before AWS has answered.
    pub fn offset(&self) -> Option<Offset> {
        let bounds = self.heard()?.bounds_at(Instant::now());
        let skew = bounds.skew((self.wall.0)());
        Some(Offset {
            seconds: skew as f64 / 1e3,
            is_wrong: skew.unsigned_abs() >= millis(WORTH_A_WARNING),
            is_doubtful: !self.doubt().is_zero(),
        })
    }

    /// Takes in the `Date` of an answer to a request that was sent at `sent`. Says when the
    /// machine's clock turns out wrong, or right again.
    pub fn hear(&self, date: Timestamp, sent: Instant) -> Option<Skew> {
        let (wall, at) = ((self.wall.0)(), Instant::now());
        let said = Bounds {
            earliest: date.as_millis().saturating_sub(millis(AWS_DIFFERS)),
            latest: (date + DATE_STEP + AWS_DIFFERS + at.duration_since(sent)).as_millis(),
        };
        let mut heard = self.heard.lock().expect("nothing panics while holding this lock");
        // What does not fit with what was said before is younger than a jump of some clock.
        let before = heard.map(|heard| heard.bounds_at(at));
        let bounds = before.and_then(|before| before.and(said)).unwrap_or(said);
        let was_told = heard.is_some_and(|heard| heard.is_told);
        let skew = bounds.skew(wall);
        let is_told = skew.unsigned_abs() >= millis(if was_told { RIGHT } else { WORTH_A_WARNING });
        *heard = Some(Heard { at, bounds, distance: bounds.distance(wall), is_told });
        match (was_told, is_told) {
            (false, true) => Some(Skew::Wrong(skew as f64 / 1e3)),
            (true, false) => Some(Skew::Right),
            _ => None,
        }
    }

    fn heard(&self) -> Option<Heard> {
        *self.heard.lock().expect("nothing panics while holding this lock")
    }
}

impl Heard {
    /// What AWS's clock may show at a later moment.
    fn bounds_at(&self, at: Instant) -> Bounds {
        let age = at.saturating_duration_since(self.at);
        let (age, drift) = (millis(age), millis(age / DRIFT));
        Bounds {
            earliest: self.bounds.earliest + age - drift,
            latest: self.bounds.latest + age + drift,
        }
    }
}

impl Bounds {
    /// What lies within both, if anything does.
    fn and(self, other: Bounds) -> Option<Bounds> {
        let earliest = self.earliest.max(other.earliest);
        let latest = self.latest.min(other.latest);
        (earliest <= latest).then_some(Bounds { earliest, latest })
    }

    /// How far a clock is from what is allowed; positive when it is ahead.
    fn distance(self, wall: Timestamp) -> i64 {
        let wall = wall.as_millis();
        signed(wall, wall.clamp(self.earliest, self.latest))
    }

    /// How far a clock is from the middle.
    fn skew(self, wall: Timestamp) -> i64 {
        signed(wall.as_millis(), self.middle())
    }

    fn middle(self) -> u64 {
        self.earliest + self.width() / 2
    }

    fn width(self) -> u64 {
        self.latest - self.earliest
    }
}

fn signed(one: u64, other: u64) -> i64 {
    let apart = i64::try_from(one.abs_diff(other)).unwrap_or(i64::MAX);
    if one < other { -apart } else { apart }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::time::advance;

    use super::*;

    /// When the tests begin, by AWS's clock.
    const BEGIN: u64 = 1_763_800_000_400;

    /// A machine's clock that can be set, and AWS's beside it.
    struct Two {
        clock: Clock,
        ahead: Arc<AtomicU64>,
        began: Instant,
    }

    /// A machine whose clock is `ahead` milliseconds beside AWS's, less a day.
    impl Two {
        const DAY: u64 = 86_400_000;

        fn ahead(millis: i64) -> Self {
            let began = Instant::now();
            let ahead = Arc::new(AtomicU64::new(0));
            let wall = ahead.clone();
            let clock = Clock::reading(move || {
                let run = u64::try_from(began.elapsed().as_millis()).expect("it is short");
                let millis = BEGIN + run + wall.load(Ordering::Relaxed) - Self::DAY;
                Timestamp::from_millis(millis)
            });
            let two = Two { clock, ahead, began };
            two.set(millis);
            two
        }

        fn set(&self, ahead: i64) {
            self.ahead.store(Self::DAY.saturating_add_signed(ahead), Ordering::Relaxed);
        }

        fn aws(&self) -> u64 {
            BEGIN + millis(self.began.elapsed())
        }

        /// AWS answers a request that took so long.
        async fn answer(&self, took: Duration) -> Option<Skew> {
            let sent = Instant::now();
            advance(took).await;
            let date = Timestamp::from_millis(self.aws() / 1000 * 1000);
            self.clock.hear(date, sent)
        }

        fn error(&self) -> u64 {
            self.clock.now().as_millis().abs_diff(self.aws())
        }
    }

    const QUICK: Duration = Duration::from_millis(20);

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_right_is_left_alone_and_never_in_doubt() {
        let two = Two::ahead(0);
        for _ in 0..50 {
            assert_eq!(two.answer(QUICK).await, None);
            advance(Duration::from_millis(777)).await;
            assert_eq!(two.error(), 0);
            assert_eq!(two.clock.doubt(), Duration::ZERO);
        }
        advance(Duration::from_secs(3600)).await;
        assert_eq!(two.clock.doubt(), Duration::ZERO, "AWS may be silent for an hour");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_ten_minutes_off_shows_the_right_time_within_two_seconds_after_one_answer() {
        for wrong in [-600_000, 600_000] {
            let two = Two::ahead(wrong);
            let told = two.answer(QUICK).await;
            let Some(Skew::Wrong(skew)) = told else { panic!("{wrong}: {told:?}") };
            assert!((skew - wrong as f64 / 1e3).abs() < 1.0, "{skew}");
            assert!(two.error() < 1600, "{wrong}: {}", two.error());
            assert!(two.clock.doubt() < Duration::from_secs(1), "{:?}", two.clock.doubt());
            for _ in 0..20 {
                advance(Duration::from_millis(777)).await;
                assert_eq!(two.answer(QUICK).await, None, "it is said once");
            }
            assert!(two.error() < 600, "{wrong}: more answers tell it better: {}", two.error());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_tells_little_and_spoils_nothing() {
        let two = Two::ahead(-600_000);
        two.answer(QUICK).await;
        let error = two.error();
        assert_eq!(two.answer(Duration::from_secs(30)).await, None);
        assert!(two.error() <= error + 1600, "{}", two.error());
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_jumps_is_doubted_until_aws_has_answered() {
        for jump in [-600_000, 30_000] {
            let two = Two::ahead(0);
            two.answer(QUICK).await;
            two.set(jump);
            assert!(two.clock.doubt() > Duration::from_secs(20), "{:?}", two.clock.doubt());
            assert!(two.error() < 1600, "the other clock still tells: {}", two.error());
            assert!(matches!(two.answer(QUICK).await, Some(Skew::Wrong(_))));
            assert!(two.clock.doubt() < Duration::from_secs(1), "{:?}", two.clock.doubt());
            two.set(0);
            assert_eq!(two.answer(QUICK).await, Some(Skew::Right));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_wrong_is_doubted_the_more_the_longer_aws_is_silent() {
        let two = Two::ahead(-600_000);
        two.answer(QUICK).await;
        advance(Duration::from_secs(20)).await;
        let soon = two.clock.doubt();
        advance(Duration::from_secs(200)).await;
        assert!(soon < Duration::from_secs(4), "{soon:?}");
        assert!(two.clock.doubt() > Duration::from_secs(10), "{:?}", two.clock.doubt());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drift_of_five_per_cent_is_followed() {
        let two = Two::ahead(0);
        for answer in 0..600 {
            two.answer(QUICK).await;
            two.set(answer * 50);
            assert!(two.error() < 1600, "after {answer} s: {}", two.error());
            advance(Duration::from_millis(980)).await;
        }
        assert!(two.clock.doubt() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_slept_is_told_the_time_anew() {
        // The monotonic clock stands still in sleep; the other one does not.
        let two = Two::ahead(0);
        two.answer(QUICK).await;
        let slept = 3_600_000;
        two.set(slept);
        assert!(two.clock.doubt() > Duration::from_secs(3000));
        let date = Timestamp::from_millis((two.aws() + slept.unsigned_abs()) / 1000 * 1000);
        two.clock.hear(date, Instant::now());
        assert_eq!(two.clock.doubt(), Duration::ZERO);
        assert_eq!(two.clock.now().as_millis(), two.aws() + slept.unsigned_abs());
    }
}

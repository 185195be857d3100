//! How many tasks of one function may run at once, as far as Lambda lets us know.
//!
//! Lambda has several limits, tells of none until it is reached, and shares most with others. So
//! the first burst starts at once; a throttle shows how many were accepted, and that is the
//! window from then on; while it is full and nobody complains it opens again, slowly. A task that
//! may not start waits here, claimed, and costs neither an attempt nor a write.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::invoker::Throttle;

/// How fast a full window opens when nobody complains: this share of it each second, ...
const OPENING: f64 = 0.05;

/// ... and at least so many.
const OPENING_LEAST: f64 = 1.0;

/// How long after a throttle the window stays as it is.
const CALM: Duration = Duration::from_secs(1);

/// Between two tries while not a single task is let in, from the first to the longest.
const PROBE_FIRST: Duration = Duration::from_millis(200);
const PROBE_LONGEST: Duration = Duration::from_secs(10);

/// So many throttles in a row while nothing ran are more than a neighbour's burst.
const SHUT_OUT: u32 = 3;

/// How often somebody who waits looks whether the window has opened by itself.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// No change of the window is told more often.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// The window as pure state; time is passed in.
#[derive(Debug)]
struct Window {
    /// How many may run; infinite until something was throttled.
    limit: f64,
    running: usize,
    /// Nothing starts before.
    closed_until: Option<Instant>,
    /// Throttles in a row while nothing ran.
    shut_out: u32,
    opened_at: Option<Instant>,
    told: Option<(Instant, f64)>,
}

/// A change of the window that is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Before; nothing when there was no limit.
    pub from: Option<usize>,
    /// Now.
    pub to: usize,
}

/// Why a task may not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// As many run as may; somebody's end changes that.
    Full,
    /// Nothing starts before this.
    Until(Instant),
}

impl Window {
    fn new() -> Self {
        Window {
            limit: f64::INFINITY,
            running: 0,
            closed_until: None,
            shut_out: 0,
            opened_at: None,
            told: None,
        }
    }

    /// How many may run at once.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    fn size(&self) -> usize {
        self.limit.max(1.0) as usize
    }

    /// Takes a place, if there is one.
    fn start(&mut self, now: Instant) -> Result<(), Wait> {
        self.open(now);
        if let Some(until) = self.closed_until.filter(|until| *until > now) {
            return Err(Wait::Until(until));
        }
        if self.running >= self.size() {
            return Err(Wait::Full);
        }
        self.running += 1;
        Ok(())
    }

    /// A task that had started has ended, and was not throttled.
    fn ended(&mut self, now: Instant) {
        self.running -= 1;
        self.shut_out = 0;
        self.open(now);
    }

    /// A start was throttled: what runs now is what Lambda gives now.
    fn throttled(&mut self, throttle: Throttle, now: Instant) -> Option<Change> {
        self.running -= 1;
        let before = self.limit;
        let accepted = self.running as f64;
        let (limit, pause) = match throttle.is_rate {
            // Not how many, but how fast: a moment's rest, and slightly fewer.
            true => ((self.limit.min(accepted + 1.0) * 0.9).max(1.0), PROBE_FIRST),
            false => (self.limit.min(accepted.max(1.0)), Duration::ZERO),
        };
        self.limit = limit;
        self.opened_at = Some(now + CALM);
        let pause = if self.running == 0 { self.probe_pause() } else { pause };
        let pause = pause.max(throttle.retry_after.unwrap_or_default());
        if pause > Duration::ZERO {
            self.closed_until = self.closed_until.max(Some(now + pause));
        }
        self.tell(before, now)
    }

    fn probe_pause(&mut self) -> Duration {
        let pause = PROBE_FIRST.saturating_mul(1 << self.shut_out.min(16)).min(PROBE_LONGEST);
        self.shut_out += 1;
        pause
    }

    /// Opens a full window by the time that has passed.
    fn open(&mut self, now: Instant) {
        let Some(since) = self.opened_at.filter(|since| *since <= now) else { return };
        self.opened_at = Some(now);
        if self.running + 1 >= self.size() {
            let speed = (self.limit * OPENING).max(OPENING_LEAST);
            self.limit += speed * (now - since).as_secs_f64();
        }
    }

    fn tell(&mut self, before: f64, now: Instant) -> Option<Change> {
        let is_new = match self.told {
            None => true,
            Some((at, told)) => {
                now - at >= TOLD_EVERY && (told - self.limit).abs() >= (told * 0.1).max(1.0)
            }
        };
        if !is_new {
            return None;
        }
        self.told = Some((now, self.limit));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is finite")]
        let from = before.is_finite().then_some(before as usize);
        Some(Change { from, to: self.size() })
    }
}

/// The window of one function, shared by all its tasks.
#[derive(Debug)]
pub struct Governor {
    window: Mutex<Window>,
    freed: Notify,
}

impl Default for Governor {
    fn default() -> Self {
        Governor { window: Mutex::new(Window::new()), freed: Notify::new() }
    }
}

impl Governor {
    /// Waits until a task may start. Whoever has started says how it ended.
    pub async fn start(&self) {
        loop {
            let freed = self.freed.notified();
            let now = Instant::now();
            let wait = match self.window().start(now) {
                Ok(()) => return,
                Err(Wait::Full) => now + LOOK_EVERY,
                Err(Wait::Until(until)) => until,
            };
            tokio::select! {
                biased;
                () = freed => {}
                () = sleep_until(wait) => {}
            }
        }
    }

    /// A started task has ended, or could not be started for another reason than a throttle.
    pub fn ended(&self) {
        self.window().ended(Instant::now());
        self.freed.notify_one();
    }

    /// A start was throttled. Says what that changed, when that is worth telling.
    pub fn throttled(&self, throttle: Throttle) -> Option<Change> {
        self.window().throttled(throttle, Instant::now())
    }

    /// Whether Lambda has let nobody in for some tries: that is trouble, not a full house.
    pub fn is_shut_out(&self) -> bool {
        self.window().shut_out >= SHUT_OUT
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().expect("nothing panics while holding this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONCURRENCY: Throttle = Throttle { is_rate: false, retry_after: None };
    const RATE: Throttle = Throttle { is_rate: true, retry_after: None };

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Starts as many as may, and says how many.
    fn fill(window: &mut Window, now: Instant, most: usize) -> usize {
        (0..most).take_while(|_| window.start(now).is_ok()).count()
    }

    #[test]
    fn the_first_burst_starts_at_once() {
        assert_eq!(fill(&mut Window::new(), Instant::now(), 10_000), 10_000);
    }

    #[test]
    fn after_a_throttled_burst_as_many_run_as_were_accepted() {
        let (mut window, now) = (Window::new(), Instant::now());
        fill(&mut window, now, 500);
        for _ in 0..300 {
            window.throttled(CONCURRENCY, now);
        }
        assert_eq!((window.size(), window.running), (200, 200));
        assert_eq!(window.start(now), Err(Wait::Full));
        window.ended(now);
        assert_eq!(fill(&mut window, now, 10), 1, "an end frees one place");
    }

    #[test]
    fn a_full_window_opens_by_a_twentieth_each_second_and_an_idle_one_does_not() {
        let (mut window, now) = (Window::new(), Instant::now());
        fill(&mut window, now, 201);
        window.throttled(CONCURRENCY, now);
        for tenth in 0..=20 {
            fill(&mut window, now + CALM + millis(100) * tenth, 1000);
        }
        assert!((218..=222).contains(&window.size()), "{}", window.size());
        let size = window.size();
        for _ in 0..100 {
            window.ended(now + CALM + millis(2000));
        }
        window.open(now + CALM + millis(9000));
        assert_eq!(window.size(), size, "what is not used is not opened further");
    }

    #[test]
    fn a_function_that_lets_nobody_in_is_probed_ever_more_seldom() {
        let (mut window, mut now) = (Window::new(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(window.start(now), Ok(()));
            window.throttled(CONCURRENCY, now);
            let Err(Wait::Until(until)) = window.start(now) else { panic!("it is closed") };
            pauses.push((until - now).as_millis());
            now = until;
        }
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(window.start(now), Ok(()));
        window.ended(now);
        assert_eq!(window.start(now), Ok(()), "one that ran opens it");
    }

    #[test]
    fn a_rate_that_is_too_high_rests_a_moment_and_what_lambda_asks_for_is_kept() {
        let (mut window, now) = (Window::new(), Instant::now());
        fill(&mut window, now, 100);
        window.throttled(RATE, now);
        assert_eq!(window.start(now), Err(Wait::Until(now + PROBE_FIRST)));
        assert_eq!(window.size(), 90);
        let wish = Some(millis(7000));
        window.throttled(Throttle { retry_after: wish, ..CONCURRENCY }, now);
        assert_eq!(window.start(now), Err(Wait::Until(now + millis(7000))));
    }

    #[test]
    fn a_change_is_told_once_and_again_only_when_it_has_grown_old() {
        let (mut window, now) = (Window::new(), Instant::now());
        fill(&mut window, now, 500);
        let told: Vec<_> = (0..300).filter_map(|_| window.throttled(CONCURRENCY, now)).collect();
        assert_eq!(told, [Change { from: None, to: 499 }]);
        let later = now + TOLD_EVERY;
        window.ended(later);
        fill(&mut window, later, 5);
        let told = window.throttled(CONCURRENCY, later).expect("it is worth telling");
        assert!((195..=210).contains(&told.to), "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_starts_when_another_ends() {
        let governor = Governor::default();
        governor.start().await;
        governor.start().await;
        governor.throttled(CONCURRENCY);
        let began = Instant::now();
        tokio::join!(governor.start(), async {
            tokio::time::sleep(millis(100)).await;
            governor.ended();
        });
        assert_eq!(began.elapsed(), millis(100));
    }
}

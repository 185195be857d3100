//! When a claimed task may start: how many of one function may run at once, and how fast they
//! may follow one another, as far as Lambda lets us know.
//!
//! Lambda has several limits and tells of most only when they are reached. So the first burst
//! starts at once, as far as the function's environments can be made; a throttle's reason says
//! what shrinks: the window of those in flight, the rate of starts, or both wait. A task that may
//! not start waits here, claimed, and costs neither an attempt nor a write.

mod bucket;
mod burst;
mod environments;
mod rate;
mod state;
mod window;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use crate::invoker::{Concurrency, Failure, Limit, Throttle};
use crate::waiting::Waiting;
use burst::Burst;
use rate::Rate;
use state::{Start, State, Wait};

/// How often somebody who waits looks whether the window has opened by itself.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What the operator allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Caps {
    /// So many in flight at once.
    pub max_concurrency: Option<usize>,
    /// So many starts in a second.
    pub start_rate: Option<f64>,
    /// So many new environments in 10 s.
    pub ramp: u32,
}

impl Caps {
    /// New environments Lambda makes for a function in 10 s
    /// (docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html).
    pub const LAMBDAS_RAMP: u32 = 1000;
}

impl Default for Caps {
    fn default() -> Self {
        Caps { max_concurrency: None, start_rate: None, ramp: Caps::LAMBDAS_RAMP }
    }
}

/// A change of a limit that is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Change {
    /// Before; nothing when there was no limit, or it is not known.
    from: Option<usize>,
    /// Now.
    to: usize,
    unit: Unit,
    why: &'static str,
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    InFlight,
    StartsPerSecond,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unit::InFlight => "in flight",
            Unit::StartsPerSecond => "starts a second",
        })
    }
}

/// The function is switched off: no concurrency is reserved for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchedOff;

impl SwitchedOff {
    /// In words.
    pub fn failure(self) -> Failure {
        let message = "the function is switched off: its reserved concurrency is 0, or so small \
                       that others take all of it";
        Failure::new("Burstd.SwitchedOff", message)
    }
}

/// The rate at which Lambda takes calls from this caller, whichever the function.
#[derive(Debug)]
pub struct CallerRate(Mutex<Rate>);

impl Default for CallerRate {
    fn default() -> Self {
        CallerRate(Mutex::new(Rate::unlimited()))
    }
}

impl CallerRate {
    fn rate(&self) -> MutexGuard<'_, Rate> {
        self.0.lock().expect("nothing panics while holding this lock")
    }
}

/// The governor of one function, shared by all its queues.
#[derive(Debug)]
pub struct Governor {
    function: String,
    state: Mutex<State>,
    caller: Arc<CallerRate>,
    /// Those who wait come one after the other; the first alone watches the clock.
    turn: tokio::sync::Mutex<()>,
    waiting: AtomicUsize,
    /// Those whom Lambda could not start for now.
    set_back: AtomicUsize,
    freed: Notify,
}

/// A task that was started, until this is dropped.
#[derive(Debug)]
#[must_use = "the place is free again when this is dropped"]
pub struct Place<'a> {
    governor: &'a Governor,
    start: Start,
    did_run: bool,
}

impl Governor {
    /// The governor of a function.
    pub fn new(function: impl Into<String>, caps: Caps, caller: Arc<CallerRate>) -> Self {
        Governor {
            function: function.into(),
            state: Mutex::new(State::new(caps)),
            caller,
            turn: tokio::sync::Mutex::new(()),
            waiting: AtomicUsize::new(0),
            set_back: AtomicUsize::new(0),
            freed: Notify::new(),
        }
    }

    /// The operator allows something else from now on.
    pub fn set_caps(&self, caps: Caps) {
        self.state().set_caps(caps, Instant::now());
        self.freed.notify_one();
    }

    /// Waits until a task may start, and takes a place then.
    ///
    /// # Errors
    ///
    /// When the function is switched off.
    pub async fn start(&self) -> Result<Place<'_>, SwitchedOff> {
        let _waiting = Waiting::new(&self.waiting);
        let _turn = self.turn.lock().await;
        loop {
            let freed = self.freed.notified();
            let now = Instant::now();
            let until = match self.try_start(now) {
                Ok(place) => return Ok(place),
                Err(Wait::Off) => return Err(SwitchedOff),
                Err(Wait::Full) => now + LOOK_EVERY,
                Err(Wait::Until(until)) => until.min(now + LOOK_EVERY),
            };
            tokio::select! {
                biased;
                () = freed => {}
                () = sleep_until(until) => {}
            }
        }
    }

    fn try_start(&self, now: Instant) -> Result<Place<'_>, Wait> {
        let mut caller = self.caller.rate();
        if let Some(until) = caller.wait(now) {
            return Err(Wait::Until(until));
        }
        let start = self.state().start(now)?;
        caller.started(now);
        Ok(Place { governor: self, start, did_run: true })
    }

    /// Lambda tells how much concurrency the function has.
    pub fn told(&self, concurrency: Concurrency) {
        let change = self.state().told(concurrency, Instant::now());
        self.log_change(change, None);
        self.freed.notify_one();
    }

    /// How many tasks it is worth to hold claimed; nothing when there is no limit.
    pub fn capacity(&self) -> Option<usize> {
        self.state().capacity(Instant::now())
    }

    /// Which limit keeps those waiting who have been claimed, and how many it lets be in flight.
    /// Nothing while nobody waits and there is room.
    pub fn bound(&self, in_flight: usize) -> Option<(&'static str, Option<usize>)> {
        let is_full = self.capacity().is_some_and(|most| in_flight >= most);
        if self.waiting() == 0 && !is_full {
            return None;
        }
        let now = Instant::now();
        let of_all = self.caller.rate().wait(now).map(|_| (Limit::CallerRate.why(), None));
        self.state().bound(now).or(of_all)
    }

    /// How many that were claimed wait until they may start.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A task waits because Lambda could not start it, until this is dropped.
    pub(crate) fn set_back(&self) -> Waiting<'_> {
        Waiting::new(&self.set_back)
    }

    /// How many do.
    pub(crate) fn are_set_back(&self) -> usize {
        self.set_back.load(Ordering::Relaxed)
    }

    /// Whether Lambda is away: most of those that are in flight wait for it.
    pub fn is_away(&self, in_flight: usize) -> bool {
        let set_back = self.are_set_back();
        set_back > 0 && 2 * set_back >= in_flight
    }

    /// Throttles so far.
    pub fn throttles(&self) -> u64 {
        self.state().throttles()
    }

    /// Whether Lambda has let nobody in for some tries: that is trouble, not a full house. One
    /// that is switched off says so itself.
    pub fn is_shut_out(&self) -> bool {
        let state = self.state();
        state.is_shut_out() && !state.is_off(Instant::now())
    }

    /// Says what time has brought: that the window has opened, that a burst is over. Returns when
    /// to look again.
    pub fn look(&self) -> Option<Instant> {
        let (change, burst) = self.state().look(Instant::now());
        self.log_change(change, None);
        if let Some(Burst { from, peak, took, throttled }) = burst {
            info!(
                event = "burst",
                function = self.function,
                started = peak - from,
                took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                peak,
                throttled,
                "put in flight"
            );
        }
        self.state().look_at()
    }

    fn log_change(&self, change: Option<Change>, throttle: Option<&Failure>) {
        let Some(Change { from, to, unit, why }) = change else { return };
        info!(
            event = "limiter.changed",
            function = self.function,
            from,
            to,
            %unit,
            why,
            code = throttle.map(|failure| failure.error_type.as_str()),
            error = throttle.map(|failure| failure.message.as_str()),
            "so much is asked of the function from now on"
        );
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding this lock")
    }
}

impl Place<'_> {
    /// The start was throttled: the task did not run.
    pub fn throttled(mut self, throttle: Throttle, failure: &Failure) {
        self.did_run = false;
        let now = Instant::now();
        let of_all = (throttle.limit == Limit::CallerRate).then(|| {
            let mut rate = self.governor.caller.rate();
            rate.throttled(now);
            rate.per_second()
        });
        let change = {
            let mut state = self.governor.state();
            let change = state.throttled(self.start, throttle, now);
            change.or_else(|| state.tell_rate(of_all?, throttle.limit, now))
        };
        self.governor.log_change(change, Some(failure));
    }

    /// The task did not run, for another reason.
    pub fn unused(mut self) {
        self.did_run = false;
        self.governor.state().unused(self.start, Instant::now());
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.did_run {
            self.governor.state().ended(self.start, Instant::now());
        }
        self.governor.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_starts_when_another_ends() {
        let caps = Caps { max_concurrency: Some(2), ..Caps::default() };
        let governor = Governor::new("f", caps, Arc::default());
        let first = governor.start().await.expect("it is on");
        let _second = governor.start().await.expect("it is on");
        let began = Instant::now();
        let (third, ()) = tokio::join!(governor.start(), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(first);
        });
        assert!(third.is_ok());
        assert_eq!(began.elapsed(), Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_is_too_fast_is_slowed_for_all_its_functions() {
        let caller = Arc::new(CallerRate::default());
        let [one, other] =
            ["one", "other"].map(|name| Governor::new(name, Caps::default(), caller.clone()));
        let mut places = Vec::new();
        for _ in 0..100 {
            places.push(one.start().await.expect("it is on"));
        }
        let throttle = Throttle { limit: Limit::CallerRate, retry_after: None };
        for place in places.drain(50..) {
            place.throttled(throttle, &Failure::new("TooManyRequestsException", "slowly"));
        }
        let began = Instant::now();
        for _ in 0..45 {
            drop(other.start().await);
        }
        let took = began.elapsed().as_millis();
        assert!((900..=1100).contains(&took), "45 starts took {took} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_that_is_switched_off_turns_all_away_who_wait() {
        let governor = Governor::new("f", Caps::default(), Arc::default());
        governor.told(Concurrency::Reserved(0));
        assert!(governor.start().await.is_err());
        assert_eq!(governor.capacity(), Some(0));
        governor.told(Concurrency::Reserved(5));
        assert!(governor.start().await.is_ok());
    }
}

//! What the governor of one function knows, as pure state; time is passed in.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::bucket::Bucket;
use super::burst::{Burst, Bursts};
use super::environments::Environments;
use super::rate::Rate;
use super::window::Window;
use super::{Caps, Change, Unit};
use crate::invoker::{Concurrency, Limit, Throttle};

/// Between two tries while not a single task is let in, from the first to the longest.
const PROBE_FIRST: Duration = Duration::from_millis(200);
const PROBE_LONGEST: Duration = Duration::from_secs(10);

/// So many throttles in a row while nothing ran are more than a neighbour's burst.
const SHUT_OUT: u32 = 3;

/// How long ends are remembered: longer than the answer to a throttled call takes.
const REMEMBERED: Duration = Duration::from_secs(2);

/// How long a function that is switched off turns away those that wait to start.
const OFF: Duration = Duration::from_millis(400);

/// No change is told more often.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Starts that become possible within this are worth claiming tasks for.
const AHEAD: Duration = Duration::from_secs(1);

/// Requests a second for each unit of concurrency
/// (docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html).
const RATE_OF_ONE: f64 = 10.0;

/// Why a task may not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// As many run as may; somebody's end changes that.
    Full,
    /// Nothing starts before this.
    Until(Instant),
    /// The function is switched off.
    Off,
}

/// A start, until it has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    at: Instant,
    in_new_environment: bool,
}

#[derive(Debug)]
pub(super) struct State {
    caps: Caps,
    running: usize,
    window: Window,
    environments: Environments,
    /// The operator's pace.
    pace: Bucket,
    /// Lambda's.
    rate: Rate,
    bursts: Bursts,
    /// Nothing starts before.
    closed_until: Option<Instant>,
    /// Throttles in a row while nothing ran.
    shut_out: u32,
    /// Calls that ran and ended lately: when, and when they had started.
    ended: VecDeque<(Instant, Instant)>,
    /// What Lambda tells.
    known: Option<Concurrency>,
    off_until: Option<Instant>,
    told: Option<(Instant, Option<usize>)>,
    throttles: u64,
}

impl State {
    pub(super) fn new(caps: Caps) -> Self {
        State {
            caps,
            running: 0,
            window: Window::new(caps.max_concurrency),
            environments: Environments::new(caps.ramp),
            pace: pace(caps),
            rate: Rate::unlimited(),
            bursts: Bursts::default(),
            closed_until: None,
            shut_out: 0,
            ended: VecDeque::new(),
            known: None,
            off_until: None,
            told: None,
            throttles: 0,
        }
    }

    /// The operator allows something else from now on. What was learnt stays.
    pub(super) fn set_caps(&mut self, caps: Caps, now: Instant) {
        if caps.ramp != self.caps.ramp {
            self.environments.set_ramp(caps.ramp, now);
        }
        if caps.start_rate != self.caps.start_rate {
            self.pace = pace(caps);
        }
        self.caps = caps;
        self.window.cap(self.most());
    }

    /// How many may run at once by the operator's wish and by what Lambda tells.
    fn most(&self) -> Option<usize> {
        let known = self.known.map(|known| known.units() as usize);
        [self.caps.max_concurrency, known].into_iter().flatten().min()
    }

    /// Takes a place, if there is one.
    pub(super) fn start(&mut self, now: Instant) -> Result<Start, Wait> {
        self.may_start(now)?;
        let in_new_environment = self.environments.start();
        self.pace.take();
        self.rate.started(now);
        self.running += 1;
        self.bursts.started(self.running, now);
        Ok(Start { at: now, in_new_environment })
    }

    fn may_start(&mut self, now: Instant) -> Result<(), Wait> {
        self.window.open(self.running, now);
        if self.is_off(now) {
            return Err(Wait::Off);
        }
        if let Some(until) = self.closed_until.filter(|until| *until > now) {
            return Err(Wait::Until(until));
        }
        if self.window.size().is_some_and(|size| self.running >= size) {
            return Err(Wait::Full);
        }
        let waits = [self.pace.wait(now), self.rate.wait(now), self.environments.wait(now)];
        waits.into_iter().flatten().max().map_or(Ok(()), |until| Err(Wait::Until(until)))
    }

    /// A start has ended, and was not throttled.
    pub(super) fn ended(&mut self, start: Start, now: Instant) {
        self.running -= 1;
        self.shut_out = 0;
        self.ended.push_back((now, start.at));
        while self.ended.front().is_some_and(|(at, _)| now - *at > REMEMBERED) {
            self.ended.pop_front();
        }
        self.environments.ended(now);
        self.window.open(self.running, now);
    }

    /// A start failed, and it was no limit's fault.
    pub(super) fn unused(&mut self, start: Start, now: Instant) {
        self.running -= 1;
        self.bursts.unused();
        self.rate.refused();
        self.environments.refused(start.in_new_environment, now);
    }

    /// A start was throttled. Says what that changed, when that is worth telling.
    pub(super) fn throttled(
        &mut self,
        start: Start,
        throttle: Throttle,
        now: Instant,
    ) -> Option<Change> {
        self.running -= 1;
        self.throttles += 1;
        self.bursts.throttled();
        self.environments.refused(start.in_new_environment, now);
        let before = self.window.size();
        let accepted = self.running + self.ended_beside(start);
        match throttle.limit {
            Limit::Reserved | Limit::Account => {
                self.rate.refused();
                self.environments.none_left();
                self.window.throttled(throttle.limit, accepted, start.at, now);
            }
            Limit::FunctionRate => self.rate.throttled(now),
            Limit::CallerRate => self.rate.refused(),
            Limit::Snapshots => {
                self.rate.refused();
                self.close(now + PROBE_FIRST);
            }
        }
        if accepted == 0 {
            let pause = PROBE_FIRST.saturating_mul(1 << self.shut_out.min(16)).min(PROBE_LONGEST);
            self.shut_out += 1;
            self.close(now + pause);
        }
        if let Some(wish) = throttle.retry_after {
            self.close(now + wish);
        }
        if throttle.limit == Limit::Reserved && self.is_shut_out() {
            // Nothing runs and nothing is let in: nobody needs to wait here for that to change.
            (self.off_until, self.closed_until) = (Some(now + OFF), None);
        }
        match throttle.limit {
            Limit::Reserved | Limit::Account => self.tell_size(before, throttle.limit.why(), now),
            Limit::FunctionRate => self.tell_rate(self.rate.per_second(), throttle.limit, now),
            // The one is no limit of this function's, the other no number.
            Limit::CallerRate | Limit::Snapshots => None,
        }
    }

    /// How many calls ran when this one started and have ended since: a throttle's answer may
    /// take longer than a function.
    fn ended_beside(&self, start: Start) -> usize {
        let since = self.ended.iter().rev().take_while(|(ended, _)| *ended > start.at);
        since.filter(|(_, began)| *began <= start.at).count()
    }

    fn close(&mut self, until: Instant) {
        self.closed_until = self.closed_until.max(Some(until));
    }

    /// Whether Lambda has let nobody in for some tries: that is trouble, not a full house.
    pub(super) fn is_shut_out(&self) -> bool {
        self.shut_out >= SHUT_OUT
    }

    /// Whether no task of the function can run until somebody changes its settings.
    pub(super) fn is_off(&self, now: Instant) -> bool {
        self.known == Some(Concurrency::Reserved(0))
            || self.off_until.is_some_and(|until| until > now)
    }

    /// Lambda tells how much concurrency the function has.
    pub(super) fn told(&mut self, concurrency: Concurrency, now: Instant) -> Option<Change> {
        let before = self.window.size();
        self.known = Some(concurrency);
        self.window.set_most(self.most());
        self.rate.set_ceiling((f64::from(concurrency.units()) * RATE_OF_ONE).max(1.0), now);
        if before == self.window.size() {
            return None;
        }
        self.told = None;
        self.tell_size(before, concurrency.why(), now)
    }

    /// How many tasks it is worth to hold claimed: those that run, those that may start soon,
    /// and a few to take the next free places. Nothing when there is no limit.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    pub(super) fn capacity(&mut self, now: Instant) -> Option<usize> {
        if self.known == Some(Concurrency::Reserved(0)) {
            return Some(0);
        }
        if self.shut_out > 0 {
            return Some(self.running + 1);
        }
        self.window.open(self.running, now);
        let soon = self.environments.within(AHEAD, now);
        let soon = soon.min(self.pace.within(AHEAD, now)).min(self.rate.within(AHEAD, now));
        let size = self.window.size();
        if size.is_none() && soon.is_infinite() {
            return None;
        }
        let free = size.map_or(usize::MAX, |size| size.saturating_sub(self.running));
        let soon = free.min(soon.max(1.0) as usize);
        let spare = (size.unwrap_or(self.running) / 4).max(10);
        Some(self.running.saturating_add(soon).saturating_add(spare))
    }

    /// Which limit keeps another task from starting, and how many it lets be in flight.
    pub(super) fn bound(&mut self, now: Instant) -> Option<(&'static str, Option<usize>)> {
        let size = self.window.size();
        match self.may_start(now).err()? {
            Wait::Off => Some((Concurrency::Reserved(0).why(), Some(0))),
            Wait::Full if size == self.caps.max_concurrency => Some(("max_concurrency", size)),
            Wait::Full => {
                let known = self.known.filter(|known| size == Some(known.units() as usize));
                Some((known.map_or("throttles", Concurrency::why), size))
            }
            Wait::Until(_) if self.closed_until.is_some_and(|until| until > now) => {
                Some(("throttles", size))
            }
            Wait::Until(_) if self.environments.wait(now).is_some() => Some(("ramp", size)),
            Wait::Until(_) if self.pace.wait(now).is_some() => Some(("start_rate", size)),
            Wait::Until(_) => Some((Limit::FunctionRate.why(), size)),
        }
    }

    /// Throttles so far.
    pub(super) fn throttles(&self) -> u64 {
        self.throttles
    }

    /// What time has brought: a window that has opened, a burst that is over.
    pub(super) fn look(&mut self, now: Instant) -> (Option<Change>, Option<Burst>) {
        self.window.open(self.running, now);
        let change = match self.told {
            Some((_, told)) if self.window.size() > told => {
                self.tell_size(told, "nobody complains", now)
            }
            _ => None,
        };
        (change, self.bursts.over(now))
    }

    /// When there will be something to say.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.bursts.over_at()
    }

    fn tell_size(
        &mut self,
        before: Option<usize>,
        why: &'static str,
        now: Instant,
    ) -> Option<Change> {
        let size = self.window.size()?;
        if let Some((at, told)) = self.told {
            let least = told.map_or(1, |told| (told / 10).max(1));
            let differs = told.is_none_or(|told| told.abs_diff(size) >= least);
            if now - at < TOLD_EVERY || !differs {
                return None;
            }
        }
        self.told = Some((now, Some(size)));
        Some(Change { from: before, to: size, unit: Unit::InFlight, why })
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    pub(super) fn tell_rate(
        &mut self,
        per_second: f64,
        limit: Limit,
        now: Instant,
    ) -> Option<Change> {
        if self.told.is_some_and(|(at, _)| now - at < TOLD_EVERY) {
            return None;
        }
        self.told = Some((now, self.window.size()));
        let (to, unit) = (per_second as usize, Unit::StartsPerSecond);
        Some(Change { from: None, to, unit, why: limit.why() })
    }
}

/// The operator's pace, evenly spread.
fn pace(caps: Caps) -> Bucket {
    let Some(per_second) = caps.start_rate else { return Bucket::unlimited() };
    Bucket::new(per_second, (per_second / 100.0).max(1.0))
}

#[cfg(test)]
mod tests;

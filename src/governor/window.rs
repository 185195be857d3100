//! How many may run at once: as many as were accepted when somebody was not; opened slowly while
//! it is full and nobody complains.

use std::time::Duration;

use tokio::time::Instant;

use crate::invoker::Limit;

/// How fast a full window opens when nobody complains: this share of it each second, ...
const OPENING: f64 = 0.05;

/// ... and at least so many.
const OPENING_LEAST: f64 = 1.0;

/// Beyond a cap that Lambda has shown, it opens by a tenth of that.
const BEYOND_CAP: f64 = 0.1;

/// How far beyond a cap it must have come, unthrottled, to forget it.
const CAP_IS_GONE: f64 = 1.1;

/// Where neighbours share the limit, or throttles follow one another, this share is left of what
/// was accepted.
const DECREASE: f64 = 0.95;

/// How long after a throttle the window stays as it is.
const CALM: Duration = Duration::from_secs(1);

/// The window, as pure state.
#[derive(Debug)]
pub(super) struct Window {
    /// Infinite until something was throttled.
    limit: f64,
    /// Never more: the operator's cap and what Lambda tells.
    most: f64,
    /// How many Lambda let in when the function's own limit was reached.
    cap: Option<f64>,
    opened_at: Option<Instant>,
    decreased_at: Option<Instant>,
}

impl Window {
    /// A window of at most `most`.
    pub(super) fn new(most: Option<usize>) -> Self {
        let most = most.map_or(f64::INFINITY, |most| most as f64);
        Window { limit: f64::INFINITY, most, cap: None, opened_at: None, decreased_at: None }
    }

    /// How many may run at once; nothing when there is no limit.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is positive")]
    pub(super) fn size(&self) -> Option<usize> {
        let size = self.limit.max(1.0).min(self.most);
        size.is_finite().then_some(size as usize)
    }

    /// Sets what never is exceeded, and keeps what was learnt.
    pub(super) fn cap(&mut self, most: Option<usize>) {
        self.most = most.map_or(f64::INFINITY, |most| most as f64);
    }

    /// Sets what never is exceeded. What was learnt before it was raised counts no longer.
    pub(super) fn set_most(&mut self, most: Option<usize>) {
        let most = most.map_or(f64::INFINITY, |most| most as f64);
        if most > self.most {
            (self.limit, self.cap) = (f64::INFINITY, None);
        }
        self.most = most;
    }

    /// A call that `began` then was throttled; `accepted` is how many run.
    pub(super) fn throttled(
        &mut self,
        limit: Limit,
        accepted: usize,
        began: Instant,
        now: Instant,
    ) {
        let accepted = accepted as f64;
        self.limit = self.limit.min(accepted.max(1.0));
        self.opened_at = Some(now + CALM);
        if limit == Limit::Reserved {
            self.cap = Some(accepted.max(1.0));
        }
        // Once for each round trip: those on their way then knew nothing of it.
        if self.decreased_at.is_none_or(|at| began > at) {
            let again = self.decreased_at.is_some_and(|at| now - at < CALM);
            if limit != Limit::Reserved || again {
                self.limit = (self.limit * DECREASE).max(1.0);
            }
            self.decreased_at = Some(now);
        }
    }

    /// Opens a full window by the time that has passed.
    pub(super) fn open(&mut self, running: usize, now: Instant) {
        let Some(since) = self.opened_at.filter(|since| *since <= now) else { return };
        self.opened_at = Some(now);
        let is_full = self.size().is_some_and(|size| running > 0 && running + 1 >= size);
        if !is_full || self.limit >= self.most {
            return;
        }
        let mut speed = (self.limit * OPENING).max(OPENING_LEAST);
        if self.cap.is_some_and(|cap| self.limit >= cap * CAP_IS_GONE) {
            self.cap = None;
        } else if self.cap.is_some_and(|cap| self.limit >= cap) {
            speed *= BEYOND_CAP;
        }
        self.limit = (self.limit + speed * (now - since).as_secs_f64()).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A window of 200 by a throttle, and the moment from which it opens.
    fn of_200(limit: Limit) -> (Window, Instant) {
        let (mut window, now) = (Window::new(None), Instant::now());
        for accepted in (200..500).rev() {
            window.throttled(limit, accepted, now, now);
        }
        (window, now + CALM)
    }

    fn opened(window: &mut Window, from: Instant, seconds: u32) -> usize {
        for tenth in 0..=10 * seconds {
            window.open(1000, from + millis(100) * tenth);
        }
        window.size().expect("it is limited")
    }

    #[test]
    fn it_has_no_limit_until_a_throttle_shows_how_many_were_accepted() {
        assert_eq!(Window::new(None).size(), None);
        assert_eq!(Window::new(Some(40)).size(), Some(40));
        for limit in [Limit::Account, Limit::Reserved] {
            assert_eq!(of_200(limit).0.size(), Some(200));
        }
    }

    #[test]
    fn where_neighbours_share_it_opens_by_a_twentieth_each_second_and_gives_way_when_throttled() {
        let (mut window, from) = of_200(Limit::Account);
        let size = opened(&mut window, from, 2);
        assert!((219..=222).contains(&size), "{size}");
        let later = from + millis(2000);
        window.throttled(Limit::Account, 210, later, later);
        assert_eq!(window.size(), Some(199), "a twentieth less than was accepted");
        window.throttled(Limit::Account, 210, later - millis(5), later + millis(5));
        assert_eq!(window.size(), Some(199), "once for each round trip");
    }

    #[test]
    fn a_function_s_own_cap_is_remembered_and_passed_slowly_until_it_is_gone() {
        let (mut window, from) = of_200(Limit::Reserved);
        let size = opened(&mut window, from, 2);
        assert!((201..=203).contains(&size), "{size} after two seconds beyond the cap");
        let size = opened(&mut window, from, 40);
        assert!(size > 300, "{size}: nobody complained, so the cap is not there any more");
    }

    #[test]
    fn an_idle_window_does_not_open() {
        let (mut window, from) = of_200(Limit::Account);
        window.open(100, from + millis(9000));
        assert_eq!(window.size(), Some(200));
        window.throttled(Limit::Reserved, 0, from, from);
        (0..90).for_each(|second| window.open(0, from + millis(1000) * second));
        assert_eq!(window.size(), Some(1));
    }

    #[test]
    fn it_never_opens_beyond_what_lambda_tells_and_at_once_when_lambda_tells_more() {
        let (mut window, from) = of_200(Limit::Reserved);
        window.set_most(Some(205));
        assert_eq!(opened(&mut window, from, 60), 205);
        window.set_most(Some(400));
        assert_eq!(window.size(), Some(400));
    }
}

//! Troubles come in episodes: each is said once when it begins and once when it is over. One that
//! comes and goes is not said each time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// A trouble that comes back before so long after it was said to be over is not said until then.
const SAID_AGAIN: Duration = Duration::from_secs(10);

/// Whether something is in trouble, and since when.
#[derive(Debug, Default)]
pub struct Episode {
    /// Mirrors `trouble.is_some()`, so that the good case takes no lock.
    open: AtomicBool,
    state: Mutex<State>,
    ended: Notify,
    faults: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    trouble: Option<Trouble>,
    /// When a trouble was last said to be over.
    said_over: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    since: Instant,
    last: Instant,
    faults: u64,
    is_said: bool,
}

/// An episode that has just ended.
#[derive(Clone, Copy, Debug)]
pub struct Over {
    /// How long it lasted.
    pub lasted: Duration,
    /// How many calls failed in it.
    pub faults: u64,
}

impl Episode {
    /// Something failed. True for the one of an episode that is to be spoken of: the first, unless
    /// the last episode is only just over.
    pub fn fault(&self) -> bool {
        self.faults.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock().expect("nothing panics while holding this lock");
        self.open.store(true, Ordering::Release);
        let now = Instant::now();
        let is_quiet = state.said_over.is_some_and(|over| now < over + SAID_AGAIN);
        let new = Trouble { since: now, last: now, faults: 0, is_said: false };
        let trouble = state.trouble.get_or_insert(new);
        trouble.last = now;
        trouble.faults += 1;
        let say = !trouble.is_said && !is_quiet;
        trouble.is_said |= say;
        say
    }

    /// Whether there is trouble now.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Faults so far, of all episodes.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Something worked. Says what is over, if there was an episode that was spoken of.
    pub fn success(&self) -> Option<Over> {
        self.success_of(Instant::now())
    }

    /// The same of something that began at this moment. What failed since then is the later news:
    /// the trouble goes on.
    pub fn success_of(&self, began: Instant) -> Option<Over> {
        if !self.is_open() {
            return None;
        }
        let mut state = self.state.lock().expect("nothing panics while holding this lock");
        if state.trouble.is_some_and(|trouble| trouble.last > began) {
            return None;
        }
        self.open.store(false, Ordering::Release);
        self.ended.notify_waiters();
        let trouble = state.trouble.take().filter(|trouble| trouble.is_said)?;
        state.said_over = Some(Instant::now());
        Some(Over { lasted: trouble.since.elapsed(), faults: trouble.faults })
    }

    /// Waits for `wait`, or until the episode is over.
    pub async fn wait(&self, wait: Duration) {
        tokio::select! {
            biased;
            () = self.ended.notified() => {}
            () = sleep(wait) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_is_told_when_it_begins_and_when_it_is_over_and_not_between() {
        let episode = Episode::default();
        assert!(episode.success().is_none());
        assert!(episode.fault());
        assert!(!episode.fault());
        assert_eq!(episode.success().map(|over| over.faults), Some(2));
        assert!(episode.success().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_trouble_that_comes_and_goes_is_told_now_and_then() {
        let episode = Episode::default();
        let mut told = [0, 0];
        for _ in 0..3000 {
            told[0] += u32::from(episode.fault());
            told[1] += u32::from(episode.success().is_some());
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(told, [3, 3], "in half a minute");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trouble_that_came_back_and_stays_is_told_a_little_later_with_all_its_faults() {
        let episode = Episode::default();
        assert!(episode.fault());
        assert!(episode.success().is_some());
        sleep(SAID_AGAIN / 2).await;
        assert!(!episode.fault());
        sleep(SAID_AGAIN / 2).await;
        assert!(episode.fault());
        assert!(!episode.fault());
        let over = episode.success().expect("it was told");
        assert_eq!((over.faults, over.lasted), (3, SAID_AGAIN / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_began_before_the_last_failure_ends_no_trouble() {
        let episode = Episode::default();
        let before = Instant::now();
        sleep(SAID_AGAIN).await;
        episode.fault();
        assert!(episode.success_of(before).is_none() && episode.is_open());
        assert!(episode.success_of(Instant::now()).is_some() && !episode.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_goes_on_as_soon_as_the_trouble_is_over() {
        let episode = Episode::default();
        let hour = Duration::from_secs(3600);
        let began = Instant::now();
        episode.fault();
        tokio::join!(episode.wait(hour), async {
            sleep(Duration::from_secs(1)).await;
            episode.success();
        });
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        episode.fault();
        episode.wait(hour).await;
        assert_eq!(began.elapsed(), Duration::from_secs(3601));
    }
}

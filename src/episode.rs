//! Troubles come in episodes: each is said once when it begins and once when it is over.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// Whether something is in trouble, and since when.
#[derive(Debug, Default)]
pub struct Episode {
    /// Mirrors `trouble.is_some()`, so that the good case takes no lock.
    open: AtomicBool,
    trouble: Mutex<Option<Trouble>>,
    ended: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    since: Instant,
    faults: u64,
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
    /// Something failed. True for the first of an episode, which is the one to speak of.
    pub fn fault(&self) -> bool {
        let mut trouble = self.trouble.lock().expect("nothing panics while holding this lock");
        self.open.store(true, Ordering::Release);
        match trouble.as_mut() {
            Some(trouble) => {
                trouble.faults += 1;
                false
            }
            None => {
                *trouble = Some(Trouble { since: Instant::now(), faults: 1 });
                true
            }
        }
    }

    /// Something worked. Says what is over, if anything was in trouble.
    pub fn success(&self) -> Option<Over> {
        if !self.open.load(Ordering::Acquire) {
            return None;
        }
        let mut trouble = self.trouble.lock().expect("nothing panics while holding this lock");
        self.open.store(false, Ordering::Release);
        self.ended.notify_waiters();
        trouble
            .take()
            .map(|trouble| Over { lasted: trouble.since.elapsed(), faults: trouble.faults })
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
        assert!(episode.fault());
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

//! The queues of which people wish that nothing be started.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// The queues of which people wish that nothing be started: they are paused. Who waits for a
/// change is told in the order of waiting, so that a simulation repeats itself.
#[derive(Debug, Default)]
pub struct Held {
    queues: Mutex<BTreeSet<String>>,
    changed: Notify,
}

impl Held {
    /// From now on it is these, by name.
    pub fn set(&self, queues: BTreeSet<String>) {
        let before = std::mem::replace(&mut *self.queues(), queues);
        if before != *self.queues() {
            self.changed.notify_waiters();
        }
    }

    /// Whether a queue is one of them.
    pub fn contains(&self, queue: &str) -> bool {
        self.queues().contains(queue)
    }

    /// Returns when a queue is one of them.
    pub async fn until_held(&self, queue: &str) {
        loop {
            let changed = self.changed();
            if self.contains(queue) {
                return;
            }
            changed.await;
        }
    }

    /// Returns at the first change after this was called.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    fn queues(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.queues.lock().expect("nothing panics while holding this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    fn named<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
        names.map(str::to_owned).into()
    }

    async fn is_told(wait: impl Future<Output = ()>) -> bool {
        timeout(Duration::from_secs(1), wait).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_queue_to_be_paused_is_told_when_it_is() {
        let held = Held::default();
        let others_first = async {
            held.set(named(["b"]));
            tokio::task::yield_now().await;
            assert!(!is_told(held.until_held("a")).await);
            held.set(named(["a", "b"]));
        };
        let (told, ()) = tokio::join!(timeout(Duration::MAX, held.until_held("a")), others_first);
        told.expect("it was paused");
        assert!(is_told(held.until_held("b")).await, "it is paused already");
    }

    #[tokio::test(start_paused = true)]
    async fn what_stays_as_it_is_is_no_change_and_one_before_it_is_awaited_is_not_missed() {
        let held = Held::default();
        let changed = held.changed();
        held.set(BTreeSet::new());
        assert!(!is_told(changed).await);
        let changed = held.changed();
        held.set(named(["a"]));
        assert!(is_told(changed).await);
    }
}

//! How many bytes of payloads and results may be in memory at once.
//!
//! How large an item is nobody knows before it is claimed. So a task takes the share of the
//! largest one, gives back what it turns out not to need, and is not claimed before it has one.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::waiting::Waiting;

use crate::invoker::RESULT_LIMIT_BYTES;

/// DynamoDB takes no larger item
/// (docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html).
pub const LARGEST_ITEM_BYTES: usize = 400 * 1024;

/// The least that is enough for any task: the largest item, and a result.
pub const LEAST_BYTES: usize = LARGEST_ITEM_BYTES + RESULT_LIMIT_BYTES;

/// Counted in steps of this, because a semaphore counts to a few billions at once only.
const STEP: usize = 1024;

/// What all tasks in flight share. Who asks first is served first.
#[derive(Debug)]
pub struct Memory {
    free: Semaphore,
    total: AtomicUsize,
    /// What was taken although there was nothing left: a result that has come is there, whether
    /// there is room for it or not. What is given back pays this first.
    debt: Mutex<usize>,
    waits: AtomicU64,
    waiting: AtomicUsize,
    resized: Notify,
}

/// What one task has of it. Dropping it gives it back.
#[derive(Debug)]
pub struct Share<'a> {
    memory: &'a Memory,
    steps: usize,
}

impl Memory {
    /// Room for so many bytes, or for one task if that is more.
    pub fn new(bytes: usize) -> Self {
        let total = steps(bytes);
        let free = Semaphore::new(total);
        Memory {
            free,
            total: total.into(),
            debt: Mutex::default(),
            waits: AtomicU64::default(),
            waiting: AtomicUsize::default(),
            resized: Notify::new(),
        }
    }

    /// Room for so many bytes from now on. What is taken beyond that is given back in time.
    pub fn resize(&self, bytes: usize) {
        let total = steps(bytes);
        let before = self.total.swap(total, Ordering::Relaxed);
        match total.checked_sub(before) {
            Some(more) => self.give_back(more),
            None => self.take(before - total),
        }
        self.resized.notify_waiters();
    }

    /// How many tasks wait for room.
    pub fn awaiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits until there is room for so many bytes.
    pub async fn share(&self, bytes: usize) -> Share<'_> {
        if let Ok(taken) = self.free.try_acquire_many(self.permits(bytes)) {
            return self.taken_as(taken);
        }
        self.waits.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let resized = self.resized.notified();
            tokio::select! {
                biased;
                taken = self.free.acquire_many(self.permits(bytes)) => {
                    return self.taken_as(taken.expect("the semaphore is never closed"));
                }
                // There may be less in all than was waited for.
                () = resized => {}
            }
        }
    }

    fn permits(&self, bytes: usize) -> u32 {
        let steps = bytes.div_ceil(STEP).min(self.total.load(Ordering::Relaxed));
        u32::try_from(steps).unwrap_or(u32::MAX)
    }

    fn taken_as(&self, permits: SemaphorePermit<'_>) -> Share<'_> {
        let steps = permits.num_permits();
        permits.forget();
        Share { memory: self, steps }
    }

    /// Bytes that are taken.
    pub fn taken(&self) -> usize {
        let debt = *self.debt.lock().expect("nothing panics while holding this lock");
        let total = self.total.load(Ordering::Relaxed);
        (total + debt).saturating_sub(self.free.available_permits()) * STEP
    }

    /// How often a task had to wait for room.
    pub fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    fn take(&self, steps: usize) {
        let mut debt = self.debt.lock().expect("nothing panics while holding this lock");
        *debt += steps - self.free.forget_permits(steps);
    }

    fn give_back(&self, steps: usize) {
        let mut debt = self.debt.lock().expect("nothing panics while holding this lock");
        let paid = steps.min(*debt);
        *debt -= paid;
        self.free.add_permits(steps - paid);
    }
}

/// As many steps as so many bytes take, and enough for one task.
fn steps(bytes: usize) -> usize {
    bytes.max(LEAST_BYTES).div_ceil(STEP).min(Semaphore::MAX_PERMITS)
}

impl Share<'_> {
    /// Makes it what is needed now.
    pub fn resize(&mut self, bytes: usize) {
        let steps = bytes.div_ceil(STEP);
        match steps.checked_sub(self.steps) {
            Some(more) => self.memory.take(more),
            None => self.memory.give_back(self.steps - steps),
        }
        self.steps = steps;
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.memory.give_back(self.steps);
    }
}

/// How large a function's results are: the largest of the last ones, as a guess at the next.
#[derive(Debug, Default)]
pub struct ResultSize(AtomicUsize);

impl ResultSize {
    /// A result came. A guess that is too large wears off in some dozens of results.
    pub fn learn(&self, bytes: usize) {
        let before = self.guess();
        self.0.store(bytes.max(before - before / 16), Ordering::Relaxed);
    }

    /// Bytes to expect.
    pub fn guess(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const MB: usize = 1 << 20;

    async fn is_full(memory: &Memory) -> bool {
        timeout(Duration::from_secs(1), memory.share(LEAST_BYTES)).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_shares_as_fit_and_the_next_when_one_is_given_back_or_made_smaller() {
        let memory = Memory::new(2 * LEAST_BYTES);
        let first = memory.share(LEAST_BYTES).await;
        let mut second = memory.share(LEAST_BYTES).await;
        assert!(is_full(&memory).await);
        assert_eq!(memory.waits(), 1);
        drop(first);
        let third = memory.share(LEAST_BYTES).await;
        assert!(is_full(&memory).await);
        second.resize(0);
        drop(memory.share(LEAST_BYTES).await);
        drop((second, third));
        assert_eq!(memory.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_that_has_come_is_counted_although_there_is_no_room() {
        let memory = Memory::new(LEAST_BYTES);
        let mut large = memory.share(0).await;
        large.resize(10 * MB);
        assert_eq!(memory.taken(), 10 * MB);
        let mut other = memory.share(0).await;
        other.resize(MB);
        large.resize(MB);
        assert_eq!(memory.taken(), 2 * MB);
        assert!(is_full(&memory).await, "the debt is not paid yet");
        drop((large, other));
        assert_eq!(memory.taken(), 0);
        assert!(!is_full(&memory).await);
    }

    #[tokio::test(start_paused = true)]
    async fn room_that_is_taken_away_is_given_back_in_time_and_more_room_is_there_at_once() {
        let memory = Memory::new(10 * LEAST_BYTES);
        let mut taken = Vec::new();
        for _ in 0..10 {
            taken.push(memory.share(LEAST_BYTES).await);
        }
        memory.resize(2 * LEAST_BYTES);
        assert!(is_full(&memory).await);
        taken.truncate(2);
        assert!(is_full(&memory).await, "two are as many as fit now");
        taken.truncate(1);
        assert!(!is_full(&memory).await);
        memory.resize(3 * LEAST_BYTES);
        taken.push(memory.share(LEAST_BYTES).await);
        taken.push(memory.share(LEAST_BYTES).await);
        assert!(is_full(&memory).await);
        drop(taken);
        assert_eq!(memory.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_more_than_there_will_ever_be_gets_what_there_is() {
        let memory = Memory::new(10 * LEAST_BYTES);
        let first = memory.share(LEAST_BYTES).await;
        let (second, ()) = tokio::join!(memory.share(10 * LEAST_BYTES), async {
            memory.resize(LEAST_BYTES);
            drop(first);
        });
        assert_eq!(memory.taken(), LEAST_BYTES);
        drop(second);
    }

    #[tokio::test(start_paused = true)]
    async fn however_little_is_allowed_one_task_runs() {
        let memory = Memory::new(0);
        drop(memory.share(LEAST_BYTES).await);
        drop(memory.share(usize::MAX).await);
        assert_eq!(memory.taken(), 0);
    }

    #[test]
    fn the_guess_at_a_result_follows_the_largest_and_wears_off() {
        let size = ResultSize::default();
        size.learn(1000);
        size.learn(10);
        assert!((900..1000).contains(&size.guess()), "{}", size.guess());
        (0..200).for_each(|_| size.learn(10));
        assert!(size.guess() < 30, "{}", size.guess());
    }
}

//! How many bytes of payloads and results may be in memory at once.
//!
//! How large an item is nobody knows before it is claimed. So a task takes the share of the
//! largest one, gives back what it turns out not to need, and is not claimed before it has one.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Semaphore;

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
    total: usize,
    /// What was taken although there was nothing left: a result that has come is there, whether
    /// there is room for it or not. What is given back pays this first.
    debt: Mutex<usize>,
    waits: AtomicU64,
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
        let total = bytes.max(LEAST_BYTES).div_ceil(STEP).min(Semaphore::MAX_PERMITS);
        let free = Semaphore::new(total);
        Memory { free, total, debt: Mutex::default(), waits: AtomicU64::default() }
    }

    /// Waits until there is room for so many bytes.
    pub async fn share(&self, bytes: usize) -> Share<'_> {
        let steps = bytes.div_ceil(STEP).min(self.total);
        let permits = u32::try_from(steps).unwrap_or(u32::MAX);
        let taken = match self.free.try_acquire_many(permits) {
            Ok(taken) => taken,
            Err(_) => {
                self.waits.fetch_add(1, Ordering::Relaxed);
                let taken = self.free.acquire_many(permits).await;
                taken.expect("the semaphore is never closed")
            }
        };
        taken.forget();
        Share { memory: self, steps: permits as usize }
    }

    /// Bytes that are taken.
    pub fn taken(&self) -> usize {
        let debt = *self.debt.lock().expect("nothing panics while holding this lock");
        (self.total - self.free.available_permits().min(self.total) + debt) * STEP
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

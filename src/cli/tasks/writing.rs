//! Changing many tasks: several at once, no faster than asked.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::Wish;
use crate::aws::{Changed, Desk, Filter, Found, Listing};
use crate::cli::cost::thousands;
use crate::cli::exit::Exit;
use crate::cli::{plain, row};
use crate::clock::Clock;
use crate::shutdown::Shutdown;
use crate::store::StoreError;
use crate::task::{TaskId, Timestamp};

/// Writes under way at once.
const AT_ONCE: usize = 16;

/// What was lost by waiting for the table is made up for, up to this.
const SLACK: Duration = Duration::from_millis(100);

/// What is to be written, and how.
pub(super) struct Writing<'a> {
    pub(super) wish: Wish,
    pub(super) desk: &'a Desk,
    pub(super) clock: &'a Clock,
    pub(super) filter: Filter,
    /// Writes in a second.
    pub(super) rate: f64,
    pub(super) shutdown: Shutdown,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) done: u64,
    /// Of those that were cancelled, the ones whose functions run on.
    pub(super) running: u64,
    /// Left alone, since they are no longer what they were.
    pub(super) changed: u64,
    pub(super) gone: u64,
    /// What the table will never take.
    pub(super) rejected: u64,
}

/// The tasks that are meant.
pub(super) enum Meant {
    /// These, which were shown.
    Shown(Vec<Found>),
    /// Those that are still to be found.
    Listed(Box<Listing>),
}

impl Meant {
    async fn next_page(&mut self) -> Result<Option<Vec<Found>>, StoreError> {
        match self {
            Meant::Shown(tasks) if tasks.is_empty() => Ok(None),
            Meant::Shown(tasks) => Ok(Some(std::mem::take(tasks))),
            Meant::Listed(listing) => listing.next_page().await,
        }
    }
}

type Written = (TaskId, Result<Changed, StoreError>);

impl Writing<'_> {
    /// Changes all tasks of the listing. What was begun is ended, whatever happens.
    pub(super) async fn write(
        &self,
        mut meant: Meant,
        expected: Option<u64>,
    ) -> (Tally, Result<(), Exit>) {
        let bar = bar(expected);
        let mut tally = Tally::default();
        let mut writes = JoinSet::new();
        let mut outcome = tokio::select! {
            biased;
            () = self.shutdown.draining() => Err(Exit::unavailable("it was interrupted")),
            outcome = self.write_all(&mut meant, &mut writes, &mut tally, &bar) => outcome,
        };
        loop {
            let written = tokio::select! {
                biased;
                () = self.shutdown.stopping() => break,
                written = writes.join_next() => written,
            };
            let Some(written) = written else { break };
            outcome = outcome.and(tally.add(written, self.clock.now(), &bar));
        }
        bar.finish_and_clear();
        (tally, outcome)
    }

    async fn write_all(
        &self,
        meant: &mut Meant,
        writes: &mut JoinSet<Written>,
        tally: &mut Tally,
        bar: &ProgressBar,
    ) -> Result<(), Exit> {
        let mut pace = Pace::new(self.rate);
        while let Some(page) = meant.next_page().await? {
            for found in page {
                pace.turn().await;
                while writes.len() >= AT_ONCE {
                    let written = writes.join_next().await.expect("there are some");
                    tally.add(written, self.clock.now(), bar)?;
                }
                writes.spawn(self.change(found));
            }
        }
        Ok(())
    }

    fn change(&self, found: Found) -> impl Future<Output = Written> + Send + 'static {
        let (desk, filter, wish) = (self.desk.clone(), self.filter.clone(), self.wish);
        let now = self.clock.now();
        async move {
            let changed = match wish {
                Wish::Retry => desk.retry_found(&found, &filter, now).await,
                Wish::Cancel => desk.cancel_found(&found, &filter, now).await,
            };
            (found.id, changed)
        }
    }
}

impl Tally {
    fn add(
        &mut self,
        written: Result<Written, JoinError>,
        now: Timestamp,
        bar: &ProgressBar,
    ) -> Result<(), Exit> {
        let (id, changed) = written.map_err(Exit::software)?;
        match changed {
            Ok(Changed::Made(before)) => {
                self.done += 1;
                bar.inc(1);
                self.running += u64::from(super::runs_on(&before, now));
            }
            Ok(Changed::Refused(_)) => self.changed += 1,
            Ok(Changed::Missing) => self.gone += 1,
            Err(StoreError::Rejected(fault)) => {
                self.rejected += 1;
                bar.suspend(|| eprintln!("{}", plain::one_line(&format!("{id}: {fault}"))));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    pub(super) fn json(&self, wish: Wish, began: Option<Timestamp>) -> Value {
        let mut json = json!({
            "command": wish.word(),
            "done": self.done,
            "changed_meanwhile": self.changed,
            "gone": self.gone,
            "rejected": self.rejected,
        });
        match began {
            Some(began) => json["began"] = Value::from(began.as_millis() as f64 / 1e3),
            None => json["running_on"] = Value::from(self.running),
        }
        json
    }

    pub(super) fn words(&self, wish: Wish) -> String {
        let done = row::tasks(self.done);
        let is = |count| if count == 1 { "is" } else { "are" };
        let mut words = match wish {
            Wish::Retry => format!("{done} {} due now.", is(self.done)),
            Wish::Cancel => format!("{done} {} cancelled.", is(self.done)),
        };
        if wish == Wish::Cancel && self.running > 0 {
            let go_on = if self.running == 1 { "goes" } else { "go" };
            words += &format!(
                " Of these, {} {go_on} on in Lambda; what is returned is discarded.",
                thousands(self.running)
            );
        }
        for (count, what) in [
            (self.changed, "left alone: changed meanwhile"),
            (self.gone, "gone meanwhile"),
            (self.rejected, "not written: the table refuses"),
        ] {
            if count > 0 {
                words += &format!(" {} {what}.", row::tasks(count));
            }
        }
        words
    }
}

/// When the next write may begin.
struct Pace {
    step: Duration,
    next: Instant,
}

impl Pace {
    fn new(per_second: f64) -> Self {
        Pace { step: Duration::from_secs_f64(1.0 / per_second), next: Instant::now() }
    }

    async fn turn(&mut self) {
        sleep_until(self.next).await;
        let earliest = Instant::now() - SLACK;
        self.next = self.next.max(earliest) + self.step;
    }
}

/// A bar as long as what is expected; nothing where there is no terminal.
fn bar(expected: Option<u64>) -> ProgressBar {
    let (bar, template) = match expected {
        Some(expected) => (ProgressBar::new(expected), "{bar:40} {pos} of {len} done, {eta} left"),
        None => (ProgressBar::no_length(), "{spinner} {pos} done in {elapsed}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is right"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn writes_keep_their_pace_and_make_up_for_little_of_what_was_lost() {
        let (began, mut pace) = (Instant::now(), Pace::new(100.0));
        for _ in 0..101 {
            pace.turn().await;
        }
        let elapsed = began.elapsed();
        assert!((990..=1110).contains(&elapsed.as_millis()), "{elapsed:?}");
        tokio::time::advance(Duration::from_secs(60)).await;
        let (resumed, mut at_once) = (Instant::now(), 0);
        while resumed.elapsed().is_zero() {
            pace.turn().await;
            at_once += 1;
        }
        assert!((10..=13).contains(&at_once), "{at_once} without a pause");
    }
}

//! Retrying or cancelling all tasks that a filter means: shown first, then done at a given rate,
//! each task once, however often it is interrupted.

use tokio::time::sleep;

use super::Wish;
use super::preview::Preview;
use super::writing::Writing;
use crate::aws::{Desk, Extent, Filter, Listing, Retryable, Run};
use crate::cli::cost::{self, Consent};
use crate::cli::exit::{Exit, say};
use crate::cli::filter::FilterOptions;
use crate::cli::{person, row};
use crate::clock::{CLOCKS_DIFFER, Clock};
use crate::shutdown::Shutdown;
use crate::task::Timestamp;

/// What is said where nobody can be asked.
const ADVICE: &str = "--dry-run --yes shows what would be done, --yes does it";

/// What becomes of the same retry that was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// It goes on.
    GoOn,
    /// It is forgotten.
    Afresh,
}

/// How many changes there may be in a second.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    /// As it was written.
    pub(super) text: String,
    pub(super) per_second: f64,
}

/// One retry or cancel by filter.
pub(super) struct Campaign {
    pub(super) wish: Wish,
    pub(super) start: Start,
    pub(super) filter: FilterOptions,
    pub(super) shards: Vec<String>,
    pub(super) desk: Desk,
    pub(super) clock: Clock,
    pub(super) rate: Rate,
    pub(super) json: bool,
}

impl Campaign {
    /// Shows what would be done.
    pub(super) async fn show(&self, consent: Consent) -> Result<(), Exit> {
        let unfinished = self.unfinished().await?;
        self.preview(unfinished.as_ref(), consent).await?;
        eprintln!("Nothing was changed.");
        Ok(())
    }

    /// Shows what would be done, and does it if somebody says so.
    pub(super) async fn show_and_ask(&self) -> Result<(), Exit> {
        let unfinished = self.unfinished().await?;
        let count = self.preview(unfinished.as_ref(), Consent::Wanted).await?;
        let word = self.word();
        if !cost::is_somebody_there() {
            if count > 0 {
                eprintln!("Nothing was changed. --yes does it: it will {word} them.");
            }
            return Ok(());
        }
        if count == 0 {
            // There is nothing that it could go on with.
            if let Some(run) = unfinished {
                self.desk.control().end_run(&run).await?;
            }
            return Ok(());
        }
        let question = format!("{} {}, at {}?", capital(word), row::tasks(count), self.rate.text);
        match cost::ask(&question)? {
            true => self.do_it(Some(count)).await,
            false => {
                eprintln!("Nothing was changed.");
                Ok(())
            }
        }
    }

    /// Does it at once.
    pub(super) async fn carry_out(&self) -> Result<(), Exit> {
        let Extent { bytes, of } = self.list(self.clock.now()).1;
        cost::before_reading(bytes, of, Consent::Given, ADVICE)?;
        self.do_it(None).await
    }

    async fn do_it(&self, expected: Option<u64>) -> Result<(), Exit> {
        // From now on Ctrl-C is heard, and ends nothing in the middle of a write.
        let shutdown = Shutdown::on_signals().map_err(Exit::os)?;
        let run = self.begin(&shutdown).await?;
        let began = run.as_ref().map_or_else(|| self.clock.now(), |run| run.began);
        let filter = self.filter_of(began);
        let listing = self.list_with(filter.clone()).0;
        let writing = Writing {
            wish: self.wish,
            desk: &self.desk,
            clock: &self.clock,
            filter,
            rate: self.rate.per_second,
            shutdown,
        };
        let (tally, outcome) = writing.write(listing, expected).await;
        match self.json {
            true => say(tally.json(self.word(), run.as_ref().map(|run| run.began)))?,
            false => say(tally.words(self.wish))?,
        }
        match outcome {
            Ok(()) => {}
            Err(exit) => {
                eprintln!("It is unfinished: the same command goes on with it.");
                return Err(exit);
            }
        }
        if let Some(run) = run {
            self.desk.control().end_run(&run).await?;
        }
        match tally.rejected {
            0 => Ok(()),
            count => Err(Exit::data(format!("the table took {count} of the changes for wrong"))),
        }
    }

    /// Notes on the control item that a retry begins; or finds there that it goes on. Cancelled
    /// tasks are no longer meant by the filter, so cancelling needs no note.
    async fn begin(&self, shutdown: &Shutdown) -> Result<Option<Run>, Exit> {
        if self.wish != Wish::Retry {
            return Ok(None);
        }
        let (new, control) = (self.new_run(), self.desk.control());
        let run = match self.start {
            Start::GoOn => control.begin_run(&new).await?,
            Start::Afresh => control.begin_run_afresh(&new).await?,
        };
        if run == new {
            // A task that is retried now ends after the retry began, by any machine's clock.
            tokio::select! {
                biased;
                () = shutdown.draining() => {}
                () = sleep(CLOCKS_DIFFER) => {}
            }
        } else {
            tell_of(&run);
        }
        Ok(Some(run))
    }

    /// The same retry, if it was interrupted and is to go on.
    async fn unfinished(&self) -> Result<Option<Run>, Exit> {
        if self.wish != Wish::Retry || self.start == Start::Afresh {
            return Ok(None);
        }
        let run = self.desk.control().unfinished(&self.new_run()).await?;
        run.iter().for_each(tell_of);
        Ok(run)
    }

    fn new_run(&self) -> Run {
        Run {
            command: self.word().to_owned(),
            filter: self.filter.words(),
            began: self.clock.now(),
            by: person(),
        }
    }

    async fn preview(&self, unfinished: Option<&Run>, consent: Consent) -> Result<u64, Exit> {
        let began = unfinished.map_or_else(|| self.clock.now(), |run| run.began);
        let (mut listing, Extent { bytes, of }) = self.list(began);
        cost::before_reading(bytes, of, consent, ADVICE)?;
        let mut preview = Preview::new(self.clock.now(), self.json);
        while let Some(page) = listing.next_page().await? {
            page.iter().try_for_each(|found| preview.add(found))?;
        }
        match self.json {
            true => say(preview.json(self.word()))?,
            false if preview.count() == 0 => say("No task matches.")?,
            false => say(preview.words(self.wish))?,
        }
        Ok(preview.count())
    }

    fn list(&self, began: Timestamp) -> (Listing, Extent) {
        self.list_with(self.filter_of(began))
    }

    fn list_with(&self, filter: Filter) -> (Listing, Extent) {
        self.desk.list(filter, self.shards.clone(), None)
    }

    /// What is meant, where the whole began then. A time ago is counted from there, too.
    fn filter_of(&self, began: Timestamp) -> Filter {
        let retryable = Retryable { began, now: self.clock.now() };
        let retryable = (self.wish == Wish::Retry).then_some(retryable);
        Filter { retryable, ..self.filter.filter(began) }
    }

    fn word(&self) -> &'static str {
        match self.wish {
            Wish::Retry => "retry",
            _ => "cancel",
        }
    }
}

fn tell_of(run: &Run) {
    let Run { began, by, .. } = run;
    eprintln!(
        "This goes on with the retry that {by} began at {} and that was interrupted: tasks \
         that ended since then are left alone. --afresh begins anew.",
        super::time(*began)
    );
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

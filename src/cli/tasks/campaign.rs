//! Retrying or cancelling all tasks that a filter means: shown first, then done at a given rate,
//! each task once, however often it is interrupted.

use tokio::time::sleep;

use super::Wish;
use super::preview::Preview;
use super::writing::{Meant, Writing};
use crate::aws::{Desk, Extent, Filter, Listing, Retryable, Run};
use crate::cli::cost::{self, Consent, Price, thousands};
use crate::cli::exit::{Exit, say};
use crate::cli::filter::FilterOptions;
use crate::cli::{person, plain, row};
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
        let preview = self.preview(unfinished.as_ref(), Consent::Wanted).await?;
        let (count, word) = (preview.count(), self.wish.word());
        if count == 0 {
            // There is nothing that it could go on with.
            if let Some(run) = unfinished {
                self.desk.control().end_run(&run).await?;
            }
            return Ok(());
        }
        if !cost::is_somebody_there() {
            return Err(Exit::usage(format!(
                "nothing was changed, since there is nobody here to be asked: --yes will {word} \
                 them, and --dry-run only shows them"
            )));
        }
        let tasks = row::tasks(count);
        let mut question = format!(
            "{} {tasks}, at {}: about {} write units",
            capital(word),
            self.rate.text,
            thousands(preview.write_units(self.wish, &self.desk.sizes()))
        );
        if !preview.has_kept_all() {
            question += ", and the same reading once more";
        }
        match cost::ask(&format!("{question}?"))? {
            true => self.do_it(Some(preview)).await,
            false => {
                eprintln!("Nothing was changed.");
                Ok(())
            }
        }
    }

    /// Does it at once.
    pub(super) async fn carry_out(&self) -> Result<(), Exit> {
        let extent = self.list(self.filter_of(self.clock.now())).1;
        Price::new(Consent::Given, ADVICE).before(&extent)?;
        self.do_it(None).await
    }

    async fn do_it(&self, preview: Option<Preview>) -> Result<(), Exit> {
        // From now on Ctrl-C is heard, and ends nothing in the middle of a write.
        let shutdown = Shutdown::on_signals().map_err(Exit::os)?;
        // What has been shown is what is meant, however long the answer took.
        let shown_at = preview.as_ref().map_or_else(|| self.clock.now(), Preview::began);
        let run = self.begin(shown_at, &shutdown).await?;
        let began = run.as_ref().map_or(shown_at, |run| run.began);
        let filter = self.filter_of(began);
        let expected = preview.as_ref().map(Preview::count);
        let meant =
            match preview.filter(|preview| preview.has_kept_all() && preview.began() == began) {
                Some(preview) => Meant::Shown(preview.into_tasks()),
                None => Meant::Listed(Box::new(self.list(filter.clone()).0)),
            };
        let writing = Writing {
            wish: self.wish,
            desk: &self.desk,
            clock: &self.clock,
            filter,
            rate: self.rate.per_second,
            shutdown,
        };
        let (tally, outcome) = writing.write(meant, expected).await;
        if outcome.is_ok()
            && let Some(run) = &run
        {
            self.desk.control().end_run(run).await?;
        }
        match self.json {
            true => say(tally.json(self.wish, run.as_ref().map(|run| run.began)))?,
            false => say(tally.words(self.wish))?,
        }
        if let Err(exit) = outcome {
            eprintln!("It is unfinished: the same command goes on with it.");
            return Err(exit);
        }
        match tally.rejected {
            0 => Ok(()),
            count => Err(Exit::data(format!("the table took {count} of the changes for wrong"))),
        }
    }

    /// Notes on the control item that a retry begins; or finds there that it goes on. Cancelled
    /// tasks are no longer meant by the filter, so cancelling needs no note.
    async fn begin(&self, began: Timestamp, shutdown: &Shutdown) -> Result<Option<Run>, Exit> {
        if self.wish != Wish::Retry {
            return Ok(None);
        }
        let (new, control) = (self.new_run(began), self.desk.control());
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
        let run = self.desk.control().unfinished(&self.new_run(self.clock.now())).await?;
        run.iter().for_each(tell_of);
        Ok(run)
    }

    fn new_run(&self, began: Timestamp) -> Run {
        Run {
            command: self.wish.word().to_owned(),
            filter: self.filter.words(),
            began,
            by: person(),
        }
    }

    async fn preview(&self, unfinished: Option<&Run>, consent: Consent) -> Result<Preview, Exit> {
        let now = self.clock.now();
        let began = unfinished.map_or(now, |run| run.began);
        let (mut listing, extent) = self.list(self.filter_of(began));
        let mut price = Price::new(consent, ADVICE);
        price.before(&extent)?;
        let mut preview = Preview::new(began, now, self.json);
        while let Some(page) = listing.next_page().await? {
            price.so_far(self.desk.consumed())?;
            page.into_iter().try_for_each(|found| preview.add(found))?;
        }
        match self.json {
            true => say(preview.json(self.wish))?,
            false if preview.count() == 0 => say("No task matches.")?,
            false => say(preview.words(self.wish))?,
        }
        Ok(preview)
    }

    fn list(&self, filter: Filter) -> (Listing, Extent) {
        self.desk.list(filter, self.shards.clone(), None)
    }

    /// What is meant, where the whole began then. A time ago is counted from there, too.
    fn filter_of(&self, began: Timestamp) -> Filter {
        let retryable = Retryable { began, now: self.clock.now() };
        let retryable = (self.wish == Wish::Retry).then_some(retryable);
        Filter { retryable, ..self.filter.filter(began) }
    }
}

fn tell_of(run: &Run) {
    let Run { began, by, .. } = run;
    eprintln!(
        "This goes on with the retry that {} began at {} and that was interrupted: tasks \
         that ended since then are left alone. --afresh begins anew.",
        plain::one_line(by),
        super::time(*began)
    );
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

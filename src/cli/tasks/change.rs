//! `burstd retry` and `burstd cancel`: of tasks by their names, or of all that a filter means.

use clap::Args;

use super::campaign::{Campaign, Rate, Start};
use super::{About, Errand, Wish};
use crate::aws::{Clients, Wanted};
use crate::cli::cost::{self, is_somebody_there};
use crate::cli::exit::Exit;
use crate::cli::filter::FilterOptions;
use crate::cli::{ConfigFile, Speech, block_on};
use crate::config::rate;
use crate::daemon;
use crate::task::Status;

const RETRY_HELP: &str = "\
Tasks that have ended begin again at their first attempt. Tasks that wait for
their due run now, and their attempts count on. Tasks that run are left alone.

By filter, tasks that have FAILED are meant unless --status says otherwise.
What would be done is shown first; then burstd asks, or --yes does it at once.
TIME is now, -1h, epoch seconds, or 2026-11-22T10:00:00Z:

  burstd retry --queue thumbs --since -1h --error ValueError --rate 50/s

A retry by filter that is interrupted goes on when the same command is given
within a day, on any machine with the same table: each task is retried once, and
one that has failed again since the retry began is left alone.";

const CANCEL_HELP: &str = "\
A task that is cancelled does not run, unless it is retried. One that runs goes
on in Lambda; what it returns is discarded.

By filter, tasks that have not ended are meant unless --status says otherwise.
What would be done is shown first; then burstd asks, or --yes does it at once.
TIME is now, -1h, epoch seconds, or 2026-11-22T10:00:00Z:

  burstd cancel --queue thumbs --status PENDING

A cancel by filter that is interrupted goes on when the command is given again.
Tasks that are inserted while it runs may be cancelled, too: pause the queue
or its producer first if they must not be.";

/// Have tasks run again
#[derive(Args)]
#[command(after_help = RETRY_HELP)]
pub(in crate::cli) struct Retry {
    #[command(flatten)]
    change: Change,
    /// Begin anew where the same retry was interrupted, instead of going on with it
    #[arg(long, conflicts_with = "ids")]
    afresh: bool,
}

/// Call tasks off
#[derive(Args)]
#[command(after_help = CANCEL_HELP)]
pub(in crate::cli) struct Cancel {
    #[command(flatten)]
    change: Change,
}

/// What both share.
#[derive(Args)]
struct Change {
    #[command(flatten)]
    config: ConfigFile,
    /// Tasks' names, as the log writes them: in a table with a sort key, PARTITION/SORT
    #[arg(
        value_name = "ID",
        conflicts_with_all = ["queue", "status", "since", "error", "all", "rate", "dry_run"]
    )]
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterOptions,
    /// Every task that the command can act on; where nobody can be asked, with --yes
    #[arg(long, conflicts_with_all = ["queue", "status", "since", "error"])]
    all: bool,
    /// Do it without showing it first, and without a question
    #[arg(long)]
    yes: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// By filter, change no more tasks than this: 50/s, 200/m or 1000/h
    #[arg(long, value_name = "RATE", default_value = "100/s", value_parser = read_rate)]
    rate: Rate,
    #[command(flatten)]
    speech: Speech,
}

fn read_rate(text: &str) -> Result<Rate, String> {
    let wrong = || format!("it must be a number of tasks {}", rate::FORM);
    let per_second = rate::per_second(text).ok_or_else(wrong)?;
    Ok(Rate { text: text.to_owned(), per_second })
}

impl Retry {
    pub(in crate::cli) fn run(self) -> Result<(), Exit> {
        let start = if self.afresh { Start::Afresh } else { Start::GoOn };
        self.change.run(Wish::Retry, start)
    }
}

impl Cancel {
    pub(in crate::cli) fn run(self) -> Result<(), Exit> {
        self.change.run(Wish::Cancel, Start::GoOn)
    }
}

impl Change {
    fn run(self, wish: Wish, start: Start) -> Result<(), Exit> {
        let Change { ids, speech, .. } = self;
        match ids.is_empty() {
            false => About { config: self.config, ids, speech }.run(Errand::Change(wish)),
            true => block_on(Change { ids, ..self }.by_filter(wish, start)),
        }
    }

    async fn by_filter(self, wish: Wish, start: Start) -> Result<(), Exit> {
        let filter = self.meant(wish).map_err(Exit::usage)?;
        let config = self.config.load()?;
        let clients = Clients::new(&daemon::place(&config.aws)).await?;
        let campaign = Campaign {
            wish,
            start,
            shards: filter.shards(&config),
            filter,
            desk: clients.table(&config.table).desk().await?,
            clock: clients.clock(),
            rate: self.rate,
            json: self.speech.json,
        };
        let outcome = match (self.dry_run, self.yes) {
            (true, yes) => campaign.show(cost::Consent::from_option(yes)).await,
            (false, true) => campaign.carry_out().await,
            (false, false) => campaign.show_and_ask().await,
        };
        if self.speech.verbose {
            cost::tell(campaign.desk.consumed());
        }
        outcome
    }

    /// Which tasks are meant, with their statuses.
    fn meant(&self, wish: Wish) -> Result<FilterOptions, String> {
        let is = |statuses: &[Status]| statuses.iter().copied().map(Wanted::Is).collect();
        let (by_itself, all): (Vec<_>, Vec<_>) = match wish {
            Wish::Retry => {
                let all = Status::ALL.into_iter().filter(|status| *status != Status::Running);
                (is(&[Status::Failed]), is(&all.collect::<Vec<_>>()))
            }
            Wish::Cancel => {
                let open = is(&[Status::Pending, Status::Running]);
                (open.clone(), open)
            }
        };
        let word = wish.word();
        let filter = self.filter.clone();
        match (self.all, filter.is_empty()) {
            (false, true) => Err(format!(
                "which tasks? Name them: `burstd {word} ID …`; or say it with --queue, --status, \
                 --since and --error; or write --all --yes"
            )),
            (true, _) if !self.yes && !self.dry_run && !is_somebody_there() => Err(format!(
                "--all means every task that burstd can {word}. --yes does it, and there is \
                 nobody here to be asked; --dry-run shows it"
            )),
            (true, _) => Ok(FilterOptions { status: all, ..filter }),
            (false, false) if filter.status.is_empty() => {
                Ok(FilterOptions { status: by_itself, ..filter })
            }
            (false, false) => {
                filter.status.iter().try_for_each(|wanted| allowed(wish, *wanted))?;
                Ok(filter)
            }
        }
    }
}

/// Why tasks with this status cannot be meant, if they cannot.
fn allowed(wish: Wish, wanted: Wanted) -> Result<(), String> {
    match wish {
        Wish::Retry if wanted == Wanted::Is(Status::Running) => Err(
            "--status RUNNING: what runs cannot be retried. Wait until it has ended, or cancel it \
             first"
                .to_owned(),
        ),
        Wish::Cancel if !wanted.is_open() => Err(format!(
            "--status {wanted}: what has ended cannot be cancelled. PENDING, RUNNING and new can"
        )),
        _ => Ok(()),
    }
}

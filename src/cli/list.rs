//! `burstd list`.

use clap::Args;

use super::cost::{self, Consent, Price};
use super::exit::{Exit, say};
use super::filter::FilterOptions;
use super::{ConfigFile, Speech, block_on, row};
use crate::aws::Clients;
use crate::daemon;

const HELP: &str = "\
TIME is now, -1h, epoch seconds, or 2026-11-22T10:00:00Z.

If only tasks with something left to do are asked for (--status PENDING,RUNNING
or one of them), burstd reads the index due-index, and lists by due within a
queue. Items without a queue or a due are not in it. Otherwise it reads the
table, which has no order. Before much is read, burstd says what it costs, and
asks.";

/// List tasks
#[derive(Args)]
#[command(after_help = HELP)]
pub(super) struct List {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    filter: FilterOptions,
    /// Stop after so many
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Read as much as it takes, without a question
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    speech: Speech,
}

/// Whether there is more than was listed.
enum Rest {
    None,
    Perhaps,
    Surely,
}

impl List {
    pub(super) fn run(self) -> Result<(), Exit> {
        block_on(self.list())
    }

    async fn list(self) -> Result<(), Exit> {
        let config = self.config.load()?;
        let clients = Clients::new(&daemon::place(&config.aws)).await?;
        let desk = clients.table(&config.table).desk().await?;
        let now = clients.clock().now();
        let shards = self.filter.shards(&config);
        let (mut listing, extent) = desk.list(self.filter.filter(now), shards, Some(self.limit));
        let mut price = Price::new(Consent::from_option(self.yes), "--yes reads it");
        price.before(&extent)?;
        let mut listed = 0;
        let mut rest = Rest::None;
        while listed < self.limit
            && let Some(page) = listing.next_page().await?
        {
            price.so_far(desk.consumed())?;
            for found in page {
                if listed == self.limit {
                    rest = Rest::Surely;
                    break;
                }
                if listed == 0 && !self.speech.json {
                    say(row::HEADER)?;
                }
                match self.speech.json {
                    true => say(row::json(&found))?,
                    false => say(row::text(&found, now))?,
                }
                listed += 1;
            }
        }
        if listed == self.limit && !matches!(rest, Rest::Surely) && !listing.is_over() {
            rest = Rest::Perhaps;
        }
        self.tell_rest(listed, &rest);
        if self.speech.verbose {
            cost::tell(desk.consumed());
        }
        Ok(())
    }

    fn tell_rest(&self, listed: u32, rest: &Rest) {
        let more = match rest {
            Rest::None if listed == 0 && !self.speech.json => return eprintln!("No task matches."),
            Rest::None => return,
            Rest::Perhaps => "there may be more",
            Rest::Surely => "there are more",
        };
        eprintln!("Stopped at --limit {listed}; {more}: a higher limit shows them.");
    }
}

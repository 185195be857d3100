//! `burstd stats`: what is left to do, by queue, and what has been done.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use clap::Args;
use serde_json::{Value, json};

use super::cost::{self, Consent, Price, thousands};
use super::exit::{Exit, say};
use super::tasks::show::away;
use super::{ConfigFile, Speech, block_on, plain, unknown_queue};
use crate::aws::{Clients, Desk, Open, Part, Standing};
use crate::config::Config;
use crate::daemon;
use crate::notices::Notices;
use crate::queue::Queue;
use crate::task::Timestamp;

const HELP: &str = "\
due, delayed and the oldest are counted from the index, as it is at this moment;
tasks that run are still due. running is what the daemons last said. How many
have ended is an estimate, unless --scan reads the whole table.";

/// How to have it read all the same.
const ADVICE: &str = "--yes reads it";

/// Count tasks by queue
#[derive(Args)]
#[command(after_help = HELP)]
pub(super) struct Stats {
    #[command(flatten)]
    config: ConfigFile,
    /// This queue alone
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Read the whole table, and count how many tasks have which status
    #[arg(long, conflicts_with = "queue")]
    scan: bool,
    /// Do not ask before reading a large table
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    speech: Speech,
}

/// What is told of a queue.
struct Line {
    queue: String,
    open: Open,
    running: u64,
    notes: Vec<String>,
}

impl Stats {
    pub(super) fn run(self) -> Result<(), Exit> {
        block_on(self.count())
    }

    async fn count(self) -> Result<(), Exit> {
        let config = self.config.load()?;
        let shards = self.shards(&config)?;
        let clients = Clients::new(&daemon::place(&config.aws)).await?;
        let desk = clients.table(&config.table).desk().await?;
        let mut price = Price::new(Consent::from_option(self.yes), ADVICE);
        price.before(&match self.scan {
            true => desk.sizes().index_and_table(),
            false => desk.sizes().index(),
        })?;
        let notices = super::tasks::notices(&desk).await?;
        let now = clients.clock().now();
        let parts = match shards {
            Some(shards) => shards.into_iter().map(Part::Shard).collect(),
            None if self.scan => vec![Part::Index, Part::Table],
            None => vec![Part::Index],
        };
        let mut census = desk.census(parts, queues_of_shards(&config), now);
        while census.next_page().await? {
            price.so_far(desk.consumed())?;
        }
        let lines = self.lines(&config, &notices, census.open, now);
        match self.speech.json {
            true => lines.iter().try_for_each(|line| say(line.to_json(now)))?,
            false => say(table(&lines, now))?,
        }
        if self.scan {
            self.say_all(census.all)?;
        } else if self.queue.is_none() {
            self.say_ended(&desk, &notices, now)?;
        }
        if self.speech.verbose {
            cost::tell(desk.consumed());
        }
        Ok(())
    }

    /// The shards to look at; nothing when it is all of them, those of unknown queues included.
    fn shards(&self, config: &Config) -> Result<Option<Vec<String>>, Exit> {
        let Some(name) = &self.queue else { return Ok(None) };
        match config.queue(name) {
            Some(queue) => Ok(Some(Queue::shards(name, queue.shards))),
            None => Err(unknown_queue(config, name)),
        }
    }

    /// A line for each queue that the configuration has, and for each that items name.
    fn lines(
        &self,
        config: &Config,
        notices: &Notices,
        counted: BTreeMap<String, Open>,
        now: Timestamp,
    ) -> Vec<Line> {
        let mut open: BTreeMap<String, Open> = BTreeMap::new();
        let is_wanted = |name: &str| self.queue.as_deref().is_none_or(|wanted| wanted == name);
        for queue in config.queues.iter().filter(|queue| is_wanted(&queue.name)) {
            open.insert(queue.name.clone(), Open::default());
        }
        open.extend(counted);
        let line = |(queue, open): (String, Open)| {
            let servers = notices.servers(&queue, now);
            let running = servers.iter().map(|(_, service)| service.in_flight).sum();
            let notes = notes(&queue, notices, &servers, now);
            Line { queue, open, running, notes }
        };
        open.into_iter().map(line).collect()
    }

    /// How many have ended, roughly, and how to know better.
    fn say_ended(&self, desk: &Desk, notices: &Notices, now: Timestamp) -> Result<(), Exit> {
        let sizes = desk.sizes();
        // One item of the table may be the control item.
        let is_told = u64::from(*notices != Notices::default());
        let ended = sizes.table_items.saturating_sub(sizes.index_items + is_told);
        let units = sizes.index_and_table().read_units();
        let alive: BTreeMap<_, _> =
            notices.workers.iter().filter(|(_, presence)| presence.is_alive(now)).collect();
        if self.speech.json {
            let workers = alive.iter().map(|(name, presence)| {
                json!({ "worker": name, "activity": presence.activity(),
                        "seen_s_ago": now.since(presence.seen_at).as_secs_f64() })
            });
            return say(json!({
                "ended_estimate": ended,
                "scan_bytes": sizes.index_and_table().bytes,
                "scan_read_units": units,
                "workers": workers.collect::<Vec<Value>>(),
            }));
        }
        let mut words = String::from("\n");
        if alive.is_empty() {
            words += "no daemon has been heard of lately\n";
        }
        for (name, presence) in alive {
            let ago = away(presence.seen_at, now);
            words += &format!("{name}: {}, heard of {ago}\n", presence.activity());
        }
        say(format_args!(
            "{words}about {} have ended, or are not in the index: an estimate, since DynamoDB\n\
             counts items every six hours or so.\n\
             `burstd stats --scan` counts them: about {} read units",
            thousands(ended),
            thousands(units)
        ))
    }

    /// How many have which status.
    fn say_all(&self, counts: BTreeMap<(String, Standing), u64>) -> Result<(), Exit> {
        if !self.speech.json {
            let queues: BTreeSet<_> = counts.keys().map(|(queue, _)| queue.as_str()).collect();
            let width = width(queues.into_iter());
            say(format_args!("\n{:<width$}  {:<19}  {:>9}", "queue", "status", "tasks"))?;
            for ((queue, standing), count) in &counts {
                let (queue, standing) = (shown(queue), standing.as_str());
                say(format_args!("{queue:<width$}  {standing:<19}  {count:>9}"))?;
            }
            return Ok(());
        }
        counts.into_iter().try_for_each(|((queue, standing), tasks)| {
            say(json!({ "queue": queue, "status": standing.as_str(), "tasks": tasks }))
        })
    }
}

/// The queues of the configuration, by their shards.
fn queues_of_shards(config: &Config) -> HashMap<String, String> {
    let of = |(name, shards): (&String, u32)| {
        let queue = name.clone();
        Queue::shards(name, shards).into_iter().map(move |shard| (shard, queue.clone()))
    };
    config.queues.iter().map(|queue| (&queue.name, queue.shards)).flat_map(of).collect()
}

fn notes(
    queue: &str,
    notices: &Notices,
    servers: &[(&str, &crate::notices::Service)],
    now: Timestamp,
) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some((_, pause)) = notices.pause(queue) {
        notes.push(format!("paused {} by {}", away(pause.since, now), pause.by));
    }
    if servers.is_empty() {
        notes.push("no daemon serves it".to_owned());
    }
    let bounds: BTreeSet<_> =
        servers.iter().filter_map(|(_, service)| Some(&*service.bound.as_ref()?.why)).collect();
    notes.extend(bounds.into_iter().map(str::to_owned));
    notes
}

impl Line {
    fn to_json(&self, now: Timestamp) -> Value {
        let oldest = self.open.oldest_due.map(|due| now.since(due).as_secs_f64());
        json!({
            "queue": self.queue,
            "due": self.open.due,
            "running": self.running,
            "delayed": self.open.delayed,
            "oldest_due_s": oldest,
            "notes": self.notes,
        })
    }
}

/// The lines below one another.
fn table(lines: &[Line], now: Timestamp) -> String {
    let width = width(lines.iter().map(|line| line.queue.as_str()));
    let mut words = format!(
        "{:<width$}  {:>8}  {:>8}  {:>8}  {:<12}",
        "queue", "due", "running", "delayed", "oldest due"
    );
    words.truncate(words.trim_end().len());
    for line in lines {
        let Open { due, delayed, oldest_due } = line.open;
        let oldest = oldest_due.map_or("-".to_owned(), |due| away(due, now));
        let (queue, running, notes) =
            (shown(&line.queue), line.running, plain::one_line(&line.notes.join("; ")));
        let row =
            format!("{queue:<width$}  {due:>8}  {running:>8}  {delayed:>8}  {oldest:<12}  {notes}");
        words += "\n";
        words += row.trim_end();
    }
    words
}

/// A column that has room for these, and for its heading.
fn width<'a>(queues: impl Iterator<Item = &'a str>) -> usize {
    queues.map(|queue| shown(queue).chars().count()).max().unwrap_or(0).max("queue".len())
}

/// A queue's name as it can be shown: what would steer the terminal stands there as a mark.
fn shown(queue: &str) -> String {
    match queue {
        "" => "(none)".to_owned(),
        queue => plain::one_line(queue),
    }
}

//! What a filter means: the first tasks, and how many there are.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Wish;
use crate::aws::{Found, Sizes};
use crate::cli::cost::thousands;
use crate::cli::exit::{Exit, say};
use crate::cli::{plain, row};
use crate::task::Timestamp;

/// So many tasks are shown.
const SHOWN: u64 = 10;

/// More kinds than this are counted together: a table may have anything as a queue.
const KINDS: usize = 100;

/// As many are kept, so that they need not be read again before they are changed.
const KEPT: usize = 10_000;

/// The tasks that were found so far.
pub(super) struct Preview {
    /// The moment from which on the filter was meant.
    began: Timestamp,
    now: Timestamp,
    json: bool,
    /// The first of them.
    tasks: Vec<Found>,
    count: u64,
    running: u64,
    /// Of them, those that have ended.
    ended: u64,
    /// By status and queue.
    kinds: BTreeMap<(String, String), u64>,
}

impl Preview {
    pub(super) fn new(began: Timestamp, now: Timestamp, json: bool) -> Self {
        let (tasks, kinds) = (Vec::new(), BTreeMap::new());
        Preview { began, now, json, tasks, count: 0, running: 0, ended: 0, kinds }
    }

    pub(super) fn began(&self) -> Timestamp {
        self.began
    }

    /// Whether none had to be let go of.
    pub(super) fn has_kept_all(&self) -> bool {
        self.tasks.len() as u64 == self.count
    }

    /// What it takes to change them all. A task that has ended comes into the index by a retry, and
    /// one that waits changes its place there: that is one entry taken out and another put in.
    pub(super) fn write_units(&self, wish: Wish, sizes: &Sizes) -> u64 {
        let open = self.count - self.ended;
        let entries = if wish == Wish::Retry { 2 } else { 1 };
        sizes.write_units(self.ended, 1).saturating_add(sizes.write_units(open, entries))
    }

    pub(super) fn into_tasks(self) -> Vec<Found> {
        self.tasks
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Counts a task, and shows it if it is one of the first.
    pub(super) fn add(&mut self, found: Found) -> Result<(), Exit> {
        if self.count < SHOWN {
            match self.json {
                true => say(row::json(&found))?,
                false if self.count == 0 => {
                    say(row::HEADER)?;
                    say(row::text(&found, self.now))?;
                }
                false => say(row::text(&found, self.now))?,
            }
        }
        self.count += 1;
        let record = &found.record;
        self.running += u64::from(super::runs_on(record, self.now));
        self.ended += u64::from(record.is_final());
        let queue = record.text("queue").unwrap_or("-");
        let queue = queue.split_once('#').map_or(queue, |(queue, _)| queue);
        let kind = (row::status(record).to_owned(), queue.to_owned());
        if self.kinds.len() >= KINDS && !self.kinds.contains_key(&kind) {
            *self.kinds.entry(("others".to_owned(), "others".to_owned())).or_default() += 1;
        } else {
            *self.kinds.entry(kind).or_default() += 1;
        }
        if self.tasks.len() < KEPT {
            self.tasks.push(found);
        }
        Ok(())
    }

    pub(super) fn json(&self, wish: Wish) -> Value {
        let kinds = self.kinds.iter().map(
            |((status, queue), count)| json!({ "status": status, "queue": queue, "tasks": count }),
        );
        let kinds: Vec<_> = kinds.collect();
        json!({ "command": wish.word(), "dry_run": true, "tasks": self.count, "of": kinds })
    }

    pub(super) fn words(&self, wish: Wish) -> String {
        let mut words = String::new();
        let mut line = |line: &str| {
            writeln!(words, "{line}").expect("writing to a string cannot fail");
        };
        if self.count > SHOWN {
            line(&format!("… and {} more", thousands(self.count - SHOWN)));
        }
        line(&format!("\n{:<12} {:<20} {:>12}", "STATUS", "QUEUE", "TASKS"));
        for ((status, queue), count) in &self.kinds {
            let (status, queue) = (plain::one_line(status), plain::one_line(queue));
            line(&format!("{status:<12} {queue:<20} {:>12}", thousands(*count)));
        }
        let count = row::tasks(self.count);
        line(&match wish {
            Wish::Retry => format!("\n{count} would run again."),
            _ => format!("\n{count} would be cancelled."),
        });
        if wish == Wish::Cancel && self.running > 0 {
            let running = thousands(self.running);
            let go_on = if self.running == 1 { "goes" } else { "go" };
            line(&format!(
                "{running} of them {go_on} on in Lambda; what is returned is discarded."
            ));
        }
        words.trim_end().to_owned()
    }
}

//! `burstd put`.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::io::{BufRead, BufReader, stdin};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use super::exit::{Exit, say};
use super::{ConfigFile, block_on, cost, when};
use crate::aws::{BATCH_LIMIT, Clients, NewTask, Producer, PutError, Rejected};
use crate::clock::Clock;
use crate::config::{Config, QueueConfig};
use crate::daemon;
use crate::store::StoreError;
use crate::task::Timestamp;

/// Batches that are sent side by side.
const BATCHES_AT_ONCE: usize = 8;

const PUT_HELP: &str = "\
One task: it is inserted only if there is none of its name.

Many tasks: each line of the file is a JSON object with any of these keys:
  {\"id\": \"a-1\", \"payload\": {\"any\": \"JSON\"}, \"due\": \"+10m\", \"queue\": \"thumbs\",
   \"max_attempts\": 3, \"deadline\": 1763800000, \"trace\": \"Root=…\", \"sort\": \"…\"}
A task that exists already under the same name is REPLACED, whatever its state:
BatchWriteItem knows no conditions. Bad lines are reported by number and do not
stop the rest; the exit code is then 65.

TIME is now, +10m, -1h, epoch seconds, or 2026-11-22T10:00:00Z.";

/// Insert one task, or many from a file of JSON lines
#[derive(Args)]
#[command(after_help = PUT_HELP)]
pub(super) struct Put {
    #[command(flatten)]
    config: ConfigFile,
    /// The queue; for lines that do not name their own
    #[arg(long)]
    queue: String,
    /// The task's name (partition key); random when absent
    #[arg(long, conflicts_with = "file")]
    id: Option<String>,
    /// The sort key's value, in a table that has one
    #[arg(long, conflicts_with = "file")]
    sort: Option<String>,
    /// When it is due; for lines that do not say
    #[arg(long, value_name = "TIME", default_value = "now", allow_hyphen_values = true)]
    due: String,
    /// The event for the function; {} when absent
    #[arg(long, value_name = "JSON", conflicts_with = "file")]
    payload: Option<String>,
    /// Insert many: a file of JSON lines, or - for standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Say on standard error what it cost
    #[arg(long)]
    verbose: bool,
}

impl Put {
    pub(super) fn run(self) -> Result<(), Exit> {
        block_on(self.put())
    }

    async fn put(self) -> Result<(), Exit> {
        let config = self.config.load()?;
        let due = when::parse(&self.due, Clock::system().now()).map_err(Exit::usage)?;
        let queue = find_queue(&config, &self.queue).map_err(Exit::usage)?;
        let clients = Clients::new(&daemon::place(&config.aws)).await?;
        let producer = clients.table(&config.table).producer().await?;
        let outcome = match &self.file {
            None => self.put_one(&producer, queue, due).await,
            Some(path) => {
                let defaults = Defaults { config: &config, queue, due };
                put_many(&producer, &defaults, path).await
            }
        };
        if self.verbose {
            cost::tell(producer.consumed());
        }
        outcome
    }

    async fn put_one(
        &self,
        producer: &Producer,
        queue: &QueueConfig,
        due: Timestamp,
    ) -> Result<(), Exit> {
        if let Some(payload) = &self.payload {
            serde_json::from_str::<serde::de::IgnoredAny>(payload)
                .map_err(|error| Exit::data(format!("--payload is not JSON: {error}")))?;
        }
        let task = NewTask {
            id: self.id.clone(),
            sort: self.sort.clone(),
            queue: shard(queue, self.id.as_deref(), 0),
            due,
            payload: self.payload.clone(),
            ..NewTask::default()
        };
        match producer.put(&task).await {
            Ok(id) => say(id),
            Err(PutError::Store(error)) => Err(error.into()),
            Err(error) => Err(Exit::data(error)),
        }
    }
}

/// What a line does not say.
struct Defaults<'a> {
    config: &'a Config,
    queue: &'a QueueConfig,
    due: Timestamp,
}

/// A task on a line of its own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<Text>,
    sort: Option<Text>,
    queue: Option<String>,
    due: Option<When>,
    payload: Option<Box<RawValue>>,
    max_attempts: Option<u32>,
    deadline: Option<When>,
    trace: Option<String>,
}

/// A key: numbers are taken as they are written.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Number(serde_json::Number),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum When {
    Seconds(f64),
    Text(String),
}

impl Text {
    fn into_string(self) -> String {
        match self {
            Text::Text(text) => text,
            Text::Number(number) => number.to_string(),
        }
    }
}

impl When {
    fn read(&self, now: Timestamp) -> Result<Timestamp, String> {
        match self {
            When::Seconds(seconds) => when::from_seconds(*seconds),
            When::Text(text) => when::parse(text, now),
        }
    }
}

impl Line {
    fn read(bytes: &[u8], number: u64, defaults: &Defaults<'_>) -> Result<NewTask, String> {
        let line: Line = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let now = Clock::system().now();
        let queue = match &line.queue {
            Some(name) => find_queue(defaults.config, name)?,
            None => defaults.queue,
        };
        let id = line.id.map(Text::into_string);
        let queue = shard(queue, id.as_deref(), number);
        let due = line.due.map_or(Ok(defaults.due), |due| due.read(now));
        Ok(NewTask {
            id,
            sort: line.sort.map(Text::into_string),
            queue,
            due: due.map_err(|error| format!("due: {error}"))?,
            payload: line.payload.map(|payload| payload.get().to_owned()),
            max_attempts: line.max_attempts,
            deadline: line
                .deadline
                .map(|deadline| deadline.read(now).map_err(|error| format!("deadline: {error}")))
                .transpose()?,
            trace: line.trace,
        })
    }
}

/// How a load went.
#[derive(Default)]
struct Tally {
    inserted: u64,
    bad: u64,
}

impl Tally {
    fn bad_line(&mut self, bar: &ProgressBar, number: u64, reason: &str) {
        self.bad += 1;
        bar.suspend(|| eprintln!("line {number}: {reason}"));
    }
}

async fn put_many(producer: &Producer, defaults: &Defaults<'_>, path: &Path) -> Result<(), Exit> {
    let (mut lines, bar) = open(path)?;
    let mut tally = Tally::default();
    let mut waiting: Vec<(u64, NewTask)> = Vec::new();
    let mut names = HashSet::new();
    let mut bytes = Vec::new();
    for number in 1_u64.. {
        bytes.clear();
        let read = lines.read_until(b'\n', &mut bytes);
        if read.map_err(|error| Exit::no_input(format!("{}: {error}", path.display())))? == 0 {
            break;
        }
        bar.inc(bytes.len() as u64);
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let task = match Line::read(&bytes, number, defaults) {
            Ok(task) => task,
            Err(reason) => {
                tally.bad_line(&bar, number, &reason);
                continue;
            }
        };
        // Within what is sent side by side each name stands once, so that of two lines with the
        // same name the later one is the one that stays.
        let is_new = task.id.is_none() || names.insert((task.id.clone(), task.sort.clone()));
        if !is_new || waiting.len() >= BATCHES_AT_ONCE * BATCH_LIMIT {
            send(producer, &mut waiting, &mut tally, &bar).await?;
            names.clear();
            names.insert((task.id.clone(), task.sort.clone()));
        }
        waiting.push((number, task));
    }
    send(producer, &mut waiting, &mut tally, &bar).await?;
    bar.finish_and_clear();
    let Tally { inserted, bad } = tally;
    say(format_args!("{inserted} tasks inserted into table {:?}", defaults.config.table))?;
    match bad {
        0 => Ok(()),
        bad => Err(Exit::data(format!("{bad} lines were not inserted; see above"))),
    }
}

/// Sends what is waiting, several batches at once, and waits for all.
async fn send(
    producer: &Producer,
    waiting: &mut Vec<(u64, NewTask)>,
    tally: &mut Tally,
    bar: &ProgressBar,
) -> Result<(), Exit> {
    type Sent = (Vec<u64>, Result<Vec<Rejected>, StoreError>);
    let mut batches: JoinSet<Sent> = JoinSet::new();
    while !waiting.is_empty() {
        let rest = waiting.split_off(BATCH_LIMIT.min(waiting.len()));
        let (numbers, tasks): (Vec<_>, Vec<_>) =
            std::mem::replace(waiting, rest).into_iter().unzip();
        let producer = producer.clone();
        batches.spawn(async move { (numbers, producer.put_all(&tasks).await) });
    }
    let mut bad = Vec::new();
    while let Some(sent) = batches.join_next().await {
        let (numbers, rejected) = sent.map_err(Exit::software)?;
        let rejected = rejected?;
        tally.inserted += (numbers.len() - rejected.len()) as u64;
        bad.extend(rejected.into_iter().map(|Rejected { index, reason }| (numbers[index], reason)));
    }
    bad.sort();
    for (number, reason) in bad {
        tally.bad_line(bar, number, &reason);
    }
    Ok(())
}

/// The lines, and a bar as long as the file; standard input has no length.
fn open(path: &Path) -> Result<(Box<dyn BufRead>, ProgressBar), Exit> {
    if path == Path::new("-") {
        let style = ProgressStyle::with_template("{spinner} {bytes} read, {bytes_per_sec}");
        let style = style.expect("the template is right");
        return Ok((Box::new(stdin().lock()), ProgressBar::no_length().with_style(style)));
    }
    let no_input = |error| Exit::no_input(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(no_input)?;
    let length = file.metadata().map_err(no_input)?.len();
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} read, {eta} left");
    let style = style.expect("the template is right");
    Ok((Box::new(BufReader::new(file)), ProgressBar::new(length).with_style(style)))
}

fn find_queue<'a>(config: &'a Config, name: &str) -> Result<&'a QueueConfig, String> {
    config.queue(name).ok_or_else(|| {
        let names: Vec<_> = config.queues.iter().map(|queue| queue.name.as_str()).collect();
        format!("there is no queue {name:?} in the configuration; there is: {}", names.join(", "))
    })
}

/// Where a task of the queue stands: by its name, so that a name has one place; or by turns.
fn shard(queue: &QueueConfig, id: Option<&str>, turn: u64) -> String {
    if queue.shards == 1 {
        return queue.name.clone();
    }
    let spread = match id {
        Some(id) => BuildHasherDefault::<DefaultHasher>::default().hash_one(id),
        None => turn,
    };
    format!("{}#{}", queue.name, spread % u64::from(queue.shards))
}

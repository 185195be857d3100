//! The commands of an operator on a table of 100,000 tasks with all kinds of trouble in it: what
//! each answers is held against what was put there, and what each costs is printed.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use burstd::clock::Clock;
use burstd::local::dynamodb::EmbeddedDynamoDb;
use burstd::local::lambda::{Answer, Call, EmbeddedLambda, Functions, LocalFunction};
use burstd::usage;
use dynoxide::types::AttributeValue;
use dynoxide::{Database, ImportOptions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::sleep;

use crate::{ANYWHERE, Daemon};

const TASKS: usize = 100_000;

/// What a hundredth of the tasks is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Succeeded,
    Failed,
    Cancelled,
    Due,
    Delayed,
    Leased,
    Milliseconds,
    UnknownQueue,
    Paused,
    Garbage,
    WithoutDue,
    WithoutQueue,
    Poison,
}

/// Of a hundred tasks so many are like this, and `explain` says this of them while no daemon is up.
const KINDS: [(Kind, usize, &str); 13] = [
    (Kind::Succeeded, 58, "ended"),
    (Kind::Failed, 3, "ended"),
    (Kind::Cancelled, 1, "ended"),
    (Kind::Due, 19, "no_worker"),
    (Kind::Delayed, 7, "not_due"),
    (Kind::Leased, 1, "leased"),
    (Kind::Milliseconds, 1, "milliseconds"),
    (Kind::UnknownQueue, 1, "unknown_queue"),
    (Kind::Paused, 4, "paused"),
    (Kind::Garbage, 2, "unreadable"),
    (Kind::WithoutDue, 1, "no_due"),
    (Kind::WithoutQueue, 1, "no_queue"),
    (Kind::Poison, 1, "no_worker"),
];

const ERRORS: [&str; 3] = ["ValueError", "KeyError", "Sandbox.Timedout"];

pub(crate) async fn measure() -> io::Result<()> {
    let directory = tempfile::TempDir::new()?;
    let file = directory.path().join("tasks.db");
    let burstd = Burstd { directory: directory.path().to_owned() };
    {
        let dynamodb = EmbeddedDynamoDb::start(ANYWHERE, Some(&file))?;
        burstd.configure(&dynamodb.url())?;
        burstd.run(&["table", "create"]).await?;
    }
    let began = Instant::now();
    fill(&file).map_err(|error| io::Error::other(error.to_string()))?;
    println!("{TASKS} tasks, put in {:.0} s", began.elapsed().as_secs_f64());
    let dynamodb = EmbeddedDynamoDb::start(ANYWHERE, Some(&file))?;
    burstd.configure(&dynamodb.url())?;

    burstd.run(&["pause", "paused"]).await?;
    counts(&burstd.told(&["stats"]).await?);
    scan(&burstd.told(&["stats", "--scan", "--yes"]).await?);
    explanations(&burstd).await?;
    lists(&burstd).await?;
    retry(&burstd).await?;
    cancel(&burstd).await?;
    with_a_daemon(&burstd, &dynamodb.url()).await
}

fn of(kind: Kind) -> usize {
    let (_, hundredths, _) = KINDS.iter().find(|(it, ..)| *it == kind).expect("it is there");
    TASKS / 100 * hundredths
}

/// The kind of a task, and its place among the hundred.
fn kind(number: usize) -> (Kind, usize) {
    let (mut place, nth) = (number % 100, number % 100);
    for (kind, hundredths, _) in KINDS {
        if place < hundredths {
            return (kind, nth);
        }
        place -= hundredths;
    }
    unreachable!("there are a hundred")
}

fn id(number: usize) -> String {
    format!("task-{number:06}")
}

fn queue_of(number: usize) -> &'static str {
    ["thumbs", "thumbs", "mail"][number / 100 % 3]
}

fn item(number: usize, now: u64) -> HashMap<String, AttributeValue> {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let whole = |number: u64| AttributeValue::N(number.to_string());
    let (kind, nth) = kind(number);
    let spread = u64::try_from(number).expect("it is small") % 3600;
    let payload = format!("{{\"n\": {number}, \"pad\": \"{}\"}}", "x".repeat(200));
    let queue = queue_of(number);
    let mut item = HashMap::from([
        ("id".to_owned(), text(&id(number))),
        ("queue".to_owned(), text(queue)),
        ("due".to_owned(), whole(now - spread)),
        ("payload".to_owned(), text(&payload)),
    ]);
    let ended = |item: &mut HashMap<_, _>, status| {
        item.remove("due");
        item.insert("status".to_owned(), text(status));
        item.insert("finished_at".to_owned(), whole(now - 24 * spread - 60));
    };
    match kind {
        Kind::Succeeded => ended(&mut item, "SUCCEEDED"),
        Kind::Cancelled => ended(&mut item, "CANCELLED"),
        Kind::Failed => {
            ended(&mut item, "FAILED");
            let error = [("type", ERRORS[nth % 3]), ("message", "it did not work")];
            let error = error.map(|(name, words)| (name.to_owned(), text(words)));
            item.insert("error".to_owned(), AttributeValue::M(error.into()));
        }
        Kind::Due => {}
        Kind::Delayed => drop(item.insert("due".to_owned(), whole(now + 3600 + 24 * spread))),
        Kind::Leased => {
            item.insert("status".to_owned(), text("RUNNING"));
            item.insert("worker".to_owned(), text("web9-dead"));
            item.insert("lease_until".to_owned(), whole(now + 3600));
        }
        Kind::Poison => {
            item.insert("status".to_owned(), text("RUNNING"));
            item.insert("worker".to_owned(), text("web9-dead"));
            item.insert("attempt".to_owned(), whole(99));
            item.insert("lease_until".to_owned(), whole(now - 60));
        }
        Kind::Milliseconds => drop(item.insert("due".to_owned(), whole(now * 1000))),
        Kind::UnknownQueue => drop(item.insert("queue".to_owned(), text("thums"))),
        Kind::Paused => drop(item.insert("queue".to_owned(), text("paused"))),
        Kind::Garbage if nth % 2 == 0 => drop(item.insert("payload".to_owned(), text("no JSON"))),
        Kind::Garbage => drop(item.insert("attempt".to_owned(), text("three"))),
        Kind::WithoutDue => drop(item.remove("due")),
        Kind::WithoutQueue => drop(item.remove("queue")),
    }
    item
}

fn fill(file: &Path) -> dynoxide::Result<()> {
    let now = Clock::system().now().as_millis() / 1000;
    let database = Database::new(&file.display().to_string())?;
    database.enable_bulk_loading()?;
    let items = (0..TASKS).map(|number| item(number, now)).collect();
    database.import_items("tasks", items, ImportOptions::default())?;
    database.disable_bulk_loading()
}

fn number(value: &Value) -> usize {
    value.as_u64().and_then(|number| number.try_into().ok()).unwrap_or_else(|| panic!("{value}"))
}

/// What `stats` says of each queue is what was put there.
fn counts(lines: &[Value]) {
    let sum = |field: &str| -> usize {
        lines.iter().filter(|line| line["queue"].is_string()).map(|line| number(&line[field])).sum()
    };
    let due =
        [Kind::Due, Kind::Leased, Kind::UnknownQueue, Kind::Paused, Kind::Garbage, Kind::Poison];
    assert_eq!(sum("due"), due.into_iter().map(of).sum::<usize>(), "{lines:#?}");
    assert_eq!(sum("delayed"), of(Kind::Delayed) + of(Kind::Milliseconds), "{lines:#?}");
    let line = |name: &str| lines.iter().find(|line| line["queue"] == name).expect("it is there");
    assert_eq!(number(&line("thums")["due"]), of(Kind::UnknownQueue));
    assert_eq!(number(&line("paused")["due"]), of(Kind::Paused));
    assert!(line("paused")["notes"].to_string().contains("paused"), "{lines:#?}");
}

/// What `stats --scan` says of each status is what was put there.
fn scan(lines: &[Value]) {
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines.iter().filter(|line| line["status"].is_string()) {
        let status = line["status"].as_str().expect("it is a text");
        *found.entry(status).or_default() += number(&line["tasks"]);
    }
    let due = [Kind::Due, Kind::UnknownQueue, Kind::Paused, Kind::Garbage];
    let expected = BTreeMap::from([
        ("SUCCEEDED", of(Kind::Succeeded)),
        ("FAILED", of(Kind::Failed)),
        ("CANCELLED", of(Kind::Cancelled)),
        ("RUNNING", of(Kind::Leased)),
        ("RUNNING, lease over", of(Kind::Poison)),
        ("due", due.into_iter().map(of).sum()),
        ("delayed", of(Kind::Delayed) + of(Kind::Milliseconds)),
        ("not in the index", of(Kind::WithoutDue) + of(Kind::WithoutQueue)),
    ]);
    assert_eq!(found, expected);
}

/// `explain` gives the reason of a hundred tasks, which are of all kinds.
async fn explanations(burstd: &Burstd) -> io::Result<()> {
    let ids: Vec<_> = (4200..4300).map(id).collect();
    let arguments: Vec<_> = ["explain"].into_iter().chain(ids.iter().map(String::as_str)).collect();
    let lines = burstd.told(&arguments).await?;
    assert_eq!(lines.len(), 100);
    for (line, task) in lines.iter().zip(4200..) {
        let (kind, _) = kind(task);
        let (.., reason) = KINDS.iter().find(|(it, ..)| *it == kind).expect("it is there");
        assert_eq!(line["reason"], *reason, "{kind:?}: {line}");
    }
    Ok(())
}

async fn lists(burstd: &Burstd) -> io::Result<()> {
    for (arguments, expected) in [
        (&["list", "--status", "FAILED", "--limit", "1000000", "--yes"][..], of(Kind::Failed)),
        (&["list", "--status", "FAILED", "--queue", "mail", "--limit", "3", "--yes"], 3),
        (&["list", "--queue", "thums", "--limit", "1000000", "--yes"], of(Kind::UnknownQueue)),
        (
            &[
                "list",
                "--status",
                "PENDING,RUNNING",
                "--queue",
                "paused",
                "--limit",
                "1000000",
                "--yes",
            ],
            of(Kind::Paused),
        ),
        (&["list", "--limit", "1000000", "--yes"], TASKS),
    ] {
        assert_eq!(burstd.told(arguments).await?.len(), expected, "{arguments:?}");
    }
    Ok(())
}

/// A retry by filter that is interrupted, and run again: each task once. Some of those that were
/// retried have ended again meanwhile, in a way that the filter means.
async fn retry(burstd: &Burstd) -> io::Result<()> {
    let retry = ["retry", "--status", "FAILED,CANCELLED", "--yes", "--rate", "500/s"];
    let interrupted = burstd.start(&retry)?;
    sleep(Duration::from_secs(4)).await;
    kill_process(Pid::from_child(&interrupted.child), Signal::INT)?;
    let first = interrupted.end().await?;
    let done = |ended: &Ended| number(&ended.lines().last().expect("it says what it did")["done"]);
    assert!(!first.status.success(), "it was interrupted");
    let (before, all) = (done(&first), of(Kind::Failed) + of(Kind::Cancelled));
    assert!((100..all).contains(&before), "{before} before it was interrupted");
    let ids: Vec<_> = (0..TASKS).filter(|task| kind(*task).0 == Kind::Failed).map(id).collect();
    let explain: Vec<_> = ["explain"].into_iter().chain(ids.iter().map(String::as_str)).collect();
    let explained = burstd.told(&explain).await?;
    let retried = explained.iter().filter(|line| line["reason"] != "ended");
    let retried: Vec<_> = retried.filter_map(|line| line["id"].as_str()).take(50).collect();
    assert_eq!(retried.len(), 50);
    burstd.told(&[&["cancel"], &retried[..]].concat()).await?;
    let again = burstd.start(&retry)?.end().await?;
    assert!(again.status.success(), "{}", again.errors);
    let after = done(&again);
    assert_eq!(before + after, all, "each once");
    let explained = burstd.told(&[&["explain"], &retried[..]].concat()).await?;
    assert!(explained.iter().all(|line| line["reason"] == "ended"), "they have had their turn");
    println!("  {before} were retried before Ctrl-C, {after} by the same command afterwards");
    Ok(())
}

async fn cancel(burstd: &Burstd) -> io::Result<()> {
    let lines = burstd.told(&["cancel", "--queue", "thums", "--yes", "--rate", "100000/s"]).await?;
    let last = lines.last().expect("it says what it did");
    assert_eq!(number(&last["done"]), of(Kind::UnknownQueue), "{last}");
    assert_eq!(
        burstd.told(&["list", "--queue", "thums", "--status", "PENDING", "--yes"]).await?.len(),
        0
    );
    Ok(())
}

/// With a daemon at its limit, which serves one of the queues.
async fn with_a_daemon(burstd: &Burstd, dynamodb: &str) -> io::Result<()> {
    let slow = LocalFunction::new(Duration::from_secs(60), async |_: Call| {
        sleep(Duration::from_secs(50)).await;
        Answer::Returned(Vec::new())
    });
    let lambda = EmbeddedLambda::start(ANYWHERE, Functions::from([("work".to_owned(), slow)]))?;
    let _daemon = Daemon::serving("thumbs", dynamodb, &lambda.url(), 50)?;
    let id = |queue: &str| {
        let is_it = |task: &usize| kind(*task).0 == Kind::Due && queue_of(*task) == queue;
        // Of those that are due last.
        (0..TASKS).filter(is_it).min_by_key(|task| task % 3600).map(id).expect("there are some")
    };
    let (served, unserved) = (id("thumbs"), id("mail"));
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let lines = burstd.told(&["explain", &served, &unserved]).await?;
        if lines[0]["reason"] == "limit" {
            let words = lines[0]["message"].as_str().unwrap_or_default();
            assert!(words.contains("50 in flight of the 50 that max_in_flight"), "{words}");
            assert_eq!(lines[1]["reason"], "no_worker", "{}", lines[1]);
            return Ok(());
        }
        assert!(Instant::now() < until, "{lines:?}");
        sleep(Duration::from_millis(500)).await;
    }
}

/// The program, as an operator calls it.
struct Burstd {
    directory: PathBuf,
}

/// A command under way.
struct Running {
    child: std::process::Child,
    name: String,
    began: Instant,
    said: PathBuf,
}

/// A command that has ended.
struct Ended {
    status: ExitStatus,
    said: String,
    errors: String,
}

impl Burstd {
    fn configure(&self, endpoint: &str) -> io::Result<()> {
        let queues: String = ["thumbs", "mail", "paused"]
            .map(|queue| format!("[queues.{queue}]\nfunction = \"work\"\ntimeout = \"10s\"\n"))
            .concat();
        let aws = format!("[aws]\nregion = \"us-east-1\"\nendpoint_url = \"{endpoint}\"\n");
        fs::write(self.directory.join("burstd.toml"), format!("table = \"tasks\"\n{queues}{aws}"))
    }

    fn start(&self, arguments: &[&str]) -> io::Result<Running> {
        let said = self.directory.join("said");
        let child = Command::new(env!("CARGO_BIN_EXE_burstd"))
            .args(arguments)
            .args(if arguments[0] == "table" { &[][..] } else { &["--json", "--verbose"] })
            .arg("--config")
            .arg(self.directory.join("burstd.toml"))
            .envs([("AWS_ACCESS_KEY_ID", "bench"), ("AWS_SECRET_ACCESS_KEY", "bench")])
            .stdout(File::create(&said)?)
            .stderr(File::create(said.with_extension("errors"))?)
            .spawn()?;
        let name = arguments.iter().take(8).copied().collect::<Vec<_>>().join(" ");
        Ok(Running { child, name, began: Instant::now(), said })
    }

    async fn run(&self, arguments: &[&str]) -> io::Result<Ended> {
        let ended = self.start(arguments)?.end().await?;
        assert!(ended.status.success(), "{arguments:?}: {}", ended.errors);
        Ok(ended)
    }

    async fn told(&self, arguments: &[&str]) -> io::Result<Vec<Value>> {
        Ok(self.run(arguments).await?.lines())
    }
}

impl Running {
    /// Waits for its end, and prints what it took.
    async fn end(mut self) -> io::Result<Ended> {
        let (mut peak, id) = (0, self.child.id().to_string());
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            // It may just have ended.
            peak = usage::peak_resident_kb(&id).unwrap_or(0).max(peak);
            sleep(Duration::from_millis(5)).await;
        };
        let (took, peak) = (self.began.elapsed().as_secs_f64(), peak as f64 / 1024.0);
        let said = fs::read_to_string(&self.said)?;
        let errors = fs::read_to_string(self.said.with_extension("errors"))?;
        let units = errors.lines().last().filter(|line| line.contains("read units"));
        let units = units.unwrap_or_default();
        println!("{:<76} {took:>6.2} s {peak:>5.0} MB  {units}", self.name);
        Ok(Ended { status, said, errors })
    }
}

impl Ended {
    fn lines(&self) -> Vec<Value> {
        self.said.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
    }
}

//! `burstd demo`: the real daemon against an embedded DynamoDB and Lambda, over real HTTP.

use std::io::{IsTerminal as _, stderr};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use clap::{Args, value_parser};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::block_on;
use super::exit::Exit;
use crate::aws::{BATCH_LIMIT, Clients, NewTask, Producer, Snapshot, Table};
use crate::backlog::Backlog;
use crate::clock::Clock;
use crate::config::Config;
use crate::counts::Counts;
use crate::daemon::{self, Daemon};
use crate::descriptors;
use crate::local::dynamodb::EmbeddedDynamoDb;
use crate::local::functions::{DemoEvent, demo};
use crate::local::{self, lambda::EmbeddedLambda};
use crate::shutdown::Shutdown;
use crate::telemetry::{self, BUFFER, Format, Metrics, Output};

/// Descriptors beside those of invocations, which need one at each end.
const SPARE_DESCRIPTORS: u64 = 400;

/// Run 500 tasks at once on this machine, without AWS, and show the figures
#[derive(Args)]
pub(super) struct Demo {
    /// How many tasks to run
    #[arg(long, default_value_t = 500, value_parser = value_parser!(u64).range(1..=1_000_000))]
    tasks: u64,
    /// How long each takes
    #[arg(long, default_value = "2s", value_parser = duration)]
    duration: Duration,
    /// How many may be in flight at once; all of them when absent
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=100_000))]
    max_in_flight: Option<u32>,
    /// Share of the tasks whose first attempt fails, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    fail: f64,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// What the demo has shown.
struct Figures {
    counts: Counts,
    peak_in_flight: u64,
    time_to_peak: Duration,
    elapsed: Duration,
}

impl Demo {
    pub(super) fn run(self) -> Result<(), Exit> {
        let name = daemon::worker_name();
        let levels = telemetry::levels("error").map_err(Exit::software)?;
        let (lines, _) =
            telemetry::start((Format::Text, Metrics::None), levels, Output::Stderr, &name, BUFFER)
                .map_err(Exit::os)?;
        self.check_descriptors()?;
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let dynamodb = EmbeddedDynamoDb::start(anywhere, None).map_err(Exit::os)?;
        // A function has time to spare: the demo shows failures, not time-outs.
        let functions = demo(self.duration + Duration::from_secs(30));
        let lambda = EmbeddedLambda::start(anywhere, functions).map_err(Exit::os)?;
        let shutdown = Shutdown::on_signals().map_err(Exit::os)?;
        block_on(self.burst(&dynamodb, &lambda, name, shutdown, lines.backlog()))
    }

    async fn burst(
        &self,
        dynamodb: &EmbeddedDynamoDb,
        lambda: &EmbeddedLambda,
        name: String,
        shutdown: Shutdown,
        backlog: Backlog,
    ) -> Result<(), Exit> {
        let config = self.config();
        let place = local::place(&dynamodb.url(), &lambda.url());
        let table = Clients::new(&place).await?.table(&config.table);
        table.create().await?;
        let prepared = Daemon::prepare(&config, &place, name, shutdown.clone(), backlog).await?;
        let Some(daemon) = prepared else { return Err(interrupted()) };
        let mut counts = daemon.counts();
        let producer = table.producer().await?;
        let began = Instant::now();
        let mut running = JoinSet::new();
        running.spawn(daemon.run(None));
        self.insert(&producer).await?;
        let elapsed = tokio::select! {
            biased;
            () = shutdown.draining() => return Err(interrupted()),
            () = self.watch(&mut counts) => began.elapsed(),
        };
        shutdown.drain("demo is over");
        let counts = running.join_next().await.ok_or_else(|| Exit::software("no daemon"))?;
        let peak = lambda.running();
        let figures = Figures {
            counts: counts.map_err(Exit::software)?,
            peak_in_flight: peak.peak,
            time_to_peak: peak.peak_at.map_or(Duration::ZERO, |at| at - began),
            elapsed,
        };
        let wrong = self.verify(&table).await?;
        self.print(&figures, &wrong);
        match wrong.first() {
            None => Ok(()),
            Some(first) => Err(Exit::software(format!(
                "{} of {} tasks did not end as expected, such as this one: {first}",
                wrong.len(),
                self.tasks
            ))),
        }
    }

    /// Short waits between attempts, so that a demo with failures is a short one.
    fn config(&self) -> Config {
        let source = format!(
            "table = \"demo\"\nmax_in_flight = {}\n[queues.demo]\nfunction = \"demo\"\n\
             backoff = {{ base = \"200ms\", max = \"1s\" }}\n[functions.demo]\nramp = 100000\n",
            self.max_in_flight()
        );
        Config::parse(&source).expect("the demo's configuration is valid; a test holds that")
    }

    fn max_in_flight(&self) -> u64 {
        self.max_in_flight.map_or(self.tasks.min(100_000), u64::from)
    }

    /// Both ends of each connection are in this process.
    fn check_descriptors(&self) -> Result<(), Exit> {
        let allowed = descriptors::raise();
        let most = allowed.saturating_sub(SPARE_DESCRIPTORS) / 2;
        if self.max_in_flight() <= most {
            return Ok(());
        }
        Err(Exit::os(format!(
            "{} in flight need more file descriptors than the {allowed} this process may have; \
             use --max-in-flight {most}, or raise `ulimit -n`",
            self.max_in_flight()
        )))
    }

    /// Whether the task's first attempt is to fail: evenly spread.
    fn fails_first(&self, task: u64) -> bool {
        let share = |tasks: u64| (tasks as f64 * self.fail).floor();
        share(task + 1) > share(task)
    }

    async fn insert(&self, producer: &Producer) -> Result<(), Exit> {
        let numbers: Vec<_> = (0..self.tasks).collect();
        let mut chunks = numbers.chunks(BATCH_LIMIT);
        let mut inserts = JoinSet::new();
        loop {
            while inserts.len() < 4 {
                let Some(chunk) = chunks.next() else { break };
                let tasks: Vec<_> = chunk.iter().map(|task| self.new_task(*task)).collect();
                let producer = producer.clone();
                inserts.spawn(async move { producer.put_all(&tasks).await });
            }
            let Some(inserted) = inserts.join_next().await else { return Ok(()) };
            if let Some(rejected) = inserted.map_err(Exit::software)??.first() {
                return Err(Exit::software(&rejected.reason));
            }
        }
    }

    fn new_task(&self, task: u64) -> NewTask {
        let event = DemoEvent {
            task,
            sleep_ms: u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX),
            fails_first: self.fails_first(task),
        };
        NewTask {
            id: Some(task.to_string()),
            queue: "demo".to_owned(),
            due: Clock::system().now(),
            payload: Some(json!(event).to_string()),
            ..NewTask::default()
        }
    }

    /// Shows progress until every task has ended.
    async fn watch(&self, counts: &mut watch::Receiver<Counts>) {
        let is_terminal = stderr().is_terminal();
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} settled, {msg}");
        let bar = ProgressBar::new(self.tasks).with_style(style.expect("the template is right"));
        let mut ticks = interval(Duration::from_secs(if is_terminal { 3600 } else { 1 }));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            let now = *counts.borrow_and_update();
            let settled = now.succeeded + now.failed;
            bar.set_position(settled);
            bar.set_message(format!("{} in flight", now.in_flight));
            if settled >= self.tasks {
                break;
            }
            tokio::select! {
                biased;
                changed = counts.changed() => if changed.is_err() { break },
                _ = ticks.tick() => if !is_terminal {
                    eprintln!(
                        "{settled} of {} settled, {} in flight", self.tasks, now.in_flight
                    );
                },
            }
        }
        bar.finish_and_clear();
    }

    /// Reads every item back; returns what is wrong with those that are not as expected.
    async fn verify(&self, table: &Table) -> Result<Vec<String>, Exit> {
        let snapshots = table.read_all().await?;
        let mut wrong: Vec<_> =
            snapshots.iter().filter_map(|snapshot| self.objection(snapshot)).collect();
        let found = snapshots.len() as u64;
        wrong.extend((found..self.tasks).map(|_| "a task's item is not in the table".to_owned()));
        Ok(wrong)
    }

    fn objection(&self, snapshot: &Snapshot) -> Option<String> {
        let task: u64 = match snapshot.id.parse() {
            Ok(task) if task < self.tasks => task,
            _ => return Some(format!("{:?} is no task of the demo", snapshot.id)),
        };
        let expected = Snapshot {
            id: task.to_string(),
            status: Some("SUCCEEDED".to_owned()),
            attempt: 1 + u32::from(self.fails_first(task)),
            result: Some(json!({ "task": task }).to_string()),
            is_due: false,
        };
        (*snapshot != expected).then(|| format!("{snapshot:?}"))
    }

    fn print(&self, figures: &Figures, wrong: &[String]) {
        let Figures { counts, peak_in_flight, time_to_peak, elapsed } = figures;
        let ratio = elapsed.as_secs_f64() / self.duration.as_secs_f64();
        if self.json {
            let figures = json!({
                "tasks": self.tasks,
                "duration_s": self.duration.as_secs_f64(),
                "succeeded": counts.succeeded,
                "failed": counts.failed,
                "retried": counts.retried,
                "peak_in_flight": peak_in_flight,
                "time_to_peak_s": time_to_peak.as_secs_f64(),
                "elapsed_s": elapsed.as_secs_f64(),
                "elapsed_by_duration": ratio,
                "as_expected": wrong.is_empty(),
            });
            println!("{figures}");
            return;
        }
        let verdict = match wrong.len() {
            0 => format!("all {} as expected", self.tasks),
            wrong => format!("{wrong} NOT as expected"),
        };
        println!("tasks                           {:>8}", self.tasks);
        println!("succeeded                       {:>8}", counts.succeeded);
        println!("failed                          {:>8}", counts.failed);
        println!("retried                         {:>8}", counts.retried);
        println!("peak in flight                  {peak_in_flight:>8}");
        println!("time to peak                    {:>7.2}s", time_to_peak.as_secs_f64());
        println!("first insert to last settled    {:>7.2}s", elapsed.as_secs_f64());
        let duration = humantime::format_duration(self.duration).to_string();
        println!("  by the function's {duration:<13} {ratio:>7.2}x");
        println!("items read back from the table  {verdict}");
    }
}

fn interrupted() -> Exit {
    Exit::unavailable("the demo was interrupted")
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let (least, most) = (Duration::from_millis(1), Duration::from_secs(600));
    if (least..=most).contains(&duration) {
        Ok(duration)
    } else {
        Err("it must be between 1ms and 10m".to_owned())
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("it must be between 0 and 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo(fail: f64) -> Demo {
        let duration = Duration::from_secs(2);
        Demo { tasks: 500, duration, max_in_flight: None, fail, json: false }
    }

    #[test]
    fn the_configuration_is_valid() {
        assert_eq!(demo(0.0).config().limits.max_in_flight, 500);
    }

    #[test]
    fn as_many_tasks_fail_first_as_the_share_says() {
        for (share, failing) in [(0.0, 0), (0.1, 50), (0.333, 166), (1.0, 500)] {
            let demo = demo(share);
            assert_eq!((0..500).filter(|task| demo.fails_first(*task)).count(), failing);
        }
    }
}

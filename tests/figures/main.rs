//! The daemon's figures, measured on the real program as a process of its own: what it costs when
//! idle, how soon a new task starts, and what 500 in flight take. `cargo bench` runs it;
//! `cargo bench --bench figures -- limited` and `-- ramp` measure the governor before a function
//! with a limit, `-- tasks` the CPU of each task, `-- memory` what the largest items take,
//! `-- finished` what a million finished items cost, `-- functions` what local mode adds to users'
//! own functions, `-- operate` what the operator's commands take on 100,000 tasks. `burstd bench`
//! measures the transport.

mod finished;
mod functions;
mod limited;
mod memory;
mod operate;
mod tasks;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use burstd::aws::{Clients, NewTask, Producer};
use burstd::clock::Clock;
use burstd::local::dynamodb::EmbeddedDynamoDb;
use burstd::local::lambda::{Answer, Call, EmbeddedLambda, Functions, LocalFunction};
use burstd::local::place;
use burstd::usage;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::sleep;

const IDLE: Duration = Duration::from_secs(20);
const NEW_TASKS: usize = 200;
const BURST: u64 = 500;

const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// When each task's function began, by task id.
type Starts = Arc<Mutex<Vec<(String, Instant)>>>;

#[tokio::main]
async fn main() -> io::Result<()> {
    burstd::descriptors::raise();
    let what = std::env::args().skip(1).find(|argument| argument != "--bench");
    match what.as_deref() {
        Some("limited") => limited::of_200().await,
        Some("ramp") => limited::by_ramp().await,
        Some("tasks") => tasks::measure().await,
        Some("functions") => functions::measure().await,
        Some("finished") => finished::measure().await,
        Some("memory") => memory::measure().await,
        Some("operate") => operate::measure().await,
        Some("endpoints") => tasks::endpoints().await,
        _ => daemon().await,
    }
}

/// The daemon's figures.
async fn daemon() -> io::Result<()> {
    let starts = Starts::default();
    let dynamodb = EmbeddedDynamoDb::start(ANYWHERE, None)?;
    let lambda = EmbeddedLambda::start(ANYWHERE, functions(&starts))?;
    let clients = Clients::new(&place(&dynamodb.url(), &lambda.url())).await;
    let table = clients.map_err(io::Error::other)?.table("tasks");
    table.create().await.map_err(io::Error::other)?;
    let producer = table.producer().await.map_err(io::Error::other)?;
    let daemon = Daemon::start(&dynamodb.url(), &lambda.url(), 500)?;
    print_idle(&daemon).await?;
    println!("resident when idle                      {:>8.1} MB", daemon.resident_mb()?);

    print_starts(&producer, &starts).await?;

    let cpu_before = daemon.cpu()?;
    let began = Instant::now();
    insert_burst(&producer).await?;
    while lambda.running().now < BURST {
        sleep(Duration::from_millis(10)).await;
    }
    println!(
        "burst of {BURST}: all in flight after        {:>8.2} s",
        began.elapsed().as_secs_f64()
    );
    println!("resident at {BURST} in flight               {:>8.1} MB", daemon.resident_mb()?);
    while lambda.running().now > 0 {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_secs(1)).await;
    let per_task = (daemon.cpu()? - cpu_before).as_secs_f64() / BURST as f64;
    println!("CPU of the daemon for each task         {:>8.0} µs", per_task * 1e6);
    println!("resident at most                        {:>8.1} MB", daemon.peak_mb()?);
    Ok(())
}

/// What a daemon without tasks costs.
async fn print_idle(daemon: &Daemon) -> io::Result<()> {
    sleep(Duration::from_secs(2)).await;
    let (before, began) = (daemon.cpu()?, Instant::now());
    sleep(IDLE).await;
    let share = (daemon.cpu()? - before).as_secs_f64() / began.elapsed().as_secs_f64();
    println!("idle, polling with the default pace     {:>8.2} % of one core", share * 100.0);
    Ok(())
}

/// How soon a new task starts.
async fn print_starts(producer: &Producer, starts: &Starts) -> io::Result<()> {
    let mut waits = start_one_by_one(producer, starts).await?;
    waits.sort();
    let percentile = |percent: usize| waits[waits.len() * percent / 100].as_secs_f64() * 1e3;
    println!("insert to start, median of {NEW_TASKS}          {:>8.0} ms", percentile(50));
    println!("insert to start, 99th percentile        {:>8.0} ms", percentile(99));
    Ok(())
}

/// The tasks of the burst take three seconds, the others no time.
fn functions(starts: &Starts) -> Functions {
    let starts = starts.clone();
    let function = LocalFunction::new(Duration::from_secs(10), move |call: Call| {
        let task = call.context.map(|context| context.task_id).unwrap_or_default();
        let takes = Duration::from_secs(if task.starts_with("burst") { 3 } else { 0 });
        starts.lock().expect("nothing panics with it").push((task, Instant::now()));
        async move {
            sleep(takes).await;
            Answer::Returned(b"{}".to_vec())
        }
    });
    Functions::from([("work".to_owned(), function)])
}

/// Inserts tasks at random moments, and measures from the insert's reply to the function's start.
async fn start_one_by_one(producer: &Producer, starts: &Starts) -> io::Result<Vec<Duration>> {
    let mut rng = StdRng::seed_from_u64(1);
    let mut inserted = Vec::new();
    for number in 0..NEW_TASKS {
        sleep(Duration::from_millis(rng.random_range(50..600))).await;
        let id = format!("one {number}");
        producer.put(&task(&id)).await.map_err(io::Error::other)?;
        inserted.push((id, Instant::now()));
    }
    sleep(Duration::from_secs(1)).await;
    let starts = starts.lock().expect("nothing panics with it").clone();
    let wait = |(id, at): &(String, Instant)| {
        let (_, began) = starts.iter().find(|(task, _)| task == id)?;
        Some(began.saturating_duration_since(*at))
    };
    let waits: Vec<_> = inserted.iter().filter_map(wait).collect();
    assert_eq!(waits.len(), NEW_TASKS, "every task started");
    Ok(waits)
}

async fn insert_burst(producer: &Producer) -> io::Result<()> {
    let tasks: Vec<_> = (0..BURST).map(|number| task(&format!("burst {number}"))).collect();
    for batch in tasks.chunks(25) {
        let rejected = producer.put_all(batch).await.map_err(io::Error::other)?;
        assert!(rejected.is_empty(), "{rejected:?}");
    }
    Ok(())
}

fn task(id: &str) -> NewTask {
    let due = Clock::system().now();
    NewTask { id: Some(id.to_owned()), queue: "work".to_owned(), due, ..NewTask::default() }
}

/// The program, at work.
struct Daemon {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Daemon {
    fn start(dynamodb: &str, lambda: &str, max_in_flight: usize) -> io::Result<Self> {
        Daemon::serving("work", dynamodb, lambda, max_in_flight)
    }

    fn serving(
        queue: &str,
        dynamodb: &str,
        lambda: &str,
        max_in_flight: usize,
    ) -> io::Result<Self> {
        let directory = tempfile::TempDir::new()?;
        let config = directory.path().join("burstd.toml");
        let aws = format!(
            "[aws]\nregion = \"us-east-1\"\ndynamodb_endpoint_url = \"{dynamodb}\"\n\
             lambda_endpoint_url = \"{lambda}\"\n"
        );
        let queue = format!(
            "table = \"tasks\"\nmax_in_flight = {max_in_flight}\n[queues.{queue}]\n\
             function = \"work\"\n"
        );
        fs::write(&config, format!("{queue}{aws}"))?;
        let child = Command::new(env!("CARGO_BIN_EXE_burstd"))
            .args(["run", "--config"])
            .arg(&config)
            .envs([("AWS_ACCESS_KEY_ID", "bench"), ("AWS_SECRET_ACCESS_KEY", "bench")])
            // As the unit sets it.
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Daemon { child, _directory: directory })
    }

    fn cpu(&self) -> io::Result<Duration> {
        usage::cpu(&self.child.id().to_string())
    }

    fn resident_mb(&self) -> io::Result<f64> {
        Ok(usage::resident_kb(&self.child.id().to_string())? as f64 / 1024.0)
    }

    fn peak_mb(&self) -> io::Result<f64> {
        Ok(usage::peak_resident_kb(&self.child.id().to_string())? as f64 / 1024.0)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

//! What a task costs the daemon, at work for a while, table and functions in another process.

use std::io::{self, BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use burstd::aws::{Clients, SdkClient};
use burstd::local::dynamodb::EmbeddedDynamoDb;
use burstd::local::lambda::{Answer, Call, EmbeddedLambda, Functions, LocalFunction};
use burstd::local::place;
use burstd::usage;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::{ANYWHERE, Daemon, task};

const TASKS: usize = 10_000;

/// The other process: serves until its standard input ends.
pub(crate) async fn endpoints() -> io::Result<()> {
    let function = LocalFunction::new(Duration::from_secs(10), async |_: Call| {
        sleep(Duration::from_millis(100)).await;
        Answer::Returned(b"{}".to_vec())
    });
    let dynamodb = EmbeddedDynamoDb::start(ANYWHERE, None)?;
    let lambda = EmbeddedLambda::start(ANYWHERE, Functions::from([("work".to_owned(), function)]))?;
    println!("{}\n{}", dynamodb.url(), lambda.url());
    tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new())).await??;
    Ok(())
}

/// The daemon's CPU time for each task.
pub(crate) async fn measure() -> io::Result<()> {
    let mut other = Command::new(std::env::current_exe()?)
        .arg("endpoints")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = other.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
    let urls: Vec<_> = BufReader::new(output).lines().take(2).collect::<io::Result<_>>()?;
    let clients = Clients::new(&place(&urls[0], &urls[1])).await;
    let table = clients.map_err(io::Error::other)?.table("tasks");
    table.create().await.map_err(io::Error::other)?;
    let producer = table.producer().await.map_err(io::Error::other)?;
    let tasks: Vec<_> = (0..TASKS).map(|number| task(&number.to_string())).collect();
    for batch in tasks.chunks(25) {
        producer.put_all(batch).await.map_err(io::Error::other)?;
    }
    let daemon = Daemon::start(&urls[0], &urls[1], 500)?;
    let began = Instant::now();
    let ended = loop {
        sleep(Duration::from_millis(500)).await;
        let items = table.read_all().await.map_err(io::Error::other)?;
        let ended = items.iter().filter(|item| !item.is_due).count();
        if ended == TASKS || began.elapsed() > Duration::from_secs(300) {
            break ended;
        }
    };
    let of_a_call = cpu_of_a_call(&urls).await?;
    let per_task = daemon.cpu()?.as_secs_f64() / ended as f64;
    println!("tasks that have ended                   {ended:>8}");
    println!("CPU of the daemon for each task         {:>8.0} µs", per_task * 1e6);
    println!("CPU of a call by the SDK's own client   {:>8.0} µs", of_a_call * 1e6);
    println!("  of which a task costs                 {:>8.1}", per_task / of_a_call);
    println!("resident at most                        {:>8.1} MB", daemon.peak_mb()?);
    other.kill()?;
    other.wait()?;
    Ok(())
}

/// What one call costs with the SDK's own client, on the same machine in the same minute.
async fn cpu_of_a_call(urls: &[String]) -> io::Result<f64> {
    const CALLS: usize = 5000;
    let client = SdkClient::new(&place(&urls[0], &urls[1])).await.map_err(io::Error::other)?;
    let before = usage::cpu("self")?;
    let mut running = JoinSet::new();
    for _ in 0..CALLS {
        if running.len() >= 500 {
            running.join_next().await;
        }
        let client = client.clone();
        running.spawn(async move { assert!(client.invoke("work", "{}").await) });
    }
    running.join_all().await;
    Ok((usage::cpu("self")? - before).as_secs_f64() / CALLS as f64)
}

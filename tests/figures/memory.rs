//! What ten thousand tasks of the largest size take of the daemon's memory.

use std::io;
use std::time::Duration;

use burstd::aws::{Clients, NewTask};
use burstd::local::dynamodb::EmbeddedDynamoDb;
use burstd::local::lambda::{Answer, Call, EmbeddedLambda, Functions, LocalFunction};
use burstd::local::place;
use tokio::time::{Instant, sleep};

use crate::{ANYWHERE, Daemon, task};

const TASKS: u64 = 10_000;

/// Nearly the largest item there can be.
const PAYLOAD_BYTES: usize = 390 * 1024;

pub(crate) async fn measure() -> io::Result<()> {
    let directory = tempfile::TempDir::new()?;
    let function = LocalFunction::new(Duration::from_secs(10), async |_: Call| {
        sleep(Duration::from_secs(2)).await;
        Answer::Returned(b"{}".to_vec())
    });
    let file = directory.path().join("tasks.db");
    let dynamodb = EmbeddedDynamoDb::start(ANYWHERE, Some(&file))?;
    let lambda = EmbeddedLambda::start(ANYWHERE, Functions::from([("work".to_owned(), function)]))?;
    let clients = Clients::new(&place(&dynamodb.url(), &lambda.url())).await;
    let table = clients.map_err(io::Error::other)?.table("tasks");
    table.create().await.map_err(io::Error::other)?;
    let producer = table.producer().await.map_err(io::Error::other)?;
    let payload = format!("\"{}\"", "p".repeat(PAYLOAD_BYTES));
    let tasks = (0..TASKS)
        .map(|number| NewTask { payload: Some(payload.clone()), ..task(&number.to_string()) });
    let mut tasks = tasks.peekable();
    while tasks.peek().is_some() {
        let batch: Vec<_> = tasks.by_ref().take(25).collect();
        producer.put_all(&batch).await.map_err(io::Error::other)?;
    }

    let daemon = Daemon::start(&dynamodb.url(), &lambda.url(), 10_000)?;
    let began = Instant::now();
    while lambda.running().begun < TASKS || lambda.running().now > 0 {
        sleep(Duration::from_millis(100)).await;
        assert!(began.elapsed() < Duration::from_secs(1800), "{:?}", lambda.running());
    }
    println!(
        "{TASKS} tasks of {} KB, 64 MB allowed: {} at once, done after {:.0} s",
        PAYLOAD_BYTES / 1024,
        lambda.running().peak,
        began.elapsed().as_secs_f64()
    );
    println!("resident at most                        {:>8.1} MB", daemon.peak_mb()?);
    Ok(())
}

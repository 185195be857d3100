//! What finished items cost: the daemon's CPU when idle, and how soon a new task starts, with a
//! million of them in the table and with none.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use burstd::aws::{Clients, Table};
use burstd::local::dynamodb::EmbeddedDynamoDb;
use burstd::local::lambda::EmbeddedLambda;
use burstd::local::place;
use dynoxide::actions::get_item::GetItemRequest;
use dynoxide::types::AttributeValue;
use dynoxide::{Database, ImportOptions};
use tokio::time::{Instant, sleep};

use crate::{ANYWHERE, Daemon, Starts, functions, print_idle, print_starts, task};

const FINISHED: usize = 1_000_000;

/// Items that are put in one transaction.
const BATCH: usize = 50_000;

pub(crate) async fn measure() -> io::Result<()> {
    with(0).await?;
    with(FINISHED).await
}

async fn with(finished: usize) -> io::Result<()> {
    let directory = tempfile::TempDir::new()?;
    let file = directory.path().join("tasks.db");
    let starts = Starts::default();
    let lambda = EmbeddedLambda::start(ANYWHERE, functions(&starts))?;
    finish_one(&file, &lambda).await?;
    let began = Instant::now();
    copy(&file, finished).map_err(|error| io::Error::other(error.to_string()))?;
    println!("{finished} finished items, put in {:.0} s", began.elapsed().as_secs_f64());

    let dynamodb = EmbeddedDynamoDb::start(ANYWHERE, Some(&file))?;
    let producer = table(&dynamodb, &lambda).await?.producer().await.map_err(io::Error::other)?;
    let daemon = Daemon::start(&dynamodb.url(), &lambda.url(), 500)?;
    print_idle(&daemon).await?;
    print_starts(&producer, &starts).await
}

async fn table(dynamodb: &EmbeddedDynamoDb, lambda: &EmbeddedLambda) -> io::Result<Table> {
    let clients = Clients::new(&place(&dynamodb.url(), &lambda.url())).await;
    Ok(clients.map_err(io::Error::other)?.table("tasks"))
}

/// Makes the table, with one item in it, which a daemon has finished.
async fn finish_one(file: &Path, lambda: &EmbeddedLambda) -> io::Result<()> {
    let dynamodb = EmbeddedDynamoDb::start(ANYWHERE, Some(file))?;
    let table = table(&dynamodb, lambda).await?;
    table.create().await.map_err(io::Error::other)?;
    let producer = table.producer().await.map_err(io::Error::other)?;
    producer.put(&task("finished")).await.map_err(io::Error::other)?;
    let _daemon = Daemon::start(&dynamodb.url(), &lambda.url(), 500)?;
    while table.read_all().await.map_err(io::Error::other)?.iter().any(|item| item.is_due) {
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Puts items like the one that is there.
fn copy(file: &Path, count: usize) -> dynoxide::Result<()> {
    let database = Database::new(&file.display().to_string())?;
    let id = |text: &str| ("id".to_owned(), AttributeValue::S(text.to_owned()));
    let key = HashMap::from([id("finished")]);
    let get = GetItemRequest { table_name: "tasks".to_owned(), key, ..GetItemRequest::default() };
    let finished = database.get_item(get)?.item.expect("it is there");
    database.enable_bulk_loading()?;
    for first in (0..count).step_by(BATCH) {
        let items = (first..count.min(first + BATCH)).map(|number| {
            let mut item = finished.clone();
            item.extend([id(&format!("finished {number}"))]);
            item
        });
        database.import_items("tasks", items.collect(), ImportOptions::default())?;
    }
    database.disable_bulk_loading()
}

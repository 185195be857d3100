//! A table, a Lambda endpoint, and a daemon between them, all in this process, over real HTTP.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use burstd::aws::{BATCH_LIMIT, Clients, DynamoStore, NewTask, Place, Table};
use burstd::backlog::Backlog;
use burstd::config::Config;
use burstd::counts::Counts;
use burstd::daemon::{self, Daemon};
use burstd::local::dynamodb::EmbeddedDynamoDb;
use burstd::local::environments::{Environments, Host};
use burstd::local::lambda::{Answer, Call, EmbeddedLambda, Functions, LocalFunction};
use burstd::local::limits::Limits;
use burstd::local::place;
use burstd::shutdown::Shutdown;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::calls::Calls;
use super::eventually;
use super::program::CANARY;

pub type Item = HashMap<String, AttributeValue>;

/// A function of the tests stops at this, and leases end a second later.
pub const FUNCTION_TIMEOUT: Duration = Duration::from_secs(2);

/// The endpoints, and clients for them.
pub struct World {
    pub dynamodb: EmbeddedDynamoDb,
    pub lambda: EmbeddedLambda,
    pub client: aws_sdk_dynamodb::Client,
    pub calls: Calls,
}

impl World {
    /// A world whose function `work` does `code`.
    pub async fn with<F, R>(code: F) -> World
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        World::limited(None, Limits::default(), code).await
    }

    /// The same, with limits for the function, and for all.
    pub async fn limited<F, R>(max_concurrency: Option<u32>, limits: Limits, code: F) -> World
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        let calls = Calls::default();
        let function = calls.function(FUNCTION_TIMEOUT, code);
        World::around(LocalFunction { max_concurrency, ..function }, limits, calls).await
    }

    /// A world whose function waits at a gate, no longer than its timeout, and returns its event.
    pub async fn gated(timeout: Duration) -> (World, Arc<Semaphore>) {
        World::gated_with(timeout, |call| Answer::Returned(call.payload)).await
    }

    /// The same, with another answer.
    pub async fn gated_with(
        timeout: Duration,
        answer: impl Fn(Call) -> Answer + Copy + Send + Sync + 'static,
    ) -> (World, Arc<Semaphore>) {
        let gate = Arc::new(Semaphore::new(0));
        let (calls, closed) = (Calls::default(), gate.clone());
        let function = calls.function(timeout, move |call: Call| {
            let closed = closed.clone();
            async move {
                drop(closed.acquire().await);
                answer(call)
            }
        });
        (World::around(function, Limits::default(), calls).await, gate)
    }

    /// A world whose function is a program.
    pub async fn running(program: burstd::config::Program) -> World {
        let host = Host::new(env!("CARGO_BIN_EXE_burstd").into(), Duration::from_secs(60));
        let host = host.expect("it starts");
        let function = LocalFunction::program(Environments::new("work".to_owned(), program, host));
        World::around(function, Limits::default(), Calls::default()).await
    }

    async fn around(function: LocalFunction, limits: Limits, calls: Calls) -> World {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let dynamodb = EmbeddedDynamoDb::start(anywhere, None).expect("a free port");
        let functions = Functions::from([("work".to_owned(), function)]);
        let lambda = EmbeddedLambda::limited(anywhere, functions, limits).expect("a free port");
        let client = client(&dynamodb.url());
        let world = World { dynamodb, lambda, client, calls };
        world.table().await.create().await.expect("the table can be made");
        world
    }

    /// A world whose function returns its event.
    pub async fn echoing() -> World {
        World::with(async |call: Call| Answer::Returned(call.payload)).await
    }

    pub fn place(&self) -> Place {
        place(&self.dynamodb.url(), &self.lambda.url())
    }

    pub async fn table(&self) -> Table {
        Clients::new(&self.place()).await.expect("a region").table("tasks")
    }

    /// A task of the queue `work`, due at once. Its payload must not be logged.
    pub fn task(&self, id: &str) -> NewItem<'_> {
        let item = Item::from([
            ("id".to_owned(), s(id)),
            ("queue".to_owned(), s("work")),
            ("due".to_owned(), n("0")),
            ("payload".to_owned(), s(format!("\"{CANARY}\""))),
        ]);
        NewItem { world: self, item }
    }

    /// Puts so many tasks of the queue `work`, due at once, named by their numbers.
    pub async fn put_many(&self, count: usize, payload: &str) {
        let producer = self.table().await.producer().await.expect("the table is there");
        let task = |number: usize| NewTask {
            id: Some(number.to_string()),
            queue: "work".to_owned(),
            payload: Some(payload.to_owned()),
            ..NewTask::default()
        };
        let tasks: Vec<_> = (0..count).map(task).collect();
        for batch in tasks.chunks(BATCH_LIMIT) {
            assert_eq!(producer.put_all(batch).await.expect("they are put"), []);
        }
    }

    pub async fn put(&self, item: Item) {
        let put = self.client.put_item().table_name("tasks").set_item(Some(item)).send();
        put.await.expect("the item is put");
    }

    /// The item of a task; nothing when there is none.
    pub async fn item(&self, id: &str) -> Option<Item> {
        let get = self.client.get_item().table_name("tasks").key("id", s(id));
        get.consistent_read(true).send().await.expect("the item is read").item
    }

    /// Every task's item, by its id.
    pub async fn items(&self) -> BTreeMap<String, Item> {
        let pages = self.client.scan().table_name("tasks").consistent_read(true).into_paginator();
        let items: Result<Vec<_>, _> = pages.items().send().collect().await;
        let tasks = items.expect("the table is read").into_iter();
        let tasks = tasks.filter(|item| text(item, "burstd") != "control");
        tasks.map(|item| (text(&item, "id"), item)).collect()
    }

    pub async fn status(&self, id: &str) -> String {
        text(&self.item(id).await.unwrap_or_default(), "status")
    }

    /// Waits until so many functions run.
    pub async fn until_running(&self, count: u64) {
        eventually(&format!("{count} functions run"), async || match self.lambda.running().now {
            now if now == count => Ok(()),
            now => Err(now),
        })
        .await;
    }

    /// The task's item, once it has this status.
    pub async fn until(&self, id: &str, status: &str) -> Item {
        eventually(&format!("{id} is {status}"), async || {
            let item = self.item(id).await.unwrap_or_default();
            if text(&item, "status") == status { Ok(item) } else { Err(item) }
        })
        .await
    }

    /// All items, once `count` of them have this status.
    pub async fn until_all(&self, count: usize, status: &str) {
        let table = self.table().await;
        eventually(&format!("{count} tasks are {status}"), async || {
            let items = table.read_all().await.expect("the table is read");
            let there = items.iter().filter(|item| item.status.as_deref() == Some(status)).count();
            if there == count { Ok(()) } else { Err(there) }
        })
        .await;
    }

    /// Starts a daemon in this process.
    pub async fn daemon(&self, config: &str) -> Running {
        self.daemon_at(config, &self.place()).await
    }

    /// The same, with other endpoints.
    pub async fn daemon_at(&self, config: &str, place: &Place) -> Running {
        let config = Config::parse(config).expect("the test's configuration is valid");
        let shutdown = Shutdown::new();
        let name = daemon::worker_name();
        let backlog = Backlog::default();
        let daemon = Daemon::prepare(&config, place, name, shutdown.clone(), backlog).await;
        let daemon = daemon.expect("the table can be used").expect("nobody has stopped it");
        let (counts, store) = (daemon.counts(), daemon.store().clone());
        let mut running = JoinSet::new();
        running.spawn(daemon.run(None));
        Running { shutdown, counts, store, running }
    }
}

/// A daemon that runs in this process. Dropping it is a crash.
pub struct Running {
    pub shutdown: Shutdown,
    pub counts: watch::Receiver<Counts>,
    pub store: DynamoStore,
    running: JoinSet<Counts>,
}

impl Running {
    /// Waits until the counts are like this.
    pub async fn until(&mut self, what: &str, is_so: impl FnMut(&Counts) -> bool) -> Counts {
        let waiting = self.counts.wait_for(is_so);
        let counts = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        *counts.unwrap_or_else(|_| panic!("never: {what}")).expect("the daemon runs")
    }

    /// Drains it.
    pub async fn stop(mut self) -> Counts {
        self.shutdown.drain("the test is over");
        self.running.join_next().await.expect("it runs").expect("it does not panic")
    }
}

/// An item before it is put.
pub struct NewItem<'a> {
    world: &'a World,
    item: Item,
}

impl NewItem<'_> {
    #[must_use]
    pub fn with(mut self, attribute: &str, value: AttributeValue) -> Self {
        self.item.insert(attribute.to_owned(), value);
        self
    }

    #[must_use]
    pub fn without(mut self, attribute: &str) -> Self {
        self.item.remove(attribute);
        self
    }

    pub async fn put(self) {
        self.world.put(self.item).await;
    }
}

/// One queue, quick leases and quick retries.
pub fn config() -> String {
    config_with("")
}

/// The same with leases that outlast a busy machine: nothing is extended, nothing is given back,
/// and a stall of the machine, after which its clock is in doubt, pauses no claims.
pub fn patient() -> String {
    config().replace("lease_margin = \"1s\"", "lease_margin = \"60s\"")
}

/// The same as the first, with more keys for the queue.
pub fn config_with(keys: &str) -> String {
    format!(
        "table = \"tasks\"\nmax_in_flight = 1000\n[shutdown]\ndrain = \"20s\"\n\
         [queues.work]\nfunction = \"work\"\nlease_margin = \"1s\"\n\
         backoff = {{ base = \"20ms\", max = \"100ms\" }}\n{keys}\n"
    )
}

pub fn client(url: &str) -> aws_sdk_dynamodb::Client {
    let credentials =
        aws_sdk_dynamodb::config::Credentials::new("test", "test", None, None, "tests");
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version_latest()
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(url)
        .region(aws_sdk_dynamodb::config::Region::new("us-east-1"))
        .credentials_provider(credentials)
        .build();
    aws_sdk_dynamodb::Client::from_conf(config)
}

pub fn s(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub fn n(number: impl std::fmt::Display) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// An attribute's text or digits; empty when it is not there.
pub fn text(item: &Item, attribute: &str) -> String {
    match item.get(attribute) {
        Some(AttributeValue::S(text) | AttributeValue::N(text)) => text.clone(),
        _ => String::new(),
    }
}

/// A text in the item's `error`.
pub fn error(item: &Item, part: &str) -> String {
    match item.get("error") {
        Some(AttributeValue::M(error)) => text(error, part),
        _ => String::new(),
    }
}

/// The outcomes in the item's `history`, oldest first.
pub fn outcomes(item: &Item) -> Vec<String> {
    let Some(AttributeValue::L(history)) = item.get("history") else { return Vec::new() };
    history
        .iter()
        .map(|attempt| match attempt {
            AttributeValue::M(attempt) => {
                format!("{} {}", text(attempt, "attempt"), text(attempt, "outcome"))
            }
            other => panic!("history has {other:?}"),
        })
        .collect()
}

/// Epoch seconds from now.
pub fn seconds_from_now(seconds: i64) -> AttributeValue {
    let now = burstd::clock::Clock::system().now().as_millis() / 1000;
    n(i64::try_from(now).expect("it is not the far future") + seconds)
}

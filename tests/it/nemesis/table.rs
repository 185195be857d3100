//! The table: embedded DynamoDB in a process of its own, and a proxy before it that has troubles.

use std::ops::Range;
use std::time::Duration;

use burstd::aws::{Clients, NewTask, Producer};
use burstd::local::place;
use burstd::task::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, interval};

use crate::support::program::{Process, command};
use crate::support::proxy::{Fate, Proxy};
use crate::support::world::{Item, client, text};

/// When all faults have stopped, some task ends in this time, until all have.
const LONG: Duration = Duration::from_secs(60);

pub struct Table {
    pub proxy: Proxy,
    client: aws_sdk_dynamodb::Client,
    producer: Producer,
    _process: Process,
}

impl Table {
    pub async fn start() -> Self {
        let process = Process::start(command(&["dev", "--dynamodb-port=0", "--lambda-port=0"]));
        let line = process.line_with("DynamoDB  http://").await;
        let url = line.split_whitespace().nth(1).expect("it is printed").to_owned();
        let clients = Clients::new(&place(&url, &url)).await.expect("a region");
        let table = clients.table("nemesis");
        table.create().await.expect("the table can be made");
        let producer = table.producer().await.expect("it is there");
        let proxy = Proxy::start(&url, |_, _| Fate::Pass).await;
        Table { proxy, client: client(&url), producer, _process: process }
    }

    /// Inserts tasks; some are poison.
    pub async fn insert(&self, numbers: Range<u64>) {
        let tasks: Vec<_> = numbers
            .map(|number| {
                let kind = if number % 100 == 0 { "poison" } else { "task" };
                NewTask {
                    id: Some(format!("{kind} {number}")),
                    queue: "work".to_owned(),
                    due: Timestamp::default(),
                    ..NewTask::default()
                }
            })
            .collect();
        let rejected = self.producer.put_all(&tasks).await.expect("the table is there");
        assert!(rejected.is_empty(), "{rejected:?}");
    }

    /// From now on the table is well, or throttles, fails, is slow, loses requests and replies, or
    /// is away.
    pub fn trouble(&self, rng: &mut StdRng) {
        let (what, mut dice) = (rng.random_range(0..8), StdRng::seed_from_u64(rng.random()));
        self.proxy.plan(move |_, _| {
            let strikes = |dice: &mut StdRng| dice.random_bool(0.3);
            match what {
                0 if strikes(&mut dice) => {
                    Fate::Refuse(400, "ProvisionedThroughputExceededException")
                }
                1 if strikes(&mut dice) => Fate::Refuse(500, "InternalServerError"),
                2 if strikes(&mut dice) => Fate::LoseReply,
                3 if strikes(&mut dice) => Fate::Lose,
                4 => Fate::Delay(Duration::from_millis(dice.random_range(0..1500))),
                5 => Fate::Lose,
                _ => Fate::Pass,
            }
        });
    }

    pub fn calm(&self) {
        self.proxy.plan(|_, _| Fate::Pass);
    }

    pub async fn until_all_have_ended(&self, count: u64) {
        let mut ticks = interval(Duration::from_secs(1));
        let (mut before, mut since) = (usize::MAX, Instant::now());
        loop {
            ticks.tick().await;
            let open = self.open().await;
            if open == 0 {
                return;
            }
            if open < before {
                (before, since) = (open, Instant::now());
            }
            assert!(since.elapsed() < LONG, "{open} of {count} tasks never end");
        }
    }

    /// How many tasks are still in the index.
    async fn open(&self) -> usize {
        let scan = self.client.scan().table_name("nemesis").index_name("due-index");
        let mut pages = scan.into_paginator().send();
        let mut open = 0;
        while let Some(page) = pages.next().await {
            open += page.expect("the table is there").items().len();
        }
        open
    }

    pub async fn items(&self) -> Vec<Item> {
        let pages = self.client.scan().table_name("nemesis").into_paginator();
        let items = pages.items().send().collect::<Result<Vec<_>, _>>().await;
        let mut items = items.expect("the table is there");
        items.retain(|item| text(item, "burstd") != "control");
        items.sort_by_key(|item| text(item, "id"));
        items
    }
}

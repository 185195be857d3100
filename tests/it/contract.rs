//! The contract of `Store`, held by the adapter to DynamoDB and by the simulated table alike, so
//! that what the simulation proves holds for the real one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use burstd::aws::DynamoStore;
use burstd::claim::{Rev, Terms};
use burstd::clock::Clock;
use burstd::invoker::{Failure, TaskResult};
use burstd::retry::Verdict;
use burstd::store::{Claimed, DueQuery, Store, Write};
use burstd::task::{Status, TaskId, Timestamp};

use crate::simulation::ports::Port;
use crate::simulation::world::{self as simulated, Sabotage};
use crate::support::world::{World, n, s, text};
use crate::support::writes::{now, settlement, terms};

/// An item as far as the contract goes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Entry {
    due: Option<Timestamp>,
    status: Option<Status>,
    attempt: u32,
    lease_until: Option<Timestamp>,
}

/// A table that can be written and read beside the store.
trait Table {
    type Store: Store;
    fn store(&self) -> &Self::Store;
    async fn put(&self, id: &str, entry: &Entry);
    async fn delete(&self, id: &str);
    async fn read(&self, id: &str) -> Option<Entry>;
}

struct Real {
    world: World,
    store: DynamoStore,
}

impl Table for Real {
    type Store = DynamoStore;

    fn store(&self) -> &DynamoStore {
        &self.store
    }

    async fn put(&self, id: &str, entry: &Entry) {
        let mut item = self.world.task(id);
        item = match entry.due {
            Some(due) => item.with("due", n(due)),
            None => item.without("due"),
        };
        if let Some(status) = entry.status {
            item = item.with("status", s(status.as_str()));
        }
        if let Some(until) = entry.lease_until {
            item = item.with("lease_until", n(until));
        }
        if entry.attempt > 0 {
            item = item.with("attempt", n(entry.attempt));
        }
        item.put().await;
    }

    async fn delete(&self, id: &str) {
        let delete = self.world.client.delete_item().table_name("tasks").key("id", s(id));
        delete.send().await.expect("it is deleted");
    }

    async fn read(&self, id: &str) -> Option<Entry> {
        let item = self.world.item(id).await?;
        let at = |name| text(&item, name).parse().ok().map(Timestamp::from_seconds);
        Some(Entry {
            due: at("due"),
            status: Status::parse(&text(&item, "status")),
            attempt: text(&item, "attempt").parse().unwrap_or(0),
            lease_until: at("lease_until"),
        })
    }
}

struct Simulated(Port);

impl Table for Simulated {
    type Store = Port;

    fn store(&self) -> &Port {
        &self.0
    }

    async fn put(&self, id: &str, entry: &Entry) {
        let mut world = simulated::lock(&self.0.world);
        world.insert(id, entry.due.unwrap_or_default());
        world.set_due(id, entry.due);
        let item = world.items.get_mut(id).expect("it was inserted");
        (item.status, item.attempt) = (entry.status, entry.attempt);
        item.lease_until = entry.lease_until;
    }

    async fn delete(&self, id: &str) {
        let mut world = simulated::lock(&self.0.world);
        world.items.get_mut(id).expect("it is there").exists = false;
        world.set_due(id, None);
    }

    async fn read(&self, id: &str) -> Option<Entry> {
        let world = simulated::lock(&self.0.world);
        let item = world.items.get(id).filter(|item| item.exists)?;
        Some(Entry {
            due: item.due,
            status: item.status,
            attempt: item.attempt,
            lease_until: item.lease_until,
        })
    }
}

/// Holds both tables to a clause of the contract.
macro_rules! clause {
    ($name:ident) => {
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn on_dynamodb() {
                let world = super::World::echoing().await;
                let store = world.table().await.open().await.expect("the table can be used");
                super::clauses::$name(super::Real { world, store }).await;
            }

            #[tokio::test]
            async fn in_the_simulation() {
                let world =
                    super::simulated::World::new(7, super::Sabotage::None, Default::default());
                let world = super::Arc::new(super::Mutex::new(world));
                let clock = super::Clock::system();
                let port = super::Port { world, worker: 0, max_in_flight: 9, clock };
                super::clauses::$name(super::Simulated(port)).await;
            }
        }
    };
}

clause!(only_what_is_due_unfinished_and_free_can_be_claimed);
clause!(of_two_claims_one_wins_and_a_claim_sent_again_recognises_itself);
clause!(a_claim_sent_again_after_its_lease_counts_once);
clause!(who_does_not_hold_a_task_writes_nothing);
clause!(what_is_deleted_stays_deleted);
clause!(each_verdict_leaves_the_item_as_the_design_says);
clause!(the_query_lists_what_is_due_page_by_page);

fn due_now() -> Entry {
    Entry { due: Some(Timestamp::default()), ..Entry::default() }
}

async fn is_won(store: &impl Store, id: &str, terms: &Terms) -> bool {
    let claimed = store.claim(&TaskId::named(id), terms).await.expect("the table answers");
    matches!(claimed, Claimed::Won(_))
}

async fn settle(store: &impl Store, id: &str, held: &str, new: &str, verdict: Verdict) -> Write {
    let (id, held) = (TaskId::named(id), Rev::from(held.to_owned()));
    let settlement = settlement(new, verdict);
    store.settle(&id, &held, &settlement).await.expect("the table answers")
}

fn done() -> Verdict {
    Verdict::Succeed(TaskResult::Json("1".to_owned()))
}

mod clauses {
    use super::*;

    pub(super) async fn only_what_is_due_unfinished_and_free_can_be_claimed(table: impl Table) {
        let (before, later) = (Timestamp::default(), now() + Duration::from_secs(60));
        let entry = |due, status, lease_until| Entry { due, status, attempt: 0, lease_until };
        let past = Some(before);
        for (id, entry, expected) in [
            ("new", entry(past, None, None), true),
            ("pending", entry(past, Some(Status::Pending), None), true),
            ("orphan", entry(past, Some(Status::Running), None), true),
            ("abandoned", entry(past, Some(Status::Running), past), true),
            ("leased", entry(past, Some(Status::Running), Some(later)), false),
            ("delayed", entry(Some(later), None, None), false),
            ("finished", entry(None, Some(Status::Succeeded), None), false),
            ("finished and due", entry(past, Some(Status::Succeeded), None), false),
            ("failed and due", entry(past, Some(Status::Failed), None), false),
            ("cancelled and due", entry(past, Some(Status::Cancelled), None), false),
            ("invalid and due", entry(past, Some(Status::Invalid), None), false),
        ] {
            table.put(id, &entry).await;
            assert_eq!(is_won(table.store(), id, &terms(id)).await, expected, "{id}");
            let attempt = table.read(id).await.expect("it is there").attempt;
            assert_eq!(attempt, u32::from(expected), "{id}");
        }
        assert!(!is_won(table.store(), "no such task", &terms("x")).await);
        assert_eq!(table.read("no such task").await, None);
    }

    pub(super) async fn of_two_claims_one_wins_and_a_claim_sent_again_recognises_itself(
        table: impl Table,
    ) {
        table.put("a", &due_now()).await;
        let (first, second) = (terms("first"), terms("second"));
        for _ in 0..3 {
            assert!(is_won(table.store(), "a", &first).await);
            assert!(!is_won(table.store(), "a", &second).await);
        }
        assert_eq!(table.read("a").await.expect("it is there").attempt, 1);
    }

    pub(super) async fn a_claim_sent_again_after_its_lease_counts_once(table: impl Table) {
        table.put("a", &due_now()).await;
        let (now, lease_until) = (now(), Timestamp::from_millis(now().as_millis() - 1));
        let terms = Terms { now, lease_until, ..terms("first") };
        assert!(is_won(table.store(), "a", &terms).await);
        assert!(is_won(table.store(), "a", &terms).await, "it recognises itself");
        assert_eq!(table.read("a").await.expect("it is there").attempt, 1);
        assert!(is_won(table.store(), "a", &super::terms("second")).await, "and is over");
    }

    pub(super) async fn who_does_not_hold_a_task_writes_nothing(table: impl Table) {
        table.put("a", &due_now()).await;
        assert!(is_won(table.store(), "a", &terms("held")).await);
        let before = table.read("a").await;
        let write = settle(table.store(), "a", "stale", "new", done()).await;
        assert!(matches!(write, Write::Lost(_)), "{write:?}");
        let (id, stale) = (TaskId::named("a"), Rev::from("stale".to_owned()));
        let write = table.store().extend(&id, &stale, &terms("new")).await;
        assert!(matches!(write, Ok(Write::Lost(_))), "{write:?}");
        assert_eq!(table.read("a").await, before);
    }

    pub(super) async fn what_is_deleted_stays_deleted(table: impl Table) {
        table.put("a", &due_now()).await;
        assert!(is_won(table.store(), "a", &terms("held")).await);
        table.delete("a").await;
        let write = settle(table.store(), "a", "held", "new", done()).await;
        assert!(matches!(write, Write::Lost(_)), "{write:?}");
        assert!(!is_won(table.store(), "a", &terms("other")).await);
        assert_eq!(table.read("a").await, None);
    }

    pub(super) async fn each_verdict_leaves_the_item_as_the_design_says(table: impl Table) {
        let later = Timestamp::from_millis(4_000_000_000_500);
        let failure = || Failure::new("E", "it broke");
        for (id, verdict, status, due, is_leased) in [
            ("ok", done(), Status::Succeeded, None, false),
            ("fail", Verdict::Fail(failure()), Status::Failed, None, false),
            ("release", Verdict::Release, Status::Pending, Some(Timestamp::default()), false),
            ("hold", Verdict::Hold(failure()), Status::Running, Some(Timestamp::default()), true),
            (
                "retry",
                Verdict::Retry { due: later, failure: failure() },
                Status::Pending,
                Some(later),
                false,
            ),
        ] {
            table.put(id, &due_now()).await;
            assert!(is_won(table.store(), id, &terms("held")).await);
            for _again in 0..2 {
                let write = settle(table.store(), id, "held", "new", verdict.clone()).await;
                assert_eq!(write, Write::Applied, "{id}");
            }
            let entry = table.read(id).await.expect("it is there");
            assert_eq!((entry.status, entry.due), (Some(status), due), "{id}");
            assert_eq!(entry.lease_until.is_some(), is_leased, "{id}");
        }
    }

    pub(super) async fn the_query_lists_what_is_due_page_by_page(table: impl Table) {
        let mut expected = Vec::new();
        for number in 0..13u64 {
            let id = format!("task {number:02}");
            // Many with the same `due`: a page ends between equals.
            let due = Some(Timestamp::from_millis(number / 5 * 1000));
            table.put(&id, &Entry { due, ..Entry::default() }).await;
            expected.push(id);
        }
        let later = now() + Duration::from_secs(60);
        table.put("delayed", &Entry { due: Some(later), ..Entry::default() }).await;
        // The index may be late.
        crate::support::eventually("all are listed", async || {
            let (mut listed, mut after) = (Vec::new(), None);
            loop {
                let query = DueQuery { shard: "work", now: now(), limit: 4, after: after.as_ref() };
                let page = table.store().due(query).await.expect("the table answers");
                assert!(page.candidates.len() <= 4);
                listed.extend(page.candidates.iter().map(|candidate| candidate.id.to_string()));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            listed.sort();
            if listed == expected { Ok(()) } else { Err(listed) }
        })
        .await;
    }
}

//! What the engine may rely on from the table: the contract of `Store`, held by the adapter to
//! DynamoDB.

use std::sync::Arc;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, ProjectionType, ScalarAttributeType};
use burstd::aws::{Clients, DynamoStore};
use burstd::claim::{Rev, Terms};
use burstd::invoker::{Failure, TaskResult};
use burstd::local::place;
use burstd::retry::{Settlement, Verdict};
use burstd::store::{Claimed, DueQuery, Store, Write};
use burstd::task::{KeyValue, Task, TaskId, Timestamp};
use tokio::task::JoinSet;

use crate::support::proxy::{Fate, Proxy};
use crate::support::tables::create_table;
use crate::support::world::{Item, World, error, n, s, text};
use crate::support::writes::{now, settlement, terms};

async fn open(world: &World) -> DynamoStore {
    world.table().await.open().await.expect("the table can be used")
}

/// The store behind a proxy.
async fn open_through(world: &World, proxy: &Proxy) -> DynamoStore {
    let place = place(&proxy.url, &world.lambda.url());
    let clients = Clients::new(&place).await.expect("a region");
    clients.table("tasks").open().await.expect("the table can be used")
}

fn succeeded(rev: &str) -> Settlement {
    settlement(rev, Verdict::Succeed(TaskResult::Json("\"done\"".into())))
}

async fn win(store: &impl Store, id: &str, rev: &str) -> Task {
    match store.claim(&TaskId::named(id), &terms(rev)).await.expect("the table answers") {
        Claimed::Won(task) => *task,
        other => panic!("{id} is not won: {other:?}"),
    }
}

async fn due(store: &impl Store, limit: usize) -> Vec<String> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let query = DueQuery { shard: "work", now: now(), limit, after: after.as_ref() };
        let page = store.due(query).await.expect("the table answers");
        assert!(page.candidates.len() <= limit);
        ids.extend(page.candidates.iter().map(|candidate| candidate.id.to_string()));
        after = page.next;
        if after.is_none() {
            return ids;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_workers_racing_for_a_thousand_tasks_exactly_one_wins_each() {
    let world = World::echoing().await;
    let producer = world.table().await.producer().await.expect("the table is there");
    for chunk in (0..1000).collect::<Vec<_>>().chunks(25) {
        let task = |number: &i32| burstd::aws::NewTask {
            id: Some(number.to_string()),
            queue: "work".into(),
            ..Default::default()
        };
        let tasks: Vec<_> = chunk.iter().map(task).collect();
        assert!(producer.put_all(&tasks).await.expect("they are put").is_empty());
    }
    let store = Arc::new(open(&world).await);
    let mut workers = JoinSet::new();
    for worker in 0..10 {
        let store = store.clone();
        workers.spawn(async move {
            let mut won = Vec::new();
            for number in 0..1000 {
                let id = TaskId::named(number.to_string());
                let terms = terms(&format!("{worker}-{number}"));
                if let Claimed::Won(task) = store.claim(&id, &terms).await.expect("it answers") {
                    assert_eq!(task.attempt, 1);
                    won.push(number);
                }
            }
            won
        });
    }
    let mut won: Vec<_> = workers.join_all().await.concat();
    won.sort_unstable();
    assert_eq!(won, (0..1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stale_holder_s_write_is_refused_and_changes_nothing() {
    let world = World::echoing().await;
    world.task("a").put().await;
    let store = open(&world).await;
    let id = TaskId::named("a");
    let lapsed = Terms { lease_until: now(), ..terms("first") };
    assert!(matches!(store.claim(&id, &lapsed).await.expect("it answers"), Claimed::Won(_)));
    let task = loop {
        // The first lease ends within the millisecond.
        if let Claimed::Won(task) = store.claim(&id, &terms("second")).await.expect("it answers") {
            break task;
        }
    };
    assert_eq!(task.attempt, 2);
    let before = world.item("a").await;
    let stale = Rev::from("first".to_owned());
    for write in [
        store.settle(&id, &stale, &succeeded("x")).await,
        store.settle(&id, &stale, &settlement("x", Verdict::Release)).await,
        store.extend(&id, &stale, &terms("x")).await,
    ] {
        let Write::Lost(standing) = write.expect("it answers") else { panic!("it was written") };
        assert_eq!(standing.worker.as_deref(), Some("worker of second"));
    }
    assert_eq!(world.item("a").await, before);
}

#[tokio::test]
async fn each_write_recognises_itself_when_its_reply_was_lost() {
    let world = World::echoing().await;
    world.task("a").put().await;
    let store = open(&world).await;
    let id = TaskId::named("a");
    let claim = terms("claim");
    for _ in 0..2 {
        let Claimed::Won(task) = store.claim(&id, &claim).await.expect("it answers") else {
            panic!("the second try does not know the first")
        };
        assert_eq!(task.attempt, 1);
    }
    let extension = terms("extension");
    for _ in 0..2 {
        let write = store.extend(&id, &claim.rev, &extension).await.expect("it answers");
        assert_eq!(write, Write::Applied);
    }
    for _ in 0..2 {
        let write = store.settle(&id, &extension.rev, &succeeded("end")).await;
        assert_eq!(write.expect("it answers"), Write::Applied);
    }
    let item = world.item("a").await.expect("it is there");
    assert_eq!((text(&item, "status"), text(&item, "attempt")), ("SUCCEEDED".into(), "1".into()));
}

#[tokio::test]
async fn an_emulator_that_does_not_show_refused_items_is_asked_for_them() {
    let world = World::echoing().await;
    world.task("a").put().await;
    let proxy = Proxy::start(&world.dynamodb.url(), |_, _| Fate::HideItem).await;
    let store = open_through(&world, &proxy).await;
    let claim = terms("claim");
    for _ in 0..2 {
        let claimed = store.claim(&TaskId::named("a"), &claim).await.expect("it answers");
        assert!(matches!(claimed, Claimed::Won(_)), "{claimed:?}");
    }
    let Claimed::Lost(standing) =
        store.claim(&TaskId::named("a"), &terms("other")).await.expect("it answers")
    else {
        panic!("it is held")
    };
    assert_eq!(standing.worker.as_deref(), Some("worker of claim"));
    let gone = store.claim(&TaskId::named("no such task"), &terms("other")).await;
    let Claimed::Lost(standing) = gone.expect("it answers") else { panic!("there is none") };
    assert_eq!(standing.due, None);
}

#[tokio::test]
async fn the_query_lists_what_is_due_page_by_page_and_nothing_else() {
    let world = World::echoing().await;
    let store = open(&world).await;
    let later = now().as_millis() / 1000 + 60;
    let mut expected = Vec::new();
    for number in 0..23 {
        // Many with the same `due`: a page ends between equals.
        let id = format!("task {number:02}");
        world.task(&id).with("due", n(number / 10)).put().await;
        expected.push(id);
    }
    world.task("delayed").with("due", n(later)).put().await;
    world.task("elsewhere").with("queue", s("other")).put().await;
    for limit in [1, 7, 1000] {
        let mut ids = due(&store, limit).await;
        ids.sort();
        assert_eq!(ids, expected, "by {limit}");
    }
}

#[tokio::test]
async fn every_kind_of_garbage_becomes_invalid_with_a_reason_that_names_the_attribute() {
    let world = World::echoing().await;
    let list = |value| AttributeValue::L(vec![value]);
    let map = |value| AttributeValue::M(Item::from([("x".to_owned(), value)]));
    let garbage = [
        ("payload", s("not json"), "payload is not JSON text"),
        ("payload", s(""), "payload is not JSON text"),
        ("payload", AttributeValue::B(Blob::new([1])), "payload has the type B"),
        ("payload", AttributeValue::Ss(vec!["a".into()]), "payload has the type SS"),
        ("payload", map(list(AttributeValue::B(Blob::new([1])))), "payload.*[0] has the type B"),
        ("status", s("RUNING"), "status is \"RUNING\""),
        ("status", n(1), "status has the type N"),
        ("attempt", s("1"), "attempt has the type S"),
        ("attempt", n(-5), "attempt is -"),
        ("attempt", n(-1), "attempt was negative"),
        ("attempt", n("1.5"), "attempt is"),
        ("attempt", n("99999999999999"), "attempt is 1000"),
        ("lease_until", s("soon"), "lease_until has the type S"),
        ("lease_until", AttributeValue::Null(true), "lease_until has the type NULL"),
        ("max_attempts", s("3"), "max_attempts has the type S"),
        ("max_attempts", n(0), "max_attempts is 0"),
        ("deadline", AttributeValue::Bool(true), "deadline has the type BOOL"),
        ("trace", n(1), "trace has the type N"),
        ("trace", s("a\r\nb: c"), "trace cannot be an HTTP header"),
        ("history", s("long"), "history has the type S"),
        ("history", list(s("x")), "history[0] is not an attempt"),
        ("history", list(map(s("y"))), "history[0] is not an attempt"),
    ];
    let store = open(&world).await;
    for (index, (attribute, value, reason)) in garbage.into_iter().enumerate() {
        let id = format!("{index}");
        world.task(&id).with("kept", s("as it was")).with(attribute, value).put().await;
        for _again in 0..2 {
            let claimed = store.claim(&TaskId::named(&id), &terms(&id)).await.expect("it answers");
            let Claimed::Invalid(said) = claimed else {
                panic!("{attribute}: {claimed:?}");
            };
            assert!(said.contains(reason), "{attribute}: {said}");
        }
        let item = world.item(&id).await.expect("it is there");
        assert_eq!(text(&item, "status"), "INVALID", "{attribute}");
        assert!(error(&item, "message").contains(reason), "{attribute}");
        assert_eq!(text(&item, "kept"), "as it was");
        assert!(!item.contains_key("due"), "{attribute}: it would be listed for ever");
        let claimed = store.claim(&TaskId::named(&id), &terms("other")).await;
        assert!(matches!(claimed, Ok(Claimed::Lost(_))), "{attribute}: {claimed:?}");
    }
    assert_eq!(due(&store, 100).await, [""; 0]);
}

#[tokio::test]
async fn an_attempt_that_never_ran_is_not_counted_on_an_invalid_item() {
    let world = World::echoing().await;
    world.task("a").with("attempt", n(2)).with("payload", s("{")).put().await;
    let claimed = open(&world).await.claim(&TaskId::named("a"), &terms("x")).await;
    assert!(matches!(claimed, Ok(Claimed::Invalid(_))), "{claimed:?}");
    assert_eq!(text(&world.item("a").await.expect("it is there"), "attempt"), "2");
}

#[tokio::test]
async fn what_a_person_does_to_a_running_task_stands() {
    let world = World::echoing().await;
    let store = open(&world).await;
    let held = Rev::from("held".to_owned());
    for id in ["deleted", "cancelled", "put anew"] {
        world.task(id).put().await;
        win(&store, id, "held").await;
    }
    let delete = world.client.delete_item().table_name("tasks").key("id", s("deleted"));
    delete.send().await.expect("it is deleted");
    let update = world.client.update_item().table_name("tasks").key("id", s("cancelled"));
    update
        .update_expression("SET #status = :cancelled REMOVE due")
        .expression_attribute_names("#status", "status")
        .expression_attribute_values(":cancelled", s("CANCELLED"))
        .send()
        .await
        .expect("it is updated");
    world.task("put anew").put().await;
    for id in ["deleted", "cancelled", "put anew"] {
        let before = world.item(id).await;
        let write = store.settle(&TaskId::named(id), &held, &succeeded("x")).await;
        assert!(matches!(write, Ok(Write::Lost(_))), "{id}: {write:?}");
        assert_eq!(world.item(id).await, before, "{id}");
    }
}

#[tokio::test]
async fn each_verdict_leaves_the_item_as_the_design_says() {
    let world = World::echoing().await;
    let store = open(&world).await;
    let held = Rev::from("held".to_owned());
    let failure = || {
        let mut failure = Failure::new("ValueError", "no such size");
        failure.log = Some("last line".into());
        failure
    };
    let later = Timestamp::from_millis(4_000_000_000_500);
    let omitted = TaskResult::Omitted { bytes: 300_000, why: "larger than 256 KB" };
    for (id, verdict, status, is_due, is_leased) in [
        ("ok", Verdict::Succeed(TaskResult::Json("1".into())), "SUCCEEDED", false, false),
        ("large", Verdict::Succeed(omitted), "SUCCEEDED", false, false),
        ("retry", Verdict::Retry { due: later, failure: failure() }, "PENDING", true, false),
        ("release", Verdict::Release, "PENDING", true, false),
        ("hold", Verdict::Hold(failure()), "RUNNING", true, true),
        ("fail", Verdict::Fail(failure()), "FAILED", false, false),
    ] {
        world.task(id).with("error", s("of an earlier attempt")).put().await;
        win(&store, id, "held").await;
        let write = store.settle(&TaskId::named(id), &held, &settlement("new", verdict)).await;
        assert_eq!(write.expect("it answers"), Write::Applied);
        let item = world.item(id).await.expect("it is there");
        assert_eq!(text(&item, "status"), status, "{id}");
        assert_eq!(item.contains_key("due"), is_due, "{id}");
        assert_eq!(item.contains_key("lease_until"), is_leased, "{id}");
        assert_eq!(text(&item, "rev"), "new", "{id}");
    }
    let item = async |id| world.item(id).await.expect("it is there");
    assert_eq!(text(&item("ok").await, "result"), "1");
    assert!(!item("ok").await.contains_key("error"));
    assert_eq!(text(&item("large").await, "result_bytes"), "300000");
    assert_eq!(text(&item("large").await, "result_omitted"), "larger than 256 KB");
    assert_eq!(text(&item("retry").await, "due"), "4000000000.5");
    for id in ["retry", "hold", "fail"] {
        let item = item(id).await;
        let said = ["type", "message", "log"].map(|part| error(&item, part));
        assert_eq!(said, ["ValueError", "no such size", "last line"], "{id}");
    }
}

#[tokio::test]
async fn any_primary_key_will_do() {
    use ScalarAttributeType::{B, N, S};
    let world = World::echoing().await;
    let bytes = |bytes: &[u8]| AttributeValue::B(Blob::new(bytes));
    for (name, key, partition, sort) in [
        ("string", vec![("job", S, s("a"))], KeyValue::S("a".into()), None),
        ("number", vec![("job", N, n(7))], KeyValue::N("7".into()), None),
        ("bytes", vec![("job", B, bytes(&[1, 2]))], KeyValue::B(vec![1, 2]), None),
        (
            "number-and-bytes",
            vec![("tenant", N, n(7)), ("job", B, bytes(&[9]))],
            KeyValue::N("7".into()),
            Some(KeyValue::B(vec![9])),
        ),
        (
            "index-attributes",
            vec![("queue", S, s("work")), ("due", N, n(5))],
            KeyValue::S("work".into()),
            Some(KeyValue::N("5".into())),
        ),
    ] {
        let keys: Vec<_> = key.iter().map(|(name, kind, _)| (*name, kind.clone())).collect();
        create_table(&world, name, &keys, Some(ProjectionType::KeysOnly)).await;
        let mut item = Item::from([("queue".into(), s("work")), ("due".into(), n(5))]);
        item.extend(key.iter().map(|(name, _, value)| ((*name).to_owned(), value.clone())));
        let put = world.client.put_item().table_name(name).set_item(Some(item)).send();
        put.await.expect("the item is put");

        let clients = Clients::new(&world.place()).await.expect("a region");
        let store = clients.table(name).open().await.expect("the table can be used");
        let query = DueQuery { shard: "work", now: now(), limit: 1, after: None };
        let page = store.due(query).await.expect("it answers");
        let id = TaskId { partition, sort };
        assert_eq!(page.candidates[0].id, id, "{name}");
        if let Some(next) = &page.next {
            let query = DueQuery { after: Some(next), ..query };
            assert!(store.due(query).await.expect("it answers").candidates.is_empty());
        }
        let claimed = store.claim(&id, &terms("held")).await.expect("it answers");
        assert!(matches!(claimed, Claimed::Won(_)), "{name}: {claimed:?}");
        if name == "index-attributes" {
            continue;
        }
        let held = Rev::from("held".to_owned());
        let write = store.settle(&id, &held, &succeeded("end")).await.expect("it answers");
        assert_eq!(write, Write::Applied, "{name}");
    }
}

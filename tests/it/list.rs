//! `burstd list`: which tasks there are.

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, ProjectionType, ScalarAttributeType};
use burstd::aws::{Clients, Filter};
use serde_json::Value;

use crate::support::program::{Program, check, failure, success};
use crate::support::proxy::{Fate, Proxy};
use crate::support::tables::create_table;
use crate::support::world::{Item, NewItem, World, config, n, s, seconds_from_now};

/// The ids that a list has, in its order.
fn listed(program: &Program, arguments: &[&str]) -> Vec<String> {
    let output = program.run(&[&["list", "--json"], arguments].concat());
    let ids = success(&output);
    let id = |line: &str| serde_json::from_str::<Value>(line).expect("it is JSON")["id"].clone();
    ids.lines().map(|line| id(line).as_str().expect("it is text").to_owned()).collect()
}

/// The same, sorted.
fn sorted(program: &Program, arguments: &[&str]) -> Vec<String> {
    let mut ids = listed(program, arguments);
    ids.sort();
    ids
}

/// A task that ended so many seconds ago.
fn ended<'a>(world: &'a World, id: &str, status: &str, ago: i64) -> NewItem<'a> {
    let item = world.task(id).without("due").with("status", s(status)).with("attempt", n(1));
    item.with("finished_at", seconds_from_now(-ago))
}

fn error_of_type(kind: &str) -> AttributeValue {
    AttributeValue::M([("type".to_owned(), s(kind)), ("message".to_owned(), s("no"))].into())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_filter_lists_what_it_means() {
    let world = World::echoing().await;
    let program =
        Program::in_world(&world, &config().replace("[queues.work]", "[queues.work]\nshards = 3"));
    world.task("new").put().await;
    let running = world.task("running").with("queue", s("work#2")).with("status", s("RUNNING"));
    running.with("started_at", seconds_from_now(-5)).put().await;
    let pending = world.task("pending").with("status", s("PENDING")).with("due", n(7));
    pending.with("error", error_of_type("OSError")).put().await;
    world.task("later").with("queue", s("worker")).with("due", seconds_from_now(900)).put().await;
    ended(&world, "done", "SUCCEEDED", 60).put().await;
    ended(&world, "failed", "FAILED", 60).with("error", error_of_type("OSError")).put().await;
    let long_ago = ended(&world, "long ago", "FAILED", 7200);
    long_ago.with("error", error_of_type("ValueError")).put().await;
    ended(&world, "off", "CANCELLED", 60).with("queue", s("work#0")).put().await;
    ended(&world, "bad", "INVALID", 60).with("queue", s("other")).put().await;
    for (arguments, expected) in [
        (&["--status", "FAILED"][..], &["failed", "long ago"][..]),
        (&["--status", "failed,Invalid"], &["bad", "failed", "long ago"]),
        (&["--status", "SUCCEEDED", "--status", "CANCELLED"], &["done", "off"]),
        (&["--status", "new"], &["later", "new"]),
        (&["--status", "PENDING"], &["later", "new", "pending"]),
        (&["--status", "PENDING,FAILED"], &["failed", "later", "long ago", "new", "pending"]),
        (&["--status", "RUNNING"], &["running"]),
        (&["--status", "RUNNING", "--queue", "work"], &["running"]),
        (&["--status", "PENDING", "--queue", "work"], &["new", "pending"]),
        (&["--status", "PENDING", "--queue", "worker"], &["later"]),
        (&["--status", "RUNNING", "--queue", "work#2"], &["running"]),
        (&["--status", "PENDING", "--error", "OSError"], &["pending"]),
        (&["--queue", "work#0"], &["off"]),
        (&["--queue", "other"], &["bad"]),
        (&["--queue", "wor"], &[]),
        (&["--error", "OSError"], &["failed", "pending"]),
        (&["--status", "FAILED", "--since", "-1h"], &["failed"]),
        (&["--status", "FAILED", "--since", "-3h", "--error", "ValueError"], &["long ago"]),
        (&["--queue", "work", "--since", "-10s"], &["running"]),
        (&["--since", "+10m"], &["later"]),
    ] {
        assert_eq!(sorted(&program, arguments), expected, "{arguments:?}");
    }
    assert_eq!(sorted(&program, &[]).len(), 9);
    let open = ["--status", "PENDING,RUNNING", "--queue", "work"];
    assert_eq!(listed(&program, &open), ["new", "pending", "running"], "by due, shard by shard");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_has_columns_for_people_and_the_item_s_own_words_for_programs() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    let task = ended(&world, "a", "FAILED", 3700).with("worker", s("w-1"));
    task.with("error", error_of_type("ValueError")).put().await;
    let lines = success(&program.run(&["list", "--verbose"]));
    assert_eq!(
        lines,
        "ID                         QUEUE        STATUS    TRY WHEN               ERROR\n\
         a                          work         FAILED      1 ended 1h 1m ago    ValueError\n"
    );
    let line = success(&program.run(&["list", "--json"]));
    let line: Value = serde_json::from_str(&line).expect("it is JSON");
    let names: Vec<_> = line.as_object().expect("an object").keys().collect();
    assert_eq!(
        names,
        ["attempt", "error_type", "finished_at", "id", "queue", "status", "worker"],
        "what the item does not have is not there, and the payload stays where it is"
    );
    assert_eq!((&line["attempt"], &line["error_type"]), (&1.into(), &"ValueError".into()));
    let output = program.run(&["list", "--verbose", "--queue", "nobody's"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(success(&output), "");
    assert_eq!(said, "No task matches.\n0.5 read units, 0 write units\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn items_that_nobody_can_read_are_listed_and_break_nothing() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    world.task("in milliseconds").with("due", n(1_800_000_000_000_u64)).put().await;
    world.task("a number as status").with("status", n(5)).put().await;
    world.task("a list as status").with("status", AttributeValue::L(vec![])).put().await;
    world.task("no queue").without("queue").put().await;
    world.task("text as error").with("error", s("ValueError")).put().await;
    world.task("text as end").with("status", s("FAILED")).with("finished_at", s("x")).put().await;
    world.task("steering\u{1b}[2J\nthe terminal").with("status", s("\u{7}")).put().await;
    assert_eq!(listed(&program, &[]).len(), 7);
    let lines = success(&program.run(&["list"]));
    assert_eq!(lines.lines().count(), 8, "{lines}");
    for line in [
        "in milliseconds            work         new         0 due in ",
        "a number as status         work         5           0 due",
        "a list as status           work         ?           0 due",
        "no queue                   -            new         0 due",
        "text as end                work         FAILED      0 bad finished_at",
        "steering\u{fffd}[2J\u{fffd}the terminal  work         \u{fffd}",
    ] {
        assert!(lines.contains(line), "{line}\n{lines}");
    }
    for arguments in [
        &["--status", "FAILED"][..],
        &["--queue", "work"],
        &["--since", "-1h"],
        &["--error", "ValueError"],
        &["--status", "PENDING"],
    ] {
        success(&program.run(&[&["list"], arguments].concat()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_stops_at_its_limit_says_so() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    world.put_many(120, "1").await;
    for (arguments, count, words) in [
        (&[][..], 100, "Stopped at --limit 100; there are more: a higher limit shows them.\n"),
        (&["--limit", "7"], 7, "Stopped at --limit 7; there are more"),
        (&["--limit", "7", "--status", "new"], 7, "Stopped at --limit 7; there are more"),
        (&["--limit", "100", "--status", "new"], 100, "Stopped at --limit 100; there may be more"),
        (&["--limit", "120"], 120, ""),
        (&["--limit", "500", "--status", "PENDING", "--queue", "work"], 120, ""),
    ] {
        let output = program.run(&[&["list", "--json"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(success(&output).lines().count(), count, "{arguments:?}");
        assert!(said.starts_with(words) && said.is_empty() == words.is_empty(), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_is_read_page_by_page() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    for number in 0..9 {
        let item = ended(&world, &number.to_string(), "FAILED", 5);
        item.with("result", s("x".repeat(300_000))).put().await;
    }
    let output = program.run(&["list", "--status", "FAILED", "--verbose"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(success(&output).lines().count(), 10);
    let units: f64 = said.split(' ').next().and_then(|it| it.parse().ok()).expect("a number");
    assert!((300.0..400.0).contains(&units), "2.7 MB are told as they are: {said}");
    assert_eq!(listed(&program, &["--status", "FAILED", "--limit", "4"]).len(), 4);

    let desk = world.table().await.desk().await.expect("the table is there");
    let (mut listing, extent) = desk.list(Filter::default(), Vec::new(), None);
    assert!((2_700_000..2_800_000).contains(&extent.bytes), "{extent:?}");
    let (mut pages, mut tasks) = (0, 0);
    while let Some(page) = listing.next_page().await.expect("it answers") {
        pages += 1;
        tasks += page.len();
        assert!(page.len() <= 4, "no more than a megabyte at once");
    }
    assert_eq!(tasks, 9);
    assert!(pages >= 3, "{pages}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_batch_leaves_unread_is_asked_for_again() {
    let world = World::echoing().await;
    world.put_many(150, "1").await;
    let (mut refused, mut left) = (false, false);
    let proxy = Proxy::start(&world.dynamodb.url(), move |operation, _| match operation {
        "BatchGetItem" if !std::mem::replace(&mut left, true) => Fate::LeaveUnprocessed,
        "Scan" if !std::mem::replace(&mut refused, true) => {
            Fate::Refuse(400, "ProvisionedThroughputExceededException")
        }
        _ => Fate::Pass,
    })
    .await;
    let program = Program::between(&proxy.url, &world.lambda.url(), &config());
    assert_eq!(listed(&program, &["--status", "new", "--limit", "200"]).len(), 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_a_large_table_by_accident() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    for number in 0..32 {
        let item = ended(&world, &number.to_string(), "FAILED", 5);
        item.with("result", s("x".repeat(380_000))).put().await;
    }
    let cost = "reads up to 13 MB of the table: about 1,485 read units";
    for (arguments, advice) in [
        (&["list", "--status", "FAILED"][..], "nobody here to be asked: --yes reads it"),
        (&["list", "--limit", "1000"], "nobody here to be asked: --yes reads it"),
        (&["retry", "--queue", "work"], "--dry-run --yes shows what would be done, --yes does it"),
    ] {
        let (code, words) = failure(&program.run(arguments));
        assert_eq!(code, 64, "{words}");
        assert!(words.contains(cost) && words.contains(advice), "{words}");
    }
    let output = program.run(&["list", "--status", "FAILED", "--yes"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains(cost), "it is said all the same");
    assert_eq!(success(&output).lines().count(), 33);
    let shown = success(&program.run(&["retry", "--queue", "work", "--yes", "--dry-run"]));
    assert!(shown.contains("\n32 tasks would run again."), "{shown}");
    // Ten of them are not much, and neither are the open ones.
    assert_eq!(listed(&program, &["--limit", "10"]).len(), 10);
    assert_eq!(listed(&program, &["--status", "RUNNING"]).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_primary_key_will_do() {
    use ScalarAttributeType::{B, N, S};
    let world = World::echoing().await;
    let bytes = |bytes: &[u8]| AttributeValue::B(Blob::new(bytes));
    for (table, key, id) in [
        ("string", vec![("job", S, s("a"))], "a"),
        ("number", vec![("job", N, n(7))], "7"),
        ("bytes", vec![("job", B, bytes(&[1, 2]))], "0102"),
        ("number-and-bytes", vec![("tenant", N, n(7)), ("job", B, bytes(&[9]))], "7/09"),
        ("odd-names", vec![("error", S, s("a")), ("the job.", N, n(1))], "a/1"),
        ("index-attributes", vec![("queue", S, s("work")), ("due", N, n(5))], "work/5"),
    ] {
        let keys: Vec<_> = key.iter().map(|(name, kind, _)| (*name, kind.clone())).collect();
        create_table(&world, table, &keys, Some(ProjectionType::KeysOnly)).await;
        let mut item = Item::from([("queue".into(), s("work")), ("due".into(), n(5))]);
        item.extend(key.iter().map(|(name, _, value)| ((*name).to_owned(), value.clone())));
        let put = world.client.put_item().table_name(table).set_item(Some(item)).send();
        put.await.expect("the item is put");
        let there = config().replace("table = \"tasks\"", &format!("table = {table:?}"));
        let program = Program::in_world(&world, &there);
        // It leaves the control item behind, which is no task.
        success(&program.run(&["retry", "--status", "FAILED", "--yes"]));
        assert_eq!(listed(&program, &[]), [id], "{table}");
        assert_eq!(listed(&program, &["--status", "new"]), [id], "{table}");
        assert_eq!(listed(&program, &["--status", "new", "--queue", "work"]), [id], "{table}");
        let items = world.client.scan().table_name(table).send().await.expect("it is read");
        assert_eq!(items.count, 2, "{table}");
    }
}

#[test]
fn what_is_no_filter_is_refused_with_what_there_is() {
    let program = Program::with(&config());
    for (arguments, words) in [
        (
            &["--status", "DONE"][..],
            "there are new, PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED, INVALID",
        ),
        (&["--since", "yesterday"], "write now, +10m, -1h, epoch seconds, or 2026-11-22T10:00:00Z"),
        (&["--limit", "0"], "0 is not in 1.."),
    ] {
        let output = program.run(&[&["list"], arguments].concat());
        check(&output);
        let (code, said) = failure(&output);
        assert_eq!(code, 64, "{said}");
        assert!(said.contains(words), "{said}");
    }
}

/// A table that is far away is one that a listing waits for.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_outlasts_a_table_in_trouble() {
    let world = World::echoing().await;
    world.put_many(5, "1").await;
    let mut refusals = 0;
    let proxy = Proxy::start(&world.dynamodb.url(), move |operation, _| {
        refusals += u32::from(operation == "Query");
        // More often than the SDK tries.
        if operation == "Query" && refusals <= 6 {
            return Fate::Refuse(400, "ThrottlingException");
        }
        Fate::Pass
    })
    .await;
    let place = burstd::local::place(&proxy.url, &world.lambda.url());
    let clients = Clients::new(&place).await.expect("a region");
    let desk = clients.table("tasks").desk().await.expect("the table is there");
    let filter = Filter { statuses: vec![burstd::aws::Wanted::New], ..Filter::default() };
    let (mut listing, _) = desk.list(filter, vec!["work".to_owned()], None);
    let page = listing.next_page().await.expect("it answers at last");
    assert_eq!(page.map(|page| page.len()), Some(5));
}

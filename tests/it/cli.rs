//! The commands beside the daemon.

use std::io::Write as _;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::eventually;
use crate::support::program::{Process, Program, command, failure, success};
use crate::support::world::{Item, World, client, config, config_with, n, s, text};

#[tokio::test]
async fn check_says_that_a_valid_file_is_valid() {
    let said = success(&Program::with(&config()).run(&["check"]));
    assert!(
        said.contains("valid; table \"tasks\", at most 1000 in flight, queues: work"),
        "{said}"
    );
}

#[tokio::test]
async fn table_create_makes_the_table_and_then_says_that_it_is_there() {
    let world = World::echoing().await;
    let config = config().replace("table = \"tasks\"", "table = \"new\"");
    let program = Program::in_world(&world, &config);
    assert!(success(&program.run(&["table", "create"])).contains("table \"new\" made"));
    assert!(success(&program.run(&["table", "create"])).contains("there and right"));
    let ttl = world.client.describe_time_to_live().table_name("new").send().await;
    let ttl = ttl.expect("it answers").time_to_live_description.expect("it is described");
    assert_eq!(ttl.attribute_name(), Some("expires_at"));
}

#[tokio::test]
async fn table_create_says_what_differs_and_changes_nothing() {
    let world = World::echoing().await;
    let off = aws_sdk_dynamodb::types::TimeToLiveSpecification::builder()
        .enabled(false)
        .attribute_name("expires_at")
        .build()
        .expect("it is complete");
    let update = world.client.update_time_to_live().table_name("tasks");
    update.time_to_live_specification(off).send().await.expect("it is switched off");
    let (code, said) = failure(&Program::in_world(&world, &config()).run(&["table", "create"]));
    assert_eq!(code, 78);
    assert!(said.contains("nothing was changed"), "{said}");
    assert!(said.contains("TTL is switched off"), "{said}");
}

#[tokio::test]
async fn put_inserts_one_task_and_never_a_second_of_its_name() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    let put = |more: &[&str]| program.run(&[&["put", "--queue", "work"], more].concat());
    let payload = ["--id", "a", "--payload", "{\"b\": 1.0}", "--due", "1763800000"];
    assert_eq!(success(&put(&payload)), "a\n");
    let item = world.item("a").await.expect("it is there");
    assert_eq!(text(&item, "payload"), "{\"b\": 1.0}");
    assert_eq!((text(&item, "queue"), text(&item, "due")), ("work".into(), "1763800000".into()));

    success(&put(&["--id", "b", "--due", "-1h"]));
    let due: f64 = text(&world.item("b").await.expect("it is there"), "due").parse().expect("one");
    assert!(due > 1_763_800_000.0, "an hour ago, not {due}");

    let (code, said) = failure(&put(&["--id", "a", "--payload", "2"]));
    assert_eq!(code, 65);
    assert!(said.contains("task \"a\" exists already; it was left as it is"), "{said}");
    assert_eq!(world.item("a").await, Some(item));

    let id = success(&put(&[]));
    assert_eq!(id.trim().len(), 32, "a random name");
    assert!(world.item(id.trim()).await.is_some());
}

#[tokio::test]
async fn put_refuses_what_cannot_be_a_task() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    for (arguments, code, said) in [
        (
            vec!["--queue", "wrok"],
            64,
            "there is no queue \"wrok\" in the configuration; there is: work",
        ),
        (vec!["--queue", "work", "--due", "soon"], 64, "\"soon\" is not a time"),
        (vec!["--queue", "work", "--due", "1763800000000"], 64, "is it in milliseconds?"),
        (vec!["--queue", "work", "--payload", "{a}"], 65, "--payload is not JSON"),
        (vec!["--queue", "work", "--sort", "x"], 65, "the table has no sort key"),
        (vec!["--queue", "work", "--file", "/nonexistent"], 66, "/nonexistent"),
    ] {
        let output = program.run(&[vec!["put"], arguments.clone()].concat());
        let (exit, error) = failure(&output);
        assert_eq!(exit, code, "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}

#[tokio::test]
async fn a_load_inserts_the_good_lines_and_names_the_bad_ones() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    let mut lines: Vec<String> = (1..=60)
        .map(|number| format!("{{\"id\": \"{number}\", \"payload\": [{number}]}}"))
        .collect();
    lines[9] = "{\"id\": \"10\"".into();
    lines[19] = "{\"id\": \"20\", \"colour\": 1}".into();
    lines[29] = String::new();
    lines[39] = "{\"id\": \"40\", \"due\": 1763800000000}".into();
    lines[44] = "{\"id\": \"45\", \"queue\": \"nope\"}".into();
    lines[49] = format!("{{\"id\": \"50\", \"payload\": \"{}\"}}", "x".repeat(410_000));
    lines[50] = "{\"id\": \"51\", \"max_attempts\": 0}".into();
    lines[54] = "{\"id\": \"54\", \"payload\": \"the later of two\"}".into();
    let path = program.file("tasks.jsonl", lines.join("\n"));
    let path = path.to_str().expect("it is UTF-8");
    let output = program.run(&["put", "--queue", "work", "--file", path]);
    let (code, said) = failure(&output);
    assert_eq!(code, 65, "{said}");
    for (line, reason) in [
        (10, "EOF"),
        (20, "unknown field `colour`"),
        (40, "milliseconds"),
        (45, "there is no queue \"nope\""),
        (50, "the item has about 410"),
        (51, "max_attempts is 0"),
    ] {
        let found = said.lines().find(|said| said.starts_with(&format!("line {line}: ")));
        assert!(found.is_some_and(|said| said.contains(reason)), "line {line}: {said}");
    }
    assert_eq!(said.lines().filter(|said| said.starts_with("line ")).count(), 6, "{said}");
    assert!(said.contains("6 lines were not inserted"), "{said}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("53 tasks inserted"), "{said}");
    let items = world.table().await.read_all().await.expect("the table is read");
    assert_eq!(items.len(), 52);
    let item = world.item("54").await.expect("it is there");
    assert_eq!(text(&item, "payload"), "\"the later of two\"");
}

#[tokio::test]
async fn a_load_reads_standard_input_and_keeps_every_key() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config_with("shards = 2"));
    let mut child = command(&["put", "--queue", "work", "--file", "-", "--config"])
        .arg(program.config())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let line = "{\"id\": 7, \"payload\": {\"a\":  1.0}, \"due\": \"1763800000\", \
                \"max_attempts\": 3, \"deadline\": 1863800000, \"trace\": \"Root=1\"}\n";
    child.stdin.take().expect("it is a pipe").write_all(line.as_bytes()).expect("it reads");
    success(&child.wait_with_output().expect("it ends"));
    let item = world.item("7").await.expect("it is there");
    let expected = [
        ("id", s("7")),
        ("payload", s("{\"a\":  1.0}")),
        ("due", n(1_763_800_000)),
        ("max_attempts", n(3)),
        ("deadline", n(1_863_800_000)),
        ("trace", s("Root=1")),
    ];
    for (attribute, value) in expected {
        assert_eq!(item.get(attribute), Some(&value));
    }
    assert!(["work#0", "work#1"].contains(&text(&item, "queue").as_str()));
}

#[test]
fn the_demo_runs_its_tasks_and_finds_every_one_in_the_table() {
    let arguments = ["demo", "--tasks", "60", "--duration", "100ms", "--fail", "0.5", "--json"];
    let figures = success(&command(&arguments).output().expect("the program runs"));
    let figures: Value = serde_json::from_str(&figures).expect("it is JSON");
    assert_eq!(figures["succeeded"], 60);
    assert_eq!(figures["retried"], 30);
    assert_eq!(figures["failed"], 0);
    assert_eq!(figures["as_expected"], true);
    let peak = figures["peak_in_flight"].as_u64().expect("it is a number");
    assert!((1..=60).contains(&peak), "{figures}");

    let capped = ["demo", "--tasks", "20", "--duration", "50ms", "--max-in-flight", "5"];
    let table = success(&command(&capped).output().expect("the program runs"));
    assert!(table.contains("peak in flight                         5"), "{table}");
    assert!(table.contains("all 20 as expected"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_runs_what_is_inserted_and_goes_on_where_it_was() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let data = directory.path().join("data");
    let start = || {
        let mut dev = command(&["dev", "--dynamodb-port", "0", "--lambda-port", "0"]);
        dev.arg("--data-dir").arg(&data);
        Process::start(dev)
    };
    let client_of = async |dev: &Process| {
        let line = dev.line_with("export AWS_ENDPOINT_URL_DYNAMODB=").await;
        client(line.trim().trim_start_matches("export AWS_ENDPOINT_URL_DYNAMODB="))
    };
    let put = async |client: &aws_sdk_dynamodb::Client, id: &str, queue: &str, seconds: f64| {
        let payload = s(format!("{{\"seconds\":{seconds}}}"));
        let item = Item::from([
            ("id".into(), s(id)),
            ("queue".into(), s(queue)),
            ("due".into(), n(0)),
            ("payload".into(), payload),
        ]);
        client.put_item().table_name("tasks").set_item(Some(item)).send().await.expect("put");
    };
    let until = async |client: &aws_sdk_dynamodb::Client, id: &str, status: &str| {
        eventually(&format!("{id} is {status}"), async || {
            let get = client.get_item().table_name("tasks").key("id", s(id)).send().await;
            let item = get.expect("it answers").item.unwrap_or_default();
            if text(&item, "status") == status { Ok(item) } else { Err(item) }
        })
        .await
    };
    let mut dev = start();
    let client = client_of(&dev).await;
    put(&client, "echo", "echo", 0.0).await;
    until(&client, "echo", "SUCCEEDED").await;
    put(&client, "flaky", "flaky", 0.0).await;
    assert_eq!(text(&until(&client, "flaky", "SUCCEEDED").await, "attempt"), "2");
    put(&client, "slow", "sleep", 0.5).await;
    until(&client, "slow", "RUNNING").await;
    dev.signal(Signal::KILL);
    dev.ended().await;

    let again = start();
    let client = client_of(&again).await;
    assert_eq!(text(&until(&client, "echo", "SUCCEEDED").await, "attempt"), "1");
    put(&client, "later", "echo", 0.0).await;
    until(&client, "later", "SUCCEEDED").await;
    assert_eq!(text(&until(&client, "slow", "RUNNING").await, "attempt"), "1", "its lease stands");
}

#[test]
fn a_port_that_is_taken_is_named_with_the_option_that_changes_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let arguments = ["dev", "--dynamodb-port", &port, "--lambda-port", "0"];
    let (code, said) = failure(&command(&arguments).output().expect("the program runs"));
    assert_eq!(code, 69);
    assert!(said.contains(&port) && said.contains("--dynamodb-port"), "{said}");
}

#[test]
fn a_bench_compares_ways_to_call_and_each_call_runs_once() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let plot = directory.path().join("plot.svg");
    let mut bench = command(&["bench", "--json", "--only", "pool,burstd", "--concurrency", "60"]);
    bench.args(["--duration", "60ms", "--spread", "20ms", "--goaway", "25", "--limit", "50"]);
    let printed = success(&bench.arg("--svg").arg(&plot).output().expect("it runs"));
    let rows: Vec<Value> =
        printed.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    let ways: Vec<_> = rows.iter().map(|row| row["way"].as_str().unwrap_or_default()).collect();
    assert_eq!(ways, ["a pool of 8", "burstd, cold", "burstd, warm"]);
    for (row, peaks) in rows.iter().zip([8..=8, 30..=50, 30..=50]) {
        assert_eq!(
            (&row["failed"], &row["ran_again"]),
            (&Value::from(0), &Value::from(0)),
            "{row}"
        );
        assert!(row["peak"].as_u64().is_some_and(|peak| peaks.contains(&peak)), "{row}");
    }
    let plot = std::fs::read_to_string(plot).expect("it was drawn");
    assert!(plot.contains("burstd, warm"), "{plot}");
}

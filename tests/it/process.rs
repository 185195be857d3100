//! The real program: signals, crashes, exit codes, and what the service manager is told.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use burstd::local::lambda::{Answer, Call};
use rustix::process::Signal;

use crate::support::calls::Execution;
use crate::support::eventually;
use crate::support::program::{Process, Program, command, failure};
use crate::support::world::{World, config, config_with, outcomes, text};

/// A world whose function takes this long.
async fn taking(duration: Duration) -> World {
    World::with(move |call: Call| async move {
        tokio::time::sleep(duration).await;
        Answer::Returned(call.payload)
    })
    .await
}

async fn put_many(world: &World, count: usize) {
    for number in 0..count {
        world.task(&number.to_string()).put().await;
    }
}

async fn until_begun(world: &World, count: u64) {
    eventually(&format!("{count} functions have begun"), async || {
        match world.lambda.running().begun {
            begun if begun >= count => Ok(()),
            begun => Err(begun),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_in_a_burst_waits_for_what_runs_and_claims_nothing_more() {
    let world = taking(Duration::from_millis(700)).await;
    put_many(&world, 120).await;
    let program =
        Program::in_world(&world, &config().replace("max_in_flight = 1000", "max_in_flight = 100"));
    let mut daemon = program.start();
    until_begun(&world, 50).await;
    daemon.signal(Signal::TERM);
    let status = daemon.ended().await;
    assert!(status.success(), "{status}: {:?}", daemon.lines());
    let items = world.table().await.read_all().await.expect("the table is read");
    for item in items {
        match item.status.as_deref() {
            Some("SUCCEEDED") => assert_eq!(item.attempt, 1, "{item:?}"),
            // Not claimed, or given back without costing its attempt.
            None | Some("PENDING") => {
                assert_eq!((item.attempt, item.is_due), (0, true), "{item:?}");
            }
            _ => panic!("{item:?}"),
        }
    }
    assert_eq!(world.lambda.running().now, 0, "nothing was left behind");
    assert!(world.lambda.running().begun < 120, "it went on claiming");
    daemon.line_with("\"event\":\"daemon.draining\"").await;
    daemon.line_with("\"event\":\"daemon.stopped\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_stops_at_once() {
    let world = taking(Duration::from_millis(1900)).await;
    put_many(&world, 10).await;
    let program = Program::in_world(&world, &config());
    let mut daemon = program.start();
    until_begun(&world, 10).await;
    daemon.signal(Signal::INT);
    daemon.line_with("daemon.draining").await;
    daemon.signal(Signal::TERM);
    let status = daemon.ended().await;
    assert!(status.success(), "{status}");
    assert_eq!(world.lambda.running().now, 10, "it did not wait for them");
    assert!(daemon.line_with("daemon.stopped").await.contains("\"abandoned\":10"));
    assert_eq!(daemon.told("task.abandoned"), 10, "each by its name");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_in_a_burst_of_200_a_restart_ends_every_task_and_none_ran_twice_at_once() {
    let world = taking(Duration::from_millis(1500)).await;
    put_many(&world, 200).await;
    let program = Program::in_world(&world, &config());
    let mut daemon = program.start();
    until_begun(&world, 150).await;
    daemon.signal(Signal::KILL);
    daemon.ended().await;
    let restarted = program.start();
    world.until_all(200, "SUCCEEDED").await;
    world.calls.assert_no_overlap();
    let rescued = restarted.line_with("task.rescued").await;
    let rescued: serde_json::Value = serde_json::from_str(&rescued).expect("it is JSON");
    let id = rescued["task_id"].as_str().expect("it is named");
    let item = world.item(id).await.expect("it is there");
    assert_eq!(outcomes(&item), ["1 abandoned", "2 succeeded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_takes_over_a_killed_one_s_tasks_when_their_leases_end() {
    let world = taking(Duration::from_millis(1000)).await;
    // The survivor takes a few at a time, so that the other one gets some in any case.
    let few = config().replace("max_in_flight = 1000", "max_in_flight = 10");
    let (program, small) = (Program::in_world(&world, &config()), Program::in_world(&world, &few));
    let (mut doomed, survivor) = (program.start(), small.start());
    let worker = async |process: &Process| {
        let line = process.line_with("daemon.ready").await;
        let line: serde_json::Value = serde_json::from_str(&line).expect("it is JSON");
        line["worker"].as_str().expect("it has a name").to_owned()
    };
    let (doomed_name, survivor_name) = (worker(&doomed).await, worker(&survivor).await);
    put_many(&world, 50).await;
    let is_doomed = |run: &Execution| {
        let context = run.call.context.as_ref();
        run.ended.is_none() && context.is_some_and(|context| context.worker == doomed_name)
    };
    eventually("it holds some", async || {
        match world.calls.all().iter().filter(|run| is_doomed(run)).count() {
            0..3 => Err(world.calls.count()),
            _ => Ok(()),
        }
    })
    .await;
    doomed.signal(Signal::KILL);
    doomed.ended().await;
    world.until_all(50, "SUCCEEDED").await;
    world.calls.assert_no_overlap();
    let rescued = survivor.line_with("task.rescued").await;
    let rescued: serde_json::Value = serde_json::from_str(&rescued).expect("it is JSON");
    let id = rescued["task_id"].as_str().expect("it is named");
    let item = world.item(id).await.expect("it is there");
    assert_eq!(text(&item, "worker"), survivor_name);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_ready_while_the_table_s_service_is_away() {
    let world = World::echoing().await;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = nowhere.local_addr().expect("it is bound");
    drop(nowhere);
    let program = Program::with(&format!(
        "{}\n[aws]\nregion = \"us-east-1\"\nendpoint_url = \"http://{address}\"\n",
        config()
    ));
    let mut daemon = program.start();
    let line = daemon.line_with("store.unavailable").await;
    assert!(line.contains("dynamodb:DescribeTable"), "{line}");
    assert!(!daemon.lines().iter().any(|line| line.contains("daemon.ready")));
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success(), "and it stops when it is told to");
    drop(world);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_leaves_one_line_with_all_its_numbers_and_no_data() {
    let world = World::with(async |call: Call| {
        let context = call.context.expect("it is told");
        match (context.task_id.as_str(), context.attempt) {
            ("good", _) => Answer::Returned(b"\"secret result\"".to_vec()),
            _ => {
                Answer::Raised { error_type: "ValueError".into(), message: "secret message".into() }
            }
        }
    })
    .await;
    let program = Program::in_world(
        &world,
        &(config_with("max_attempts = 2") + "[log]\nlevel = \"trace\"\n"),
    );
    let mut daemon = program.start();
    let secret = crate::support::world::s("\"secret payload\"");
    world.task("good").with("payload", secret.clone()).put().await;
    world.task("bad").with("payload", secret).put().await;
    let good = world.until("good", "SUCCEEDED").await;
    world.until("bad", "FAILED").await;
    daemon.signal(Signal::TERM);
    daemon.ended().await;

    let lines = daemon.lines();
    let of = |event: &str| {
        let event = format!("\"event\":\"{event}\"");
        let found: Vec<_> = lines.iter().filter(|line| line.contains(&event)).collect();
        assert_eq!(found.len(), 1, "{event}: {lines:?}");
        serde_json::from_str::<serde_json::Value>(found[0]).expect("it is JSON")
    };
    let line = of("task.succeeded");
    assert_eq!(line["task_id"], "good");
    assert_eq!(line["queue"], "work");
    assert_eq!(line["attempt"], 1);
    assert_eq!(line["outcome"], "succeeded");
    assert_eq!(line["request_id"], text(&good, "request_id"));
    for number in ["claim_ms", "invoke_ms", "write_ms"] {
        assert!(line[number].is_number(), "{number}: {line}");
    }
    assert_eq!(of("task.attempt_failed")["level"], "WARN");
    let failed = of("task.failed");
    assert_eq!((&failed["level"], &failed["error_type"]), (&"ERROR".into(), &"ValueError".into()));
    let summary = of("stats.summary");
    assert_eq!((&summary["table"], &summary["succeeded"]), (&"tasks".into(), &1.into()));
    for number in ["invoke_p50_ms", "write_p99_ms", "write_units", "resident_bytes", "descriptors"]
    {
        let number = summary[number].as_f64().expect("it is a number");
        assert!(number > 0.0, "{summary}");
    }
    of("daemon.stopped");
    let secrets: Vec<_> = lines.iter().filter(|line| line.contains("secret")).collect();
    assert!(secrets.is_empty(), "{secrets:?}");
}

#[tokio::test]
async fn a_table_that_is_missing_or_wrong_is_named_and_ends_it() {
    let world = World::echoing().await;
    let missing = config().replace("table = \"tasks\"", "table = \"taks\"");
    let (code, said) = failure(&Program::in_world(&world, &missing).run(&["run"]));
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("there is no table \"taks\" in us-east-1"), "{said}");
    assert!(said.contains("burstd table create"), "{said}");

    use aws_sdk_dynamodb::types::{
        AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    };
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build();
    let attribute = AttributeDefinition::builder().attribute_name("id");
    let attribute = attribute.attribute_type(ScalarAttributeType::S).build();
    let create = world.client.create_table().table_name("bare");
    create
        .billing_mode(BillingMode::PayPerRequest)
        .key_schema(key.expect("it is complete"))
        .attribute_definitions(attribute.expect("it is complete"))
        .send()
        .await
        .expect("the table is made");
    let bare = config().replace("table = \"tasks\"", "table = \"bare\"");
    for command in [vec!["run"], vec!["table", "create"]] {
        let (code, said) = failure(&Program::in_world(&world, &bare).run(&command));
        assert_eq!(code, 78, "{said}");
        assert!(said.contains("the index due-index is missing"), "{said}");
    }
}

#[test]
fn without_a_region_it_says_how_to_set_one() {
    let (code, said) = failure(&Program::with(&config()).run(&["run"]));
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("AWS_REGION"), "{said}");
}

#[test]
fn the_journal_alone_is_told_priorities() {
    let program = Program::with(&config());
    let (journal, mut reader) = UnixStream::pair().expect("two sockets");
    let journal = File::from(OwnedFd::from(journal));
    let metadata = journal.metadata().expect("it is open");
    let name = format!("{}:{}", metadata.dev(), metadata.ino());
    let run = |stdout: Stdio| {
        let mut run = command(&["run", "--config"]);
        run.arg(program.config()).env("JOURNAL_STREAM", &name).stdout(stdout);
        run.output().expect("the program runs")
    };
    run(journal.into());
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("it is text");
    let [started, failed] = &said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert!(started.starts_with("<6>{") && started.contains("daemon.started"), "{said}");
    assert!(failed.starts_with("<3>{") && failed.contains("daemon.failed"), "{said}");

    let piped = String::from_utf8(run(Stdio::piped()).stdout).expect("it is text");
    assert!(piped.lines().count() == 2 && !piped.contains("\n<"), "{piped}");
    assert!(piped.starts_with('{'), "{piped}");
}

#[test]
fn a_bad_configuration_is_told_as_a_whole_with_exit_code_78() {
    let program = Program::with("table = 5\nmax_in_flight = 0\n[queues.a]\nfunction = \"f\"\n");
    for command in ["check", "run"] {
        let (code, said) = failure(&program.run(&[command]));
        assert_eq!(code, 78, "{said}");
        assert!(said.contains("2 problems"), "{said}");
        assert!(said.contains("line 1: table = 5: must be a string in quotes"), "{said}");
        assert!(said.contains("line 2: max_in_flight = 0: must be between"), "{said}");
    }
    let output = command(&["check", "--config", "/nonexistent/burstd.toml"]).output();
    let (code, said) = failure(&output.expect("the program runs"));
    assert_eq!(code, 78);
    assert!(said.contains("/nonexistent/burstd.toml: cannot be read"), "{said}");
}

#[test]
fn wrong_arguments_end_with_64_and_help_with_0() {
    for arguments in [vec!["fly"], vec!["run", "--nope"], vec![], vec!["put"]] {
        let output = command(&arguments).output().expect("the program runs");
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
    }
    for arguments in [vec!["--help"], vec!["run", "--help"], vec!["--version"]] {
        let output = command(&arguments).output().expect("the program runs");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_descriptors_are_said_where_each_call_takes_one() {
    let world = World::echoing().await;
    for (http, is_said) in [("h1", true), ("auto", true), ("h2", false)] {
        let program = Program::in_world(&world, &config());
        let text = std::fs::read_to_string(program.config()).expect("it is there");
        let text = text.replace("[aws]", &format!("[aws]\nhttp = \"{http}\""));
        std::fs::write(program.config(), text).expect("it is written");
        let daemon = program.start_with_descriptors(400);
        daemon.line_with("daemon.started").await;
        let lines = daemon.lines();
        let said = lines.iter().any(|line| line.contains("\"event\":\"daemon.limits\""));
        assert_eq!(said, is_said, "{http}: {lines:?}");
    }
}

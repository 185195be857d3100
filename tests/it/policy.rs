//! The policies that burstd prints, held against what it calls.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use burstd::local::place;
use serde_json::Value;

use crate::support::program::{Program, command, success};
use crate::support::proxy::{Fate, Proxy};
use crate::support::world::{World, config, n, s};

/// What was called, as actions of IAM.
#[derive(Clone, Default)]
struct Called(Arc<Mutex<BTreeSet<String>>>);

impl Called {
    /// Notes an action; one on the index is told apart from one on the table.
    fn note(&self, operation: &str, body: &str) {
        let action = match operation.split_once(" /2015-03-31/functions/") {
            None if operation.contains("/account-settings") => {
                "lambda:GetAccountSettings".to_owned()
            }
            None if operation.contains("/concurrency") => {
                "lambda:GetFunctionConcurrency".to_owned()
            }
            None if ["Query", "Scan"].contains(&operation) && body.contains("\"IndexName\"") => {
                format!("dynamodb:{operation} of the index")
            }
            None => format!("dynamodb:{operation}"),
            Some((_, rest)) => match rest.rsplit('/').next().unwrap_or_default() {
                "invocations" => "lambda:InvokeFunction".to_owned(),
                "configuration" => "lambda:GetFunctionConfiguration".to_owned(),
                other => panic!("who calls {other} in {operation}?"),
            },
        };
        self.0.lock().expect("no test panics with it").insert(action);
    }

    fn all(&self) -> BTreeSet<String> {
        self.0.lock().expect("no test panics with it").clone()
    }
}

/// The actions that a policy allows.
fn allowed(program: &Program, who: &str) -> BTreeSet<String> {
    let policy = success(&program.run(&["iam-policy", "--for", who]));
    let policy: Value = serde_json::from_str(&policy).expect("it is JSON");
    let statements = policy["Statement"].as_array().expect("an array");
    let allowed = statements.iter().flat_map(|statement| {
        let is_of_index = statement["Resource"].to_string().contains("/index/due-index");
        let actions = statement["Action"].as_array().expect("an array").iter();
        actions.map(move |action| {
            let action = action.as_str().expect("a name");
            if is_of_index { format!("{action} of the index") } else { action.to_owned() }
        })
    });
    allowed.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_allows_is_what_is_called_and_no_more() {
    let world = World::echoing().await;
    let [daemon, operator, producer] = [(); 3].map(|()| Called::default());
    let called = daemon.clone();
    // A table that does not show the item it refuses is read.
    let dynamodb = Proxy::start(&world.dynamodb.url(), move |operation, body| {
        called.note(operation, body);
        Fate::HideItem
    })
    .await;
    let called = daemon.clone();
    let lambda = Proxy::start(&world.lambda.url(), move |operation, body| {
        called.note(operation, body);
        Fate::Pass
    })
    .await;
    let program = Program::in_world(&world, &config());
    let mut running = world.daemon_at(&config(), &place(&dynamodb.url, &lambda.url)).await;
    let later = burstd::clock::Clock::system().now() + Duration::from_secs(600);
    let leased = world.task("leased").with("status", s("RUNNING")).with("lease_until", n(later));
    leased.put().await;
    world.task("a").with("payload", s("1")).put().await;
    world.until("a", "SUCCEEDED").await;
    running.until("the other one was tried", |counts| counts.lost > 0).await;
    running.stop().await;
    assert_eq!(daemon.all(), allowed(&program, "daemon"));

    // What the daemon needs is what the doctor tries; and it looks at TTL, if it may.
    let doctor = Called::default();
    for proxy in [&dynamodb, &lambda] {
        let called = doctor.clone();
        proxy.plan(move |operation, body| {
            called.note(operation, body);
            Fate::Pass
        });
    }
    let between = Program::between(&dynamodb.url, &lambda.url, &config());
    let mut command = command(&["doctor", "--config"]);
    command.arg(between.config()).env("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1");
    success(&command.output().expect("the program runs"));
    let mut expected = daemon.all();
    expected.insert("dynamodb:DescribeTimeToLive".to_owned());
    assert_eq!(doctor.all(), expected);

    for (called, who, commands) in [
        (
            operator,
            "operator",
            vec![
                vec!["table", "create"],
                vec!["show", "a"],
                vec!["explain", "a"],
                vec!["retry", "a"],
                vec!["cancel", "a"],
                vec!["pause", "work"],
                vec!["resume", "work"],
                vec!["stats"],
                vec!["stats", "--scan"],
                vec!["stats", "--queue", "work"],
                vec!["list"],
                vec!["list", "--status", "RUNNING"],
                vec!["retry", "--queue", "work", "--yes"],
                vec!["cancel", "--queue", "work", "--yes"],
            ],
        ),
        (producer, "producer", vec![vec!["put", "--queue", "work", "--id", "b"]]),
    ] {
        let noted = called.clone();
        dynamodb.plan(move |operation, body| {
            noted.note(operation, body);
            Fate::Pass
        });
        let there = Program::between(&dynamodb.url, &lambda.url, &config());
        for command in commands {
            success(&there.run(&command));
        }
        if who == "operator" {
            let elsewhere = config().replace("table = \"tasks\"", "table = \"others\"");
            let elsewhere = Program::between(&dynamodb.url, &lambda.url, &elsewhere);
            success(&elsewhere.run(&["table", "create"]));
        } else {
            let file = there.file("tasks.jsonl", "{\"id\": \"c\"}\n");
            let file = file.to_str().expect("its path is text");
            success(&there.run(&["put", "--queue", "work", "--file", file]));
        }
        assert_eq!(called.all(), allowed(&program, who), "{who}");
    }
}

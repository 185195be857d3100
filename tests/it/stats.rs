//! How many tasks there are, by queue.

use serde_json::Value;

use crate::support::eventually;
use crate::support::program::{Program, failure, success};
use crate::support::world::{World, config, n, s, seconds_from_now};

/// What `burstd stats` says, a line each.
fn stats(program: &Program, arguments: &[&str]) -> Vec<Value> {
    let output = success(&program.run(&[&["stats", "--json"], arguments].concat()));
    output.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
}

/// The line about a queue.
fn of<'a>(lines: &'a [Value], queue: &str) -> &'a Value {
    lines.iter().find(|line| line["queue"] == queue).expect("the queue has a line")
}

/// A table with all kinds of tasks.
async fn crowd(world: &World) {
    let item = |id: &str| world.task(id);
    item("at once").put().await;
    item("due for 100 s").with("due", seconds_from_now(-100)).put().await;
    item("delayed").with("due", seconds_from_now(1000)).put().await;
    item("in milliseconds").with("due", n(1_800_000_000_000_u64)).put().await;
    item("in a shard").with("queue", s("spread#1")).put().await;
    item("beyond the shards").with("queue", s("spread#7")).put().await;
    item("unknown queue").with("queue", s("worc")).put().await;
    let leased = item("leased by the dead").with("status", s("RUNNING"));
    leased.with("lease_until", seconds_from_now(50)).put().await;
    let over = item("lease over").with("status", s("RUNNING"));
    over.with("lease_until", seconds_from_now(-50)).put().await;
    item("without due").without("due").put().await;
    for status in ["SUCCEEDED", "FAILED", "CANCELLED", "INVALID"] {
        item(status).with("status", s(status)).without("due").put().await;
    }
}

fn with_shards() -> String {
    format!("{}\n[queues.spread]\nfunction = \"work\"\nshards = 2\n", config())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_to_do_is_counted_by_queue_with_its_shards_and_unknown_ones() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &with_shards());
    crowd(&world).await;
    success(&program.run(&["pause", "work"]));
    let lines = stats(&program, &[]);
    for (queue, due, delayed) in
        [("work", 4, 2), ("spread", 1, 0), ("spread#7", 1, 0), ("worc", 1, 0)]
    {
        let line = of(&lines, queue);
        assert_eq!((&line["due"], &line["delayed"]), (&due.into(), &delayed.into()), "{line}");
    }
    let line = of(&lines, "work");
    let oldest = line["oldest_due_s"].as_f64().expect("one says since when it is due");
    assert!((99.0..160.0).contains(&oldest), "{line}");
    let notes = line["notes"].to_string();
    assert!(notes.contains("paused") && notes.contains("no daemon serves it"), "{line}");
    let last = lines.last().expect("there is one");
    assert_eq!((&last["ended_estimate"], &last["workers"]), (&5.into(), &Value::Array(vec![])));
    let alone = stats(&program, &["--queue", "spread"]);
    assert_eq!((alone.len(), &alone[0]["due"]), (1, &1.into()));
    let (code, words) = failure(&program.run(&["stats", "--queue", "worc"]));
    assert_eq!(code, 64, "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_counts_each_status_exactly() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &with_shards());
    crowd(&world).await;
    success(&program.run(&["pause", "work"]));
    let lines = stats(&program, &["--scan"]);
    let counted = |queue: &str, status: &str| {
        let line = lines.iter().find(|line| line["queue"] == queue && line["status"] == status);
        line.map_or(0, |line| line["tasks"].as_u64().expect("a number"))
    };
    for (queue, status, tasks) in [
        ("work", "due", 2),
        ("work", "delayed", 2),
        ("work", "RUNNING", 1),
        ("work", "RUNNING, lease over", 1),
        ("work", "not in the index", 1),
        ("work", "SUCCEEDED", 1),
        ("work", "FAILED", 1),
        ("work", "CANCELLED", 1),
        ("work", "INVALID", 1),
        ("spread", "due", 1),
        ("spread#7", "due", 1),
        ("worc", "due", 1),
    ] {
        assert_eq!(counted(queue, status), tasks, "{queue}, {status}: {lines:?}");
    }
    let all: u64 = lines.iter().filter_map(|line| line["tasks"].as_u64()).sum();
    assert_eq!(all, 14, "the control item is no task");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_what_the_daemons_last_said() {
    let (world, _gate) = World::gated(std::time::Duration::from_secs(60)).await;
    let program = Program::in_world(&world, &config());
    let _daemons = [program.start(), program.start()];
    world.put_many(7, "1").await;
    world.until_running(7).await;
    let lines = eventually("all that run are told of", async || {
        let lines = stats(&program, &[]);
        match of(&lines, "work")["running"] == 7 {
            true => Ok(lines),
            false => Err(lines),
        }
    })
    .await;
    let workers = lines.last().expect("there is one")["workers"].as_array().cloned();
    assert_eq!(workers.map(|workers| workers.len()), Some(2));
    assert_eq!(of(&lines, "work")["due"], 7, "those that run are among the due");
}

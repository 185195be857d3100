//! `burstd retry` and `burstd cancel` of all tasks that a filter means.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use burstd::aws::{Changed, Filter, Retryable, Run, Wanted};
use burstd::local::lambda::Answer;
use burstd::task::{Status, Timestamp};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::eventually;
use crate::support::program::{Process, Program, command, failure, success};
use crate::support::world::{
    Item, NewItem, World, config, config_with, n, s, seconds_from_now, text,
};
use crate::support::writes::now;

/// A task that failed so many seconds ago.
fn failed<'a>(world: &'a World, id: &str, ago: i64) -> NewItem<'a> {
    let item = world.task(id).without("due").with("status", s("FAILED")).with("attempt", n(5));
    item.with("finished_at", seconds_from_now(-ago)).with("error", error_of_type("ValueError"))
}

fn error_of_type(kind: &str) -> AttributeValue {
    AttributeValue::M([("type".to_owned(), s(kind))].into())
}

/// A world whose function always fails, at once.
async fn failing() -> World {
    World::with(async |_| Answer::Raised {
        error_type: "ValueError".to_owned(),
        message: "no".to_owned(),
    })
    .await
}

/// How often each task ran.
fn runs(world: &World) -> BTreeMap<String, usize> {
    let mut runs = BTreeMap::new();
    for execution in world.calls.all() {
        *runs.entry(execution.task).or_default() += 1;
    }
    runs
}

/// Both are JSON, a line each.
fn last_line(output: &str) -> Value {
    serde_json::from_str(output.lines().last().expect("a line")).expect("it is JSON")
}

/// The notes on the control item.
async fn notes(world: &World) -> Vec<Item> {
    let item = world.item("burstd#control").await.unwrap_or_default();
    let runs = item.into_iter().filter(|(name, _)| name.starts_with("run "));
    runs.map(|(_, run)| run.as_m().expect("it is a map").clone()).collect()
}

/// Starts a command in this world.
fn start(program: &Program, arguments: &[&str]) -> Process {
    let mut command = command(arguments);
    command.arg("--config").arg(program.config());
    Process::start(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_yes_it_is_shown_and_nothing_is_changed() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    for number in 0..12 {
        failed(&world, &format!("f{number:02}"), 60).put().await;
    }
    failed(&world, "g", 60).with("queue", s("other#3")).put().await;
    world.task("running").with("status", s("RUNNING")).put().await;
    world.task("new").put().await;
    let before = world.items().await;
    for (arguments, lines) in [
        (
            &["retry", "--since", "-1h"][..],
            &[
                "… and 3 more",
                "FAILED       other                           1",
                "13 tasks would run again.",
            ][..],
        ),
        (&["retry", "--queue", "work"], &["12 tasks would run again."]),
        (&["retry", "--all", "--dry-run"], &["13 tasks would run again."]),
        (&["retry", "--error", "OSError"], &["No task matches."]),
        (
            &["cancel", "--queue", "work"],
            &[
                "2 tasks would be cancelled.",
                "1 of them goes on in Lambda; what is returned is discarded.",
            ],
        ),
        (&["cancel", "--queue", "work", "--yes", "--dry-run"], &["2 tasks would be cancelled."]),
    ] {
        let output = program.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        for line in lines {
            assert!(shown.contains(line), "{line}\n{shown}");
        }
        let is_dry = arguments.contains(&"--dry-run");
        if is_dry || shown.contains("No task matches") {
            assert!(output.status.success(), "{arguments:?}: {said}");
            assert_eq!(said.contains("Nothing was changed."), is_dry, "{arguments:?}: {said}");
        } else {
            assert_eq!(output.status.code(), Some(64), "a script must not take it for done");
            assert!(said.contains("--yes will") && said.contains("--dry-run only shows"), "{said}");
        }
    }
    let shown = success(&program.run(&["retry", "--queue", "work", "--dry-run", "--json"]));
    assert_eq!(shown.lines().count(), 11, "ten tasks, and what there is");
    let told = last_line(&shown);
    assert_eq!((&told["dry_run"], &told["tasks"]), (&true.into(), &12.into()), "{told}");
    assert_eq!(told["of"][0]["tasks"], 12, "{told}");
    assert_eq!(world.items().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_retry_means_runs_once_and_the_rest_stays_as_it_is() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    for number in 0..30 {
        failed(&world, &number.to_string(), 60).put().await;
    }
    failed(&world, "long ago", 7200).put().await;
    failed(&world, "another error", 60).with("error", error_of_type("OSError")).put().await;
    failed(&world, "elsewhere", 60).with("queue", s("works")).put().await;
    failed(&world, "done", 60).with("status", s("SUCCEEDED")).put().await;
    let filter = ["--queue", "work", "--since", "-1h", "--error", "ValueError"];
    let arguments = [&["retry", "--yes", "--json", "--rate", "1000/s"], &filter[..]].concat();
    let told = last_line(&success(&program.run(&arguments)));
    assert_eq!((&told["done"], &told["changed_meanwhile"]), (&30.into(), &0.into()), "{told}");
    assert_eq!(notes(&world).await, [], "it has ended");
    let item = world.item("7").await.expect("it is there");
    for gone in ["status", "attempt", "finished_at"] {
        assert!(!item.contains_key(gone), "{gone}");
    }
    let daemon = world.daemon(&config()).await;
    world.until_all(31, "SUCCEEDED").await;
    daemon.stop().await;
    assert_eq!(runs(&world).len(), 30);
    assert_eq!(world.calls.count(), 30);
    for id in ["long ago", "another error", "elsewhere"] {
        assert_eq!(world.status(id).await, "FAILED", "{id}");
    }
    let words = success(&program.run(&arguments));
    assert!(words.contains("\"done\":0"), "{words}");
}

/// The promise: killed in the middle and run again, while what was retried fails anew, it
/// retries each task once. A third is another retry.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_killed_and_run_again_retries_each_task_once() {
    const TASKS: usize = 40;
    let world = failing().await;
    let config = config_with("max_attempts = 1");
    let program = Program::in_world(&world, &config);
    for number in 0..TASKS {
        failed(&world, &number.to_string(), 60).put().await;
    }
    let daemon = world.daemon(&config).await;
    let arguments = ["retry", "--queue", "work", "--since", "-1h", "--yes", "--rate", "20/s"];
    let retry = start(&program, &arguments);
    eventually("some have run", async || match world.calls.count() {
        8.. => Ok(()),
        few => Err(few),
    })
    .await;
    retry.signal(Signal::KILL);
    drop(retry);
    let done = world.calls.count();
    assert!(done < TASKS, "it was killed in the middle");
    world.until_all(TASKS, "FAILED").await;
    let [note] = &notes(&world).await[..] else { panic!("one retry is unfinished") };
    assert_eq!(text(note, "command"), "retry");
    let filter = "--queue \"work\" --status \"FAILED\" --since \"-1h\"";
    assert_eq!(text(note, "filter"), filter);

    let shown = program.run(&["retry", "--queue", "work", "--since", "-1h", "--dry-run"]);
    let said = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(said.starts_with("This goes on with the retry that "), "{said}");
    let left = TASKS - runs(&world).len();
    let words = success(&shown);
    assert!(words.contains(&format!("{left} tasks would run again.")), "{left}: {words}");

    let again = ["retry", "--since", "-1h", "--yes", "--rate", "500/s", "--queue", "work"];
    let output = program.run(&again);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("and that was interrupted: tasks that ended since then"), "{said}");
    assert!(said.contains("--afresh begins anew"), "{said}");
    success(&output);
    eventually("all have run", async || match runs(&world).len() {
        TASKS => Ok(()),
        few => Err(few),
    })
    .await;
    world.until_all(TASKS, "FAILED").await;
    let runs_of_each: Vec<_> = runs(&world).into_values().collect();
    assert_eq!(runs_of_each, [1; TASKS], "each once, none twice");
    assert_eq!(notes(&world).await, [], "it has ended");

    success(&program.run(&again));
    eventually("all have run again", async || match world.calls.count() {
        count if count == 2 * TASKS => Ok(()),
        count => Err(count),
    })
    .await;
    daemon.stop().await;
    assert_eq!(runs(&world).into_values().collect::<Vec<_>>(), [2; TASKS]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_a_retry_between_two_tasks_and_says_how_it_goes_on() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    for number in 0..100 {
        failed(&world, &number.to_string(), 60).put().await;
    }
    let mut retry = start(&program, &["retry", "--queue", "work", "--yes", "--rate", "20/s"]);
    eventually("some are due", async || {
        let due = world.items().await.values().filter(|item| item.contains_key("due")).count();
        if due >= 3 { Ok(()) } else { Err(due) }
    })
    .await;
    retry.signal(Signal::INT);
    assert_eq!(retry.ended().await.code(), Some(69));
    let due = world.items().await.values().filter(|item| item.contains_key("due")).count();
    let lines = retry.finish();
    assert_eq!(lines, [format!("{due} tasks are due now.")]);
    assert_eq!(notes(&world).await.len(), 1);
    let output = program.run(&["retry", "--queue", "work", "--yes", "--rate", "1000/s"]);
    assert_eq!(success(&output), format!("{} tasks are due now.\n", 100 - due));
}

#[tokio::test(flavor = "multi_thread")]
async fn afresh_forgets_a_retry_that_was_interrupted() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    let run = Run {
        command: "retry".to_owned(),
        filter: "--queue \"work\" --status \"FAILED\"".to_owned(),
        began: Timestamp::from_millis(now().as_millis() - 3_600_000),
        by: "ada@host".to_owned(),
    };
    let control = world.table().await.control().await.expect("the table is there");
    assert_eq!(control.begin_run(&run).await.expect("it is noted"), run);
    let later = Run { began: now(), ..run.clone() };
    assert_eq!(control.begin_run(&later).await.expect("it answers"), run, "the first goes on");
    control.end_run(&later).await.expect("it answers");
    assert_eq!(control.unfinished(&later).await.expect("it answers"), Some(run.clone()));

    failed(&world, "since", 60).put().await;
    failed(&world, "before", 7200).put().await;
    let arguments = ["retry", "--queue", "work", "--yes"];
    assert_eq!(success(&program.run(&arguments)), "1 task is due now.\n");
    assert_eq!(world.status("since").await, "FAILED");
    control.begin_run(&run).await.expect("it is noted");
    let output = program.run(&[&arguments[..], &["--afresh"]].concat());
    assert_eq!(success(&output), "1 task is due now.\n");
    assert_eq!(world.status("since").await, "");
    assert_eq!(notes(&world).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_wait_are_due_at_once_and_their_attempts_count_on() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    world.task("due already").put().await;
    world.task("delayed").with("due", seconds_from_now(900)).put().await;
    let waiting = world.task("waiting").with("status", s("PENDING")).with("attempt", n(2));
    waiting.with("due", seconds_from_now(900)).put().await;
    let tried = world.task("tried since").with("status", s("PENDING"));
    let tried = tried.with("finished_at", seconds_from_now(5));
    tried.with("due", seconds_from_now(900)).put().await;
    world
        .task("running")
        .with("status", s("RUNNING"))
        .with("due", seconds_from_now(900))
        .put()
        .await;
    failed(&world, "failed", 60).put().await;
    let output = program.run(&["retry", "--status", "PENDING", "--yes"]);
    assert_eq!(success(&output), "2 tasks are due now.\n");
    let output = program.run(&["retry", "--status", "PENDING,FAILED", "--yes"]);
    assert_eq!(success(&output), "1 task is due now.\n", "those two do not wait any more");
    let item = world.item("waiting").await.expect("it is there");
    assert_eq!((text(&item, "status"), text(&item, "attempt")), ("PENDING".into(), "2".into()));
    let daemon = world.daemon(&config()).await;
    world.until_all(4, "SUCCEEDED").await;
    daemon.stop().await;
    assert_eq!(text(&world.item("waiting").await.expect("it is there"), "attempt"), "3");
    assert_eq!(world.status("running").await, "RUNNING");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_does_not_run_and_what_runs_goes_on_and_is_discarded() {
    let (world, gate) = World::gated(Duration::from_secs(60)).await;
    let program = Program::in_world(&world, &config());
    world.task("running").put().await;
    let mut daemon = world.daemon(&config()).await;
    world.until_running(1).await;
    for number in 0..150 {
        let item = world.task(&number.to_string());
        item.with("due", seconds_from_now(900)).put().await;
    }
    world.task("elsewhere").with("queue", s("other")).put().await;
    failed(&world, "failed", 60).put().await;
    let arguments = ["cancel", "--queue", "work", "--yes", "--rate", "1000/s"];
    assert_eq!(
        success(&program.run(&arguments)),
        "151 tasks are cancelled. Of these, 1 goes on in Lambda; what is returned is discarded.\n"
    );
    gate.add_permits(1);
    daemon.until("the result is refused", |counts| counts.refused == 1).await;
    daemon.stop().await;
    world.until_all(151, "CANCELLED").await;
    assert_eq!(world.calls.count(), 1);
    assert_eq!(
        (world.status("elsewhere").await, world.status("failed").await),
        (String::new(), "FAILED".into())
    );
    let control = world.item("burstd#control").await.expect("the daemon has left its notices");
    assert!(!control.keys().any(|name| name.starts_with("run ")), "it needs no note");
    let output = program.run(&["cancel", "--all", "--yes", "--json"]);
    let told = last_line(&success(&output));
    assert_eq!((&told["done"], &told["running_on"]), (&1.into(), &0.into()), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_no_longer_what_was_found_is_left_alone() {
    let world = World::echoing().await;
    for id in ["still", "again", "runs", "elsewhere", "gone"] {
        failed(&world, id, 60).put().await;
    }
    let desk = world.table().await.desk().await.expect("the table is there");
    let filter = Filter {
        queue: Some("work".to_owned()),
        statuses: vec![Wanted::Is(Status::Failed)],
        retryable: Some(Retryable { began: now(), now: now() }),
        ..Filter::default()
    };
    let (mut listing, _) = desk.list(filter.clone(), Vec::new(), None);
    let page = listing.next_page().await.expect("it answers").expect("there is one");
    assert_eq!(page.len(), 5);
    failed(&world, "again", -5).put().await;
    world.task("runs").with("status", s("RUNNING")).put().await;
    failed(&world, "elsewhere", 60).with("queue", s("other")).put().await;
    let delete = world.client.delete_item().table_name("tasks").key("id", s("gone"));
    delete.send().await.expect("it is deleted");
    for found in page {
        let changed = desk.retry_found(&found, &filter, now()).await.expect("it answers");
        let is_right = match found.id.to_string().as_str() {
            "still" => matches!(changed, Changed::Made(_)),
            "gone" => matches!(changed, Changed::Missing),
            _ => matches!(changed, Changed::Refused(_)),
        };
        assert!(is_right, "{}: {changed:?}", found.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_without_ids_a_filter_or_all_and_yes() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    failed(&world, "a", 60).put().await;
    world.task("b").put().await;
    let before = world.items().await;
    for (arguments, words) in [
        (&["retry"][..], "which tasks? Name them: `burstd retry ID …`"),
        (&["cancel", "--yes"], "which tasks? Name them: `burstd cancel ID …`"),
        (&["retry", "--all"], "--all means every task that burstd can retry. --yes does it"),
        (&["cancel", "--all"], "--all means every task that burstd can cancel. --yes does it"),
        (&["retry", "a", "--queue", "work", "--yes"], "cannot be used with"),
        (&["cancel", "b", "--all", "--yes"], "cannot be used with"),
        (&["cancel", "b", "--dry-run"], "cannot be used with"),
        (&["retry", "--all", "--queue", "work", "--yes"], "cannot be used with"),
        (&["retry", "--status", "RUNNING", "--yes"], "what runs cannot be retried"),
        (&["cancel", "--status", "FAILED", "--yes"], "what has ended cannot be cancelled"),
        (&["retry", "--status", "ENDED", "--yes"], "there are new, PENDING, RUNNING"),
        (&["retry", "--queue", "work", "--yes", "--rate", "fast"], "such as \"50/s\""),
        (&["retry", "--queue", "work", "--yes", "--rate", "0/s"], "such as \"50/s\""),
        (&["retry", "--since", "soon", "--yes"], "is not a time"),
    ] {
        let (code, said) = failure(&program.run(arguments));
        assert_eq!(code, 64, "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    for arguments in [
        // As a script has it whose variable is empty.
        &["retry", "--queue", "", "--yes"][..],
        &["cancel", "--error", "", "--yes"],
    ] {
        success(&program.run(arguments));
    }
    let mut after = world.items().await;
    after.remove("burstd#control");
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_item_is_no_task_and_no_task_has_its_name() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    failed(&world, "a", 60).put().await;
    world.task("burstd#control").put().await;
    for arguments in [&["retry", "--queue", "work", "--yes"][..], &["retry", "--queue", "work"]] {
        let (code, words) = failure(&program.run(arguments));
        assert_eq!(code, 78, "{words}");
        let taken = "a task of \"tasks\" has the name burstd#control, under which burstd keeps";
        assert!(words.contains(taken), "{words}");
    }
    assert_eq!(world.status("a").await, "FAILED");
    success(&program.run(&["cancel", "burstd#control"]));
    let delete = world.client.delete_item().table_name("tasks").key("id", s("burstd#control"));
    delete.send().await.expect("it is deleted");

    success(&program.run(&["retry", "--queue", "work", "--yes"]));
    let before = world.item("burstd#control").await.expect("it is noted there");
    assert_eq!(text(&before, "burstd"), "control");
    for command in ["retry", "cancel"] {
        let (code, words) = failure(&program.run(&[command, "burstd#control"]));
        assert_eq!(code, 65, "{words}");
        assert!(words.contains("there is no such task"), "{words}");
    }
    success(&program.run(&["cancel", "--all", "--yes"]));
    success(&program.run(&["retry", "--all", "--yes"]));
    assert_eq!(world.item("burstd#control").await, Some(before));
    let listed = success(&program.run(&["list"]));
    assert!(!listed.contains("burstd#control"), "{listed}");
    let put = ["put", "--queue", "work", "--id", "burstd#control"];
    let (code, words) = failure(&program.run(&put));
    assert_eq!(code, 65, "{words}");
    assert!(words.contains("is the name of burstd's own notes"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_begin_the_same_retry_at_once_the_second_goes_on_with_the_first_one_s() {
    let world = World::echoing().await;
    let control = world.table().await.control().await.expect("the table is there");
    let run = |began| Run {
        command: "retry".to_owned(),
        filter: "--status FAILED".to_owned(),
        began: Timestamp::from_millis(began),
        by: "ann@web1".to_owned(),
    };
    let (first, second) = (run(1_795_404_000_000), run(1_795_404_001_000));
    let (one, other) = tokio::join!(control.begin_run(&first), control.begin_run(&second));
    assert_eq!(one.expect("it is noted"), other.expect("it is noted"));
}

//! The program is killed at each point of a task's life, and started again: nothing is lost, and
//! nothing is counted that did not happen.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use burstd::local::lambda::{Answer, Call};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use crate::support::eventually;
use crate::support::program::{Process, Program};
use crate::support::proxy::{Fate, Proxy};
use crate::support::world::{FUNCTION_TIMEOUT, World, config, outcomes, text};

/// What a task's item says after the kill, and at its end.
struct Expected {
    after_the_kill: &'static str,
    attempts: &'static str,
    executions: usize,
    outcomes: &'static [&'static str],
}

/// The claim was lost with its holder, and another one followed.
const fn abandoned(executions: usize) -> Expected {
    Expected {
        after_the_kill: "RUNNING",
        attempts: "2",
        executions,
        outcomes: &["1 abandoned", "2 succeeded"],
    }
}

/// Nothing but the task's own attempt.
const fn unharmed(after_the_kill: &'static str) -> Expected {
    Expected { after_the_kill, attempts: "1", executions: 1, outcomes: &["1 succeeded"] }
}

async fn was_killed(mut daemon: Process) {
    assert_eq!(daemon.ended().await.signal(), Some(9), "{:?}", daemon.lines());
}

/// Starts the program again, and holds the task to what is expected.
async fn ends_well(world: &World, program: &Program, point: &str, expected: Expected) {
    assert_eq!(world.status("t").await, expected.after_the_kill, "after {point}");
    let daemon = program.start();
    world.until("t", "SUCCEEDED").await;
    // Another one: what is to be done is done by then.
    world.task("another").put().await;
    world.until("another", "SUCCEEDED").await;
    let item = world.item("t").await.expect("it is there");
    assert_eq!(text(&item, "attempt"), expected.attempts, "{point}");
    assert_eq!(outcomes(&item), expected.outcomes, "{point}");
    assert_eq!(world.calls.of("t").len(), expected.executions, "{point}");
    let rescues = daemon.lines().iter().filter(|line| line.contains("task.rescued")).count();
    assert_eq!(rescues, usize::from(expected.attempts == "2"), "{point}");
    world.calls.assert_no_overlap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_a_restart_ends_the_task() {
    for (point, expected) in [
        ("claim.send", unharmed("")),
        ("claim.reply", abandoned(1)),
        ("invoke.send", abandoned(1)),
        ("invoke.reply", abandoned(2)),
        ("settle.send", abandoned(2)),
        ("settle.reply", unharmed("SUCCEEDED")),
    ] {
        let world = World::echoing().await;
        let program = Program::in_world(&world, &config());
        world.task("t").put().await;
        was_killed(program.start_and_die_at(point, 1)).await;
        ends_well(&world, &program, point, expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_a_write_and_its_reply_a_restart_ends_the_task() {
    for (write, status, expected) in
        [("claim", "RUNNING", abandoned(1)), ("settlement", "SUCCEEDED", unharmed("SUCCEEDED"))]
    {
        let world = World::echoing().await;
        let proxy = Proxy::start(&world.dynamodb.url(), move |operation, body| {
            let is_it = operation == "UpdateItem" && body.contains(status);
            if is_it { Fate::HoldReply } else { Fate::Pass }
        })
        .await;
        let program = Program::between(&proxy.url, &world.lambda.url(), &config());
        world.task("t").put().await;
        let daemon = program.start();
        world.until("t", status).await;
        daemon.signal(Signal::KILL);
        was_killed(daemon).await;
        proxy.plan(|_, _| Fate::Pass);
        ends_well(&world, &program, write, expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_the_function_runs_a_restart_waits_for_its_end() {
    let world = World::with(async |call: Call| {
        sleep(Duration::from_millis(1200)).await;
        Answer::Returned(call.payload)
    })
    .await;
    let program = Program::in_world(&world, &config());
    world.task("t").put().await;
    let daemon = program.start();
    until_begun(&world, 1).await;
    daemon.signal(Signal::KILL);
    was_killed(daemon).await;
    ends_well(&world, &program, "the function's run", abandoned(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_around_an_extension_of_the_lease_a_restart_ends_the_task() {
    for point in ["extend.send", "extend.reply"] {
        let is_busy = Arc::new(AtomicBool::new(true));
        let busy = is_busy.clone();
        let world = World::with(move |call: Call| {
            let busy = busy.load(Ordering::Relaxed);
            async move {
                match busy {
                    true => Answer::Refused {
                        status: 429,
                        code: "TooManyRequestsException",
                        body: json!({ "Reason": "ConcurrentInvocationLimitExceeded" }),
                    },
                    false => Answer::Returned(call.payload),
                }
            }
        })
        .await;
        let program = Program::in_world(&world, &config());
        world.task("t").put().await;
        was_killed(program.start_and_die_at(point, 1)).await;
        is_busy.store(false, Ordering::Relaxed);
        let refused = world.calls.of("t").len();
        ends_well(&world, &program, point, abandoned(refused + 1)).await;
    }
}

/// Twenty tasks that a worker ran when it was stopped, and their heir.
struct Inheritance {
    world: World,
    sleeper: Process,
    heir: Process,
    fell_asleep: Instant,
    _program: Program,
}

impl Inheritance {
    const TASKS: usize = 20;

    async fn new() -> Self {
        let world = World::with(async |call: Call| {
            let context = call.context.expect("it is told");
            sleep(Duration::from_millis(if context.attempt == 1 { 600 } else { 1500 })).await;
            Answer::Returned(format!("\"{}\"", context.worker).into_bytes())
        })
        .await;
        let program = Program::in_world(&world, &config());
        let sleeper = program.start();
        sleeper.line_with("daemon.ready").await;
        for number in 0..Self::TASKS {
            world.task(&number.to_string()).put().await;
        }
        until_begun(&world, Self::TASKS).await;
        sleeper.signal(Signal::STOP);
        let fell_asleep = Instant::now();
        let heir = program.start();
        Inheritance { world, sleeper, heir, fell_asleep, _program: program }
    }

    /// The sleeper goes on; each of its writes is refused.
    async fn wakes_in_vain(&self) {
        self.sleeper.signal(Signal::CONT);
        eventually("each of its writes is refused", async || {
            let lines = self.sleeper.lines();
            match lines.iter().filter(|line| line.contains("task.write_refused")).count() {
                Self::TASKS => Ok(()),
                refused => Err(refused),
            }
        })
        .await;
    }
}

async fn until_begun(world: &World, count: usize) {
    eventually(&format!("{count} have begun"), async || match world.calls.count() {
        begun if begun == count => Ok(()),
        begun => Err(begun),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_for_twice_its_lease_a_worker_changes_nothing_when_it_goes_on() {
    let all = Inheritance::new().await;
    all.world.until_all(Inheritance::TASKS, "SUCCEEDED").await;
    let read = async || all.world.table().await.read_all().await.expect("the table is read");
    let before = read().await;
    sleep_until(all.fell_asleep + 2 * (FUNCTION_TIMEOUT + Duration::from_secs(1))).await;
    all.wakes_in_vain().await;
    assert_eq!(before, read().await, "a stale worker changes nothing");
    all.world.calls.assert_no_overlap();
    assert_eq!(all.world.calls.count(), 2 * Inheritance::TASKS, "once for each holder");
    let rescued = all.heir.lines().iter().filter(|line| line.contains("task.rescued")).count();
    assert_eq!(rescued, Inheritance::TASKS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_goes_on_while_its_heir_works_does_not_write_for_it() {
    let all = Inheritance::new().await;
    until_begun(&all.world, 2 * Inheritance::TASKS).await;
    all.wakes_in_vain().await;
    all.world.until_all(Inheritance::TASKS, "SUCCEEDED").await;
    for item in all.world.table().await.read_all().await.expect("the table is read") {
        let of_item = all.world.item(&item.id).await.expect("it is there");
        let worker = format!("\"{}\"", text(&of_item, "worker"));
        assert_eq!(item.result, Some(worker), "the result is the last holder's");
        assert_eq!(outcomes(&of_item), ["1 abandoned", "2 succeeded"]);
    }
    all.world.calls.assert_no_overlap();
}

//! Clocks that are wrong: the time of day is AWS's, and who cannot tell it claims nothing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use burstd::clock::Clock;
use burstd::dispatcher::Dispatcher;
use burstd::invoker::Reason;
use burstd::local::lambda::{Answer, Call};
use burstd::task::TaskId;
use burstd::worker::{Report, Worker};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::simulation::lives::{plan, queue, worker};
use crate::simulation::ports::Port;
use crate::simulation::world::{BEGINNING, Sabotage, Shared, World as Simulated, lock};
use crate::support::eventually;
use crate::support::program::{Process, Program, command};
use crate::support::proxy::{Fate, Proxy};
use crate::support::world::{World, config, n, text};

/// Seconds between a machine's clock and AWS's.
const WRONG: i64 = 600;

/// A margin that a clock whose error is known to a second or so is good enough for.
fn patient() -> String {
    config().replace("lease_margin = \"1s\"", "lease_margin = \"12s\"")
}

fn seconds(text: &str) -> f64 {
    text.parse().expect("it is a number")
}

fn now() -> f64 {
    Clock::system().now().as_millis() as f64 / 1e3
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_ten_minutes_off_works_by_the_table_s_clock_and_says_so() {
    let world = World::echoing().await;
    for ahead in [-WRONG, WRONG] {
        let proxy = Proxy::start(&world.dynamodb.url(), |_, _| Fate::Pass).await;
        proxy.set_clock(ahead);
        let program = Program::between(&proxy.url, &world.lambda.url(), &patient());
        let daemon = program.start();
        let line: Value =
            serde_json::from_str(&daemon.line_with("aws.clock_skew").await).expect("it is JSON");
        let said = line["skew_s"].as_f64().expect("it is a number");
        assert!((said + ahead as f64).abs() < 2.0, "{ahead}: {line}");

        let id = format!("due at once by a clock {ahead} s ahead");
        world.task(&id).with("due", n(now() + ahead as f64)).put().await;
        let item = world.until(&id, "SUCCEEDED").await;
        for at in ["started_at", "finished_at"] {
            let error = seconds(&text(&item, at)) - now() - ahead as f64;
            assert!(error.abs() < 5.0, "{at} of {id}: {error}");
        }
        assert_eq!(daemon.lines().iter().filter(|it| it.contains("aws.clock_skew")).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_not_claimed_early_by_a_machine_whose_clock_is_ahead() {
    let world = World::echoing().await;
    let proxy = Proxy::start(&world.dynamodb.url(), |_, _| Fate::Pass).await;
    proxy.set_clock(-WRONG);
    let program = Program::between(&proxy.url, &world.lambda.url(), &patient());
    let daemon = program.start();
    daemon.line_with("daemon.ready").await;
    // By the machine's own clock this was due ten minutes ago.
    let due = now() - WRONG as f64 + 4.0;
    world.task("in four seconds").with("due", n(due)).put().await;
    let item = world.until("in four seconds", "SUCCEEDED").await;
    let early = due - seconds(&text(&item, "started_at"));
    assert!(early < 1.5, "{early} s early, by the table's own clock");
    let began = world.calls.of("in four seconds")[0].began;
    let waited = now() - began.elapsed().as_secs_f64() - (due + WRONG as f64);
    assert!(waited > -1.5, "{waited} s late, by any clock");
}

/// The library that lies to a process about the time, where it is installed.
fn faketime() -> Option<PathBuf> {
    let named = std::env::var_os("BURSTD_FAKETIME").map(PathBuf::from);
    let usual = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|machine| PathBuf::from(format!("/usr/lib/{machine}/faketime/libfaketimeMT.so.1")));
    named.into_iter().chain(usual).find(|path| path.exists())
}

fn start_at(program: &Program, library: &PathBuf, time: &str) -> Process {
    let mut run = command(&["run", "--config"]);
    run.arg(program.config()).env("LD_PRELOAD", library).env("FAKETIME", time);
    run.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Process::start(run)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_daemons_whose_clocks_are_wrong_and_drift_share_a_table() {
    let Some(library) = faketime() else {
        println!("skipped: libfaketime is not installed, and BURSTD_FAKETIME does not name it");
        return;
    };
    let world = World::with(async |call: Call| {
        sleep(Duration::from_millis(1500)).await;
        Answer::Returned(call.payload)
    })
    .await;
    for number in 0..120 {
        world.task(&number.to_string()).put().await;
    }
    let few = patient().replace("max_in_flight = 1000", "max_in_flight = 15");
    let program = Program::in_world(&world, &few);
    let mut daemons: Vec<_> = ["-600s", "+600s", "+0s x1.05"]
        .iter()
        .map(|time| start_at(&program, &library, time))
        .collect();
    for daemon in &daemons[..2] {
        daemon.line_with("aws.clock_skew").await;
    }
    eventually("some have run", async || match world.calls.count() {
        runs if runs >= 45 => Ok(()),
        runs => Err(runs),
    })
    .await;
    // Its tasks are free when their leases end by the others' clocks, and not before.
    daemons[0].signal(Signal::KILL);
    daemons[0].ended().await;
    world.until_all(120, "SUCCEEDED").await;
    world.calls.assert_no_overlap();
    for run in world.calls.all().iter().filter(|run| run.attempt > 1) {
        let first = world.calls.of(&run.task)[0].began;
        let waited = run.began.duration_since(first);
        assert!(waited > Duration::from_secs(10), "taken over after {waited:?} of a 14 s lease");
    }
}

/// A simulated world, and a worker in it whose clock jumps when it is told to.
struct Jumper {
    world: Shared,
    clock: Clock,
    ahead: Arc<AtomicU64>,
    worker: Arc<Worker<Port, Port>>,
}

impl Jumper {
    /// The table answers, and says no word about the time.
    fn new() -> Self {
        let simulated = Simulated::new(1, Sabotage::TrustsTheMachine, Duration::ZERO);
        let (world, ahead) = (Arc::new(Mutex::new(simulated)), Arc::<AtomicU64>::default());
        let (began, wall) = (Instant::now(), ahead.clone());
        let clock = Clock::reading(move || {
            BEGINNING + began.elapsed() + Duration::from_secs(wall.load(Ordering::Relaxed))
        });
        clock.hear(BEGINNING, began);
        let worker = Arc::new(worker(&world, clock.clone()));
        lock(&world).insert("t", BEGINNING);
        Jumper { world, clock, ahead, worker }
    }

    /// The machine's clock jumps; whether it or the time that passed is wrong nobody can say.
    fn jump(&self) {
        self.ahead.store(3600, Ordering::Relaxed);
    }

    /// AWS says that it is right.
    fn is_told(&self) {
        let now = lock(&self.world).now() + Duration::from_secs(3600);
        self.clock.hear(now, Instant::now());
    }

    fn runs(&self) -> usize {
        lock(&self.world).executions.len()
    }
}

#[tokio::test(start_paused = true)]
async fn who_cannot_tell_the_time_gives_a_claimed_task_back_before_its_start() {
    let jumper = Jumper::new();
    jumper.jump();
    let id = TaskId::named("t");
    let rng = || StdRng::seed_from_u64(1);
    let report = jumper.worker.run(&queue(), id.clone(), rng()).await;
    let Report::Attempted(attempted) = report else { panic!("{report:?}") };
    assert_eq!(attempted.not_run, Some(Reason::Withdrawn));
    assert_eq!((jumper.runs(), lock(&jumper.world).items["t"].attempt), (0, 0));
    jumper.is_told();
    let report = jumper.worker.run(&queue(), id, StdRng::seed_from_u64(2)).await;
    assert!(matches!(report, Report::Attempted(_)), "{report:?}");
    assert_eq!(jumper.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_claimed_until_aws_has_told_the_time_to_a_machine_whose_clock_jumped() {
    let jumper = Jumper::new();
    jumper.jump();
    let rng = StdRng::seed_from_u64(1);
    let dispatcher = Dispatcher::new(jumper.worker.clone(), plan(), rng);
    let claims = || {
        let world = lock(&jumper.world);
        world.trace.iter().filter(|line| line.contains("claimed")).count()
    };
    let proof = async {
        sleep(Duration::from_secs(60)).await;
        assert_eq!(claims(), 0, "for a minute nobody said what time it is");
        jumper.is_told();
        sleep(Duration::from_secs(10)).await;
        assert_eq!((claims(), jumper.runs()), (1, 1), "it goes on as soon as it is told");
        jumper.worker.shutdown.drain("the test is over");
    };
    tokio::join!(dispatcher.run(), proof);
}

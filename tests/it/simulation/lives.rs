//! The lives of workers, of the people beside them, and of the world from its beginning to the
//! last task's end; and what is checked then.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use burstd::backlog::Backlog;
use burstd::clock::Clock;
use burstd::dispatcher::{Dispatcher, Limits, Pace, Plan, Plans};
use burstd::governor::{CallerRate, Caps, Governor};
use burstd::memory::{LEAST_BYTES, Memory};
use burstd::queue::{Function, Queue};
use burstd::retry::{Backoff, OnUnknown, Policy};
use burstd::shutdown::Shutdown;
use burstd::task::Status;
use burstd::worker::Worker;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::ports::{Port, TIMEOUT};
use super::world::{Item, Sabotage, Shared, Wall, World, lock};

const MAX_ATTEMPTS: u32 = 4;
const MARGIN: Duration = Duration::from_secs(12);
/// Room for so many claims at once.
const MEMORY: usize = 3 * LEAST_BYTES;
const DRAIN: Duration = Duration::from_secs(6);

/// How long there are faults.
const TROUBLE: Duration = Duration::from_secs(90);

/// When faults have stopped, every task has ended after this.
const LONG_AFTER: Duration = Duration::from_secs(300);

/// How a world ended.
pub struct Ended {
    pub violations: Vec<String>,
    pub trace: Vec<String>,
}

impl Ended {
    pub fn panicked() -> Self {
        Ended { violations: vec!["it panicked".to_owned()], trace: Vec::new() }
    }
}

/// A world from its beginning to its end.
pub async fn live(seed: u64, sabotage: Sabotage) -> Ended {
    let mut rng = StdRng::seed_from_u64(seed);
    let world = Arc::new(Mutex::new(World::new(rng.random(), sabotage, TROUBLE)));
    let workers = rng.random_range(1..=3);
    let mut lives = JoinSet::new();
    for worker in 0..workers {
        let began = lock(&world).began;
        lock(&world).walls.push(Wall::new(began, &mut rng));
        let rng = StdRng::seed_from_u64(rng.random());
        lives.spawn(work(world.clone(), worker, rng));
    }
    lives.spawn(produce(world.clone(), StdRng::seed_from_u64(rng.random())));
    lives.spawn(meddle(world.clone(), StdRng::seed_from_u64(rng.random())));
    lives.spawn(trouble(world.clone(), workers, StdRng::seed_from_u64(rng.random())));
    sleep(TROUBLE).await;
    let calm = Instant::now();
    while !all_ended(&world) && calm.elapsed() < LONG_AFTER {
        sleep(Duration::from_secs(1)).await;
    }
    let panics = std::iter::from_fn(|| lives.try_join_next()).any(|life| life.is_err());
    lives.shutdown().await;
    let mut world = lock(&world);
    if panics {
        world.violated("a life panicked");
    }
    check(&mut world);
    // What is still on its way is of no interest.
    let network = std::mem::take(&mut world.network);
    drop(network);
    Ended {
        violations: std::mem::take(&mut world.violations),
        trace: std::mem::take(&mut world.trace),
    }
}

fn all_ended(world: &Shared) -> bool {
    let world = lock(world);
    world.items.values().all(|item| !item.exists || item.status.is_some_and(Status::is_final))
}

/// Every promise that shows at the end.
fn check(world: &mut World) {
    let items = world.items.clone();
    for (id, item) in items.iter().filter(|(_, item)| item.exists) {
        if !item.status.is_some_and(Status::is_final) {
            let Item { due, status, attempt, lease_until, .. } = item;
            world.violated(format_args!(
                "{id} never ended: {status:?}, due {due:?}, attempt {attempt}, {lease_until:?}"
            ));
        }
        if item.attempt > MAX_ATTEMPTS && !item.touched && world.sabotage == Sabotage::None {
            // The claim that finds its attempts spent counts itself, and is taken back.
            world.violated(format_args!("{id} was tried {} times", item.attempt));
        }
        if item.touched {
            continue;
        }
        if item.executions > item.attempt {
            let (runs, attempts) = (item.executions, item.attempt);
            world.violated(format_args!("{id} ran {runs} times in {attempts} attempts"));
        }
        if item.attempt > item.executions + item.excused {
            let (runs, attempts) = (item.executions, item.attempt);
            world.violated(format_args!(
                "{id} spent an attempt without an execution: {attempts} attempts, {runs} runs"
            ));
        }
    }
}

/// The queue of every simulation.
pub fn queue() -> Queue {
    let governor = Arc::new(Governor::new("f", Caps::default(), Arc::<CallerRate>::default()));
    let (base, max) = (Duration::from_millis(200), Duration::from_secs(5));
    Queue {
        name: "work".to_owned(),
        function: Arc::new(Function::new("f", TIMEOUT, governor)),
        policy: Policy {
            max_attempts: MAX_ATTEMPTS,
            backoff: Backoff { base, max },
            on_unknown: OnUnknown::Wait,
            retention: None,
        },
        lease_margin: MARGIN,
        max_in_flight: 8,
        shards: Queue::shards("work", 1),
    }
}

/// What it has to do: the one queue, nine tasks at once.
pub fn plan() -> Plan {
    let drain = Duration::from_secs(30);
    let pace = Pace { min: Duration::from_millis(200), max: Duration::from_secs(2) };
    let limits = Limits { max_in_flight: 9, max_bytes_in_flight: 0, pace, drain };
    Plan { queues: vec![queue()], limits }
}

/// A worker of the world that lives as long as the test wants, and whose memory is not limited.
pub fn worker(world: &Shared, clock: Clock) -> Worker<Port, Port> {
    let port = Port { world: world.clone(), worker: 0, max_in_flight: 9, clock: clock.clone() };
    Worker::new(
        "w".to_owned(),
        port.clone(),
        port,
        clock,
        Backlog::default(),
        Memory::new(0),
        Shutdown::new(),
    )
}

/// A machine on which one worker follows another.
async fn work(world: Shared, worker: usize, mut rng: StdRng) {
    let max_in_flight = rng.random_range(1..=8);
    let machine = worker;
    for start in 1.. {
        let name = format!("w{machine}.{start}");
        lock(&world).names.insert(machine, name.clone());
        let wall = lock(&world).walls[machine].clone();
        let clock = Clock::reading(move || wall.read());
        let shutdown = Shutdown::new();
        let port =
            Port { world: world.clone(), worker: machine, max_in_flight, clock: clock.clone() };
        let worker = Arc::new(Worker::new(
            name.clone(),
            port.clone(),
            port,
            clock,
            Backlog::default(),
            Memory::new(MEMORY),
            shutdown.clone(),
        ));
        let pace = Pace { min: Duration::from_millis(200), max: Duration::from_secs(2) };
        let limits = Limits { max_in_flight, max_bytes_in_flight: MEMORY, pace, drain: DRAIN };
        let seed = StdRng::seed_from_u64(rng.random());
        let plan = Plan { queues: vec![queue()], limits };
        let hears = worker.clone();
        let dispatcher = Dispatcher::new(worker, plan, seed);
        let calm = lock(&world).calm_from;
        let reloads = reload(dispatcher.plans(), limits, calm, StdRng::seed_from_u64(rng.random()));
        lock(&world).held.remove(&machine);
        let rng_of_holds = StdRng::seed_from_u64(rng.random());
        let holds = hold(hears, world.clone(), machine, calm, rng_of_holds);
        let run = async {
            tokio::select! {
                biased;
                counts = dispatcher.run() => counts,
                () = reloads => unreachable!("it never ends"),
                () = holds => unreachable!("it never ends"),
            }
        };
        lock(&world).note(format_args!("{name} starts"));
        let lasts = Duration::from_millis(rng.random_range(100..40_000));
        let calm = lock(&world).calm_from;
        if Instant::now() + lasts >= calm {
            run.await;
        } else if rng.random_bool(0.7) {
            drop(timeout(lasts, run).await);
            lock(&world).trouble(machine);
            lock(&world).note(format_args!("{name} crashes"));
        } else {
            stop_after(lasts, run, &shutdown, &world, &name).await;
            lock(&world).trouble(machine);
        }
        sleep(Duration::from_millis(rng.random_range(0..5000))).await;
    }
}

/// Somebody who changes the configuration now and then: no queue at all for a while, then the
/// queue again, at another pace. When all is calm the queue is served.
async fn reload(plans: Plans, limits: Limits, calm: Instant, mut rng: StdRng) {
    while Instant::now() < calm {
        sleep(Duration::from_millis(rng.random_range(500..20_000))).await;
        plans.send(Plan { queues: Vec::new(), limits });
        sleep(Duration::from_millis(rng.random_range(0..5000))).await;
        let min = Duration::from_millis(rng.random_range(50..500));
        let limits = Limits { pace: Pace { min, ..limits.pace }, ..limits };
        plans.send(Plan { queues: vec![queue()], limits });
    }
    pending::<()>().await;
}

/// Somebody who pauses the queue now and then, and lets it go on.
async fn hold(
    worker: Arc<Worker<Port, Port>>,
    world: Shared,
    machine: usize,
    calm: Instant,
    mut rng: StdRng,
) {
    let is_heard = lock(&world).sabotage != Sabotage::HearsNoPause;
    while Instant::now() < calm {
        sleep(Duration::from_millis(rng.random_range(500..20_000))).await;
        if is_heard {
            worker.held.set(BTreeSet::from([queue().name]));
        }
        lock(&world).held.insert(machine);
        sleep(Duration::from_millis(rng.random_range(0..5000))).await;
        lock(&world).held.remove(&machine);
        worker.held.set(BTreeSet::new());
    }
    pending::<()>().await;
}

/// Stops a worker, which must not take longer than it may.
async fn stop_after<T>(
    lasts: Duration,
    run: impl Future<Output = T>,
    shutdown: &Shutdown,
    world: &Shared,
    name: &str,
) {
    let mut run = std::pin::pin!(run);
    if timeout(lasts, run.as_mut()).await.is_ok() {
        lock(world).violated(format_args!("{name} ended by itself"));
    }
    shutdown.drain("a test");
    lock(world).note(format_args!("{name} is to stop"));
    if timeout(DRAIN + Duration::from_millis(100), run).await.is_err() {
        lock(world).violated(format_args!("{name} did not stop in time"));
    }
}

/// Inserts tasks, some for later.
async fn produce(world: Shared, mut rng: StdRng) {
    for number in 0..rng.random_range(5..25) {
        {
            let mut world = lock(&world);
            let now = world.now();
            let later = if rng.random_bool(0.2) { rng.random_range(0..20_000) } else { 0 };
            world.insert(&format!("t{number:02}"), now + Duration::from_millis(later));
        }
        sleep(Duration::from_millis(rng.random_range(0..4000))).await;
    }
}

/// People cancel, delete and begin anew what they like.
async fn meddle(world: Shared, mut rng: StdRng) {
    let mut busy = rng.random_bool(0.5);
    while busy {
        sleep(Duration::from_millis(rng.random_range(0..30_000))).await;
        let mut world = lock(&world);
        busy = !world.is_calm();
        let ids: Vec<_> =
            world.items.iter().filter(|(_, item)| item.exists).map(|(id, _)| id.clone()).collect();
        if ids.is_empty() || !busy {
            continue;
        }
        let id = &ids[rng.random_range(0..ids.len())];
        match rng.random_range(0..3) {
            0 => cancel(&mut world, id),
            1 => delete(&mut world, id),
            _ => begin_anew(&mut world, id),
        }
    }
}

fn cancel(world: &mut World, id: &str) {
    world.note(format_args!("{id} cancelled by hand"));
    world.set_due(id, None);
    let item = world.items.get_mut(id).expect("it is there");
    (item.status, item.touched) = (Some(Status::Cancelled), true);
}

fn delete(world: &mut World, id: &str) {
    world.note(format_args!("{id} deleted by hand"));
    world.set_due(id, None);
    let item = world.items.get_mut(id).expect("it is there");
    (item.exists, item.touched) = (false, true);
}

/// As the README says: only a task that has ended.
fn begin_anew(world: &mut World, id: &str) {
    let now = world.now();
    let item = world.items.get_mut(id).expect("it is there");
    if !item.status.is_some_and(Status::is_final) {
        return;
    }
    (item.status, item.attempt, item.ends, item.touched) = (None, 0, 0, true);
    world.set_due(id, Some(now));
    world.note(format_args!("{id} begun anew by hand"));
}

/// Workers stand still, and the table is away, for up to twice a lease.
async fn trouble(world: Shared, workers: usize, mut rng: StdRng) {
    loop {
        sleep(Duration::from_millis(rng.random_range(1000..30_000))).await;
        let mut world = lock(&world);
        if world.is_calm() {
            return;
        }
        let (worker, lasts) = (rng.random_range(0..workers), rng.random_range(0..30_000));
        let until = Instant::now() + Duration::from_millis(lasts);
        world.trouble(worker);
        if rng.random_bool(0.25) {
            let ahead = world.walls[worker].set(&mut rng);
            world.note(format_args!("w{worker}'s clock is set {ahead} ms ahead"));
        } else if rng.random_bool(0.5) {
            world.note(format_args!("w{worker} stands still for {lasts} ms"));
            world.paused.insert(worker, until);
        } else {
            world.note(format_args!("the table is away from w{worker} for {lasts} ms"));
            world.away.insert(worker, until);
        }
    }
}

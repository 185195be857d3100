//! The table and the functions of a simulated world, and what is noted of them. Every change of
//! an item is checked as it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use burstd::claim::{Rev, Standing, Terms};
use burstd::retry::{Settlement, Verdict};
use burstd::store::{Claimed, Write};
use burstd::task::{Attempt, Payload, Status, Task, TaskId, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The time of day when a simulation begins.
pub const BEGINNING: Timestamp = Timestamp::from_millis(1_763_800_000_000);

/// No clock may claim a task earlier before its time.
const TOO_EARLY: Duration = Duration::from_secs(3);

/// A machine's clock: wrong, drifting, and set now and then.
#[derive(Clone)]
pub struct Wall {
    began: Instant,
    /// Parts in a hundred that it gains.
    drift: i64,
    /// Milliseconds that it is ahead.
    ahead: Arc<AtomicI64>,
}

impl Wall {
    /// A clock that begins right or wrong.
    pub fn new(began: Instant, rng: &mut StdRng) -> Self {
        let drift = if rng.random_bool(0.2) { rng.random_range(-5..=5) } else { 0 };
        let wall = Wall { began, drift, ahead: Arc::default() };
        if rng.random_bool(0.3) {
            wall.set(rng);
        }
        wall
    }

    /// Sets it: right, or up to ten minutes wrong.
    pub fn set(&self, rng: &mut StdRng) -> i64 {
        let ahead = match rng.random_range(0..3) {
            0 => 0,
            1 => rng.random_range(-3000..3000),
            _ => rng.random_range(-600_000..600_000),
        };
        self.ahead.store(ahead, Ordering::Relaxed);
        ahead
    }

    pub fn read(&self) -> Timestamp {
        let run = i64::try_from(self.began.elapsed().as_millis()).expect("it is short");
        let ahead = run + run * self.drift / 100 + self.ahead.load(Ordering::Relaxed);
        Timestamp::from_millis(BEGINNING.as_millis().saturating_add_signed(ahead))
    }
}

/// A protection that is switched off, to see whether its absence is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    None,
    /// A write needs no token.
    NoFence,
    /// A claim does not look at another's lease.
    NoLease,
    /// A write that was applied, and whose reply was lost, is taken for somebody else's.
    NoRecognition,
    /// Functions run longer than they say.
    LongRuns,
    /// What is deleted is created anew by a write.
    Recreate,
    /// A release does not give its attempt back.
    CountsReleases,
    /// Finished tasks stay in the index, and can be claimed.
    ForgetsTheEnd,
    /// Nobody listens to what time the table says it is.
    TrustsTheMachine,
    /// Nobody is told that the queue is paused.
    HearsNoPause,
}

#[derive(Clone, Debug, Default)]
pub struct Item {
    pub exists: bool,
    pub due: Option<Timestamp>,
    pub status: Option<Status>,
    pub attempt: u32,
    pub lease_until: Option<Timestamp>,
    pub worker: Option<String>,
    pub rev: Option<String>,
    pub history: Vec<Attempt>,
    /// What the index will show, and from when.
    shown: Vec<(Instant, Option<Timestamp>)>,
    /// Final statuses that burstd wrote, since a person last began it anew.
    pub ends: u32,
    /// Attempts that may be spent without an execution: a worker died, or nobody knew.
    pub excused: u32,
    /// Executions since a person last began it anew.
    pub executions: u32,
    /// A person has changed it: counts say little.
    pub touched: bool,
}

/// A run of a function.
#[derive(Clone, Debug)]
pub struct Execution {
    pub task: String,
    pub ends: Instant,
}

pub struct World {
    pub items: BTreeMap<String, Item>,
    pub executions: Vec<Execution>,
    /// Calls under way, for each worker.
    pub calls: BTreeMap<usize, usize>,
    /// Workers that stand still until then.
    pub paused: BTreeMap<usize, Instant>,
    /// Workers that have heard that the queue is paused.
    pub held: BTreeSet<usize>,
    /// The tokens with which a claim was tried.
    pub tried: BTreeSet<String>,
    /// Workers for which the table is away until then.
    pub away: BTreeMap<usize, Instant>,
    /// The machines' clocks.
    pub walls: Vec<Wall>,
    /// Who works on each machine, by the name of this start.
    pub names: BTreeMap<usize, String>,
    /// Starts that have died, stood still, or could not reach the table for a while.
    pub troubled: BTreeSet<String>,
    pub violations: Vec<String>,
    pub trace: Vec<String>,
    pub rng: StdRng,
    pub sabotage: Sabotage,
    pub calm_from: Instant,
    pub began: Instant,
    /// Requests on their way, which nobody's death stops.
    pub network: JoinSet<()>,
}

pub type Shared = Arc<Mutex<World>>;

pub fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().expect("nothing panics while holding this lock")
}

impl World {
    /// An empty world that has faults for a while.
    pub fn new(seed: u64, sabotage: Sabotage, trouble: Duration) -> Self {
        let began = Instant::now();
        World {
            items: BTreeMap::new(),
            executions: Vec::new(),
            calls: BTreeMap::new(),
            paused: BTreeMap::new(),
            held: BTreeSet::new(),
            tried: BTreeSet::new(),
            away: BTreeMap::new(),
            walls: Vec::new(),
            names: BTreeMap::new(),
            troubled: BTreeSet::new(),
            violations: Vec::new(),
            trace: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
            sabotage,
            calm_from: began + trouble,
            began,
            network: JoinSet::new(),
        }
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        BEGINNING + self.began.elapsed()
    }

    /// What a reply says of it: whole seconds.
    pub fn date(&self) -> Timestamp {
        Timestamp::from_millis(self.now().as_millis() / 1000 * 1000)
    }

    pub fn is_calm(&self) -> bool {
        Instant::now() >= self.calm_from
    }

    /// True with this probability, while there are faults.
    pub fn strikes(&mut self, percent: u32) -> bool {
        let dice = self.rng.random_range(0..100);
        dice < percent && !self.is_calm()
    }

    pub fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(least..=most))
    }

    pub fn note(&mut self, what: impl fmt::Display) {
        let at = self.began.elapsed().as_millis();
        self.trace.push(format!("{at:>8} {what}"));
    }

    /// Whoever works on this machine has an excuse from now on.
    pub fn trouble(&mut self, worker: usize) {
        if let Some(name) = self.names.get(&worker) {
            self.troubled.insert(name.clone());
        }
    }

    pub fn violated(&mut self, promise: impl fmt::Display) {
        self.note(format_args!("VIOLATED {promise}"));
        self.violations.push(promise.to_string());
    }

    /// A producer inserts a task.
    pub fn insert(&mut self, id: &str, due: Timestamp) {
        let item = Item { exists: true, ..Item::default() };
        self.items.insert(id.to_owned(), item);
        self.set_due(id, Some(due));
        self.note(format_args!("{id} inserted, due {due}"));
    }

    /// Changes `due`, and the index some time later.
    pub fn set_due(&mut self, id: &str, due: Option<Timestamp>) {
        let lag = if self.strikes(3) { self.millis(0, 4000) } else { self.millis(0, 200) };
        let item = self.items.get_mut(id).expect("there is one");
        item.due = due;
        item.shown.push((Instant::now() + lag, due));
    }

    /// What the index shows, as it is now, in order.
    pub fn index(&self) -> Vec<(Timestamp, String)> {
        let now = Instant::now();
        let shown = |item: &Item| {
            let (_, due) = item.shown.iter().rev().find(|(from, _)| *from <= now)?;
            *due
        };
        let entries = self.items.iter().filter_map(|(id, item)| Some((shown(item)?, id.clone())));
        let mut entries: Vec<_> = entries.collect();
        entries.sort();
        entries
    }

    pub fn claim(&mut self, id: &TaskId, terms: &Terms) -> Claimed {
        let (name, sabotage, now) = (id.to_string(), self.sabotage, self.now());
        let Some(item) = self.items.get_mut(&name).filter(|item| item.exists) else {
            return Claimed::Lost(Standing::default());
        };
        let is_ours = item.rev.as_deref() == Some(terms.rev.as_str());
        if is_ours && sabotage != Sabotage::NoRecognition {
            return Claimed::Won(Box::new(task(id, item)));
        }
        let is_due = item.due.is_some_and(|due| due <= terms.now);
        let is_free = item.lease_until.is_none_or(|until| until < terms.now);
        let is_open = !item.status.is_some_and(Status::is_final);
        if !is_due || !(is_free || sabotage == Sabotage::NoLease) || !is_open {
            return Claimed::Lost(standing(item));
        }
        let holder = item.worker.as_ref();
        if item.status == Some(Status::Running)
            && holder.is_some_and(|it| self.troubled.contains(it))
        {
            item.excused += 1;
        }
        let is_early = item.due.is_some_and(|due| due > now + TOO_EARLY);
        item.status = Some(Status::Running);
        item.attempt += 1;
        item.lease_until = Some(terms.lease_until);
        item.worker = Some(terms.worker.clone());
        item.rev = Some(terms.rev.as_str().to_owned());
        let task = task(id, item);
        self.note(format_args!("{name} claimed by {}, attempt {}", terms.worker, task.attempt));
        if is_early {
            self.violated(format_args!("{name} was claimed before it was due"));
        }
        Claimed::Won(Box::new(task))
    }

    pub fn extend(&mut self, id: &TaskId, held: &Rev, terms: &Terms) -> Write {
        self.write(id, held, &terms.rev, |item| item.lease_until = Some(terms.lease_until))
    }

    pub fn settle(&mut self, id: &TaskId, held: &Rev, settlement: &Settlement) -> Write {
        let name = id.to_string();
        let before = self.items.get(&name).map(|item| item.rev.clone());
        let sabotage = self.sabotage;
        let write = self.write(id, held, &settlement.rev, |item| {
            item.history.clone_from(&settlement.history);
            let releases = matches!(settlement.verdict, Verdict::Release);
            if !(releases && sabotage == Sabotage::CountsReleases) {
                item.attempt = settlement.attempts;
            }
            let status = match &settlement.verdict {
                Verdict::Succeed(_) => Status::Succeeded,
                Verdict::Fail(_) => Status::Failed,
                Verdict::Retry { .. } | Verdict::Release => Status::Pending,
                Verdict::Hold(_) => Status::Running,
            };
            item.status = Some(status);
            if !matches!(settlement.verdict, Verdict::Hold(_)) {
                item.lease_until = None;
            }
        });
        let applied_now = self.items.get(&name).map(|item| item.rev.clone()) != before;
        if write == Write::Applied && applied_now {
            self.note(format_args!("{name} settled: {}", settlement.verdict.label()));
            match settlement.verdict {
                Verdict::Succeed(_) | Verdict::Fail(_) => self.end(&name),
                Verdict::Retry { due, .. } => self.set_due(&name, Some(due)),
                Verdict::Release | Verdict::Hold(_) => {}
            }
        }
        write
    }

    fn end(&mut self, name: &str) {
        let item = self.items.get_mut(name).expect("it was written");
        item.ends += 1;
        if item.ends > 1 {
            self.violated(format_args!("{name} has ended twice"));
        }
        if self.sabotage == Sabotage::ForgetsTheEnd {
            let item = self.items.get_mut(name).expect("it was written");
            item.status = Some(Status::Pending);
            return;
        }
        self.set_due(name, None);
    }

    fn write(
        &mut self,
        id: &TaskId,
        held: &Rev,
        new: &Rev,
        change: impl FnOnce(&mut Item),
    ) -> Write {
        let (name, sabotage) = (id.to_string(), self.sabotage);
        let Some(item) = self.items.get_mut(&name) else {
            return Write::Lost(Standing::default());
        };
        if !item.exists && sabotage != Sabotage::Recreate {
            return Write::Lost(Standing::default());
        }
        let has = |rev: &Rev| item.rev.as_deref() == Some(rev.as_str());
        if has(new) && sabotage != Sabotage::NoRecognition {
            return Write::Applied;
        }
        let is_held = has(held) && item.status == Some(Status::Running);
        if !is_held && !matches!(sabotage, Sabotage::NoFence | Sabotage::Recreate) {
            return Write::Lost(standing(item));
        }
        let (existed, was) = (item.exists, item.status);
        change(item);
        item.exists = true;
        item.rev = Some(new.as_str().to_owned());
        if !existed {
            self.violated(format_args!("{name} was deleted, and created anew by a write"));
        } else if was.is_some_and(Status::is_final) {
            self.violated(format_args!("{name} was written after its end"));
        } else if !is_held {
            self.violated(format_args!("{name} was written by somebody who did not hold it"));
        }
        Write::Applied
    }

    /// A function begins to run.
    pub fn begin(&mut self, task: &str, attempt: u32, ends: Instant) {
        let now = Instant::now();
        let beside = self.executions.iter().any(|run| run.task == task && run.ends > now);
        // Who begins a task anew that is cancelled, and runs still, asks for it.
        if beside && !self.items.get(task).is_some_and(|item| item.touched) {
            self.violated(format_args!("{task} runs beside its former self"));
        }
        if let Some(item) = self.items.get_mut(task) {
            item.executions += 1;
        }
        self.note(format_args!("{task} runs, attempt {attempt}"));
        self.executions.push(Execution { task: task.to_owned(), ends });
    }
}

fn task(id: &TaskId, item: &Item) -> Task {
    Task {
        id: id.clone(),
        attempt: item.attempt,
        due: item.due.unwrap_or_default(),
        payload: Payload("{}".to_owned()),
        max_attempts: None,
        deadline: None,
        trace: None,
        history: item.history.clone(),
    }
}

fn standing(item: &Item) -> Standing {
    Standing {
        is_there: true,
        status: item.status.map(|status| status.as_str().to_owned()),
        due: item.due,
        lease_until: item.lease_until,
        worker: item.worker.clone(),
    }
}

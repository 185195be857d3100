//! The environments of one function: one process for each invocation at the same moment, kept warm
//! and used again, as Lambda does it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::environment::{self, Begun, Job, Jobs};
use super::lambda::{Answer, Call, Ended};
use super::ledger::{Ledger, Usage};
use super::warden::Warden;
use crate::config::Program;

/// So many processes of a function begin at once. With more on two cores they take so long that
/// each looks as if it hung.
const STARTS_AT_ONCE: usize = 4;

/// One that has not begun after so long does not keep others of the function from beginning.
const LONGEST_TURN: Duration = Duration::from_secs(10);

/// A call that was handed to so many environments in a row, each of which ended before it took the
/// event, is not handed to another one.
const MOST_ENVIRONMENTS: u32 = 3;

/// A runtime asks for its next event in less than a millisecond; one that does not is not waited
/// for.
const COMING_BACK: Duration = Duration::from_millis(50);

/// What the functions of one endpoint share.
#[derive(Clone, Debug)]
pub struct Host {
    /// The program burstd itself, which each process begins as.
    burstd: PathBuf,
    warden: Arc<Warden>,
    /// An environment that had nothing to do for so long is ended.
    idle_time: Duration,
}

impl Host {
    /// A host whose processes end with this one. `burstd` is the program itself; environments
    /// that have nothing to do for `idle_time` end.
    ///
    /// # Errors
    ///
    /// When the process cannot be started that looks after the others.
    pub fn new(burstd: PathBuf, idle_time: Duration) -> std::io::Result<Self> {
        let warden = Arc::new(Warden::start(&burstd)?);
        Ok(Host { burstd, warden, idle_time })
    }

    /// The program burstd itself.
    pub(super) fn burstd(&self) -> &PathBuf {
        &self.burstd
    }

    /// By what its processes are known.
    pub(super) fn mark(&self) -> &str {
        self.warden.mark()
    }

    pub(super) fn idle_time(&self) -> Duration {
        self.idle_time
    }
}

/// The environments of one function.
#[derive(Debug)]
pub struct Environments {
    pub(super) name: String,
    pub(super) program: Program,
    pub(super) host: Host,
    pool: Mutex<Pool>,
    starts: Semaphore,
    freed: Notify,
    ledger: Mutex<Ledger>,
}

/// The environments that have nothing to do.
#[derive(Debug, Default)]
struct Pool {
    /// Those that wait for an event, the one that has waited longest first.
    idle: Vec<Jobs>,
    /// Those that have answered and have not asked for the next event yet.
    coming_back: usize,
    /// How many of these somebody waits for.
    expected: usize,
    /// All that there are, whatever they are at.
    alive: u32,
}

impl Pool {
    /// Expects one of those that are coming back, if there is one that nobody expects.
    fn expect(&mut self) -> bool {
        let is_one = self.coming_back > self.expected;
        self.expected += usize::from(is_one);
        is_one
    }
}

impl Environments {
    /// No environment yet of this function.
    pub fn new(name: String, program: Program, host: Host) -> Arc<Self> {
        let ledger = Mutex::new(Ledger::new(program.memory_mb));
        let (pool, freed) = (Mutex::default(), Notify::new());
        let starts = Semaphore::new(STARTS_AT_ONCE);
        Arc::new(Environments { name, program, host, pool, starts, freed, ledger })
    }

    /// What the function has used so far.
    pub fn usage(&self) -> Usage {
        self.ledger().usage()
    }

    /// Runs one invocation in an environment of its own.
    pub(super) async fn invoke(self: &Arc<Self>, call: Call) -> Ended {
        let call = Arc::new(call);
        for _ in 0..MOST_ENVIRONMENTS {
            let jobs = match self.environment(&call).await {
                Ok(jobs) => jobs,
                Err(ended) => return ended,
            };
            let (answer, answered) = oneshot::channel();
            let is_there = jobs.send(Job { call: call.clone(), answer }).is_ok();
            // One that ended before it took the event has done nothing: another one will do.
            if is_there && let Ok(ended) = answered.await {
                return ended;
            }
        }
        environment::failed(&call, "Runtime.ExitError", environment::NO_REASON)
    }

    /// How many environments there are, whatever they are at.
    pub(super) fn alive(&self) -> u32 {
        self.pool().alive
    }

    /// A warm environment, or a new one. Whoever waits for a new one takes one that becomes free
    /// meanwhile.
    async fn environment(self: &Arc<Self>, call: &Arc<Call>) -> Begun {
        let from = Instant::now() + self.program.cold_start;
        loop {
            if let Some(jobs) = self.warm() {
                return Ok(jobs);
            }
            if let Some(jobs) = self.expected().await {
                return Ok(jobs);
            }
            let turn = tokio::select! {
                biased;
                () = self.freed.notified() => continue,
                turn = self.turn(from) => turn,
            };
            if let Some(jobs) = self.warm() {
                return Ok(jobs);
            }
            let (first, mut begun) = oneshot::channel();
            self.ledger().started();
            self.pool().alive += 1;
            #[expect(clippy::disallowed_methods, reason = "it outlives its first invocation")]
            tokio::spawn(environment::live(self.clone(), call.clone(), first));
            let in_time = timeout(LONGEST_TURN, &mut begun).await;
            drop(turn);
            let begun = match in_time {
                Ok(begun) => begun,
                Err(_) => begun.await,
            };
            return begun.expect("an environment says how it began");
        }
    }

    /// A turn to begin an environment, from this moment on.
    async fn turn(&self, from: Instant) -> SemaphorePermit<'_> {
        sleep_until(from).await;
        self.starts.acquire().await.expect("it is never closed")
    }

    /// One that comes back from its last invocation at this moment.
    async fn expected(&self) -> Option<Jobs> {
        if !self.pool().expect() {
            return None;
        }
        let until = Instant::now() + COMING_BACK;
        let jobs = loop {
            // What it is told of may have been taken by another one.
            let told = timeout_at(until, self.freed.notified()).await;
            let jobs = self.warm();
            if jobs.is_some() || told.is_err() {
                break jobs;
            }
        };
        self.pool().expected -= 1;
        jobs
    }

    /// The one that had something to do last, so that those end that are too many.
    fn warm(&self) -> Option<Jobs> {
        let mut pool = self.pool();
        while let Some(jobs) = pool.idle.pop() {
            if !jobs.is_closed() {
                return Some(jobs);
            }
        }
        None
    }

    /// An environment has answered, and will soon wait for its next event.
    pub(super) fn comes_back(&self) {
        self.pool().coming_back += 1;
    }

    /// An environment that was coming back has come, or never will.
    pub(super) fn has_come_back(&self) {
        self.pool().coming_back -= 1;
    }

    /// An environment waits for its next event.
    pub(super) fn freed(&self, jobs: Jobs) {
        self.pool().idle.push(jobs);
        self.freed.notify_one();
    }

    /// An environment has ended.
    pub(super) fn gone(&self) {
        let mut pool = self.pool();
        pool.alive -= 1;
        pool.idle.retain(|jobs| !jobs.is_closed());
    }

    /// An invocation has ended: Lambda's line about it.
    pub(super) fn bill(
        &self,
        took: Duration,
        init: Option<Duration>,
        request_id: &str,
        answer: &Answer,
    ) -> String {
        self.ledger().bill(took, init, request_id, answer)
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().expect("nothing panics while holding this lock")
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("nothing panics while holding this lock")
    }
}

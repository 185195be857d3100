//! The environments of one function: one process for each invocation at the same moment, kept warm
//! and used again, as Lambda does it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::ending;
use super::environment::{self, Begun, Job, Jobs};
use super::lambda::{Answer, Call, Ended};
use super::ledger::{Ledger, Usage};
use super::limits::{self, Ramp};
use super::warden::Warden;
use crate::clock::Clock;
use crate::config::Program;

/// So many processes of a function begin at once. With more on two cores they take so long that
/// each looks as if it hung.
const STARTS_AT_ONCE: usize = 4;

/// One that has not begun after so long does not keep others of the function from beginning.
const LONGEST_TURN: Duration = Duration::from_secs(10);

/// A call that was handed to so many environments in a row, each of which ended before it took the
/// event, is not handed to another one.
const MOST_ENVIRONMENTS: u32 = 3;

/// A runtime asks for its next event in less than a millisecond, on a machine that is not at its
/// limit; one that takes longer than a process takes to start is not waited for.
const COMING_BACK: Duration = Duration::from_millis(500);

/// As long as anybody will wait.
const BOUNDLESS: Duration = Duration::from_secs(24 * 3600);

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
    ramp: Mutex<Option<Ramp>>,
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
}

impl Pool {
    /// Expects one of those that are coming back, if there is one that nobody expects.
    fn expect(&mut self) -> bool {
        let is_one = self.coming_back > self.expected;
        self.expected += usize::from(is_one);
        is_one
    }
}

/// Until when a call may begin that arrives now. burstd's tasks have a lease that has to cover the
/// run: when it ends, the task is another one's; and half of what it has to spare burstd waits for
/// the answer. A lease that does not cover a run at all must not have ended, at least.
fn latest(call: &Call, timeout: Duration) -> Instant {
    let lease_until = call.context.as_ref().map(|context| context.lease_until);
    let lease = lease_until.and_then(|at| Duration::try_from_secs_f64(at).ok());
    let waits = lease.map_or(BOUNDLESS, |lease| {
        let now_ms = Clock::system().now().as_millis();
        let left = lease.saturating_sub(Duration::from_millis(now_ms));
        left.checked_sub(timeout).map_or(left, |spare| spare / 2)
    });
    Instant::now() + waits.min(BOUNDLESS)
}

impl Environments {
    /// No environment yet of this function.
    pub fn new(name: String, program: Program, host: Host) -> Arc<Self> {
        let ledger = Mutex::new(Ledger::new(program.memory_mb));
        let (pool, ramp, freed) = (Mutex::default(), Mutex::default(), Notify::new());
        let starts = Semaphore::new(STARTS_AT_ONCE);
        Arc::new(Environments { name, program, host, pool, ramp, starts, freed, ledger })
    }

    /// What the function has used so far.
    pub fn usage(&self) -> Usage {
        self.ledger().usage()
    }

    /// Runs one invocation in an environment of its own.
    pub(super) async fn invoke(self: &Arc<Self>, call: Call) -> Ended {
        let latest = latest(&call, self.program.timeout);
        let call = Arc::new(call);
        for _ in 0..MOST_ENVIRONMENTS {
            let jobs = match self.environment(&call, latest).await {
                Ok(jobs) => jobs,
                Err(ended) => return ended,
            };
            let (answer, answered) = oneshot::channel();
            let is_there = jobs.send(Job { call: call.clone(), latest, answer }).is_ok();
            // One that ended before it took the event has done nothing: another one will do.
            if is_there && let Ok(ended) = answered.await {
                return ended;
            }
        }
        ending::failed(&call, "Runtime.ExitError", ending::NO_REASON)
    }

    /// From now on no more new environments are made than these in ten seconds.
    pub(super) fn keep_to_ramp(&self, ramp: Option<u32>) {
        *self.ramp.lock().expect("nothing panics while holding this lock") = ramp.map(Ramp::new);
    }

    /// Whether a new environment may be made; if so, one less may from now on.
    fn may_begin_one(&self) -> bool {
        let mut ramp = self.ramp.lock().expect("nothing panics while holding this lock");
        ramp.as_mut().is_none_or(Ramp::take)
    }

    /// A warm environment, or a new one. Whoever waits for a new one takes one that becomes free
    /// meanwhile; and nobody waits until it would be too late to begin.
    async fn environment(self: &Arc<Self>, call: &Arc<Call>, latest: Instant) -> Begun {
        let too_late = sleep_until(latest);
        let turn = self.turn(Instant::now() + self.program.cold_start);
        tokio::pin!(too_late, turn);
        let turn = loop {
            if let Some(jobs) = self.warm() {
                return Ok(jobs);
            }
            if let Some(jobs) = self.expected().await {
                return Ok(jobs);
            }
            tokio::select! {
                biased;
                () = self.freed.notified() => {}
                () = &mut too_late => return Err(ending::refused(limits::shared_limit())),
                turn = &mut turn => break turn,
            }
        };
        if let Some(jobs) = self.warm() {
            return Ok(jobs);
        }
        if !self.may_begin_one() {
            return Err(ending::refused(limits::shared_limit()));
        }
        let (first, mut begun) = oneshot::channel();
        self.ledger().started();
        #[expect(clippy::disallowed_methods, reason = "it outlives its first invocation")]
        tokio::spawn(environment::live(self.clone(), call.clone(), first));
        let in_time = timeout(LONGEST_TURN, &mut begun).await;
        drop(turn);
        let begun = match in_time {
            Ok(begun) => begun,
            Err(_) => begun.await,
        };
        begun.expect("an environment says how it began")
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
        self.pool().idle.retain(|jobs| !jobs.is_closed());
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

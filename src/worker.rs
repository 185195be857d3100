//! The life of a task, from candidate to settled, in one function: [`Worker::run`].
//!
//! Dropping its future anywhere is a crash, which the lease already covers.

mod log;
mod report;
mod trouble;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until};

use crate::backlog::Backlog;
use crate::claim::{Claim, Lease, Rev, Terms};
use crate::clock::Clock;
use crate::episode::Episode;
use crate::failpoint::reach;
use crate::governor::Place;
use crate::held::Held;
use crate::invoker::{Failure, Invocation, Invoker, Outcome, Reason, Refusal};
use crate::memory::{LARGEST_ITEM_BYTES, Memory, Share};
use crate::queue::Queue;
use crate::retry::{Backoff, Ended, Settlement, decide, max_attempts};
use crate::shutdown::Shutdown;
use crate::store::{CLAIMS_AT_ONCE, Claimed, Fault, Store, StoreError, Write};
use crate::task::{Payload, TaskId, Timestamp};

pub use report::{Attempted, Report};

/// Between two tries of a call to a table that is away.
pub(crate) const STORE_BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(200), max: Duration::from_secs(5) };

/// Between two starts of a task that Lambda cannot start at the moment.
const START_BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(200), max: Duration::from_secs(5) };

/// One running burstd: what the lives of all its tasks share.
#[derive(Debug)]
pub struct Worker<S, I> {
    /// A name no other process ever had.
    pub name: String,
    /// The table.
    pub store: S,
    /// What runs the functions.
    pub invoker: I,
    /// The time of day.
    pub clock: Clock,
    /// Whether the log is behind.
    pub backlog: Backlog,
    /// What the tasks' payloads and results may take.
    pub memory: Memory,
    /// The wish to stop.
    pub shutdown: Shutdown,
    /// The queues of which people wish that nothing be started.
    pub held: Held,
    /// Whether the table is in trouble.
    pub store_trouble: Episode,
    /// How often it had no capacity left.
    pub store_throttles: AtomicU64,
    /// Turns to claim, [`CLAIMS_AT_ONCE`].
    turns: Semaphore,
    /// Claims that were won.
    pub claims: AtomicU64,
}

impl<S, I> Worker<S, I> {
    /// One that has done nothing yet.
    pub fn new(
        name: String,
        store: S,
        invoker: I,
        clock: Clock,
        backlog: Backlog,
        memory: Memory,
        shutdown: Shutdown,
    ) -> Self {
        Worker {
            name,
            store,
            invoker,
            clock,
            backlog,
            memory,
            shutdown,
            held: Held::default(),
            store_trouble: Episode::default(),
            store_throttles: AtomicU64::default(),
            turns: Semaphore::new(CLAIMS_AT_ONCE),
            claims: AtomicU64::default(),
        }
    }
}

impl<S: Store, I: Invoker> Worker<S, I> {
    /// A task's life: claim it, run its function, decide what follows, write that down.
    pub async fn run(&self, queue: &Queue, id: TaskId, mut rng: StdRng) -> Report {
        let Some(mut share) = self.if_wanted(queue, self.share(queue)).await else {
            return Report::Withdrawn;
        };
        let began = Instant::now();
        let mut claim = match self.claim(queue, &id, &mut rng).await {
            Ok(claim) => claim,
            Err(report) => return report,
        };
        let claim_took = began.elapsed();
        let expected = queue.function.result_size.guess();
        share.resize(claim.task.payload.0.len() + expected);

        let (outcome, invoke_took) = self.start(queue, &mut claim, &mut rng).await;

        claim.task.payload = Payload::default();
        if let Some(bytes) = outcome.result_bytes() {
            queue.function.result_size.learn(bytes);
        }
        share.resize(outcome.result_bytes().unwrap_or_default());
        let word = outcome.label();
        let function_runs = outcome.ran() && !queue.function.trouble.is_open();
        let not_run = match &outcome {
            Outcome::NotRun(refusal) => Some(refusal.reason.clone()),
            _ => None,
        };
        let ended = Ended { at: self.clock.now(), took: invoke_took };
        let settlement = decide(&claim, outcome, ended, &queue.policy, &mut rng);

        let began = Instant::now();
        let (settlement, write) = self.settle(&claim, settlement, &mut rng).await;
        let write_took = began.elapsed();

        Report::Attempted(Box::new(Attempted {
            claim,
            outcome: word,
            function_runs,
            not_run,
            claim_took,
            invoke_took,
            write_took,
            settlement,
            write,
        }))
    }

    /// Room for the task in memory.
    async fn share(&self, queue: &Queue) -> Share<'_> {
        self.memory.share(LARGEST_ITEM_BYTES + queue.function.result_size.guess()).await
    }

    /// A turn to claim.
    async fn turn(&self) -> SemaphorePermit<'_> {
        self.turns.acquire().await.expect("the semaphore is never closed")
    }

    /// What is waited for. Nothing when nobody wants the task to start any more before it comes.
    async fn if_wanted<T>(&self, queue: &Queue, awaited: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.unwanted(queue) => None,
            it = awaited => Some(it),
        }
    }

    /// Returns when nothing of the queue is to be started: burstd stops, or the queue is paused.
    async fn unwanted(&self, queue: &Queue) {
        tokio::select! {
            biased;
            () = self.shutdown.draining() => {}
            () = self.held.until_held(&queue.name) => {}
        }
    }

    /// Takes the task. A table that is away is asked again with the same token until it
    /// answers, because a claim whose reply was lost may stand.
    async fn claim(&self, queue: &Queue, id: &TaskId, rng: &mut StdRng) -> Result<Claim, Report> {
        let mut turn = self.if_wanted(queue, self.turn()).await.ok_or(Report::Withdrawn)?;
        let now = self.clock.now();
        let run = queue.function.timeout();
        let lease = Lease::begin(now, Instant::now(), run, queue.lease_margin);
        let terms = self.terms(now, &lease, rng);
        let mut tries = 0;
        loop {
            reach("claim.send");
            let answer = self.heard(self.store.claim(id, &terms).await);
            drop(turn);
            match answer {
                Ok(Claimed::Won(task)) => {
                    reach("claim.reply");
                    self.claims.fetch_add(1, Ordering::Relaxed);
                    return Ok(Claim { task: *task, rev: terms.rev, lease, started_at: now });
                }
                Ok(Claimed::Lost(standing)) => return Err(Report::Lost(standing)),
                Ok(Claimed::Invalid(reason)) => return Err(Report::Invalid(reason)),
                Err(StoreError::Rejected(fault)) => return Err(Report::Rejected(fault)),
                Err(_) => {}
            }
            tries += 1;
            self.store_trouble.wait(STORE_BACKOFF.after(tries, rng)).await;
            turn = self.turn().await;
        }
    }

    fn terms(&self, now: Timestamp, lease: &Lease, rng: &mut StdRng) -> Terms {
        let (rev, worker) = (Rev::random(rng), self.name.clone());
        Terms { rev, worker, now, lease_until: lease.until }
    }

    /// Runs the function once, as soon as it can be: a start that Lambda refuses for the moment
    /// is tried again under the same claim, without a write while the lease lasts.
    async fn start(
        &self,
        queue: &Queue,
        claim: &mut Claim,
        rng: &mut StdRng,
    ) -> (Outcome, Duration) {
        let mut refusals = 0;
        loop {
            let place = match self.may_start(queue, claim, rng).await {
                Ok(place) => place,
                Err(refusal) => {
                    log::function_refuses(queue, &refusal);
                    return (Outcome::NotRun(refusal), Duration::ZERO);
                }
            };
            let began = Instant::now();
            let invocation = Invocation {
                function: &queue.function.name,
                queue: &queue.name,
                claim,
                worker: &self.name,
                start_by: claim.lease.start_by(),
                deadline: claim.lease.deadline(began),
            };
            reach("invoke.send");
            let outcome = self.invoker.invoke(invocation).await;
            reach("invoke.reply");
            let Outcome::NotRun(refusal) = &outcome else {
                drop(place);
                if outcome.ran() {
                    log::function_works(queue, began);
                }
                return (outcome, began.elapsed());
            };
            match refusal.reason {
                Reason::Throttled(throttle) => {
                    place.throttled(throttle, &refusal.failure);
                    if queue.function.governor.is_shut_out() {
                        log::function_refuses(queue, refusal);
                    }
                }
                Reason::Unavailable => {
                    place.unused();
                    log::function_refuses(queue, refusal);
                    refusals += 1;
                    let _waits = queue.function.governor.set_back();
                    tokio::select! {
                        biased;
                        () = self.unwanted(queue) => {}
                        // The lease must not end meanwhile.
                        () = sleep_until(claim.lease.start_by()) => {}
                        () = sleep(START_BACKOFF.after(refusals, rng)) => {}
                    }
                }
                _ => {
                    place.unused();
                    log::function_refuses(queue, refusal);
                    return (outcome, began.elapsed());
                }
            }
        }
    }

    /// Waits until the function may be started under a lease that covers it, and takes a place
    /// with its governor then; or says why it must not.
    async fn may_start<'q>(
        &self,
        queue: &'q Queue,
        claim: &mut Claim,
        rng: &mut StdRng,
    ) -> Result<Place<'q>, Refusal> {
        loop {
            if let Some(refusal) = self.objection(queue, claim) {
                return Err(refusal);
            }
            if !claim.lease.covers_a_run(Instant::now()) && !self.extend(claim, rng).await {
                return Err(withdrawn("the lease is lost"));
            }
            tokio::select! {
                biased;
                () = self.unwanted(queue) => {}
                () = sleep_until(claim.lease.start_by()) => {}
                place = queue.function.governor.start() => {
                    return place.map_err(|off| Refusal::new(Reason::Broken, off.failure()));
                }
            }
        }
    }

    /// Why the function must not be started, if it must not.
    fn objection(&self, queue: &Queue, claim: &Claim) -> Option<Refusal> {
        let most = max_attempts(claim, &queue.policy);
        if claim.task.attempt > most {
            let message = format!(
                "all {most} attempts were made; the last one's worker died, or its outcome was \
                 never known"
            );
            let failure = Failure::new("Burstd.AttemptsExhausted", message);
            return Some(Refusal::new(Reason::Exhausted, failure));
        }
        if let Some(deadline) = claim.task.deadline.filter(|at| *at <= self.clock.now()) {
            let message = format!("the deadline {deadline} passed before the task could start");
            let failure = Failure::new("Burstd.DeadlinePassed", message);
            return Some(Refusal::new(Reason::Expired, failure));
        }
        if !self.knows_the_time(queue) {
            return Some(withdrawn("the clock has jumped; nobody knows how long the lease stands"));
        }
        if self.held.contains(&queue.name) {
            return Some(withdrawn("the queue is paused"));
        }
        self.shutdown.is_draining().then(|| withdrawn("burstd is stopping"))
    }

    /// Whether the time is known well enough for the queue's leases. Half of their margin guards
    /// against overlap: two clocks may take a third of that, and a request and the start of an
    /// environment the rest.
    pub(crate) fn knows_the_time(&self, queue: &Queue) -> bool {
        self.clock.doubt() <= queue.lease_margin / 12
    }

    /// Makes the lease cover a run again. False when the claim is no longer ours, or when it
    /// cannot be known before burstd must stop.
    async fn extend(&self, claim: &mut Claim, rng: &mut StdRng) -> bool {
        let now = self.clock.now();
        let lease = claim.lease.renewed(now, Instant::now());
        let terms = self.terms(now, &lease, rng);
        let mut tries = 0;
        loop {
            reach("extend.send");
            match self.heard(self.store.extend(claim.id(), &claim.rev, &terms).await) {
                Ok(Write::Applied) => {
                    reach("extend.reply");
                    claim.rev = terms.rev;
                    claim.lease = lease;
                    return claim.lease.covers_a_run(Instant::now());
                }
                Ok(Write::Lost(_)) | Err(StoreError::Rejected(_)) => return false,
                Err(_) => {}
            }
            tries += 1;
            self.store_trouble.wait(STORE_BACKOFF.after(tries, rng)).await;
        }
    }

    /// Writes what follows until it is written or refused. A result outlives a table that is
    /// away for longer than the lease: if nobody took the task meanwhile, it still counts.
    async fn settle(
        &self,
        claim: &Claim,
        mut settlement: Settlement,
        rng: &mut StdRng,
    ) -> (Settlement, Result<Write, Fault>) {
        let mut tries = 0;
        loop {
            reach("settle.send");
            match self.heard(self.store.settle(claim.id(), &claim.rev, &settlement).await) {
                Ok(write) => {
                    reach("settle.reply");
                    return (settlement, Ok(write));
                }
                Err(StoreError::Rejected(fault)) => match settlement.shrink() {
                    Some(omitted) => log::shortened(claim.id(), &fault, omitted),
                    None => return (settlement, Err(fault)),
                },
                Err(_) => {
                    tries += 1;
                    self.store_trouble.wait(STORE_BACKOFF.after(tries, rng)).await;
                }
            }
        }
    }
}

fn withdrawn(message: &str) -> Refusal {
    Refusal::new(Reason::Withdrawn, Failure::new("Burstd.Withdrawn", message))
}

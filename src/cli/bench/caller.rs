//! A caller of a benchmark, a process of its own so that its CPU and memory are its own: it makes
//! a round of calls for each line of standard input.

use std::io::{self, BufRead as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::endpoint::say;
use crate::aws::{Clients, Http, LambdaInvoker, Place, SdkClient};
use crate::claim::{Claim, Lease, Rev};
use crate::cli::block_on;
use crate::cli::exit::Exit;
use crate::clock::Clock;
use crate::descriptors;
use crate::governor::{Caps, Governor};
use crate::invoker::{Invocation, Invoker as _, Outcome, Reason};
use crate::local;
use crate::task::{Payload, Task, TaskId, Timestamp};
use crate::usage;

/// No call takes longer.
const PATIENCE: Duration = Duration::from_secs(900);

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Client {
    /// The SDK's own client.
    Sdk,
    /// burstd's transport, behind its governor.
    Burstd,
}

/// What a caller does.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Orders {
    pub(super) client: Client,
    pub(super) url: String,
    pub(super) certificate: Option<PathBuf>,
    /// Which HTTP burstd speaks.
    pub(super) http: Http,
    pub(super) calls: u64,
    /// So many at once.
    pub(super) concurrency: usize,
    /// New environments in 10 s, as the endpoint makes them.
    pub(super) ramp: Option<u32>,
}

/// A round of calls, as its caller saw it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Round {
    /// In epoch milliseconds.
    pub(super) began_at: u64,
    pub(super) elapsed: Duration,
    /// CPU time of the caller.
    pub(super) cpu: Duration,
    /// What was resident in the middle of the round, beyond what was before the first.
    pub(super) memory_kb: u64,
    pub(super) failed: usize,
    pub(super) throttled: usize,
}

/// Makes rounds of calls until standard input ends.
pub(in crate::cli) fn call(orders: &str) -> Result<(), Exit> {
    let orders: Orders = serde_json::from_str(orders).map_err(Exit::usage)?;
    descriptors::raise();
    block_on(async {
        let place = Place {
            http: orders.http,
            ca_bundle: orders.certificate.clone(),
            ..local::place("http://127.0.0.1:1", &orders.url)
        };
        let caller = Caller::new(&orders, &place).await?;
        let before = usage::resident_kb("self").map_err(Exit::os)?;
        loop {
            let question = tokio::task::spawn_blocking(|| io::stdin().lock().lines().next()).await;
            let Some(_) = question.map_err(Exit::software)? else { return Ok(()) };
            say(&caller.round(&orders, before).await?)?;
        }
    })
}

#[derive(Clone)]
enum Caller {
    Sdk(SdkClient),
    Burstd(LambdaInvoker, Arc<Governor>, Arc<AtomicUsize>),
}

impl Caller {
    async fn new(orders: &Orders, place: &Place) -> Result<Self, Exit> {
        Ok(match orders.client {
            Client::Sdk => Caller::Sdk(SdkClient::new(place).await.map_err(Exit::software)?),
            Client::Burstd => {
                let caps = Caps { ramp: orders.ramp.unwrap_or(u32::MAX), ..Caps::default() };
                let governor = Arc::new(Governor::new("work", caps, Arc::default()));
                let invoker = Clients::new(place).await?.invoker();
                Caller::Burstd(invoker, governor, Arc::default())
            }
        })
    }

    async fn round(&self, orders: &Orders, before: u64) -> Result<Round, Exit> {
        let cpu_before = usage::cpu("self").map_err(Exit::os)?;
        let (began_at, began) = (Clock::system().now().as_millis(), Instant::now());
        let mut memory = JoinSet::new();
        let samples = Arc::new(Mutex::new(Vec::new()));
        memory.spawn(watch_memory(samples.clone()));
        if let Caller::Burstd(invoker, _, throttled) = self {
            throttled.store(0, Ordering::Relaxed);
            invoker.expect(orders.concurrency.min(usize::try_from(orders.calls).unwrap_or(0)));
        }
        let mut running = JoinSet::new();
        let mut failed = 0;
        for number in 0..orders.calls {
            if running.len() >= orders.concurrency {
                failed += usize::from(!ran(running.join_next().await)?);
            }
            let caller = self.clone();
            running.spawn(async move { caller.invoke(number).await });
        }
        while let Some(ended) = running.join_next().await {
            failed += usize::from(!ran(Some(ended))?);
        }
        let elapsed = began.elapsed();
        let throttled = match self {
            Caller::Sdk(_) => 0,
            Caller::Burstd(_, _, throttled) => throttled.load(Ordering::Relaxed),
        };
        let cpu = usage::cpu("self").map_err(Exit::os)?.saturating_sub(cpu_before);
        let mut samples = samples.lock().expect("nothing panics with it").clone();
        samples.sort_unstable();
        let memory_kb = samples.get(samples.len() / 2).map_or(0, |kb| kb.saturating_sub(before));
        Ok(Round { began_at, elapsed, cpu, memory_kb, failed, throttled })
    }

    /// Whether the call ran, once, and was answered.
    async fn invoke(self, number: u64) -> bool {
        let event = number.to_string();
        match self {
            // In a box: it is large, and would make burstd's calls as large.
            Caller::Sdk(client) => Box::pin(client.invoke("work", &event)).await,
            Caller::Burstd(invoker, governor, throttled) => {
                let claim = claim(number, event);
                loop {
                    let Ok(place) = governor.start().await else { return false };
                    match invoker.invoke(invocation(&claim)).await {
                        Outcome::Succeeded(_) => return true,
                        Outcome::NotRun(refusal) => {
                            let Reason::Throttled(throttle) = refusal.reason else { return false };
                            throttled.fetch_add(1, Ordering::Relaxed);
                            place.throttled(throttle, &refusal.failure);
                        }
                        Outcome::Failed(_) | Outcome::Unknown(_) => return false,
                    }
                }
            }
        }
    }
}

fn ran(ended: Option<Result<bool, tokio::task::JoinError>>) -> Result<bool, Exit> {
    ended.transpose().map(|ran| ran.unwrap_or(true)).map_err(Exit::software)
}

/// What a daemon would hold for a call.
fn claim(number: u64, event: String) -> Claim {
    let task = Task {
        id: TaskId::named(number.to_string()),
        attempt: 1,
        due: Timestamp::default(),
        payload: Payload(event),
        max_attempts: None,
        deadline: None,
        trace: None,
        history: Vec::new(),
    };
    let now = Clock::system().now();
    let lease = Lease::begin(now, Instant::now(), PATIENCE, PATIENCE);
    Claim { task, rev: Rev::from(String::new()), lease, started_at: now }
}

fn invocation(claim: &Claim) -> Invocation<'_> {
    let deadline = Instant::now() + PATIENCE;
    let (function, queue, worker) = ("work", "bench", "bench");
    Invocation { function, queue, claim, worker, start_by: deadline, deadline }
}

async fn watch_memory(samples: Arc<Mutex<Vec<u64>>>) {
    let mut ticks = interval(Duration::from_millis(20));
    loop {
        ticks.tick().await;
        if let Ok(now) = usage::resident_kb("self") {
            samples.lock().expect("nothing panics with it").push(now);
        }
    }
}

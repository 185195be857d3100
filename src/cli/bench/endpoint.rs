//! The endpoint of a benchmark, a process of its own: a function that takes its time, and a count
//! of what ran. Its parent asks it over standard input, a line for each question.

use std::collections::HashMap;
use std::io::{self, BufRead as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::cli::block_on;
use crate::cli::exit::Exit;
use crate::clock::Clock;
use crate::descriptors;
use crate::local::lambda::{Answer, Call, EmbeddedLambda, Functions, LocalFunction};
use crate::local::limits::Limits;
use crate::local::tls::{Manner, TlsLambda};

/// How often calls in flight are looked at for the plot.
const SAMPLE_EVERY: Duration = Duration::from_millis(10);

/// How the endpoint behaves.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Behaviour {
    /// How long a call takes ...
    pub(super) takes: Duration,
    /// ... give or take this.
    pub(super) spread: Duration,
    /// Calls on one connection.
    pub(super) streams: u32,
    /// A connection ends after so many calls.
    pub(super) goaway_after: Option<usize>,
    /// Calls at once.
    pub(super) limit: Option<u32>,
    /// New environments in 10 s.
    pub(super) ramp: Option<u32>,
    /// Without TLS, over HTTP/1.1.
    pub(super) plain: bool,
}

/// Where the endpoint is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Address {
    pub(super) url: String,
    /// What its callers trust.
    pub(super) certificate: String,
}

/// What ran since the last question.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Seen {
    /// At most at once, and when that was; all moments in epoch milliseconds.
    pub(super) peak: u32,
    pub(super) peak_at: u64,
    /// Calls in flight, now and then.
    pub(super) samples: Vec<(u64, u32)>,
    /// Calls that ran more than once.
    pub(super) ran_again: usize,
    #[serde(skip)]
    now: u32,
    #[serde(skip)]
    runs: HashMap<u64, u32>,
}

type Shared = Arc<Mutex<Seen>>;

/// Serves until standard input ends.
pub(in crate::cli) fn serve(behaviour: &str) -> Result<(), Exit> {
    let behaviour: Behaviour = serde_json::from_str(behaviour).map_err(Exit::usage)?;
    descriptors::raise();
    let seen = Shared::default();
    let mut function = LocalFunction::new(Duration::from_secs(900), work(&behaviour, &seen));
    function.max_concurrency = behaviour.limit;
    let functions = Functions::from([("work".to_owned(), function)]);
    let limits = Limits { ramp: behaviour.ramp, ..Limits::default() };
    block_on(async {
        let (streams, goaway_after) = (behaviour.streams, behaviour.goaway_after);
        let manner = Manner { streams, goaway_after, limits, ..Manner::default() };
        if behaviour.plain {
            let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let lambda = EmbeddedLambda::limited(anywhere, functions, limits).map_err(Exit::os)?;
            answer(Address { url: lambda.url(), certificate: String::new() }, &seen).await
        } else {
            let lambda = TlsLambda::start(functions, manner).map_err(Exit::os)?;
            let certificate = lambda.certificate().to_owned();
            answer(Address { url: lambda.url(), certificate }, &seen).await
        }
    })
}

/// The function. A call always takes the same time, so that all callers have the same work.
fn work(behaviour: &Behaviour, seen: &Shared) -> impl Fn(Call) -> Running + Send + Sync + 'static {
    let (takes, spread, seen) = (behaviour.takes, behaviour.spread, seen.clone());
    move |call: Call| {
        let number = serde_json::from_slice(&call.payload).unwrap_or_default();
        let share = StdRng::seed_from_u64(number).random_range(0.0..=2.0);
        let takes = (takes + spread.mul_f64(share)).saturating_sub(spread);
        Box::pin(run(number, takes, seen.clone()))
    }
}

type Running = std::pin::Pin<Box<dyn Future<Output = Answer> + Send>>;

async fn run(number: u64, takes: Duration, seen: Shared) -> Answer {
    lock(&seen).begin(number);
    sleep(takes).await;
    lock(&seen).now -= 1;
    Answer::Returned(b"{}".to_vec())
}

fn lock(seen: &Shared) -> MutexGuard<'_, Seen> {
    seen.lock().expect("nothing panics while holding this lock")
}

impl Seen {
    fn begin(&mut self, number: u64) {
        self.now += 1;
        let runs = self.runs.entry(number).or_default();
        *runs += 1;
        self.ran_again += usize::from(*runs > 1);
        if self.now > self.peak {
            (self.peak, self.peak_at) = (self.now, now());
        }
    }
}

fn now() -> u64 {
    Clock::system().now().as_millis()
}

/// Tells where it is; then, for each line, what ran since the last.
async fn answer(address: Address, seen: &Shared) -> Result<(), Exit> {
    say(&address)?;
    let mut sampling = JoinSet::new();
    sampling.spawn(sample(seen.clone()));
    loop {
        let question = tokio::task::spawn_blocking(|| io::stdin().lock().lines().next()).await;
        let Some(_) = question.map_err(Exit::software)? else { return Ok(()) };
        let was = std::mem::take(&mut *lock(seen));
        say(&was)?;
    }
}

async fn sample(seen: Shared) {
    let mut ticks = interval(SAMPLE_EVERY);
    loop {
        ticks.tick().await;
        let mut seen = lock(&seen);
        let running = seen.now;
        seen.samples.push((now(), running));
    }
}

/// Prints a line for the parent.
pub(super) fn say(what: &impl Serialize) -> Result<(), Exit> {
    let line = serde_json::to_string(what).map_err(Exit::software)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Exit::os)
}

//! The engine's two ports on a simulated world: requests take time, get lost on the way, take
//! effect and lose their replies, or are refused.

use std::time::Duration;

use burstd::claim::{Rev, Terms};
use burstd::clock::Clock;
use burstd::invoker::{
    Concurrency, Failure, Invocation, Invoker, Limit, Outcome, Reason, Refusal, Success,
    TaskResult, Throttle,
};
use burstd::retry::Settlement;
use burstd::store::{
    Candidate, Claimed, Consumed, Cursor, DueQuery, Fault, Page, Store, StoreError, Write,
};
use burstd::task::{TaskId, Timestamp};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::world::{Sabotage, Shared, World, lock};

/// The longest a function runs.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// A lost reply is noticed after this.
const PATIENCE: Duration = Duration::from_secs(3);

/// One worker's way to the world.
#[derive(Clone)]
pub struct Port {
    pub world: Shared,
    pub worker: usize,
    pub max_in_flight: usize,
    /// The worker's clock, which hears what time the table says it is.
    pub clock: Clock,
}

impl Port {
    /// Waits while the worker stands still.
    async fn awake(&self) {
        loop {
            let until = lock(&self.world).paused.get(&self.worker).copied();
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => sleep_until(until).await,
                None => return,
            }
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        effect: impl FnOnce(&mut World) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.awake().await;
        let sent = Instant::now();
        let (tell, told) = oneshot::channel();
        let refused = {
            let mut world = lock(&self.world);
            let now = Instant::now();
            let is_away = world.away.get(&self.worker).is_some_and(|until| *until > now);
            let slow = world.strikes(2);
            if slow || is_away {
                world.trouble(self.worker);
            }
            let there = if slow { world.millis(0, 9000) } else { world.millis(1, 20) };
            let back = world.millis(1, 20);
            let (request_lost, reply_lost) = (is_away || world.strikes(4), world.strikes(4));
            let refused = world.strikes(5);
            if !refused {
                let shared = self.world.clone();
                world.network.spawn(async move {
                    sleep(there).await;
                    let value = (!request_lost).then(|| {
                        let mut world = lock(&shared);
                        (world.date(), effect(&mut world))
                    });
                    sleep(back).await;
                    match value.filter(|_| !reply_lost) {
                        // Who has died meanwhile is not told.
                        Some(value) => {
                            tell.send(value).ok();
                        }
                        None => {
                            sleep(PATIENCE).await;
                            drop(tell);
                        }
                    }
                });
            }
            refused
        };
        if refused {
            sleep(Duration::from_millis(5)).await;
            return Err(unavailable(operation));
        }
        let answer = told.await;
        self.awake().await;
        let (date, answer) = answer.map_err(|_| unavailable(operation))?;
        let sabotage = lock(&self.world).sabotage;
        if sabotage != Sabotage::TrustsTheMachine {
            // What is said of it is of no interest here.
            self.clock.hear(date, sent);
        }
        Ok(answer)
    }
}

fn unavailable(operation: &'static str) -> StoreError {
    let (code, message) = ("Simulated".to_owned(), "no answer".to_owned());
    StoreError::Unavailable(Fault { operation, code, message })
}

impl Store for Port {
    async fn due(&self, query: DueQuery<'_>) -> Result<Page, StoreError> {
        let (now, limit) = (query.now, query.limit);
        let after = query.after.map(|cursor| {
            let due = cursor.due.parse().unwrap_or_default();
            (Timestamp::from_millis(due), cursor.id.to_string())
        });
        self.call("query", move |world| {
            let mut entries = world.index();
            entries.retain(|entry| entry.0 <= now && after.as_ref().is_none_or(|it| entry > it));
            let is_last = entries.len() <= limit;
            entries.truncate(limit);
            let next = entries.last().filter(|_| !is_last).map(|(due, id)| Cursor {
                id: TaskId::named(id.clone()),
                due: due.as_millis().to_string(),
            });
            let candidates = entries.into_iter();
            let candidates = candidates.map(|(due, id)| Candidate { id: TaskId::named(id), due });
            Page { candidates: candidates.collect(), next }
        })
        .await
    }

    async fn claim(&self, id: &TaskId, terms: &Terms) -> Result<Claimed, StoreError> {
        let (id, terms) = (id.clone(), terms.clone());
        {
            // A claim whose reply was lost is sent again, to know whether it stands.
            let mut world = lock(&self.world);
            let is_new = world.tried.insert(terms.rev.as_str().to_owned());
            if is_new && world.held.contains(&self.worker) {
                world.violated(format_args!("{id} was claimed while its queue was paused"));
            }
        }
        self.call("claim", move |world| world.claim(&id, &terms)).await
    }

    async fn extend(&self, id: &TaskId, held: &Rev, terms: &Terms) -> Result<Write, StoreError> {
        let (id, held, terms) = (id.clone(), held.clone(), terms.clone());
        self.call("extend", move |world| world.extend(&id, &held, &terms)).await
    }

    async fn settle(
        &self,
        id: &TaskId,
        held: &Rev,
        settlement: &Settlement,
    ) -> Result<Write, StoreError> {
        let (id, held, settlement) = (id.clone(), held.clone(), settlement.clone());
        self.call("settle", move |world| world.settle(&id, &held, &settlement)).await
    }

    fn table(&self) -> &str {
        "simulated"
    }

    fn consumed(&self) -> Consumed {
        Consumed::default()
    }
}

/// Counts a call that is under way.
struct Calling<'a>(&'a Port);

impl<'a> Calling<'a> {
    fn new(port: &'a Port) -> Self {
        let mut world = lock(&port.world);
        let calls = world.calls.entry(port.worker).or_default();
        *calls += 1;
        if *calls > port.max_in_flight {
            let calls = *calls;
            world.violated(format_args!("{calls} calls at once of one worker"));
        }
        Calling(port)
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        *lock(&self.0.world).calls.entry(self.0.worker).or_default() -= 1;
    }
}

impl Invoker for Port {
    async fn invoke(&self, invocation: Invocation<'_>) -> Outcome {
        let _calling = Calling::new(self);
        let task = invocation.claim.id().to_string();
        let attempt = invocation.claim.task.attempt;
        let (tell, told) = oneshot::channel();
        let way = {
            let mut world = lock(&self.world);
            if world.held.contains(&self.worker) {
                world.violated(format_args!("{task} was started while its queue was paused"));
            }
            let way = refusal(&mut world);
            // The half of the margin that guards against overlap covers this and the clocks.
            let there = if world.strikes(5) { world.millis(0, 2000) } else { world.millis(1, 30) };
            let full = world.strikes(15);
            let mut takes = if full { TIMEOUT } else { world.millis(1, 4000) };
            if world.sabotage == Sabotage::LongRuns {
                takes *= 6;
            }
            let fails = world.strikes(20) || full;
            let lost = world.strikes(6);
            let breaks_after = world.millis(0, 3000);
            if way.is_none() {
                let (shared, task) = (self.world.clone(), task.clone());
                world.network.spawn(async move {
                    sleep(there).await;
                    lock(&shared).begin(&task, attempt, Instant::now() + takes);
                    if lost {
                        sleep(breaks_after.min(takes)).await;
                        return;
                    }
                    sleep(takes).await;
                    // Who has died meanwhile is not told.
                    tell.send(fails).ok();
                });
            }
            way
        };
        if let Some(refusal) = way {
            sleep(Duration::from_millis(10)).await;
            return Outcome::NotRun(refusal);
        }
        let answer = timeout_at(invocation.deadline, told).await;
        self.awake().await;
        match answer {
            Ok(Ok(false)) => {
                Outcome::Succeeded(Success { result: TaskResult::Empty, request_id: None })
            }
            Ok(Ok(true)) => Outcome::Failed(Failure::new("Simulated", "it failed")),
            Ok(Err(_)) | Err(_) => {
                let mut world = lock(&self.world);
                if let Some(item) = world.items.get_mut(&task) {
                    item.excused += 1;
                }
                Outcome::Unknown(Failure::new("Simulated", "nobody knows"))
            }
        }
    }

    fn expect(&self, _: usize) {}

    async fn timeout(&self, _: &str) -> Result<Duration, Refusal> {
        Ok(TIMEOUT)
    }

    async fn concurrency(&self, _: &str) -> Option<Concurrency> {
        None
    }
}

/// Why the function is not run this time, if it is not.
fn refusal(world: &mut World) -> Option<Refusal> {
    let throttle = |limit| Reason::Throttled(Throttle { limit, retry_after: None });
    let dice = if world.strikes(20) { world.millis(0, 7).as_millis() } else { 99 };
    let reason = match dice {
        0 => throttle(Limit::Account),
        1 => throttle(Limit::Reserved),
        2 => throttle(Limit::FunctionRate),
        3 => throttle(Limit::CallerRate),
        4 => throttle(Limit::Snapshots),
        5 => Reason::Unavailable,
        6 => Reason::Broken,
        _ => return None,
    };
    Some(Refusal::new(reason, Failure::new("Simulated", "not now")))
}

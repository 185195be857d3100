//! The functions that queues run: how long each may run, how much concurrency it has, and what is
//! made of a configuration with that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::aws::LambdaInvoker;
use crate::config::{Config, QueueConfig, Timeout};
use crate::dispatcher::Plan;
use crate::governor::{CallerRate, Governor};
use crate::invoker::{Invoker as _, Refusal};
use crate::queue::{Function, Queue};

/// Lambda lets no function run longer
/// (docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html).
const LONGEST_TIMEOUT: Duration = Duration::from_secs(900);

/// A function, and what Lambda tells of its timeout.
type Answer = (String, Result<Duration, Refusal>);

/// What is known of the functions.
#[derive(Debug)]
pub(super) struct Functions {
    invoker: LambdaInvoker,
    caller: Arc<CallerRate>,
    /// Of every function that a queue has run since the start: tasks of a queue that is gone may
    /// be running, and it may come back.
    governors: BTreeMap<String, Arc<Governor>>,
    /// By the queue that runs it: two queues may lease the same function for different times.
    of_queues: BTreeMap<String, Arc<Function>>,
    /// The queues whose timeouts are the functions' own.
    auto: BTreeSet<String>,
    /// What Lambda last told of the functions' timeouts.
    told: BTreeMap<String, Duration>,
    /// The queues whose timeouts are too short, with theirs and the functions', as it was said.
    short: BTreeMap<String, (Duration, Duration)>,
}

impl Functions {
    pub(super) fn new(invoker: LambdaInvoker) -> Self {
        Functions {
            invoker,
            caller: Arc::default(),
            governors: BTreeMap::new(),
            of_queues: BTreeMap::new(),
            auto: BTreeSet::new(),
            told: BTreeMap::new(),
            short: BTreeMap::new(),
        }
    }

    /// What is to be done by this configuration. Of functions that were not known before it asks
    /// Lambda; what was learnt of the others stays.
    pub(super) async fn plan(&mut self, config: &Config) -> Plan {
        let names: BTreeSet<_> = config.queues.iter().map(|queue| queue.function.clone()).collect();
        let mut new = BTreeMap::new();
        for name in &names {
            let caps = config.caps(name);
            match self.governors.get(name) {
                Some(known) => known.set_caps(caps),
                None => {
                    let governor = Arc::new(Governor::new(name, caps, self.caller.clone()));
                    new.insert(name.clone(), governor);
                }
            }
        }
        // What is not looked after may be another one by the time it is wanted again.
        self.told.retain(|name, _| names.contains(name));
        let (answers, ()) = tokio::join!(self.ask_timeouts(&names), self.read_concurrency(&new));
        self.governors.append(&mut new);
        let is_auto = |queue: &&QueueConfig| queue.timeout == Timeout::Auto;
        self.auto = config.queues.iter().filter(is_auto).map(|queue| queue.name.clone()).collect();
        self.learn_timeouts(config, answers);
        let queues: Vec<_> = config.queues.iter().map(|queue| self.queue(queue)).collect();
        let of = |queue: &Queue| (queue.name.clone(), queue.function.clone());
        self.of_queues = queues.iter().map(of).collect();
        self.say_which_are_short();
        Plan { queues, limits: config.limits }
    }

    fn queue(&self, config: &QueueConfig) -> Queue {
        let name = &config.function;
        let known = self.of_queues.get(&config.name).filter(|function| function.name == *name);
        let timeout = match config.timeout {
            Timeout::Fixed(timeout) => timeout,
            Timeout::Auto => self.told.get(name).copied().unwrap_or(LONGEST_TIMEOUT),
        };
        let function = match known {
            Some(known) => {
                known.set_timeout(timeout);
                known.clone()
            }
            None => Arc::new(Function::new(name, timeout, self.governors[name].clone())),
        };
        Queue {
            name: config.name.clone(),
            function,
            policy: config.policy.clone(),
            lease_margin: config.lease_margin,
            max_in_flight: config.max_in_flight,
            shards: Queue::shards(&config.name, config.shards),
        }
    }

    /// Keeps what Lambda told of the functions' timeouts; what it does not tell stays as it was. If
    /// it has never told one that leases are made from, the longest there is stands in: a lease
    /// that is too long costs patience, one that is too short would let a task run twice at once.
    fn learn_timeouts(&mut self, config: &Config, answers: Vec<Answer>) {
        let auto = config.queues.iter().filter(|queue| self.auto.contains(&queue.name));
        let queues: BTreeMap<_, _> = auto.map(|queue| (&queue.function, &queue.name)).collect();
        for (name, answer) in answers {
            match (answer, queues.get(&name)) {
                (Ok(timeout), _) => {
                    self.told.insert(name, timeout);
                }
                (Err(Refusal { failure, .. }), Some(queue)) if !self.told.contains_key(&name) => {
                    warn!(
                        event = "function.timeout_unknown",
                        queue = **queue,
                        function = name,
                        code = failure.error_type,
                        error = failure.message,
                        assumed_s = LONGEST_TIMEOUT.as_secs(),
                        "the function's timeout cannot be read; leases are as long as can be \
                         until it is, or until the queue has a timeout of its own"
                    );
                }
                (Err(_), _) => {}
            }
        }
    }

    /// A function that runs on when its task's lease has ended may run beside itself.
    fn say_which_are_short(&mut self) {
        for (queue, function) in &self.of_queues {
            let ours = function.timeout();
            let theirs = self.told.get(&function.name).copied().filter(|theirs| *theirs > ours);
            let Some(theirs) = theirs.filter(|_| !self.auto.contains(queue)) else {
                self.short.remove(queue);
                continue;
            };
            if self.short.insert(queue.clone(), (ours, theirs)) != Some((ours, theirs)) {
                warn!(
                    event = "function.timeout_longer",
                    queue,
                    function = function.name,
                    timeout_s = ours.as_secs_f64(),
                    function_timeout_s = theirs.as_secs_f64(),
                    "the function may run for longer than the queue's timeout, and a task then \
                     beside its former self: raise `timeout`, or make it \"auto\""
                );
            }
        }
    }

    async fn ask_timeouts(&self, names: &BTreeSet<String>) -> Vec<Answer> {
        let mut asked = JoinSet::new();
        for name in names.clone() {
            let invoker = self.invoker.clone();
            asked.spawn(async move {
                let answer = invoker.timeout(&name).await;
                (name, answer)
            });
        }
        asked.join_all().await
    }

    /// Asks Lambda how much concurrency functions have. What it does not tell is learnt.
    async fn read_concurrency(&self, governors: &BTreeMap<String, Arc<Governor>>) {
        let mut asked = JoinSet::new();
        for (name, governor) in governors {
            let (invoker, name, governor) = (self.invoker.clone(), name.clone(), governor.clone());
            asked.spawn(async move {
                if let Some(concurrency) = invoker.concurrency(&name).await {
                    governor.told(concurrency);
                }
            });
        }
        asked.join_all().await;
    }

    /// Reads the functions' settings again. What cannot be read stays as it was.
    pub(super) async fn read_again(&mut self) {
        let named: BTreeSet<_> =
            self.of_queues.values().map(|function| function.name.clone()).collect();
        let governors = self.governors.iter().filter(|(name, _)| named.contains(*name));
        let governors =
            governors.map(|(name, governor)| (name.clone(), governor.clone())).collect();
        let (answers, ()) =
            tokio::join!(self.ask_timeouts(&named), self.read_concurrency(&governors));
        let told = answers.into_iter().filter_map(|(name, answer)| Some((name, answer.ok()?)));
        self.told.extend(told);
        let auto = self.of_queues.iter().filter(|(queue, _)| self.auto.contains(*queue));
        for (queue, function) in auto {
            let Some(timeout) = self.told.get(&function.name) else { continue };
            if *timeout != function.timeout() {
                info!(
                    event = "function.timeout_changed",
                    queue,
                    function = function.name,
                    from_s = function.timeout().as_secs(),
                    to_s = timeout.as_secs(),
                    "leases are measured by it from now on"
                );
                function.set_timeout(*timeout);
            }
        }
        self.say_which_are_short();
    }
}

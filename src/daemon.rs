//! The composition root: what `burstd run` builds, starts and stops.

use std::collections::BTreeMap;
use std::fs;
use std::future::pending;
use std::sync::{Arc, Once};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, make_rng};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use crate::aws::{Clients, DynamoStore, LambdaInvoker, NoRegion, Place, Table};
use crate::backlog::Backlog;
use crate::config::{AwsConfig, Config, QueueConfig, Timeout};
use crate::counts::Counts;
use crate::dispatcher::Dispatcher;
use crate::episode::Episode;
use crate::governor::{CallerRate, Governor};
use crate::invoker::Invoker as _;
use crate::memory::Memory;
use crate::queue::{Function, Queue};
use crate::shutdown::Shutdown;
use crate::store::StoreError;
use crate::systemd;
use crate::worker::{STORE_BACKOFF, Worker};

/// Lambda lets no function run longer
/// (docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html).
const LONGEST_TIMEOUT: Duration = Duration::from_secs(900);

/// How often functions' timeouts and concurrency are read again.
const READ_EVERY: Duration = Duration::from_secs(60);

/// A daemon that is ready to run.
#[derive(Debug)]
pub struct Daemon {
    worker: Arc<Worker<DynamoStore, LambdaInvoker>>,
    dispatcher: Dispatcher<DynamoStore, LambdaInvoker>,
    /// The queues whose timeouts are the functions' own.
    auto: Vec<Arc<Queue>>,
    governors: BTreeMap<String, Arc<Governor>>,
}

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// No region is set.
    #[error(transparent)]
    NoRegion(#[from] NoRegion),
    /// The table is missing, wrong, or not for us.
    #[error(transparent)]
    Table(StoreError),
}

impl Daemon {
    /// Builds everything, and waits until the table can be worked with. Nothing when burstd is
    /// told to stop before that.
    ///
    /// # Errors
    ///
    /// When waiting would not help: no region, no such table or index, no right to it.
    pub async fn prepare(
        config: &Config,
        place: &Place,
        name: String,
        shutdown: Shutdown,
        backlog: Backlog,
    ) -> Result<Option<Daemon>, DaemonError> {
        let clients = Clients::new(place).await?;
        let mut rng: StdRng = make_rng();
        let table = clients.table(&config.table);
        let opened = tokio::select! {
            biased;
            () = shutdown.draining() => return Ok(None),
            opened = open(&table, &mut rng) => opened,
        };
        let store = opened.map_err(DaemonError::Table)?;
        let invoker = clients.invoker();
        let functions = timeouts(config, &invoker).await;
        let worker = Arc::new(Worker {
            name,
            store,
            invoker,
            clock: clients.clock(),
            backlog,
            memory: Memory::new(config.limits.max_bytes_in_flight),
            shutdown,
            store_trouble: Episode::default(),
        });
        let governors = governors(config);
        read_concurrency(&governors, &worker.invoker).await;
        let queues = config
            .queues
            .iter()
            .map(|queue| build_queue(queue, &functions, governors[&queue.function].clone()))
            .collect();
        let dispatcher = Dispatcher::new(worker.clone(), queues, config.limits, rng);
        let is_auto = |queue: &Arc<Queue>| {
            config.queue(&queue.name).is_some_and(|of| of.timeout == Timeout::Auto)
        };
        let auto = dispatcher.queues().into_iter().filter(is_auto).collect();
        Ok(Some(Daemon { worker, dispatcher, auto, governors }))
    }

    /// What is counted, as it changes.
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.dispatcher.counts()
    }

    /// The table it works on.
    pub fn store(&self) -> &DynamoStore {
        &self.worker.store
    }

    /// Works until told to stop, then drains.
    pub async fn run(self) -> Counts {
        systemd::ready("polling");
        let shutdown = self.worker.shutdown.clone();
        let told = Once::new();
        let tell = || told.call_once(|| systemd::stopping("draining"));
        let counts = tokio::select! {
            biased;
            () = async { shutdown.draining().await; tell(); pending().await } => {
                unreachable!("it never ends")
            }
            counts = self.dispatcher.run() => counts,
            () = keep_reading(&self.auto, &self.governors, &self.worker.invoker) => {
                unreachable!("it never ends")
            }
        };
        // A dispatcher with nothing in flight may notice first, and have ended by now.
        tell();
        counts
    }
}

/// Where the configuration says that AWS is.
pub fn place(aws: &AwsConfig) -> Place {
    let or_common = |own: &Option<String>| own.clone().or_else(|| aws.endpoint_url.clone());
    Place {
        region: aws.region.clone(),
        profile: aws.profile.clone(),
        dynamodb_endpoint_url: or_common(&aws.dynamodb_endpoint_url),
        lambda_endpoint_url: or_common(&aws.lambda_endpoint_url),
        http: aws.http,
        ca_bundle: None,
        is_embedded: false,
    }
}

/// A name that no other process ever had: this host, this boot of it, this start. In a sandbox
/// that hides the boot, the start alone, which is random, must do.
pub fn worker_name() -> String {
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let boot: String = boot.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    let start = format!("{:08x}", make_rng::<StdRng>().random::<u32>());
    let parts = [host, boot, start].into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-")
}

/// Opens the table, waiting while AWS or the table is not ready. It is said once.
async fn open(table: &Table, rng: &mut StdRng) -> Result<DynamoStore, StoreError> {
    let mut tries = 0;
    loop {
        let fault = match table.open().await {
            Err(StoreError::Unavailable(fault)) => fault,
            opened_or_hopeless => return opened_or_hopeless,
        };
        if tries == 0 {
            warn!(
                event = "store.unavailable",
                operation = fault.operation,
                code = fault.code,
                error = fault.message,
                "the table cannot be used yet; burstd waits for it"
            );
            systemd::status(&format!("waiting for DynamoDB: {}", fault.code));
        }
        tries += 1;
        sleep(STORE_BACKOFF.after(tries, rng)).await;
    }
}

fn build_queue(
    config: &QueueConfig,
    timeouts: &BTreeMap<&str, Duration>,
    governor: Arc<Governor>,
) -> Queue {
    let timeout = match config.timeout {
        Timeout::Fixed(timeout) => timeout,
        Timeout::Auto => timeouts[config.function.as_str()],
    };
    Queue {
        name: config.name.clone(),
        function: Function::new(config.function.clone(), timeout, governor),
        policy: config.policy.clone(),
        lease_margin: config.lease_margin,
        max_in_flight: config.max_in_flight,
        shards: Queue::shards(&config.name, config.shards),
    }
}

/// The timeouts of the functions that are to be asked for theirs. When Lambda does not say, the
/// longest there is stands in: a lease that is too long costs patience, one that is too short
/// would let a task run twice at the same moment.
async fn timeouts<'a>(config: &'a Config, invoker: &LambdaInvoker) -> BTreeMap<&'a str, Duration> {
    let mut timeouts = BTreeMap::new();
    for queue in config.queues.iter().filter(|queue| queue.timeout == Timeout::Auto) {
        let function = queue.function.as_str();
        if timeouts.contains_key(function) {
            continue;
        }
        let timeout = match invoker.timeout(function).await {
            Ok(timeout) => timeout,
            Err(refusal) => {
                warn!(
                    event = "function.timeout_unknown",
                    queue = queue.name,
                    function,
                    code = refusal.failure.error_type,
                    error = refusal.failure.message,
                    assumed_s = LONGEST_TIMEOUT.as_secs(),
                    "the function's timeout cannot be read; leases are as long as can be until \
                     it is, or until the queue has a timeout of its own"
                );
                LONGEST_TIMEOUT
            }
        };
        timeouts.insert(function, timeout);
    }
    timeouts
}

/// A governor for each function that a queue runs.
fn governors(config: &Config) -> BTreeMap<String, Arc<Governor>> {
    let caller = Arc::new(CallerRate::default());
    let functions = config.queues.iter().map(|queue| queue.function.clone());
    functions
        .map(|function| {
            let governor = Governor::new(&function, config.caps(&function), caller.clone());
            (function, Arc::new(governor))
        })
        .collect()
}

/// Asks Lambda how much concurrency the functions have. What it does not tell is learnt.
async fn read_concurrency(governors: &BTreeMap<String, Arc<Governor>>, invoker: &LambdaInvoker) {
    for (function, governor) in governors {
        if let Some(concurrency) = invoker.concurrency(function).await {
            governor.told(concurrency);
        }
    }
}

/// Reads the functions' settings again, now and then. What cannot be read stays as it was.
async fn keep_reading(
    queues: &[Arc<Queue>],
    governors: &BTreeMap<String, Arc<Governor>>,
    invoker: &LambdaInvoker,
) {
    let mut ticks = interval(READ_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        read_concurrency(governors, invoker).await;
        for queue in queues {
            let function = &queue.function;
            let Ok(timeout) = invoker.timeout(&function.name).await else { continue };
            if timeout != function.timeout() {
                info!(
                    event = "function.timeout_changed",
                    queue = queue.name,
                    function = function.name,
                    from_s = function.timeout().as_secs(),
                    to_s = timeout.as_secs(),
                    "leases are measured by it from now on"
                );
                function.set_timeout(timeout);
            }
        }
    }
}

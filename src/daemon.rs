//! The composition root: what `burstd run` builds, starts, reloads and stops.

mod control;
mod functions;
mod machine;
mod manager;
mod settings;

use std::fs;
use std::future::pending;
use std::sync::{Arc, Once};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, make_rng};
use tokio::sync::watch;
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::aws::{Clients, DynamoStore, LambdaInvoker, NoRegion, Place, Table};
use crate::backlog::Backlog;
use crate::config::{AwsConfig, Config};
use crate::counts::Counts;
use crate::dispatcher::Dispatcher;
use crate::memory::Memory;
use crate::pulse::Pulse;
use crate::shutdown::Shutdown;
use crate::store::StoreError;
use crate::systemd;
use crate::worker::{STORE_BACKOFF, Worker};
use control::Liaison;
use functions::Functions;
pub use machine::{Room, fit};
use manager::Watched;
use settings::Settings;
pub use settings::Source;

/// How long a turn of the settings' loop may take: Lambda has 10 s to tell of each kind of them.
const SETTINGS_TURN: Duration = Duration::from_secs(30);

/// The same of the control item's: a call to DynamoDB is given up after 25 s, and there are two.
const CONTROL_TURN: Duration = Duration::from_secs(60);

/// How much more time a start is given, again and again while it waits for AWS.
const START_EXTENSION: Duration = Duration::from_secs(60);

/// A daemon that is ready to run.
#[derive(Debug)]
pub struct Daemon {
    worker: Arc<Worker<DynamoStore, LambdaInvoker>>,
    dispatcher: Dispatcher<DynamoStore, LambdaInvoker>,
    settings: Settings,
    liaison: Liaison,
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
        let mut functions = Functions::new(clients.invoker());
        let table = clients.table(&config.table);
        let ready = async {
            systemd::status("asking for the table");
            let store = open(&table, &mut rng).await?;
            let notices = control::first(&store.control(), &mut rng).await;
            systemd::status("asking Lambda for its functions");
            Ok((store, notices, functions.plan(config).await))
        };
        let ready = tokio::select! {
            biased;
            () = shutdown.draining() => return Ok(None),
            ready = ready => ready,
            () = extend_the_start() => unreachable!("it never ends"),
        };
        let (store, notices, plan) = ready.map_err(DaemonError::Table)?;
        let control = store.control();
        let (invoker, clock) = (clients.invoker(), clients.clock());
        let memory = Memory::new(config.limits.max_bytes_in_flight);
        let worker = Worker::new(name, store, invoker, clock, backlog, memory, shutdown);
        let worker = Arc::new(worker);
        let dispatcher = Dispatcher::new(worker.clone(), plan, rng);
        let settings = Settings {
            config: config.clone(),
            functions,
            plans: dispatcher.plans(),
            pulse: Pulse::default(),
        };
        let overviews = dispatcher.overviews();
        let liaison = Liaison::new(control, worker.clone(), notices, overviews);
        Ok(Some(Daemon { worker, dispatcher, settings, liaison }))
    }

    /// What is counted, as it changes.
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.dispatcher.counts()
    }

    /// The table it works on.
    pub fn store(&self) -> &DynamoStore {
        &self.worker.store
    }

    /// Works until told to stop, then drains. Meanwhile its configuration is read again from
    /// `source`, when somebody wishes it.
    pub async fn run(mut self, source: Option<Source>) -> Counts {
        systemd::ready("polling");
        let shutdown = self.worker.shutdown.clone();
        let told = Once::new();
        let tell = || told.call_once(|| systemd::stopping("draining"));
        let loops = vec![
            Watched::new("dispatcher", self.dispatcher.pulse(), Duration::ZERO),
            Watched::new("settings", self.settings.pulse.clone(), SETTINGS_TURN),
            Watched::new("control", self.liaison.pulse.clone(), CONTROL_TURN),
        ];
        let (backlog, overviews) = (self.worker.backlog.clone(), self.dispatcher.overviews());
        let _informing = manager::inform(loops, backlog, overviews, shutdown.clone());
        let ended = CancellationToken::new();
        let dispatching = async {
            let counts = self.dispatcher.run().await;
            ended.cancel();
            counts
        };
        let work = async { tokio::join!(dispatching, self.liaison.keep_in_touch(&ended)).0 };
        let counts = tokio::select! {
            biased;
            () = async { shutdown.draining().await; tell(); pending().await } => {
                unreachable!("it never ends")
            }
            counts = work => counts,
            () = self.settings.look_after(source, &shutdown) => unreachable!("it never ends"),
        };
        // A dispatcher with nothing in flight may notice first, and have ended by now.
        tell();
        self.liaison.leave().await;
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

/// However long AWS is away: a start that hangs gets no more time.
async fn extend_the_start() {
    let mut ticks = interval(START_EXTENSION / 4);
    loop {
        ticks.tick().await;
        systemd::extend(START_EXTENSION);
    }
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

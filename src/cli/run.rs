//! `burstd run`.

use std::time::Instant;

use tracing::{error, info, warn};

use super::exit::Exit;
use super::{ConfigFile, block_on};
use crate::aws::Http;
use crate::backlog::Backlog;
use crate::config::{AwsConfig, Config, LogConfig};
use crate::daemon::{self, Daemon};
use crate::descriptors;
use crate::shutdown::Shutdown;
use crate::telemetry::{self, Lines, Output};

/// Descriptors beside those of invocations: DynamoDB's connections, logs, the runtime's own.
const SPARE_DESCRIPTORS: u64 = 200;

/// Calls that share an HTTP/2 connection, at the least that Lambda is known to allow.
const CALLS_ON_A_CONNECTION: u64 = 100;

/// Runs the daemon until it is told to stop.
pub(super) fn run(file: &ConfigFile) -> Result<(), Exit> {
    let config = file.load()?;
    let name = daemon::worker_name();
    let lines = start_log(&config, &name)?;
    let shutdown = Shutdown::on_signals().map_err(Exit::os)?;
    check_descriptors(&config);
    info!(
        event = "daemon.started",
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        config = %file.config.display(),
        table = config.table,
        queues = config.queues.len(),
        max_in_flight = config.limits.max_in_flight,
        "burstd starts"
    );
    block_on(serve(config, name, shutdown, lines.backlog())).map_err(|exit| {
        error!(event = "daemon.failed", error = exit.message(), "burstd cannot start");
        exit.said()
    })
}

async fn serve(
    config: Config,
    name: String,
    shutdown: Shutdown,
    backlog: Backlog,
) -> Result<(), Exit> {
    let began = Instant::now();
    let place = daemon::place(&config.aws);
    let Some(daemon) = Daemon::prepare(&config, &place, name, shutdown, backlog).await? else {
        info!(event = "daemon.stopped", reason = "told to stop before it was ready", "stopped");
        return Ok(());
    };
    info!(
        event = "daemon.ready",
        startup_s = began.elapsed().as_secs_f64(),
        "table, index and credentials are good; polling"
    );
    let counts = daemon.run().await;
    info!(
        event = "daemon.stopped",
        uptime_s = began.elapsed().as_secs(),
        attempts = counts.attempts(),
        released = counts.released,
        abandoned = counts.abandoned,
        "stopped"
    );
    Ok(())
}

fn start_log(config: &Config, worker: &str) -> Result<Lines, Exit> {
    let levels = telemetry::levels(&config.log.level)
        .map_err(|error| Exit::usage(format!("log.level: {error}")))?;
    let LogConfig { format, metrics, buffer, .. } = config.log;
    telemetry::start((format, metrics), levels, Output::Stdout, worker, buffer).map_err(Exit::os)
}

/// Says so when the operating system does not allow the configured concurrency.
fn check_descriptors(config: &Config) {
    let allowed = descriptors::raise();
    let max_in_flight = config.limits.max_in_flight as u64;
    let connections = match calls_share_connections(&config.aws) {
        true => max_in_flight.div_ceil(CALLS_ON_A_CONNECTION),
        false => max_in_flight,
    };
    let needed = connections + SPARE_DESCRIPTORS;
    if allowed < needed {
        warn!(
            event = "daemon.limits",
            limit = "file descriptors",
            wanted = needed,
            got = allowed,
            "raise LimitNOFILE, or lower max_in_flight: invocations beyond it cannot connect"
        );
    }
}

/// Whether Lambda will be spoken to in HTTP/2: it offers that over TLS.
fn calls_share_connections(aws: &AwsConfig) -> bool {
    let place = daemon::place(aws);
    let is_plain = place.lambda_endpoint_url.is_some_and(|url| url.starts_with("http://"));
    match aws.http {
        Http::H1 => false,
        Http::H2 => true,
        Http::Auto => !is_plain,
    }
}

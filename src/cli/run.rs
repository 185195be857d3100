//! `burstd run`.

use std::time::Instant;

use tracing::{error, info};

use super::exit::Exit;
use super::{ConfigFile, block_on};
use crate::backlog::Backlog;
use crate::config::{Config, LogConfig};
use crate::daemon::{self, Daemon, Source};
use crate::reload::Reload;
use crate::shutdown::Shutdown;
use crate::telemetry::{self, Levels, Lines, Output};

/// Runs the daemon until it is told to stop.
pub(super) fn run(file: &ConfigFile) -> Result<(), Exit> {
    let config = file.load()?;
    let name = daemon::worker_name();
    let (lines, levels) = start_log(&config, &name)?;
    let shutdown = Shutdown::on_signals().map_err(Exit::refused)?;
    let reload = Reload::on_signal().map_err(Exit::refused)?;
    let source = Source { path: file.config.clone(), reload, levels };
    let place = config.aws.clone();
    let config = daemon::fit(config, &place);
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
    block_on(serve(config, name, shutdown, lines.backlog(), source)).map_err(|exit| {
        error!(event = "daemon.failed", error = exit.message(), "burstd cannot start");
        exit.said()
    })
}

async fn serve(
    config: Config,
    name: String,
    shutdown: Shutdown,
    backlog: Backlog,
    source: Source,
) -> Result<(), Exit> {
    let began = Instant::now();
    let place = daemon::place(&config.aws);
    let Some(daemon) = Daemon::prepare(&config, &place, name, shutdown, backlog).await? else {
        info!(event = "daemon.stopped", reason = "told to stop before it was ready", "stopped");
        return Ok(());
    };
    info!(
        event = "daemon.ready",
        startup_s = (began.elapsed().as_secs_f64() * 1e3).round() / 1e3,
        "table, index and credentials are good; polling"
    );
    let counts = daemon.run(Some(source)).await;
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

fn start_log(config: &Config, worker: &str) -> Result<(Lines, Levels), Exit> {
    let levels = telemetry::levels(&config.log.level)
        .map_err(|error| Exit::usage(format!("log.level: {error}")))?;
    let LogConfig { format, metrics, buffer, .. } = config.log;
    telemetry::start((format, metrics), levels, Output::Stdout, worker, buffer)
        .map_err(Exit::refused)
}

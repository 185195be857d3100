//! What may change while the daemon works: its configuration, read again when somebody wishes it,
//! and the functions' settings, read again now and then.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{Level, enabled, error, info, warn};

use super::functions::Functions;
use super::machine;
use crate::config::{Changes, Config, ConfigError};
use crate::dispatcher::Plans;
use crate::pulse::Pulse;
use crate::reload::Reload;
use crate::shutdown::Shutdown;
use crate::systemd;
use crate::telemetry::{self, Levels};

/// How often functions' timeouts and concurrency are read again.
const READ_EVERY: Duration = Duration::from_secs(60);

/// How often the loop comes round at the least.
const EVERY: Duration = Duration::from_secs(1);

/// Where a configuration comes from, and who may wish that it be read again.
#[derive(Debug)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// The wish.
    pub reload: Reload,
    /// What the log's level goes by.
    pub levels: Levels,
}

/// Everything that may change.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) config: Config,
    pub(super) functions: Functions,
    pub(super) plans: Plans,
    pub(super) pulse: Pulse,
}

impl Settings {
    /// Keeps it right, for ever.
    pub(super) async fn look_after(mut self, source: Option<Source>, shutdown: &Shutdown) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut read_at = Instant::now() + READ_EVERY;
        loop {
            self.pulse.beat();
            tokio::select! {
                biased;
                source = wish(source.as_ref()) => self.reload(source, shutdown).await,
                now = ticks.tick() => if now >= read_at {
                    self.functions.read_again().await;
                    read_at = Instant::now() + READ_EVERY;
                }
            }
        }
    }

    fn read(&self, source: &Source) -> Result<Config, ConfigError> {
        let new = Config::load(&source.path)?;
        Ok(machine::fit(new, &self.config.aws))
    }

    /// Reads the configuration again, unless burstd stops. One that is wrong changes nothing.
    async fn reload(&mut self, source: &Source, shutdown: &Shutdown) {
        tokio::select! {
            biased;
            () = shutdown.draining() => error!(
                event = "config.reload_failed",
                path = %source.path.display(),
                error = "burstd is stopping",
                "the configuration is not read again; the one before stays in force"
            ),
            () = self.read_again(source) => {}
        }
    }

    async fn read_again(&mut self, source: &Source) {
        systemd::reloading();
        let path = source.path.display();
        match self.read(source) {
            Err(failure) => error!(
                event = "config.reload_failed",
                %path,
                error = %failure,
                "the configuration is wrong; the one before stays in force"
            ),
            Ok(new) => {
                let Changes { changed, needs_restart } = self.config.changes(&new);
                let new = self.config.as_far_as_can_be(new);
                let plan = self.functions.plan(&new).await;
                let levels = telemetry::levels(&new.log.level);
                let levels = levels.expect("a valid configuration has a valid level");
                // By whichever levels show it.
                let is_shown = enabled!(Level::INFO);
                if !is_shown {
                    source.levels.set(levels.clone());
                }
                self.plans.send(plan);
                self.config = new;
                let needs_restart = needs_restart.join(", ");
                info!(
                    event = "config.reloaded",
                    %path,
                    changed = changed.join(", "),
                    needs_restart,
                    "the configuration is in force"
                );
                if !needs_restart.is_empty() {
                    warn!(
                        event = "config.needs_restart",
                        %path,
                        needs_restart,
                        "what a running daemon cannot change is as it was: restart burstd for it"
                    );
                }
                if is_shown {
                    source.levels.set(levels);
                }
            }
        }
        systemd::ready_again();
    }
}

async fn wish(source: Option<&Source>) -> &Source {
    match source {
        Some(source) => {
            source.reload.asked().await;
            source
        }
        None => std::future::pending().await,
    }
}

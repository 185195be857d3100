//! Stopping, in two steps: drain, then stop.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;

use signal_hook::consts::signal::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio_util::sync::CancellationToken;

/// The wish to stop, shared by all that must obey it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    stop: CancellationToken,
    reason: Arc<OnceLock<&'static str>>,
}

impl Shutdown {
    /// Nobody wishes to stop yet.
    pub fn new() -> Self {
        Shutdown::default()
    }

    /// Drains at the first SIGTERM (systemd, `kill`) or SIGINT (Ctrl-C), stops at the second.
    ///
    /// signal-hook on a thread of its own, not tokio's signals: a runtime that is too busy to
    /// poll still learns that it is to stop.
    ///
    /// # Errors
    ///
    /// When the handlers or their thread cannot be installed.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Shutdown::new();
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let wish = shutdown.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                let name = if signal == SIGTERM { "SIGTERM" } else { "SIGINT" };
                if wish.is_draining() {
                    wish.stop();
                } else {
                    wish.drain(name);
                }
            }
        })?;
        Ok(shutdown)
    }

    /// First step: no new claims; what is in flight is awaited.
    pub fn drain(&self, reason: &'static str) {
        self.reason.get_or_init(|| reason);
        self.drain.cancel();
    }

    /// Second step: stop now; what is in flight is left to its lease.
    pub fn stop(&self) {
        self.drain.cancel();
        self.stop.cancel();
    }

    /// Whether the first step was taken.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Why, once it was.
    pub fn reason(&self) -> &'static str {
        self.reason.get().copied().unwrap_or("stop")
    }

    /// Returns when the first step is taken.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Returns when the second step is taken.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }
}

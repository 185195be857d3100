//! What the service manager is told while the daemon works: in one line what it does, that every
//! loop goes on, and that a drain takes a little longer.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use crate::backlog::Backlog;
use crate::dispatcher::Overview;
use crate::pulse::Pulse;
use crate::shutdown::Shutdown;
use crate::systemd::{self, EXTENSION};

/// How often the status line may change.
const STATUS_EVERY: Duration = Duration::from_secs(2);

/// A loop that is watched.
#[derive(Debug)]
pub(super) struct Watched {
    name: &'static str,
    pulse: Pulse,
    /// How long one of its turns may take, if that is longer than half of the watchdog's time.
    patience: Duration,
    beats: u64,
    moved_at: Instant,
    is_late: bool,
}

impl Watched {
    pub(super) fn new(name: &'static str, pulse: Pulse, patience: Duration) -> Self {
        let (beats, moved_at) = (pulse.beats(), Instant::now());
        Watched { name, pulse, patience, beats, moved_at, is_late: false }
    }

    /// Whether the loop goes on. When it does not, that is said once.
    fn goes_on(&mut self, watchdog: Duration, now: Instant) -> bool {
        let beats = self.pulse.beats();
        if beats != self.beats {
            (self.beats, self.moved_at, self.is_late) = (beats, now, false);
            return true;
        }
        let stalled = now - self.moved_at;
        let goes_on = stalled <= self.patience.max(watchdog / 2);
        if !goes_on && !self.is_late {
            self.is_late = true;
            warn!(
                event = "watchdog.late",
                r#loop = self.name,
                stalled_ms = u64::try_from(stalled.as_millis()).unwrap_or(u64::MAX),
                "the loop does not come round; unless it does, the service manager restarts burstd"
            );
        }
        goes_on
    }
}

/// Tells it until this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Informing {
    _end: Sender<()>,
}

/// Begins to tell it, on a thread of its own: a manager that does not listen must hold up no task,
/// and a loop that hangs must not take along what would say so.
pub(super) fn inform(
    loops: Vec<Watched>,
    log: Backlog,
    overviews: watch::Receiver<Overview>,
    shutdown: Shutdown,
) -> Informing {
    let (end, ended) = mpsc::channel();
    let informs = move || tell(loops, &log, &overviews, &shutdown, &ended);
    if let Err(error) = thread::Builder::new().name("manager".to_owned()).spawn(informs) {
        warn!(event = "systemd.unreachable", %error, "the service manager cannot be told");
    }
    Informing { _end: end }
}

fn tell(
    mut loops: Vec<Watched>,
    log: &Backlog,
    overviews: &watch::Receiver<Overview>,
    shutdown: &Shutdown,
    ended: &Receiver<()>,
) {
    let watchdog = systemd::watchdog();
    let every = watchdog.map_or(STATUS_EVERY, |time| (time / 6).min(STATUS_EVERY));
    let mut said = (Instant::now(), String::new());
    while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
        let now = Instant::now();
        let time = watchdog.unwrap_or(EXTENSION);
        // Each of them is looked at, so that each that is late is named.
        let late = loops.iter_mut().filter_map(|it| (!it.goes_on(time, now)).then_some(())).count();
        if late == 0 && !log.is_broken() {
            if watchdog.is_some() {
                systemd::alive();
            }
            if shutdown.is_draining() {
                systemd::extend(EXTENSION);
            }
        }
        let status = overviews.borrow().to_string();
        if said.1 != status && now >= said.0 {
            systemd::status(&status);
            said = (now + STATUS_EVERY, status);
        }
    }
}

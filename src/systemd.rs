//! What the service manager is told, if there is one (sd_notify(3)).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// burstd can work.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// What burstd is at, in a line.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// burstd reads its configuration again. The moment belongs into the same message: managers that
/// know `Type=notify-reload` wait for it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// It has read it, whatever came of that.
pub fn ready_again() {
    notify(&[NotifyState::Ready]);
}

/// burstd is on its way out.
pub fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// burstd stops, and needs so much longer, from now on.
pub fn extend(time: Duration) {
    let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Every loop goes on.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often the manager wants to hear that, if it does.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|time| !time.is_zero())
}

/// Without `NOTIFY_SOCKET` nobody listens, and that is no error.
fn notify(state: &[NotifyState<'_>]) {
    static IS_UNREACHABLE: AtomicBool = AtomicBool::new(false);
    match sd_notify::notify(state) {
        Ok(()) => IS_UNREACHABLE.store(false, Ordering::Relaxed),
        Err(error) if !IS_UNREACHABLE.swap(true, Ordering::Relaxed) => {
            warn!(event = "systemd.unreachable", %error, "the service manager cannot be told");
        }
        Err(_) => {}
    }
}

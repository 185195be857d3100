//! What the service manager is told, if there is one.

use sd_notify::NotifyState;
use tracing::warn;

/// burstd can work.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// burstd waits before it can work.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// burstd is on its way out.
pub fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Without `NOTIFY_SOCKET` nobody listens, and that is no error.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(event = "systemd.unreachable", %error, "the service manager cannot be told");
    }
}

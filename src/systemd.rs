//! What the service manager is told, if there is one (sd_notify(3)).

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// How long each extension of a drain is. One that hangs is ended after it.
pub const EXTENSION: Duration = Duration::from_secs(15);

/// How long a message may wait for a manager that does not listen.
const PATIENCE: Duration = Duration::from_secs(1);

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
    let more = NotifyState::ExtendTimeoutUsec(micros(EXTENSION));
    notify(&[NotifyState::Stopping, NotifyState::Status(status), more]);
}

/// burstd starts or stops, and needs so much longer, from now on.
pub fn extend(time: Duration) {
    notify(&[NotifyState::ExtendTimeoutUsec(micros(time))]);
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// Every loop goes on.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often the manager wants to hear that, if it does.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|time| !time.is_zero())
}

/// The manager's address, and a socket to write there. It stays open: where no descriptors are left
/// the manager must still hear that burstd lives.
#[derive(Debug)]
struct Manager {
    address: SocketAddr,
    socket: UnixDatagram,
}

impl Manager {
    /// Without `NOTIFY_SOCKET` there is none.
    fn find() -> Option<io::Result<Manager>> {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&name),
        };
        Some(address.and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok(Manager { address, socket })
        }))
    }

    fn tell(&self, message: &str) -> io::Result<()> {
        self.socket.send_to_addr(message.as_bytes(), &self.address).map(drop)
    }
}

/// Where nobody listens that is no error.
fn notify(states: &[NotifyState<'_>]) {
    static MANAGER: LazyLock<Option<io::Result<Manager>>> = LazyLock::new(Manager::find);
    static IS_UNREACHABLE: AtomicBool = AtomicBool::new(false);
    let Some(manager) = &*MANAGER else { return };
    let message: String = states.iter().map(|state| format!("{state}\n")).collect();
    let told = match manager {
        Ok(manager) => manager.tell(&message).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match told {
        Ok(()) => IS_UNREACHABLE.store(false, Ordering::Relaxed),
        Err(error) if !IS_UNREACHABLE.swap(true, Ordering::Relaxed) => {
            warn!(event = "systemd.unreachable", error, "the service manager cannot be told");
        }
        Err(_) => {}
    }
}

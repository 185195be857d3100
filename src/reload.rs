//! The wish that the configuration be read again.

use std::io;
use std::sync::Arc;
use std::thread;

use signal_hook::consts::signal::SIGHUP;
use signal_hook::iterator::Signals;
use tokio::sync::Notify;

/// The wish that the configuration be read again. Clones share it. However often it is uttered
/// before somebody hears it, it is one.
#[derive(Clone, Debug, Default)]
pub struct Reload(Arc<Notify>);

impl Reload {
    /// SIGHUP utters it from now on.
    ///
    /// # Errors
    ///
    /// When the handler or its thread cannot be installed.
    pub fn on_signal() -> io::Result<Self> {
        let reload = Reload::default();
        let mut signals = Signals::new([SIGHUP])?;
        let wish = reload.clone();
        let listen = move || signals.forever().for_each(|_| wish.ask());
        thread::Builder::new().name("reload".to_owned()).spawn(listen)?;
        Ok(reload)
    }

    /// Utters it.
    pub fn ask(&self) {
        self.0.notify_one();
    }

    /// Returns when it was uttered since the last time.
    pub async fn asked(&self) {
        self.0.notified().await;
    }
}

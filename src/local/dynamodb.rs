//! An embedded DynamoDB: the `dynoxide-rs` crate, on a runtime of its own because it works on
//! its runtime's threads.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// How often items whose `expires_at` has passed are deleted.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Connections that may wait to be accepted: a burst opens hundreds at once.
pub(super) const BACKLOG: u32 = 4096;

/// A DynamoDB that lives as long as this value.
#[derive(Debug)]
pub struct EmbeddedDynamoDb {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedDynamoDb {
    /// Serves at `address`, port 0 being any free one, with the data in `file`, or in memory.
    ///
    /// # Errors
    ///
    /// When the port is taken, or the file cannot be used.
    pub fn start(address: SocketAddr, file: Option<&Path>) -> io::Result<Self> {
        let database = match file {
            Some(file) => dynoxide::Database::new(&file.display().to_string()),
            None => dynoxide::Database::memory(),
        };
        let database = database.map_err(|error| io::Error::other(error.to_string()))?;
        if file.is_some() {
            relax_syncing(&database)?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("dynamodb")
            .enable_all()
            .build()?;
        let listener = listen(&runtime, address)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("dynamodb".to_owned()).spawn(move || {
            runtime.spawn(sweep(database.clone()));
            let serving = dynoxide::server::serve_with_shutdown(listener, database, async {
                // An error means that the value was dropped: that is to stop, too.
                stopped.await.ok();
            });
            if let Err(error) = runtime.block_on(serving) {
                tracing::error!(event = "dev.dynamodb_failed", %error, "the table is gone");
            }
        })?;
        Ok(EmbeddedDynamoDb { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for EmbeddedDynamoDb {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there was printed there.
            drop(thread.join());
        }
    }
}

/// One fsync per checkpoint instead of one per write: what was acknowledged survives a crash of
/// the process, if not one of the machine. Ending a bulk load leaves SQLite in this state.
fn relax_syncing(database: &dynoxide::Database) -> io::Result<()> {
    let begun = database.enable_bulk_loading();
    let relaxed = begun.and_then(|()| database.disable_bulk_loading());
    relaxed.map_err(|error| io::Error::other(error.to_string()))
}

async fn sweep(database: dynoxide::Database) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let database = database.clone();
        let swept = tokio::task::spawn_blocking(move || database.sweep_ttl()).await;
        if let Ok(Err(error)) = swept {
            tracing::warn!(event = "dev.sweep_failed", %error, "expired items stay for now");
        }
    }
}

/// Listens with room for a burst.
pub(super) fn listen(runtime: &Runtime, address: SocketAddr) -> io::Result<TcpListener> {
    let _inside = runtime.enter();
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

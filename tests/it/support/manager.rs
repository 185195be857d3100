//! A service manager that listens, as systemd does.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use super::eventually;

pub struct Manager {
    directory: tempfile::TempDir,
    told: Arc<Mutex<Vec<String>>>,
}

/// A manager to whom nothing more can be told.
pub struct Deaf {
    pub manager: Manager,
    _socket: UnixDatagram,
}

impl Manager {
    pub fn start() -> Self {
        let directory = tempfile::TempDir::new().expect("a directory");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("a socket");
        let told = Arc::<Mutex<Vec<String>>>::default();
        let heard = told.clone();
        // It listens until the test's process ends.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
                heard.lock().expect("nobody panics with it").push(message);
            }
        });
        Manager { directory, told }
    }

    /// One that has stopped listening: its queue is full already.
    pub fn deaf() -> Deaf {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let fills = UnixDatagram::unbound().expect("a socket");
        fills.set_nonblocking(true).expect("it is a socket");
        while fills.send_to(b"STATUS=full", &path).is_ok() {}
        Deaf { manager: Manager { directory, told: Arc::default() }, _socket: socket }
    }

    /// What `NOTIFY_SOCKET` is to say.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("notify")
    }

    /// All it was told so far, a message each.
    pub fn told(&self) -> Vec<String> {
        self.told.lock().expect("nobody panics with it").clone()
    }

    /// How many messages had this in them.
    pub fn count(&self, part: &str) -> usize {
        self.told().iter().filter(|message| message.contains(part)).count()
    }

    /// The first message after the first `after` that has this in it.
    pub async fn until_told(&self, after: usize, part: &str) -> String {
        eventually(&format!("the service manager is told {part:?}"), async || {
            let told = self.told();
            let found = told.iter().skip(after).find(|message| message.contains(part)).cloned();
            found.ok_or(told)
        })
        .await
    }
}

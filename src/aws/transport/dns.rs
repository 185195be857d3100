//! Names, looked up once for a burst.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tower_service::Service;

/// How long an answer is used. Lambda's own is 60 s or less; a burst is over sooner.
const KEPT: Duration = Duration::from_secs(10);

/// The system's resolver, with a memory. While a name is looked up, who else asks waits for it.
#[derive(Clone, Debug, Default)]
pub(super) struct CachedDns(Arc<Mutex<BTreeMap<String, Answer>>>);

#[derive(Debug)]
struct Answer {
    at: Instant,
    addresses: Vec<SocketAddr>,
}

impl CachedDns {
    async fn look_up(self, name: Name) -> io::Result<std::vec::IntoIter<SocketAddr>> {
        let mut answers = self.0.lock().await;
        answers.retain(|_, answer| answer.at.elapsed() < KEPT);
        if let Some(answer) = answers.get_mut(name.as_str()) {
            // Each connection begins with another address, so that all of them are used.
            answer.addresses.rotate_left(1);
            return Ok(answer.addresses.clone().into_iter());
        }
        let addresses: Vec<_> = GaiResolver::new().call(name.clone()).await?.collect();
        let answer = Answer { at: Instant::now(), addresses: addresses.clone() };
        answers.insert(name.as_str().to_owned(), answer);
        Ok(addresses.into_iter())
    }
}

impl Service<Name> for CachedDns {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(self.clone().look_up(name))
    }
}

//! Whether a call has begun to be sent, and until when it may be. Before it has begun it has
//! surely not arrived, however its wait for credentials, a name, or a connection ends.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::{Instant, timeout_at};

use super::TransportError;

tokio::task_local! {
    static CALL: Sending;
}

/// A call that must not be sent from some moment on.
#[derive(Clone, Debug)]
struct Sending {
    latest: Instant,
    has_begun: Arc<AtomicBool>,
}

/// What came of such a call.
#[derive(Debug)]
pub(in crate::aws) enum Sent<T> {
    /// It came to an end.
    Done(T),
    /// It was not sent.
    Late,
    /// It was sent, and there was no answer in time.
    Unanswered,
}

/// Makes a call that is to be sent before `latest` and answered before `deadline`.
pub(in crate::aws) async fn send_by<T>(
    latest: Instant,
    deadline: Instant,
    call: impl Future<Output = T>,
) -> Sent<T> {
    let sending = Sending { latest, has_begun: Arc::default() };
    let mut call = pin!(CALL.scope(sending.clone(), call));
    match timeout_at(latest, call.as_mut()).await {
        Ok(done) => return Sent::Done(done),
        Err(_) if !sending.has_begun.load(Ordering::Relaxed) => return Sent::Late,
        Err(_) => {}
    }
    timeout_at(deadline, call).await.map_or(Sent::Unanswered, Sent::Done)
}

/// Waits for something that this task's call needs before it is sent, no longer than it may.
pub(super) async fn in_time<T>(of: impl Future<Output = T>) -> Result<T, TransportError> {
    let late = |_| TransportError::not_sent("there was no time left to send all of it", None);
    match CALL.try_with(|call| call.latest) {
        Ok(latest) => timeout_at(latest, of).await.map_err(late),
        Err(_) => Ok(of.await),
    }
}

/// The last moment at which this task's call may decide whether it is sent; and by when it must
/// be. Most calls may be at any time.
pub(super) fn begin() -> Result<Option<Instant>, TransportError> {
    let begun = CALL.try_with(|call| {
        if Instant::now() >= call.latest {
            return Err(TransportError::not_sent("there is no time left to send it", None));
        }
        call.has_begun.store(true, Ordering::Relaxed);
        Ok(Some(call.latest))
    });
    begun.unwrap_or(Ok(None))
}

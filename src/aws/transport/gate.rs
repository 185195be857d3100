//! The last look at the clock before a request leaves: in the connection's own write. A process
//! may be stopped for as long as somebody likes between a call's handing its request over and the
//! connection's writing it, and what is written afterwards would run beside the task's next
//! attempt. A connection that holds such a request is given up instead, with the calls it carries:
//! nobody can tell which bytes are whose. That happens only to a process that was stopped, or whose
//! line took nothing, for longer than half of a lease's margin.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::{TransportError, sending};

/// So long a request may be on its way between the two looks. It is there for a busy machine, and
/// taken from the time that a lease has for a request to reach its function.
const GRACE: Duration = Duration::from_millis(200);

/// Stands for no moment at all.
const NEVER: u64 = u64::MAX;

/// What a connection must write by when: shared by the calls, the driver and the stream.
#[derive(Clone, Debug)]
pub(super) struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    opened: Instant,
    waiting: Mutex<Waiting>,
    /// The earliest moment of both kinds, in nanoseconds since `opened`. The stream looks here and
    /// not behind the lock, under which a call hands over: h2 has locks of its own.
    latest: AtomicU64,
    /// Whether the stream has not taken all that it was given.
    is_blocked: AtomicBool,
}

/// By when the earliest of them must be written.
#[derive(Debug)]
struct Waiting {
    /// Handed over since the connection was last driven.
    handed_over: u64,
    /// Taken up by the connection, and not all written.
    taken_up: u64,
}

impl Gate {
    pub(super) fn new() -> Self {
        Gate(Arc::new(Inner {
            opened: Instant::now(),
            waiting: Mutex::new(Waiting { handed_over: NEVER, taken_up: NEVER }),
            latest: AtomicU64::new(NEVER),
            is_blocked: AtomicBool::new(false),
        }))
    }

    /// Hands this task's request, or a part of it, over to the connection, unless there is no time
    /// left for it.
    pub(super) fn hand_over<T>(
        &self,
        send: impl FnOnce() -> Result<T, TransportError>,
    ) -> Result<T, TransportError> {
        let Some(latest) = sending::begin()? else { return send() };
        let latest = (latest + GRACE).saturating_duration_since(self.0.opened).as_nanos();
        let mut waiting = self.waiting();
        let before = waiting.handed_over;
        waiting.handed_over = before.min(u64::try_from(latest).unwrap_or(NEVER));
        self.publish(&waiting);
        send().inspect_err(|_| {
            // The connection has not taken it, and may never be driven for it.
            waiting.handed_over = before;
            self.publish(&waiting);
        })
    }

    /// Drives the connection. When it rests and its stream took everything, all that was handed
    /// over before is written. (Of HTTP/2, all that the peer has room for: see `H2::send`.)
    pub(super) async fn drive<C: Future>(&self, connection: C) -> C::Output {
        let mut connection = pin!(connection);
        poll_fn(|context| {
            {
                let mut waiting = self.waiting();
                waiting.taken_up = waiting.taken_up.min(waiting.handed_over);
                waiting.handed_over = NEVER;
            }
            let polled = connection.as_mut().poll(context);
            let mut waiting = self.waiting();
            if !self.0.is_blocked.load(Ordering::Acquire) {
                waiting.taken_up = NEVER;
            }
            if waiting.handed_over != NEVER {
                context.waker().wake_by_ref();
            }
            self.publish(&waiting);
            polled
        })
        .await
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().expect("nothing panics while holding this lock")
    }

    fn publish(&self, waiting: &Waiting) {
        self.0.latest.store(waiting.handed_over.min(waiting.taken_up), Ordering::Release);
    }

    fn look(&self) -> io::Result<()> {
        let latest = self.0.latest.load(Ordering::Acquire);
        if latest != NEVER && self.0.opened.elapsed().as_nanos() >= u128::from(latest) {
            // And so it stays.
            self.0.is_blocked.store(true, Ordering::Release);
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "burstd was held up, and a request would have been sent after its lease",
            ));
        }
        Ok(())
    }

    fn note<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.0.is_blocked.store(polled.is_pending(), Ordering::Release);
        polled
    }
}

/// A stream that writes nothing when a request in it is too late.
#[derive(Debug)]
pub(super) struct Gated<S> {
    stream: S,
    gate: Gate,
}

impl<S> Gated<S> {
    pub(super) fn new(stream: S, gate: Gate) -> Self {
        Gated { stream, gate }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gated<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.gate.look()?;
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.gate.note(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.gate.look()?;
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.gate.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Under TLS this writes, too.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gate.look()?;
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.gate.note(polled)
    }

    /// So does this.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gate.look()?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::advance;

    use super::super::{Sent, send_by};
    use super::*;

    const LATEST: Duration = Duration::from_secs(1);
    const REQUEST: &[u8] = b"request";

    /// A gate that was handed a request to be written in a second, its stream and the other end.
    async fn handed_over(room: usize) -> (Gate, Gated<DuplexStream>, DuplexStream) {
        let (gate, (near, far)) = (Gate::new(), duplex(room));
        hand_over(&gate).await;
        (gate.clone(), Gated::new(near, gate), far)
    }

    async fn hand_over(gate: &Gate) {
        let latest = Instant::now() + LATEST;
        let call = async { gate.hand_over(|| Ok(())) };
        assert!(matches!(send_by(latest, latest + LATEST, call).await, Sent::Done(Ok(()))));
    }

    async fn write(gate: &Gate, stream: &mut Gated<DuplexStream>) -> io::Result<()> {
        gate.drive(async {
            stream.write_all(REQUEST).await?;
            stream.flush().await
        })
        .await
    }

    async fn arrived(stream: Gated<DuplexStream>, mut far: DuplexStream) -> Vec<u8> {
        drop(stream);
        let mut arrived = Vec::new();
        far.read_to_end(&mut arrived).await.expect("a duplex does not break");
        arrived
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_was_held_up_past_its_moment_is_not_written() {
        let (gate, mut stream, far) = handed_over(64).await;
        advance(LATEST + GRACE).await;
        let error = write(&gate, &mut stream).await.expect_err("it is too late");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(stream.shutdown().await.is_err(), "TLS would write on its way out");
        assert_eq!(arrived(stream, far).await, b"");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_full_stream_has_not_taken_in_time_is_not_written() {
        let (gate, mut stream, mut far) = handed_over(4).await;
        let reader = async {
            advance(LATEST + GRACE).await;
            far.read_exact(&mut [0; 4]).await.expect("four bytes were written");
        };
        let (written, ()) = tokio::join!(write(&gate, &mut stream), reader);
        written.expect_err("the rest is too late");
        assert_eq!(arrived(stream, far).await, b"");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_was_written_does_not_end_its_connection_later() {
        let (gate, mut stream, far) = handed_over(64).await;
        write(&gate, &mut stream).await.expect("it is in time");
        advance(60 * LATEST).await;
        write(&gate, &mut stream).await.expect("nothing on this connection is late");
        assert_eq!(arrived(stream, far).await, [REQUEST, REQUEST].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_the_connection_did_not_take_does_not_end_it_later() {
        let (gate, (near, far)) = (Gate::new(), duplex(64));
        let mut stream = Gated::new(near, gate.clone());
        let latest = Instant::now() + LATEST;
        let refused = || Err::<(), _>(TransportError::not_sent("it had ended", None));
        let call = async { gate.hand_over(refused) };
        assert!(matches!(send_by(latest, latest + LATEST, call).await, Sent::Done(Err(_))));
        advance(60 * LATEST).await;
        write(&gate, &mut stream).await.expect("nothing on this connection is late");
        assert_eq!(arrived(stream, far).await, REQUEST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_handed_over_while_the_connection_writes_is_remembered_until_it_is_written() {
        let (gate, mut stream, far) = handed_over(64).await;
        advance(LATEST / 2).await;
        gate.drive(hand_over(&gate)).await;
        advance(LATEST / 2 + GRACE).await;
        write(&gate, &mut stream).await.expect("the first is out, the second has half a second");
        hand_over(&gate).await;
        gate.drive(hand_over(&gate)).await;
        advance(LATEST + GRACE).await;
        write(&gate, &mut stream).await.expect_err("the last one is late");
        assert_eq!(arrived(stream, far).await, REQUEST);
    }
}

//! One connection, and a call on it. What matters of a failure is whether the request can have
//! arrived.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};

use super::gate::{Gate, Gated};
use super::{TransportError, sending};
use aws_smithy_types::body::SdkBody;

/// Stands for "not known" until the peer's SETTINGS say how many calls it takes.
const STREAMS_UNKNOWN: usize = 1_000_000;

/// No more calls than these are put on one connection, whatever the peer allows: they would
/// share its fate.
const MOST_STREAMS: usize = 128;

/// An HTTP/2 peer is asked this often whether it is still there, ...
const PING_EVERY: Duration = Duration::from_secs(20);

/// ... and must answer in this time.
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// Room for answers on their way: 1 MB for each call, 4 MB for a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A body of this size is sent without a look at the room that the peer has for it: by default it
/// has room for four of them on a stream (RFC 9113, 6.9.2).
const SENT_AT_ONCE: usize = 16 << 10;

const HAD_ENDED: &str = "the connection had ended";

/// A request whose body is in memory, to be sent as often as it takes.
#[derive(Clone, Debug)]
pub(super) struct Request {
    method: Method,
    uri: Uri,
    /// As a list, a third of the memory of a map; ten thousand calls wait with theirs.
    headers: Box<[(HeaderName, HeaderValue)]>,
    body: Bytes,
}

impl Request {
    pub(super) async fn new(request: http::Request<SdkBody>) -> Result<Self, super::BoxError> {
        let (parts, body) = request.into_parts();
        // It comes in one piece, which is taken as it is.
        let body = body.collect().await?.to_bytes();
        let headers = parts.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
        Ok(Request { method: parts.method, uri: parts.uri, headers: headers.collect(), body })
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 1);
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        headers
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// With the whole URI, and without what HTTP/2 forbids (RFC 9113, 8.2.2).
    fn for_h2(&self) -> http::Request<()> {
        let mut request = http::Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers();
        for name in [HOST, CONNECTION, TRANSFER_ENCODING] {
            request.headers_mut().remove(name);
        }
        request
    }

    /// With the path alone, and the host as a header.
    fn for_h1(&self) -> http::Request<Full<Bytes>> {
        let mut request = http::Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers();
        if let Some(path) = self.uri.path_and_query() {
            *request.uri_mut() = path.as_str().parse().expect("a path is a URI");
        }
        if let Some(authority) = self.uri.authority()
            && !request.headers().contains_key(HOST)
            && let Ok(host) = authority.as_str().parse()
        {
            request.headers_mut().insert(HOST, host);
        }
        request
    }
}

/// An open connection, and what drives it.
pub(super) enum Connection {
    H1(H1, Driver),
    H2(H2, Driver),
}

/// Ends when the connection does.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One call at a time.
#[derive(Debug)]
pub(super) struct H1 {
    sender: http1::SendRequest<Full<Bytes>>,
    gate: Gate,
}

/// Many calls at once.
#[derive(Clone, Debug)]
pub(super) struct H2 {
    sender: h2::client::SendRequest<Bytes>,
    gate: Gate,
}

impl Connection {
    pub(super) async fn open<S>(stream: S, speaks_h2: bool) -> Result<Self, TransportError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let failed = |error: super::BoxError| {
            TransportError::not_sent("the peer does not shake hands", error)
        };
        let gate = Gate::new();
        let stream = Gated::new(stream, gate.clone());
        if !speaks_h2 {
            let handshake = http1::handshake(TokioIo::new(stream));
            let (sender, connection) = handshake.await.map_err(|error| failed(error.into()))?;
            // How it ended is told by the call it ended.
            let driven = gate.clone();
            let driver = async move { drop(driven.drive(connection).await) };
            return Ok(Connection::H1(H1 { sender, gate }, Box::pin(driver)));
        }
        let handshake = h2::client::Builder::new()
            .initial_max_send_streams(STREAMS_UNKNOWN)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .enable_push(false)
            .handshake(stream);
        let (sender, mut connection) = handshake.await.map_err(|error| failed(error.into()))?;
        // The peer's SETTINGS are the first thing it sends (RFC 9113, 3.4).
        poll_fn(|context| match Pin::new(&mut connection).poll(context) {
            _ if connection.max_concurrent_send_streams() != STREAMS_UNKNOWN => Poll::Ready(Ok(())),
            Poll::Ready(ended) => {
                let ended = ended.err().map(super::BoxError::from);
                Poll::Ready(Err(TransportError::not_sent(HAD_ENDED, ended)))
            }
            Poll::Pending => Poll::Pending,
        })
        .await?;
        let pings = connection.ping_pong();
        let driven = gate.clone();
        let driver = async move {
            tokio::select! {
                biased;
                // How it ended is told by the calls it ended.
                ended = driven.drive(connection) => drop(ended),
                () = until_silent(pings) => {}
            }
        };
        Ok(Connection::H2(H2 { sender, gate }, Box::pin(driver)))
    }
}

/// Ends when the peer does not answer a ping.
async fn until_silent(pings: Option<h2::PingPong>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        sleep(PING_EVERY).await;
        let pong = timeout(PONG_WITHIN, pings.ping(h2::Ping::opaque())).await;
        if !matches!(pong, Ok(Ok(_))) {
            return;
        }
    }
}

impl H1 {
    /// Whether another call may be made on it.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub(super) async fn send(
        &mut self,
        request: &Request,
    ) -> Result<Response<Bytes>, TransportError> {
        let ready = request.for_h1();
        let (sender, gate) = (&mut self.sender, &self.gate);
        let sent = gate.hand_over(|| Ok(sender.try_send_request(ready)))?;
        let response = sent.await.map_err(|mut failure| match failure.take_message() {
            // hyper gives back what it has not begun to write.
            Some(_) => TransportError::not_sent(HAD_ENDED, box_of(failure.into_error())),
            None => TransportError::broken("the connection broke", box_of(failure.into_error())),
        })?;
        let (parts, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|error| TransportError::broken("the answer broke off", box_of(error)))?;
        // The connection is free as soon as its driver has noticed the answer's end.
        self.sender.ready().await.ok();
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

fn box_of(error: impl Into<super::BoxError>) -> super::BoxError {
    error.into()
}

impl H2 {
    /// How many calls it may carry: what the peer's SETTINGS say.
    pub(super) fn limit(&self) -> usize {
        self.sender.current_max_send_streams().min(MOST_STREAMS)
    }

    pub(super) async fn send(&self, request: &Request) -> Result<Response<Bytes>, TransportError> {
        let had_ended = |error| TransportError::went_away(HAD_ENDED, box_of(error));
        let mut sender = self.sender.clone().ready().await.map_err(had_ended)?;
        let body = request.body.clone();
        let (ready, is_bare, is_large) =
            (request.for_h2(), body.is_empty(), body.len() > SENT_AT_ONCE);
        let (response, mut stream) = self.gate.hand_over(|| {
            let (response, mut stream) = sender.send_request(ready, is_bare).map_err(had_ended)?;
            if !is_bare && !is_large {
                stream.send_data(body.clone(), true).map_err(failure)?;
            }
            Ok((response, stream))
        })?;
        if is_large {
            self.send_in_pieces(&mut stream, body).await?;
        }
        let (parts, mut body) = response.await.map_err(failure)?.into_parts();
        let mut collected = BytesMut::new();
        while let Some(data) = poll_fn(|context| body.poll_data(context)).await {
            let broke_off = |error| TransportError::broken("the answer broke off", box_of(error));
            let data = data.map_err(broke_off)?;
            collected.extend_from_slice(&data);
            body.flow_control().release_capacity(data.len()).map_err(broke_off)?;
        }
        Ok(Response::from_parts(parts, collected.freeze()))
    }
}

impl H2 {
    /// Sends a body as the peer has room for it. What is given to h2 beyond that would wait there
    /// for as long as it takes, and the function might begin when its lease is over: it begins when
    /// the last piece arrives.
    async fn send_in_pieces(
        &self,
        stream: &mut h2::SendStream<Bytes>,
        mut body: Bytes,
    ) -> Result<(), TransportError> {
        while !body.is_empty() {
            stream.reserve_capacity(body.len());
            let room = sending::in_time(poll_fn(|context| stream.poll_capacity(context))).await?;
            // A peer that takes no more has answered, or says why.
            let Some(Ok(room)) = room else { return Ok(()) };
            let piece = body.split_to(room.min(body.len()));
            let is_last = body.is_empty();
            self.gate.hand_over(|| stream.send_data(piece, is_last).map_err(failure))?;
        }
        Ok(())
    }
}

/// What became of a request on a stream that failed. A peer that goes away in peace has not
/// seen the streams it does not finish, and one that refuses a stream has not looked at it
/// (RFC 9113, 6.8 and 8.7).
fn failure(error: h2::Error) -> TransportError {
    let reason = error.reason();
    let went_away = error.is_go_away() && reason == Some(h2::Reason::NO_ERROR);
    let was_refused = error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM);
    match error.is_remote() {
        true if went_away => TransportError::went_away("the peer went away", box_of(error)),
        true if was_refused => TransportError::not_sent("the peer refused the call", box_of(error)),
        _ => TransportError::broken("the connection broke", box_of(error)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::super::{Sent, send_by};
    use super::*;

    /// A peer that has room for so many bytes and gives none back, and a connection to it.
    async fn narrow(room: u32, tasks: &mut JoinSet<()>) -> H2 {
        let (near, far) = duplex(1 << 20);
        tasks.spawn(async move {
            let peer =
                h2::server::Builder::new().initial_window_size(room).handshake::<_, Bytes>(far);
            let mut peer = peer.await.expect("it shakes hands");
            let mut streams = Vec::new();
            while let Some(Ok(stream)) = peer.accept().await {
                streams.push(stream);
            }
        });
        let Ok(Connection::H2(h2, driver)) = Connection::open(near, true).await else {
            panic!("it speaks HTTP/2");
        };
        tasks.spawn(driver);
        h2
    }

    fn request(bytes: usize) -> Request {
        Request {
            method: Method::POST,
            uri: Uri::from_static("http://127.0.0.1/"),
            headers: Box::default(),
            body: vec![b'x'; bytes].into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_the_peer_has_no_room_for_in_time_is_not_sent() {
        let mut tasks = JoinSet::new();
        let h2 = narrow(20_000, &mut tasks).await;
        let latest = Instant::now() + Duration::from_secs(5);
        let deadline = latest + Duration::from_secs(5);
        let request = request(100_000);
        let Sent::Done(Err(error)) = send_by(latest, deadline, h2.send(&request)).await else {
            panic!("it is known what became of it");
        };
        assert!(!error.may_have_arrived, "{error}");
        assert_eq!(Instant::now(), latest);
    }
}

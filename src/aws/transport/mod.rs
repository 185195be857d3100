//! The HTTP client under all clients of AWS.
//!
//! The SDK's own keeps one HTTP/2 connection per host, and Lambda allows 128 calls on it: 500
//! invocations wait for one another, silently. This one opens as many connections as the calls
//! need, puts no more calls on one than the peer allows, keeps each alive, and says of every
//! failure whether the request can have arrived.

mod connect;
mod connection;
mod dns;
mod gate;
mod pool;
mod sending;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{error, fmt, iter};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::{Response, StatusCode};
use http::{Uri, Version};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use connect::Connector;
use connection::Request;
use pool::Pool;
pub(super) use sending::{Sent, send_by};

use super::date;
use crate::clock::Clock;

/// A request that surely has not arrived is sent this often at once, elsewhere, before it is
/// given back as not sent.
const SENDS: u32 = 4;

/// Which version of HTTP is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Http {
    /// HTTP/2 where the endpoint offers it.
    #[default]
    Auto,
    /// HTTP/1.1, one call for each connection.
    H1,
    /// HTTP/2, even without TLS.
    H2,
}

/// Carries calls.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    inner: Arc<Inner>,
    /// Who is told what the answers say of the time.
    listener: Option<Clock>,
    /// How long a call waits for a connection, when its client says so.
    connect_timeout: Option<Duration>,
    /// How long it waits for an answer, when its client says so.
    read_timeout: Option<Duration>,
}

#[derive(Debug)]
struct Inner {
    connector: Arc<Connector>,
    pools: Mutex<BTreeMap<String, Arc<Pool>>>,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(super) struct TransportError {
    /// Whether the request may have arrived.
    pub(super) may_have_arrived: bool,
    /// Whether no call can be made on this connection any more.
    has_gone_away: bool,
    what: &'static str,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

impl TransportError {
    /// The request has surely not arrived.
    fn not_sent(what: &'static str, source: impl Into<Option<BoxError>>) -> Self {
        let source = source.into();
        TransportError { may_have_arrived: false, has_gone_away: false, what, source }
    }

    /// The request has surely not arrived, and no other will on this connection.
    fn went_away(what: &'static str, source: impl Into<Option<BoxError>>) -> Self {
        TransportError { has_gone_away: true, ..TransportError::not_sent(what, source) }
    }

    /// The request was sent, or parts of it; nobody can tell.
    fn broken(what: &'static str, source: impl Into<Option<BoxError>>) -> Self {
        TransportError { may_have_arrived: true, ..TransportError::not_sent(what, source) }
    }

    /// The same for another call, with its causes in words.
    fn repeated(&self) -> Self {
        let causes = iter::successors(error::Error::source(self), |cause| cause.source());
        let causes: Vec<_> = causes.map(ToString::to_string).collect();
        let source = (!causes.is_empty()).then(|| causes.join(": ").into());
        TransportError { source, ..*self }
    }
}

type BoxError = Box<dyn error::Error + Send + Sync>;

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl error::Error for TransportError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn error::Error + 'static))
    }
}

impl Transport {
    /// A transport that trusts what the machine trusts, and a bundle of certificates.
    pub(super) fn new(http: Http, ca_bundle: Option<&Path>) -> Self {
        Transport::with(Connector::new(http, ca_bundle))
    }

    /// Another one with the same certificates and connections of its own.
    pub(super) fn beside(&self, http: Http) -> Self {
        Transport::with(self.inner.connector.beside(http))
    }

    /// The same, telling `clock` what the answers say of the time.
    pub(super) fn telling(self, clock: Clock) -> Self {
        Transport { listener: Some(clock), ..self }
    }

    fn with(connector: Connector) -> Self {
        let inner = Inner { connector: Arc::new(connector), pools: Mutex::default() };
        let inner = Arc::new(inner);
        Transport { inner, listener: None, connect_timeout: None, read_timeout: None }
    }

    /// So many calls will come: connections for them are opened meanwhile.
    pub(super) fn expect(&self, calls: usize) {
        let pools = self.inner.pools.lock().expect("nothing panics while holding this lock");
        // There is one endpoint, unless somebody calls functions of several regions by ARN; then
        // the calls may go to any of them, and each is made ready.
        for pool in pools.values() {
            pool.expect(calls);
        }
    }

    /// Where its calls went, and in which HTTP; nothing before the first connection. One that
    /// carries the calls of one client goes to one place.
    pub(super) fn spoken(&self) -> Option<(Uri, Version)> {
        let pools = self.inner.pools.lock().expect("nothing panics while holding this lock");
        pools.values().find_map(|pool| Some((pool.uri().clone(), pool.spoken()?)))
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request =
            request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
        let request = Request::new(request).await.map_err(ConnectorError::user)?;
        let pool = self.pool(request.uri());
        let mut sends = 0;
        loop {
            sends += 1;
            let mut slot = match within(self.connect_timeout, pool.slot()).await {
                Some(Ok(slot)) => slot,
                // To connect once more at once is what the peer needs least.
                Some(Err(error)) => return Err(ConnectorError::io(error.into())),
                None => {
                    let error =
                        TransportError::not_sent("no connection could be made in time", None);
                    return Err(ConnectorError::timeout(error.into()));
                }
            };
            let began = Instant::now();
            let Some(sent) = within(self.read_timeout, slot.send(&request)).await else {
                let error = TransportError::broken("there was no answer in time", None);
                return Err(ConnectorError::timeout(error.into()));
            };
            if let (Some(clock), Ok(answer)) = (&self.listener, &sent) {
                date::hear(clock, request.uri(), answer.headers(), began);
            }
            match sent.and_then(convert) {
                Ok(response) => return Ok(response),
                Err(error) if !error.may_have_arrived && sends < SENDS => {}
                Err(error) => return Err(ConnectorError::io(error.into())),
            }
        }
    }

    fn pool(&self, uri: &Uri) -> Arc<Pool> {
        let origin = format!(
            "{}://{}",
            uri.scheme_str().unwrap_or_default(),
            uri.authority().map_or("", |authority| authority.as_str())
        );
        let mut pools = self.inner.pools.lock().expect("nothing panics while holding this lock");
        let new = || Pool::new(self.inner.connector.clone(), uri.clone());
        pools.entry(origin).or_insert_with(new).clone()
    }
}

/// What comes of it, if it comes in time.
async fn within<T>(time: Option<Duration>, of: impl Future<Output = T>) -> Option<T> {
    match time {
        None => Some(of.await),
        Some(time) => timeout(time, of).await.ok(),
    }
}

/// The answer as the SDK takes it. One that it cannot take is an answer all the same: the request
/// has arrived.
fn convert(response: http::Response<bytes::Bytes>) -> Result<HttpResponse, TransportError> {
    let unreadable = |error: BoxError| TransportError::broken("the answer is unreadable", error);
    let (parts, body) = response.into_parts();
    let status = StatusCode::try_from(parts.status.as_u16());
    let mut response = Response::new(status.map_err(|it| unreadable(it.into()))?, body.into());
    for (name, value) in &parts.headers {
        let value = value.to_str().map_err(|error| unreadable(error.into()))?.to_owned();
        response.headers_mut().append(name.as_str().to_owned(), value);
    }
    Ok(response)
}

impl HttpClient for Transport {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Transport {
            inner: self.inner.clone(),
            listener: self.listener.clone(),
            connect_timeout: settings.connect_timeout(),
            read_timeout: settings.read_timeout(),
        })
    }
}

impl HttpConnector for Transport {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let transport = self.clone();
        HttpConnectorFuture::new(async move { transport.send(request).await })
    }
}

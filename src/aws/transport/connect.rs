//! Making connections: names, proxies, TCP, TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fmt};

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connection as _, HttpConnector};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;
use tracing::warn;

use super::connection::Connection;
use super::dns::CachedDns;
use super::{BoxError, Http, TransportError};

/// Name, TCP, proxy and TLS together may take so long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// NAT gateways and load balancers forget a connection that was silent for 350 s
/// (docs.aws.amazon.com/vpc/latest/userguide/nat-gateway-troubleshooting.html), and a call is
/// silent while its function thinks.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(45);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// How long data, or a keep-alive probe, may stay unanswered. With the probes' times above, a peer
/// that is gone without a word is noticed within a minute.
const USER_TIMEOUT: Duration = Duration::from_secs(50);

/// A bound stream, with or without TLS.
pub(super) type Stream = TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>;

/// Makes connections of one kind.
pub(super) struct Connector {
    http: Http,
    tcp: HttpConnector<CachedDns>,
    tls: ClientConfig,
    proxies: Matcher,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("http", &self.http).finish_non_exhaustive()
    }
}

impl Connector {
    pub(super) fn new(http: Http, ca_bundle: Option<&Path>) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(CachedDns::default());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE_IDLE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        tcp.set_tcp_user_timeout(Some(USER_TIMEOUT));
        Connector { http, tcp, tls: tls(ca_bundle), proxies: Matcher::from_env() }
    }

    /// The same for another version of HTTP.
    pub(super) fn beside(&self, http: Http) -> Self {
        let (tcp, tls) = (self.tcp.clone(), self.tls.clone());
        Connector { http, tcp, tls, proxies: Matcher::from_env() }
    }

    /// Connects to where `uri` is, and shakes hands.
    pub(super) async fn connect(&self, uri: &Uri) -> Result<Connection, TransportError> {
        let connecting = async {
            let stream = self
                .stream(uri)
                .await
                .map_err(|error| TransportError::not_sent("no connection could be made", error))?;
            let speaks_h2 = match self.http {
                Http::H1 => false,
                Http::Auto => stream.inner().connected().is_negotiated_h2(),
                Http::H2 => true,
            };
            Connection::open(stream, speaks_h2).await
        };
        match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(TransportError::not_sent("no connection could be made in 5 s", None)),
        }
    }

    async fn stream(&self, uri: &Uri) -> Result<Stream, BoxError> {
        let Some(proxy) = self.proxies.intercept(uri) else {
            return Ok(TokioIo::new(self.secured(self.tcp.clone()).call(uri.clone()).await?));
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.tcp.clone());
        if let Some(credentials) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(credentials.clone());
        }
        Ok(TokioIo::new(self.secured(tunnel).call(uri.clone()).await?))
    }

    fn secured<C>(&self, below: C) -> HttpsConnector<C> {
        let builder = HttpsConnectorBuilder::new().with_tls_config(self.tls.clone());
        let builder = builder.https_or_http();
        match self.http {
            Http::Auto => builder.enable_http1().enable_http2().wrap_connector(below),
            Http::H1 => builder.enable_http1().wrap_connector(below),
            Http::H2 => builder.enable_http2().wrap_connector(below),
        }
    }
}

/// The machine's roots (or those of SSL_CERT_FILE and SSL_CERT_DIR), and the bundle's.
fn tls(ca_bundle: Option<&Path>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    let ca_bundle = ca_bundle.map(Path::to_owned);
    if let Some(path) = ca_bundle.or_else(|| env::var_os("AWS_CA_BUNDLE").map(PathBuf::from)) {
        let bundle = CertificateDer::pem_file_iter(&path);
        match bundle.and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(certificates) => {
                roots.add_parsable_certificates(certificates);
            }
            Err(error) => warn!(
                event = "daemon.ca_bundle_unreadable",
                path = %path.display(),
                %error,
                "the bundle of certificates is not used"
            ),
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

//! A Lambda endpoint with TLS and HTTP/2, as Lambda's own front end: 128 calls on a connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use axum::body::Body;
use axum::http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::lambda::Functions;
use super::limits::Limits;
use super::protocol;

/// How the endpoint behaves.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// What ALPN offers.
    pub offers_h2: bool,
    /// Calls on one connection.
    pub streams: u32,
    /// A connection says GOAWAY after so many calls.
    pub goaway_after: Option<usize>,
    /// What the functions may.
    pub limits: Limits,
}

impl Default for Manner {
    fn default() -> Self {
        Manner { offers_h2: true, streams: 128, goaway_after: None, limits: Limits::default() }
    }
}

/// A Lambda endpoint that lives as long as this value.
#[derive(Debug)]
pub struct TlsLambda {
    address: SocketAddr,
    certificate: String,
    connections: Arc<AtomicU32>,
    _serving: JoinSet<()>,
}

impl TlsLambda {
    /// Serves on the runtime it is called on.
    ///
    /// # Errors
    ///
    /// When there is no port, or no certificate can be made.
    pub fn start(functions: Functions, manner: Manner) -> io::Result<Self> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certified = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der());
        let key = key.map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .map_err(io::Error::other)?;
        config.alpn_protocols = match manner.offers_h2 {
            true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            false => vec![b"http/1.1".to_vec()],
        };
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let listener = socket.listen(4096)?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicU32::new(0));
        let server = Server {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            router: protocol::router(functions, manner.limits, Arc::default()),
            manner,
            connections: connections.clone(),
        };
        let mut serving = JoinSet::new();
        serving.spawn(server.serve(listener));
        let certificate = certified.cert.pem();
        Ok(TlsLambda { address, certificate, connections, _serving: serving })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// What callers have to trust, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Connections that were made so far.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }
}

struct Server {
    acceptor: TlsAcceptor,
    router: axum::Router,
    manner: Manner,
    connections: Arc<AtomicU32>,
}

impl Server {
    async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            self.connections.fetch_add(1, Ordering::Relaxed);
            let (acceptor, router) = (self.acceptor.clone(), self.router.clone());
            connections.spawn(connection(stream, acceptor, router, self.manner));
            while connections.try_join_next().is_some() {}
        }
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    router: axum::Router,
    manner: Manner,
) {
    stream.set_nodelay(true).expect("it is a socket");
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let (calls, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let seen = (calls.clone(), enough.clone());
    let router = router.layer(axum::middleware::from_fn(
        move |request: Request<Body>, next: axum::middleware::Next| {
            let (calls, enough) = seen.clone();
            async move {
                if Some(calls.fetch_add(1, Ordering::Relaxed) + 1) == manner.goaway_after {
                    enough.notify_one();
                }
                next.run(request).await
            }
        },
    ));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(manner.streams);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    tokio::select! {
        biased;
        () = enough.notified() => {
            served.as_mut().graceful_shutdown();
            served.await.ok();
        }
        ended = served.as_mut() => drop(ended),
    }
}

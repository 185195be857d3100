//! A Lambda endpoint with TLS and HTTP/2, and the certificate that its callers trust.

use std::io;
use std::ops::Deref;
use std::path::PathBuf;

use burstd::aws::Place;
use burstd::local::lambda::Functions;
use burstd::local::place;
use burstd::local::tls::Manner;

pub struct TlsLambda {
    endpoint: burstd::local::tls::TlsLambda,
    directory: tempfile::TempDir,
}

impl TlsLambda {
    /// Serves on the runtime it is called on.
    pub fn start(functions: Functions, manner: Manner) -> io::Result<Self> {
        let endpoint = burstd::local::tls::TlsLambda::start(functions, manner)?;
        let directory = tempfile::TempDir::new()?;
        std::fs::write(directory.path().join("ca.pem"), endpoint.certificate())?;
        Ok(TlsLambda { endpoint, directory })
    }

    pub fn place(&self) -> Place {
        Place { ca_bundle: Some(self.ca_bundle()), ..place("http://127.0.0.1:1", &self.url()) }
    }

    pub fn ca_bundle(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }
}

impl Deref for TlsLambda {
    type Target = burstd::local::tls::TlsLambda;

    fn deref(&self) -> &Self::Target {
        &self.endpoint
    }
}

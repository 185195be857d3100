//! The SDK's own client with its own HTTP, as everybody has it: what `burstd bench` compares with.

use std::error::Error;
use std::path::Path;

use aws_sdk_lambda::primitives::Blob;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::HttpClient;

use super::{NoRegion, Place, shared_config};
use crate::clock::Clock;

/// A Lambda client with the SDK's defaults.
#[derive(Clone, Debug)]
pub struct SdkClient(aws_sdk_lambda::Client);

impl SdkClient {
    /// A client for the endpoint at this place.
    ///
    /// # Errors
    ///
    /// When no region is set, or the bundle of certificates cannot be read.
    pub async fn new(place: &Place) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let http = http_client(place.ca_bundle.as_deref())?;
        let shared = shared_config(place, http, Clock::system()).await;
        shared.region().ok_or(NoRegion)?;
        let mut config = aws_sdk_lambda::config::Builder::from(&shared);
        if let Some(url) = &place.lambda_endpoint_url {
            config = config.endpoint_url(url);
        }
        Ok(SdkClient(aws_sdk_lambda::Client::from_conf(config.build())))
    }

    /// Whether the function ran and answered.
    pub async fn invoke(&self, function: &str, event: &str) -> bool {
        let payload = Blob::new(event.as_bytes());
        let sent = self.0.invoke().function_name(function).payload(payload).send().await;
        sent.is_ok_and(|output| output.function_error.is_none())
    }
}

/// The HTTP client that the SDK brings, which trusts a bundle of certificates, too.
fn http_client(
    ca_bundle: Option<&Path>,
) -> Result<impl HttpClient + 'static, Box<dyn Error + Send + Sync>> {
    let trust = match ca_bundle {
        None => TrustStore::default(),
        Some(bundle) => TrustStore::default().with_pem_certificate(std::fs::read(bundle)?),
    };
    let tls = TlsContext::builder().with_trust_store(trust).build()?;
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
    Ok(http.tls_context(tls).build_https())
}

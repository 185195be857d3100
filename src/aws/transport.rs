//! The HTTP client under the Lambda client.

use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

/// What carries invocations.
///
/// The SDK's own client: on HTTP/1.1 endpoints one connection for each call. On HTTP/2 it keeps
/// one connection per host, and so no more calls at once than that one's streams.
pub(super) fn for_lambda() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build_https()
}

//! The adapters to AWS: everything that names its SDK.

mod census;
mod control;
mod date;
mod desk;
mod errors;
mod extent;
mod filter;
mod invoker;
mod item;
mod keyed;
mod listing;
mod meter;
mod notices;
mod patience;
mod probe;
mod producer;
#[cfg(feature = "local")]
mod reference;
mod scan;
mod settling;
mod store;
mod table;
mod transport;
mod update;

use std::path::PathBuf;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials as Keys;
use aws_sdk_dynamodb::config::StalledStreamProtectionConfig;
use aws_sdk_dynamodb::config::retry::{RetryPartition, TokenBucket};
use aws_smithy_runtime_api::client::http::HttpClient;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;

pub use census::{Census, Open, Part, Standing};
pub use control::{Control, Run};
pub use desk::{Changed, Desk, Record};
pub use errors::Cause;
pub use extent::{Extent, Sizes};
pub use filter::{Filter, Retryable, Wanted};
pub use invoker::{LambdaInvoker, without_qualifier};
pub use listing::{Found, Listing};
pub use probe::{Account, Credentials, Endpoint, Identity, Probe, Settings, Survey};
pub use producer::{BATCH_LIMIT, NewTask, Producer, PutError, Rejected};
#[cfg(feature = "local")]
pub use reference::SdkClient;
pub use scan::Snapshot;
pub use store::DynamoStore;
pub use table::{Created, Difference, Table};
pub use transport::Http;

use crate::clock::Clock;
use date::Signing;
use transport::Transport;

/// Where AWS is and who we are there; what is not given is found as every AWS program finds it.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The region.
    pub region: Option<String>,
    /// A profile of the shared configuration files.
    pub profile: Option<String>,
    /// DynamoDB's endpoint.
    pub dynamodb_endpoint_url: Option<String>,
    /// Lambda's endpoint.
    pub lambda_endpoint_url: Option<String>,
    /// Which HTTP Lambda is spoken to in.
    pub http: Http,
    /// Certificates to trust beside the machine's, in PEM; AWS_CA_BUNDLE's when absent.
    pub ca_bundle: Option<PathBuf>,
    /// The endpoints are our own: no credentials are needed, and none are looked for.
    pub is_embedded: bool,
}

/// The clients of both services. They share one cache of credentials.
#[derive(Clone, Debug)]
pub struct Clients {
    dynamodb: aws_sdk_dynamodb::Client,
    lambda: aws_sdk_lambda::Client,
    transport: Transport,
    /// What carries DynamoDB's calls.
    tables: Transport,
    /// What all clients have in common.
    shared: SdkConfig,
    clock: Clock,
    region: String,
}

impl Clients {
    /// Finds region, credentials and endpoints, and builds the clients. Nothing is called yet,
    /// except by a credential provider.
    ///
    /// # Errors
    ///
    /// When no region is set anywhere.
    pub async fn new(place: &Place) -> Result<Clients, NoRegion> {
        let transport = Transport::new(place.http, place.ca_bundle.as_deref());
        let clock = Clock::system();
        let http = transport.beside(Http::Auto).telling(clock.clone());
        let shared = shared_config(place, http, clock.clone()).await;
        let region = shared.region().ok_or(NoRegion)?.to_string();
        let tables = transport.beside(Http::Auto).telling(clock.clone());
        let dynamodb = dynamodb_client(&shared, place, &tables);
        let lambda = lambda_client(&shared, place, &transport);
        Ok(Clients { dynamodb, lambda, transport, tables, shared, clock, region })
    }

    /// The time of day, as AWS's answers correct it.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// The region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The table named `name`, whether it exists or not.
    pub fn table(&self, name: &str) -> Table {
        Table::new(self.dynamodb.clone(), name.to_owned(), self.region.clone())
    }

    /// What tries whether all this works.
    pub fn probe(&self, table: &str) -> Probe {
        Probe::new(self, table)
    }

    /// What invokes functions.
    pub fn invoker(&self) -> LambdaInvoker {
        LambdaInvoker::new(self.lambda.clone(), self.transport.clone())
    }
}

/// There is no region.
#[derive(Debug, thiserror::Error)]
#[error(
    "no AWS region is set: write region = \"…\" under [aws], set AWS_REGION, or give the profile \
     one"
)]
pub struct NoRegion;

/// What the clients have in common; `http` carries what is neither a table's nor a function's.
async fn shared_config(place: &Place, http: impl HttpClient + 'static, clock: Clock) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .time_source(Signing(clock))
        .disable_clock_skew_correction(true);
    if let Some(region) = &place.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &place.profile {
        loader = loader.profile_name(profile);
    }
    if place.is_embedded {
        loader = loader.credentials_provider(Keys::new("burstd", "burstd", None, None, "embedded"));
    }
    loader.load().await
}

/// DynamoDB answers in milliseconds or is in trouble: short time-outs, quick retries. Every call
/// of ours may be sent twice. The SDK lets all clients of a service share a hundred retries; ours
/// are bounded by the calls at once, and by how the engine waits while the table is in trouble.
fn dynamodb_client(
    shared: &SdkConfig,
    place: &Place,
    tables: &Transport,
) -> aws_sdk_dynamodb::Client {
    let mut config = aws_sdk_dynamodb::config::Builder::from(shared)
        .http_client(tables.clone())
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(4)
                .with_initial_backoff(Duration::from_millis(50))
                .with_max_backoff(Duration::from_secs(1)),
        )
        .retry_partition(
            RetryPartition::custom("burstd").token_bucket(TokenBucket::unlimited()).build(),
        )
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(2))
                .operation_attempt_timeout(Duration::from_secs(5))
                .build(),
        )
        // An attempt's time is short enough; watching its speed, too, only costs.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(url) = &place.dynamodb_endpoint_url {
        config = config.endpoint_url(url);
    }
    aws_sdk_dynamodb::Client::from_conf(config.build())
}

/// A retry of the SDK would run the function again inside one attempt, so there are none; and a
/// function that thinks for minutes sends nothing meanwhile, so nothing is too slow before the
/// attempt's own deadline. How long a connection may take, the transport knows.
fn lambda_client(
    shared: &SdkConfig,
    place: &Place,
    transport: &Transport,
) -> aws_sdk_lambda::Client {
    let mut config = aws_sdk_lambda::config::Builder::from(shared)
        .http_client(transport.clone())
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .disable_connect_timeout()
                .disable_read_timeout()
                .disable_operation_timeout()
                .disable_operation_attempt_timeout()
                .build(),
        );
    if let Some(url) = &place.lambda_endpoint_url {
        config = config.endpoint_url(url);
    }
    aws_sdk_lambda::Client::from_conf(config.build())
}

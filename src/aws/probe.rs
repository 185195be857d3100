//! Trying whether everything that burstd needs of AWS is there: each call changes nothing, and none
//! is waited for longer than a few seconds.

mod functions;
mod identity;
mod table;

use std::error::Error;
use std::time::Duration;

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::http::Response;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use http::Version;
use rand::{RngExt as _, make_rng, rngs::StdRng};
use tokio::time::{Instant, sleep, timeout};

pub use functions::{Account, Settings};
pub use identity::{Credentials, Identity};
pub use table::Survey;

use super::Clients;
use super::errors::{Cause, fault};
use super::meter::Meter;
use super::patience::BACKOFF;
use super::transport::Transport;
use crate::clock::Clock;
use crate::store::{Consumed, Fault};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Calls that are timed, after a first one that makes the connection.
const TIMED: usize = 5;

/// How often AWS is asked for what it has no capacity for.
const TRIES_OF_BUSY: u32 = 6;

/// Tries one table, and functions.
#[derive(Debug)]
pub struct Probe {
    clients: Clients,
    table: String,
    meter: Meter,
    /// What no key of the table is: as text, as a number and as bytes in hexadecimal.
    nobody: String,
}

/// Where a service is, and how far away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its scheme and host.
    pub origin: String,
    /// How long a small call takes: the median of a few.
    pub round_trip: Duration,
    /// Which HTTP it is spoken to in.
    pub http: &'static str,
}

impl Endpoint {
    /// Whether it is AWS's own, rather than something that stands in for it.
    pub fn is_aws(&self) -> bool {
        let host = self.origin.rsplit("//").next().unwrap_or_default();
        ["amazonaws.com", "amazonaws.com.cn", "api.aws"].iter().any(|end| host.ends_with(end))
    }

    /// Whether each call takes a connection of its own although AWS offers better.
    pub fn is_old(&self) -> bool {
        self.origin.starts_with("https://") && self.http == HTTP_11
    }
}

const HTTP_11: &str = "HTTP/1.1";

impl Probe {
    pub(super) fn new(clients: &Clients, table: &str) -> Self {
        let nobody = make_rng::<StdRng>().random_range(10_u64.pow(17)..10_u64.pow(18));
        let (clients, table) = (clients.clone(), table.to_owned());
        Probe { clients, table, meter: Meter::default(), nobody: nobody.to_string() }
    }

    /// The region.
    pub fn region(&self) -> &str {
        self.clients.region()
    }

    /// The time of day, as AWS's answers tell it.
    pub fn clock(&self) -> Clock {
        self.clients.clock()
    }

    /// What all calls so far have cost.
    pub fn consumed(&self) -> Consumed {
        self.meter.consumed()
    }
}

/// What a call answers, if it does in time.
async fn ask<T, E>(
    operation: &'static str,
    call: impl Future<Output = Result<T, SdkError<E, Response>>>,
) -> Result<T, Fault>
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match timeout(PATIENCE, call).await {
        Ok(answer) => answer.map_err(|error| fault(operation, &error)),
        Err(_) => Err(no_answer(operation)),
    }
}

/// Asks again what AWS has no capacity for at the moment: where many functions are asked about,
/// and others ask, too, that is soon.
async fn ask_again<T>(call: impl AsyncFn() -> Result<T, Fault>) -> Result<T, Fault> {
    let mut rng: StdRng = make_rng();
    for tries in 1..TRIES_OF_BUSY {
        match call().await {
            Err(fault) if Cause::of(&fault) == Cause::Busy => {
                sleep(BACKOFF.after(tries, &mut rng)).await;
            }
            answer => return answer,
        }
    }
    call().await
}

fn no_answer(operation: &'static str) -> Fault {
    let message = format!("no answer in {} s", PATIENCE.as_secs());
    Fault { operation, code: "Burstd.NoAnswer".to_owned(), message }
}

/// Makes a call again and again. An error of the service is as good an answer as any: it has come
/// all the way.
async fn measure<T, E>(
    operation: &'static str,
    transport: &Transport,
    call: impl AsyncFn() -> Result<T, SdkError<E, Response>>,
) -> Result<Endpoint, Fault>
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let time = async || {
        let began = Instant::now();
        match timeout(PATIENCE, call()).await {
            Ok(Err(error)) if error.raw_response().is_none() => Err(fault(operation, &error)),
            Ok(_) => Ok(began.elapsed()),
            Err(_) => Err(no_answer(operation)),
        }
    };
    time().await?;
    let mut times = Vec::with_capacity(TIMED);
    for _ in 0..TIMED {
        times.push(time().await?);
    }
    times.sort();
    let spoken = transport.spoken();
    let origin = spoken.as_ref().map(|(uri, _)| {
        let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.authority());
        format!("{scheme}://{}", host.map_or("", |host| host.as_str()))
    });
    let http = match spoken {
        Some((_, Version::HTTP_2)) => "HTTP/2",
        _ => HTTP_11,
    };
    Ok(Endpoint { origin: origin.unwrap_or_default(), round_trip: times[TIMED / 2], http })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_aws_s_own_by_its_host() {
        for (origin, is_aws) in [
            ("https://dynamodb.eu-west-1.amazonaws.com", true),
            ("https://dynamodb.cn-north-1.amazonaws.com.cn", true),
            ("https://vpce-1.dynamodb.us-east-1.vpce.amazonaws.com", true),
            ("https://123456789012.ddb.us-east-1.api.aws", true),
            ("http://127.0.0.1:8000", false),
            ("https://amazonaws.com.example", false),
        ] {
            let round_trip = Duration::ZERO;
            let endpoint = Endpoint { origin: origin.to_owned(), round_trip, http: HTTP_11 };
            assert_eq!(endpoint.is_aws(), is_aws, "{origin}");
            assert_eq!(endpoint.is_old(), origin.starts_with("https"), "{origin}");
        }
    }
}

//! DynamoDB and Lambda on this machine, for `burstd demo`, `burstd dev` and the tests. The daemon
//! talks to them over HTTP as it talks to AWS.

pub mod dynamodb;
mod ending;
mod environment;
pub mod environments;
pub mod functions;
pub mod lambda;
pub mod ledger;
pub mod limits;
mod output;
pub mod process;
mod protocol;
mod runtime_api;
pub mod tls;
pub mod warden;

pub use protocol::plain_name;

use crate::aws::Place;

/// Where everything here says that it is.
const REGION: &str = "us-east-1";

/// Where the two endpoints are, for the daemon's clients.
pub fn place(dynamodb_url: &str, lambda_url: &str) -> Place {
    Place {
        region: Some(REGION.to_owned()),
        dynamodb_endpoint_url: Some(dynamodb_url.to_owned()),
        lambda_endpoint_url: Some(lambda_url.to_owned()),
        is_embedded: true,
        ..Place::default()
    }
}

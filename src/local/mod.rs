//! DynamoDB and Lambda on this machine, for `burstd demo`, `burstd dev` and the tests. The daemon
//! talks to them over HTTP as it talks to AWS.

pub mod dynamodb;
pub mod functions;
pub mod lambda;
pub mod limits;
mod protocol;
pub mod tls;

use crate::aws::Place;

/// Where the two endpoints are, for the daemon's clients.
pub fn place(dynamodb_url: &str, lambda_url: &str) -> Place {
    Place {
        region: Some("us-east-1".to_owned()),
        dynamodb_endpoint_url: Some(dynamodb_url.to_owned()),
        lambda_endpoint_url: Some(lambda_url.to_owned()),
        is_embedded: true,
        ..Place::default()
    }
}

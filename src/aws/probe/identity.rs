//! Credentials, and whose they are.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::provider::ProvideCredentials as _;
use aws_sdk_sts::config::retry::RetryConfig;
use tokio::time::timeout;

use super::{Probe, ask};
use crate::store::Fault;
use crate::task::Timestamp;

const LOOK_UP: &str = "credentials";
const IDENTITY: &str = "sts:GetCallerIdentity";

/// A process that prints credentials, or a login that is renewed, takes its time.
const LOOK_UP_PATIENCE: Duration = Duration::from_secs(10);

/// Credentials that were found, without what is secret of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Where they were found.
    pub source: String,
    /// The access key's last four characters.
    pub key_end: String,
    /// When they end, if they do.
    pub expires_at: Option<Timestamp>,
}

/// Who AWS says we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account.
    pub account: String,
    /// The user or role.
    pub arn: String,
}

impl Probe {
    /// Looks for credentials as every call does.
    ///
    /// # Errors
    ///
    /// When there are none.
    pub async fn credentials(&self) -> Result<Credentials, Fault> {
        let none = |message: String| {
            let code = "Burstd.Credentials".to_owned();
            Fault { operation: LOOK_UP, code, message }
        };
        let Some(provider) = self.clients.shared.credentials_provider() else {
            return Err(none("nothing provides any".to_owned()));
        };
        let found = timeout(LOOK_UP_PATIENCE, provider.provide_credentials()).await;
        let found = found.map_err(|_| none("they were not found in 10 s".to_owned()))?;
        let found = found.map_err(|error| {
            let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| {
                error.source()
            });
            none(causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
        })?;
        let key = found.access_key_id();
        let characters = key.chars().count();
        let since_epoch = |at: SystemTime| at.duration_since(UNIX_EPOCH).ok();
        let expires_in = found.expiry().and_then(since_epoch);
        Ok(Credentials {
            source: source(&format!("{found:?}")),
            // Of a key of eight characters or fewer that would be half of it.
            key_end: key.chars().skip(characters.saturating_sub(4).max(4)).collect(),
            expires_at: expires_in.map(|since| Timestamp::default() + since),
        })
    }

    /// Asks AWS who we are. Everybody may.
    ///
    /// # Errors
    ///
    /// When AWS does not take the credentials, or does not answer.
    pub async fn identity(&self) -> Result<Identity, Fault> {
        let config = aws_sdk_sts::config::Builder::from(&self.clients.shared)
            .retry_config(RetryConfig::standard().with_max_attempts(2));
        let client = aws_sdk_sts::Client::from_conf(config.build());
        let answer = ask(IDENTITY, client.get_caller_identity().send()).await?;
        match (answer.account, answer.arn) {
            (Some(account), Some(arn)) => Ok(Identity { account, arn }),
            _ => {
                let message = "the reply tells nobody".to_owned();
                Err(Fault { operation: IDENTITY, code: "Burstd.EmptyReply".to_owned(), message })
            }
        }
    }
}

/// Where credentials come from, in words. The SDK says it only where it describes them.
fn source(description: &str) -> String {
    let after = description.split_once("provider_name: \"").map(|(_, after)| after);
    let name = after.and_then(|after| after.split_once('"')).map_or("", |(name, _)| name);
    match name {
        "" => "an unknown place",
        "EnvironmentVariable" => "the environment",
        "ProfileFile" => "a profile of the shared files",
        "CredentialProcess" => "a process",
        "SSO" => "a login (SSO)",
        "IMDSv2" => "the instance's role",
        "EcsContainer" => "the container's role",
        "WebIdentityToken" => "a web identity",
        "AssumeRoleProvider" => "an assumed role",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;

    use super::*;

    #[test]
    fn the_sdk_s_description_of_credentials_tells_where_they_are_from() {
        for (provider, words) in [
            ("EnvironmentVariable", "the environment"),
            ("IMDSv2", "the instance's role"),
            ("Something", "Something"),
        ] {
            let found = Credentials::new("key", "secret", None, None, provider);
            assert_eq!(source(&format!("{found:?}")), words);
        }
        assert_eq!(source("Credentials"), "an unknown place");
    }
}

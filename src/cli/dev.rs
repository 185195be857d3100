//! `burstd dev`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use super::block_on;
use super::exit::Exit;
use crate::aws::{Clients, Created};
use crate::backlog::Backlog;
use crate::config::Config;
use crate::daemon::{self, Daemon};
use crate::descriptors;
use crate::local::dynamodb::EmbeddedDynamoDb;
use crate::local::functions::{BUILT_IN, built_in};
use crate::local::{self, lambda::EmbeddedLambda};
use crate::shutdown::Shutdown;
use crate::telemetry::{self, BUFFER, Format, Metrics, Output};

/// Run DynamoDB, Lambda and the daemon on this machine, without AWS
#[derive(Args)]
pub(super) struct Dev {
    /// DynamoDB's port
    #[arg(long, default_value_t = 8000)]
    dynamodb_port: u16,
    /// Lambda's port
    #[arg(long, default_value_t = 9001)]
    lambda_port: u16,
    /// Keep the table in this directory; in memory when absent
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Which lines to log: info, or info,burstd::worker=debug
    #[arg(long, default_value = "info")]
    log_level: String,
}

impl Dev {
    pub(super) fn run(self) -> Result<(), Exit> {
        let levels = telemetry::levels(&self.log_level)
            .map_err(|error| Exit::usage(format!("--log-level {}: {error}", self.log_level)))?;
        let name = daemon::worker_name();
        let (lines, _) =
            telemetry::start((Format::Text, Metrics::None), levels, Output::Stdout, &name, BUFFER)
                .map_err(Exit::os)?;
        let shutdown = Shutdown::on_signals().map_err(Exit::os)?;
        descriptors::raise();
        let dynamodb = self.dynamodb()?;
        let lambda = EmbeddedLambda::start(local_address(self.lambda_port), built_in())
            .map_err(|error| port_taken("Lambda", self.lambda_port, "--lambda-port", &error))?;
        block_on(self.serve(&dynamodb, &lambda, name, shutdown, lines.backlog()))
    }

    fn dynamodb(&self) -> Result<EmbeddedDynamoDb, Exit> {
        let file = match &self.data_dir {
            None => None,
            Some(directory) => {
                let made = std::fs::create_dir_all(directory);
                made.map_err(|error| {
                    Exit::os(format!("--data-dir {}: {error}", directory.display()))
                })?;
                Some(directory.join("dynamodb.sqlite"))
            }
        };
        let address = local_address(self.dynamodb_port);
        EmbeddedDynamoDb::start(address, file.as_deref())
            .map_err(|error| port_taken("DynamoDB", self.dynamodb_port, "--dynamodb-port", &error))
    }

    async fn serve(
        &self,
        dynamodb: &EmbeddedDynamoDb,
        lambda: &EmbeddedLambda,
        name: String,
        shutdown: Shutdown,
        backlog: Backlog,
    ) -> Result<(), Exit> {
        let config = config();
        let place = local::place(&dynamodb.url(), &lambda.url());
        let table = Clients::new(&place).await?.table(&config.table);
        if let Created::Differs(differences) = table.create().await? {
            let differences: Vec<_> = differences.iter().map(ToString::to_string).collect();
            return Err(Exit::wrong_table(differences.join("; ")));
        }
        let Some(daemon) = Daemon::prepare(&config, &place, name, shutdown, backlog).await? else {
            return Ok(());
        };
        self.greet(&dynamodb.url(), &lambda.url());
        daemon.run(None).await;
        Ok(())
    }

    fn greet(&self, dynamodb: &str, lambda: &str) {
        let data = match &self.data_dir {
            Some(directory) => format!("kept in {}", directory.display()),
            None => "in memory, gone when this ends; --data-dir DIR keeps it".to_owned(),
        };
        println!("DynamoDB  {dynamodb}  (table \"tasks\" {data})");
        println!("Lambda    {lambda}");
        println!("\nQueues, each with a built-in function of the same name:");
        for (name, does) in BUILT_IN {
            println!("  {name:<6} {does}");
        }
        println!("{}", usage(dynamodb));
    }
}

/// Lines to copy. The AWS CLI's first version and boto3 read AWS_DEFAULT_REGION, everything else
/// AWS_REGION.
fn usage(dynamodb: &str) -> String {
    format!(
        r#"
Insert a task and read it back, in another terminal:

  export AWS_ENDPOINT_URL_DYNAMODB={dynamodb}
  export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
  export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local
  aws dynamodb put-item --table-name tasks --item '{{"id": {{"S": "hello-1"}},
    "queue": {{"S": "echo"}}, "due": {{"N": "0"}}, "payload": {{"S": "{{\"a\": 1}}"}}}}'
  aws dynamodb get-item --table-name tasks --key '{{"id": {{"S": "hello-1"}}}}'

Ctrl-C stops.
"#
    )
}

fn local_address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn port_taken(what: &str, port: u16, option: &str, error: &std::io::Error) -> Exit {
    Exit::unavailable(format!(
        "{what} cannot be served on 127.0.0.1:{port}: {error}; choose another port with {option}"
    ))
}

/// A queue for each built-in function; failures come back quickly.
fn config() -> Config {
    let queue = |(name, _): (&str, &str)| {
        format!(
            "[queues.{name}]\nfunction = \"{name}\"\n\
             lease_margin = \"10s\"\nbackoff = {{ base = \"1s\", max = \"10s\" }}\n"
        )
    };
    let queues: String = BUILT_IN.into_iter().map(queue).collect();
    let source = format!("table = \"tasks\"\n[shutdown]\ndrain = \"10s\"\n{queues}");
    Config::parse(&source).expect("the built-in configuration is valid; a test holds that")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_built_in_configuration_is_valid() {
        assert_eq!(super::config().queues.len(), super::BUILT_IN.len());
    }
}

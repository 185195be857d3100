//! `burstd dev`.

mod functions;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use super::block_on;
use super::exit::Exit;
use crate::aws::{Clients, Created};
use crate::backlog::Backlog;
use crate::config::{Config, Program};
use crate::daemon::{self, Daemon};
use crate::descriptors;
use crate::local::dynamodb::EmbeddedDynamoDb;
use crate::local::functions::BUILT_IN;
use crate::local::lambda::EmbeddedLambda;
use crate::local::limits::Limits;
use crate::local::{self, plain_name};
use crate::shutdown::Shutdown;
use crate::telemetry::{self, BUFFER, Format, Metrics, Output};

/// Run DynamoDB, Lambda and the daemon on this machine, without AWS
#[derive(Args)]
#[command(after_help = HELP)]
pub(super) struct Dev {
    /// A configuration: its queues, and its functions under [local.functions]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A function of your own, and a queue of the same name
    #[arg(long = "function", value_name = "NAME=COMMAND", value_parser = functions::parse)]
    functions: Vec<(String, Program)>,
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

const HELP: &str = "\
A function is any program that speaks the Lambda Runtime API:
  --function work=target/release/bootstrap
  --function py='python3 -m awslambdaric handler.handler'
  --function js='npx aws-lambda-ric index.handler'
Each invocation at the same moment has a process of its own, as in Lambda. What
they print is in the log.";

impl Dev {
    pub(super) fn run(self) -> Result<(), Exit> {
        let config = self.config()?;
        let levels = telemetry::levels(&self.log_level)
            .map_err(|error| Exit::usage(format!("--log-level {}: {error}", self.log_level)))?;
        let name = daemon::worker_name();
        let (lines, _) =
            telemetry::start((Format::Text, Metrics::None), levels, Output::Stdout, &name, BUFFER)
                .map_err(Exit::os)?;
        let shutdown = Shutdown::on_signals().map_err(Exit::os)?;
        descriptors::raise();
        let own = functions::make(&config)?;
        let dynamodb = self.dynamodb()?;
        let limits = Limits {
            account_concurrency: config.local.account_concurrency,
            ramp: config.local.ramp,
            ..Limits::default()
        };
        let lambda =
            EmbeddedLambda::limited(local_address(self.lambda_port), own.functions, limits)
                .map_err(|error| port_taken("Lambda", self.lambda_port, "--lambda-port", &error))?;
        block_on(self.serve(&config, &dynamodb, &lambda, name, shutdown, lines.backlog()))?;
        for (name, environments) in own.programs {
            println!("{name}: {}", environments.usage());
        }
        Ok(())
    }

    /// The configuration to work by, with all functions of one's own.
    fn config(&self) -> Result<Config, Exit> {
        let mut config = match &self.config {
            Some(path) => Config::load(path).map_err(Exit::config)?,
            None => built_in_config(),
        };
        for (name, program) in &self.functions {
            config.local.functions.insert(name.clone(), program.clone());
            if !config.queues.iter().any(|queue| plain_name(&queue.function) == name) {
                config.queues.splice(0..0, parsed(&own_queue(name)).queues);
            }
        }
        Ok(config)
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
        config: &Config,
        dynamodb: &EmbeddedDynamoDb,
        lambda: &EmbeddedLambda,
        name: String,
        shutdown: Shutdown,
        backlog: Backlog,
    ) -> Result<(), Exit> {
        let place = local::place(&dynamodb.url(), &lambda.url());
        let table = Clients::new(&place).await?.table(&config.table);
        if let Created::Differs(differences) = table.create().await? {
            let differences: Vec<_> = differences.iter().map(ToString::to_string).collect();
            return Err(Exit::wrong_thing(differences.join("; ")));
        }
        let Some(daemon) = Daemon::prepare(config, &place, name, shutdown, backlog).await? else {
            return Ok(());
        };
        self.greet(config, &dynamodb.url(), &lambda.url());
        daemon.run(None).await;
        Ok(())
    }

    fn greet(&self, config: &Config, dynamodb: &str, lambda: &str) {
        let data = match &self.data_dir {
            Some(directory) => format!("kept in {}", directory.display()),
            None => "in memory, gone when this ends; --data-dir DIR keeps it".to_owned(),
        };
        println!("DynamoDB  {dynamodb}  (table {:?} {data})", config.table);
        println!("Lambda    {lambda}");
        println!("\nQueues, and what their functions do:");
        let queues = functions::described(config);
        let width = queues.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, does) in &queues {
            println!("  {name:<width$}  {does}");
        }
        println!("{}", usage(dynamodb, &config.table, &queues[0].0));
    }
}

/// Lines to copy. The AWS CLI's first version and boto3 read AWS_DEFAULT_REGION, everything else
/// AWS_REGION.
fn usage(dynamodb: &str, table: &str, queue: &str) -> String {
    format!(
        r#"
Insert a task and read it back, in another terminal:

  export AWS_ENDPOINT_URL_DYNAMODB={dynamodb}
  export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
  export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local
  aws dynamodb put-item --table-name {table} --item '{{"id": {{"S": "hello-1"}},
    "queue": {{"S": "{queue}"}}, "due": {{"N": "0"}}, "payload": {{"S": "{{\"a\": 1}}"}}}}'
  aws dynamodb get-item --table-name {table} --key '{{"id": {{"S": "hello-1"}}}}'

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
fn built_in_config() -> Config {
    let queue = |(name, _): (&str, &str)| {
        format!(
            "[queues.{name}]\nfunction = \"{name}\"\n\
             lease_margin = \"10s\"\nbackoff = {{ base = \"1s\", max = \"10s\" }}\n"
        )
    };
    parsed(&BUILT_IN.into_iter().map(queue).collect::<String>())
}

/// A queue for a function of one's own. Its processes may take long to start on a small machine,
/// so its leases have room for that.
fn own_queue(name: &str) -> String {
    format!(
        "[queues.{name}]\nfunction = \"{name}\"\n\
         lease_margin = \"60s\"\nbackoff = {{ base = \"1s\", max = \"10s\" }}\n"
    )
}

fn parsed(queues: &str) -> Config {
    let source = format!("table = \"tasks\"\n[shutdown]\ndrain = \"10s\"\n{queues}");
    Config::parse(&source).expect("the built-in configuration is valid; a test holds that")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_configuration_is_valid() {
        assert_eq!(built_in_config().queues.len(), BUILT_IN.len());
        assert_eq!(parsed(&own_queue("A-Function_1")).queues.len(), 1);
    }
}

//! The commands, one file each.

#[cfg(feature = "local")]
mod bench;
mod check;
mod cost;
#[cfg(feature = "local")]
mod demo;
#[cfg(feature = "local")]
mod dev;
mod doctor;
mod exit;
mod filter;
mod generate;
mod list;
mod pause;
mod plain;
mod policy;
mod put;
mod row;
mod run;
mod stats;
mod table;
mod tasks;
mod when;

use std::panic;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use rustix::process::getuid;
use tokio::runtime::Runtime;

use crate::config::Config;
#[cfg(feature = "local")]
use crate::local;
use exit::Exit;
use tasks::Errand;

/// Runs a DynamoDB table as a task queue for AWS Lambda.
#[derive(Parser)]
#[command(name = "burstd", version, max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon: claim due tasks, invoke their functions, write back
    Run(ConfigFile),
    /// Say everything that is wrong with a configuration file
    Check(ConfigFile),
    /// Try whether all that the daemon needs is there, without changing anything
    Doctor(doctor::Doctor),
    /// Make the DynamoDB table
    #[command(subcommand)]
    Table(table::Command),
    /// Insert one task, or many from a file of JSON lines
    Put(put::Put),
    /// Print the least policy that is enough for this configuration
    IamPolicy(policy::Policy),
    /// List tasks
    List(list::List),
    /// Count tasks by queue: due, running, delayed, and how old the oldest is
    Stats(stats::Stats),
    /// Show everything about tasks, their last attempts included
    Show(tasks::About),
    /// Say why tasks do not run
    Explain(tasks::About),
    /// Claim nothing more of queues, in no daemon, until they are resumed
    Pause(pause::Queues),
    /// Let paused queues go on
    Resume(pause::Queues),
    /// Have tasks run again: those that have ended from the first attempt on, those that wait now
    Retry(tasks::Retry),
    /// Call tasks off; a function that runs goes on, and what it returns is discarded
    Cancel(tasks::Cancel),
    /// Run 500 tasks at once on this machine, without AWS, and show the figures
    #[cfg(feature = "local")]
    Demo(demo::Demo),
    /// Run DynamoDB, Lambda and the daemon on this machine, without AWS, to try things out
    #[cfg(feature = "local")]
    Dev(dev::Dev),
    /// Compare ways to make many calls at once, on this machine, without AWS
    ///
    /// A Lambda endpoint with TLS and HTTP/2 runs in a process of its own; each way to call it
    /// runs in another, one after the other. The standard settings repeat the comparison that
    /// burstd began with: 100 calls by a pool of threads took 23.02 s, 500 at once 2.03 s.
    #[cfg(feature = "local")]
    Bench(bench::Bench),
    /// Write manual pages and completions for bash, zsh and fish
    #[command(hide = true)]
    Generate(generate::Generate),
    /// A part of `burstd dev`: becomes a function's process, which dies with PARENT
    #[cfg(feature = "local")]
    #[command(hide = true)]
    LocalFunction {
        parent: i32,
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// A part of `burstd dev`: kills the processes with this mark when standard input ends
    #[cfg(feature = "local")]
    #[command(hide = true)]
    LocalWarden { mark: String },
    /// A part of `burstd bench`
    #[cfg(feature = "local")]
    #[command(hide = true)]
    BenchEndpoint { behaviour: String },
    /// A part of `burstd bench`
    #[cfg(feature = "local")]
    #[command(hide = true)]
    BenchCaller { orders: String },
}

/// The file that most commands read.
#[derive(Args)]
struct ConfigFile {
    /// The configuration file: burstd.toml(5) explains every key
    #[arg(long, value_name = "FILE", default_value = "/etc/burstd/burstd.toml")]
    config: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, Exit> {
        Config::load(&self.config).map_err(Exit::config)
    }
}

/// How a command about tasks speaks.
#[derive(Clone, Copy, Args)]
struct Speech {
    /// One JSON object a line instead of words
    #[arg(long)]
    json: bool,
    /// Say on standard error what it cost
    #[arg(long)]
    verbose: bool,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let printed = error.print();
            let code = if error.use_stderr() { exit::USAGE } else { 0 };
            return ExitCode::from(if printed.is_err() { exit::IO } else { code });
        }
    };
    let outcome = match cli.command {
        Command::Run(file) => run::run(&file),
        Command::Check(file) => check::check(&file),
        Command::Doctor(doctor) => doctor.run(),
        Command::Table(command) => command.run(),
        Command::Put(put) => put.run(),
        Command::IamPolicy(policy) => policy.run(),
        Command::Stats(stats) => stats.run(),
        Command::List(list) => list.run(),
        Command::Show(about) => about.run(Errand::Show),
        Command::Explain(about) => about.run(Errand::Explain),
        Command::Pause(queues) => queues.run(pause::Wish::Pause),
        Command::Resume(queues) => queues.run(pause::Wish::Resume),
        Command::Retry(retry) => retry.run(),
        Command::Cancel(cancel) => cancel.run(),
        Command::Generate(generate) => generate.run(),
        #[cfg(feature = "local")]
        Command::Demo(demo) => demo.run(),
        #[cfg(feature = "local")]
        Command::Dev(dev) => dev.run(),
        #[cfg(feature = "local")]
        Command::Bench(bench) => bench.run(),
        #[cfg(feature = "local")]
        Command::LocalFunction { parent, command } => {
            let error = local::process::become_function(parent, &command);
            Err(Exit::of_function(local::process::NO_PROGRAM, format!("{}: {error}", command[0])))
        }
        #[cfg(feature = "local")]
        Command::LocalWarden { mark } => local::warden::watch(&mark).map_err(Exit::os),
        #[cfg(feature = "local")]
        Command::BenchEndpoint { behaviour } => bench::serve(&behaviour),
        #[cfg(feature = "local")]
        Command::BenchCaller { orders } => bench::call(&orders),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.report(),
    }
}

/// Who works here: user@host.
fn person() -> String {
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let user = user.unwrap_or_else(|| getuid().as_raw().to_string());
    format!("{user}@{}", gethostname::gethostname().to_string_lossy())
}

fn unknown_queue(config: &Config, name: &str) -> Exit {
    let known: Vec<_> = config.queues.iter().map(|queue| queue.name.as_str()).collect();
    Exit::usage(format!(
        "there is no queue {name:?} in this configuration, which has: {}",
        known.join(", ")
    ))
}

/// What commands that talk to AWS run on. Where there are too few threads, tokio panics, and waits
/// for those that there are.
fn runtime() -> Result<Runtime, Exit> {
    let before = panic::take_hook();
    panic::set_hook(Box::new(|panic| {
        Exit::no_threads(panic).at_once();
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    panic::set_hook(before);
    runtime.map_err(|error| Exit::os(format!("no runtime: {error}")))
}

/// Runs a command that talks to AWS.
fn block_on<T>(command: impl Future<Output = Result<T, Exit>>) -> Result<T, Exit> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(command);
    // A look-up of a name may hang in the C library; nobody waits for it.
    runtime.shutdown_background();
    outcome
}

//! The configuration: read from a TOML file, checked as a whole, and valid from then on.

mod changes;
mod file;
mod local;
pub(crate) mod rate;
mod reader;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::aws::Http;
use crate::dispatcher::Limits;
use crate::governor::Caps;
use crate::retry::Policy;
use crate::telemetry::{Format, Metrics};

pub use changes::Changes;
pub use local::{LocalConfig, Program};
pub use reader::Problem;

/// A valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The DynamoDB table's name or ARN.
    pub table: String,
    /// The queues that are served, by name.
    pub queues: Vec<QueueConfig>,
    /// What the operator allows of functions; of those not named here, Lambda decides alone.
    pub functions: BTreeMap<String, Caps>,
    /// Caps and paces of the process.
    pub limits: Limits,
    /// Where AWS is, beside what the environment says.
    pub aws: AwsConfig,
    /// How to log.
    pub log: LogConfig,
    /// The functions of `burstd dev`; no other command reads it.
    pub local: LocalConfig,
}

/// `[queues.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueConfig {
    /// NAME.
    pub name: String,
    /// The Lambda function: name, `name:alias`, or ARN.
    pub function: String,
    /// Tasks of this queue in flight at once.
    pub max_in_flight: usize,
    /// The longest the function may run.
    pub timeout: Timeout,
    /// How much longer a lease is.
    pub lease_margin: Duration,
    /// Into how many index partitions the queue is spread.
    pub shards: u32,
    /// When and how often tasks are tried.
    pub policy: Policy,
}

/// The longest a function may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// What the function's own configuration says.
    Auto,
    /// So long.
    Fixed(Duration),
}

/// `[aws]`: everything here is optional, and otherwise found as every AWS program finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsConfig {
    /// The region.
    pub region: Option<String>,
    /// A profile of the shared configuration files.
    pub profile: Option<String>,
    /// The endpoint of both services.
    pub endpoint_url: Option<String>,
    /// DynamoDB's endpoint.
    pub dynamodb_endpoint_url: Option<String>,
    /// Lambda's endpoint.
    pub lambda_endpoint_url: Option<String>,
    /// Which HTTP Lambda is spoken to in.
    pub http: Http,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How lines look.
    pub format: Format,
    /// Which lines there are: `info`, or `info,burstd::worker=debug`.
    pub level: String,
    /// Bytes that may wait to be written before nothing more is claimed.
    pub buffer: usize,
    /// `emf`: whether summaries are metrics, too.
    pub metrics: Metrics,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or with everything that is wrong in it.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let source = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        file::read(&source)
            .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
    }

    /// Checks a configuration given as text.
    ///
    /// # Errors
    ///
    /// With everything that is wrong in it.
    pub fn parse(source: &str) -> Result<Config, Vec<Problem>> {
        file::read(source)
    }

    /// What the operator allows of a function.
    pub fn caps(&self, function: &str) -> Caps {
        self.functions.get(function).copied().unwrap_or_default()
    }

    /// The queue with this name.
    pub fn queue(&self, name: &str) -> Option<&QueueConfig> {
        self.queues.iter().find(|queue| queue.name == name)
    }
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is wrong.
    Invalid {
        /// Which.
        path: PathBuf,
        /// All that is wrong, in the order of the file.
        problems: Vec<Problem>,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unreadable { path, error } => {
                write!(f, "{}: cannot be read: {error}", path.display())
            }
            ConfigError::Invalid { path, problems } => {
                let count = problems.len();
                let noun = if count == 1 { "problem" } else { "problems" };
                write!(f, "{}: {count} {noun}", path.display())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::OnUnknown;

    const MINIMAL: &str = "table = \"tasks\"\n[queues.a]\nfunction = \"f\"\n";

    /// Everything wrong with a text, a line each.
    fn problems(source: &str) -> Vec<String> {
        let problems = Config::parse(source).expect_err("the text is wrong");
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_table_and_a_queue_with_a_function_are_enough() {
        let config = Config::parse(MINIMAL).expect("it is valid");
        let queue = config.queue("a").expect("it is there");
        assert_eq!(config.limits.max_in_flight, 500);
        assert_eq!(queue.max_in_flight, 500);
        assert_eq!(queue.timeout, Timeout::Auto);
        assert_eq!(queue.lease_margin, Duration::from_secs(30));
        assert_eq!(queue.policy.max_attempts, 5);
        assert_eq!(queue.policy.on_unknown, OnUnknown::Wait);
        assert_eq!(queue.policy.retention, None);
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_with_line_key_and_value() {
        let source = r#"
max_in_flight = 0
tabel = "tasks"

[queues.thumbs]
function = "make thumbnail"
max_attempts = "five"
timeout = "1h"
lease_margin = 30
on_unknown = "ignore"
backoff = { base = "10m", max = "2s" }

[poll]
min = "soon"

[aws]
endpoint_url = "localhost:8000"

[log]
level = "loud"
"#;
        let expected = [
            "line 1: table: missing: name the DynamoDB table: table = \"tasks\"",
            "line 2: max_in_flight = 0: must be between 1 and 100000",
            "line 3: tabel: unknown key; known here: table, max_in_flight, \
             max_bytes_in_flight, queues, functions, poll, shutdown, aws, log, local",
            "line 6: queues.thumbs.function = \"make thumbnail\": must be a function's name, \
             name:alias, or ARN",
            "line 7: queues.thumbs.max_attempts = \"five\": must be a whole number",
            "line 8: queues.thumbs.timeout = \"1h\": must be between 1s and 900s, or \"auto\"",
            "line 9: queues.thumbs.lease_margin = 30: must be a duration in quotes, such as \
             \"30s\"",
            "line 10: queues.thumbs.on_unknown = \"ignore\": must be one of \"wait\", \"retry\", \
             \"fail\"",
            "line 11: queues.thumbs.backoff.base = \"10m\": must not be longer than max",
            "line 14: poll.min = \"soon\": must be a duration in quotes, such as \"30s\" \
             (expected number at 0)",
            "line 17: aws.endpoint_url = \"localhost:8000\": must be a URL: http://HOST:PORT or \
             https://HOST",
            "line 20: log.level = \"loud\": must be error, warn, info, debug or trace, or \
             target=level pairs with commas between",
        ];
        assert_eq!(problems(source), expected);
    }

    #[test]
    fn syntax_errors_are_said_with_their_lines() {
        let said = problems("table = \"tasks\nmax_in_flight = 5\n[queues.a]\nfunction = \"f\"\n");
        assert!(said[0].starts_with("line 1: "), "{said:?}");
        let said = problems("table = \"tasks\"\n[queues.a\nfunction = \"f\"\n");
        assert!(said.iter().all(|line| line.starts_with("line 2: ")), "nothing false: {said:?}");
        let said = problems(&format!("{MINIMAL}{MINIMAL}"));
        assert!(said.iter().any(|line| line.contains("duplicate key")), "{said:?}");
    }

    #[test]
    fn a_file_without_queues_is_refused() {
        assert_eq!(
            problems("table = \"tasks\"\n"),
            ["line 1: queues: there must be at least one queue: write [queues.NAME]"]
        );
        assert_eq!(
            problems("table = \"t\"\nqueues = 3\n"),
            [
                "line 2: queues = 3: must be a table: write [queues]",
                "line 2: queues: there must be at least one queue: write [queues.NAME]"
            ]
        );
    }

    #[test]
    fn a_function_s_caps_are_its_own_and_of_a_function_that_some_queue_runs() {
        let caps = "max_concurrency = 200\nstart_rate = \"90/m\"\nramp = 3000\n";
        let source = format!("{MINIMAL}[functions.f]\n{caps}");
        let expected = Caps { max_concurrency: Some(200), start_rate: Some(1.5), ramp: 3000 };
        let config = Config::parse(&source).expect("it is valid");
        assert_eq!(config.caps("f"), expected);
        assert_eq!(config.caps("g"), Caps::default());
        let source = "[functions.g]\nstart_rate = \"fast\"\nmax_concurrency = 0\n";
        assert_eq!(
            problems(&format!("{MINIMAL}{source}")),
            [
                "line 4: functions.g: no queue runs this function; name it as the queues do: \"f\"",
                "line 5: functions.g.start_rate = \"fast\": must be a number of starts in a \
                 second, minute or hour, such as \"50/s\", \"200/m\" or \"1000/h\"",
                "line 6: functions.g.max_concurrency = 0: must be between 1 and 100000",
            ]
        );
    }

    #[test]
    fn metrics_need_lines_that_can_hold_them() {
        let log = |keys: &str| format!("{MINIMAL}[log]\n{keys}");
        let config = Config::parse(&log("emf = true\n")).expect("it is valid");
        assert_eq!(config.log.metrics, Metrics::Embedded);
        assert_eq!(
            problems(&log("format = \"text\"\nemf = true\n")),
            ["line 6: log.emf = true: needs format = \"json\""]
        );
        assert_eq!(
            problems(&log("emf = \"yes\"\n")),
            ["line 5: log.emf = \"yes\": must be true or false"]
        );
    }

    #[test]
    fn a_function_of_one_s_own_needs_a_command_and_has_lambda_s_defaults() {
        let local = |keys: &str| format!("{MINIMAL}[local.functions.f]\n{keys}");
        let config = Config::parse(&local("command = [\"./bootstrap\"]\n")).expect("it is valid");
        let program = &config.local.functions["f"];
        assert_eq!((program.timeout, program.memory_mb), (Duration::from_secs(3), 128));
        let source = "command = []\nmemory = 64\nenvironment = { A = 1, B = \"b\" }\ntimeuot = 3\n";
        assert_eq!(
            problems(&local(source)),
            [
                "line 5: local.functions.f.command = []: must name a program",
                "line 6: local.functions.f.memory = 64: must be between 128 and 10240",
                "line 7: local.functions.f.environment.A = 1: must be a string in quotes",
                "line 8: local.functions.f.timeuot: unknown key; known here: command, directory, \
                 environment, timeout, memory, max_concurrency, cold_start",
            ]
        );
        let missing = problems(&local("timeout = \"3s\"\n"));
        assert!(missing[0].contains("local.functions.f.command: missing: name the program"));
    }

    #[test]
    fn the_account_s_concurrency_has_room_for_what_functions_have_for_themselves() {
        let function = |name: &str| {
            format!("[local.functions.{name}]\ncommand = [\"./f\"]\nmax_concurrency = 6\n")
        };
        let local = format!("{}{}", function("f"), function("g"));
        let with =
            |account: u32| format!("{MINIMAL}[local]\naccount_concurrency = {account}\n{local}");
        assert!(Config::parse(&with(12)).is_ok());
        let said = problems(&with(11));
        let words =
            "account_concurrency = 11: is less than the functions' max_concurrency together: 12";
        assert!(said[0].contains(words), "{said:?}");
    }

    #[test]
    fn a_queue_s_name_leaves_room_for_shards() {
        let said = problems("table = \"t\"\n[queues.\"a#1\"]\nfunction = \"f\"\n");
        assert!(said[0].contains("no #"), "{said:?}");
    }

    #[test]
    fn a_queue_s_cap_is_the_process_s_unless_it_has_its_own() {
        let config = Config::parse(&format!("max_in_flight = 7\n{MINIMAL}")).expect("valid");
        assert_eq!(config.queue("a").map(|queue| queue.max_in_flight), Some(7));
    }

    mod reference {
        use super::*;
        use crate::config::reader::Reader;

        const FILE: &str = include_str!("../../config/burstd.toml");

        /// The file with its optional keys, which are commented out without a space, in force.
        fn with_optional_keys() -> String {
            let uncommented = |line: &str| match line.strip_prefix('#') {
                Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest.to_owned(),
                _ => line.to_owned(),
            };
            FILE.lines().map(|line| uncommented(line) + "\n").collect()
        }

        #[test]
        fn its_values_are_the_defaults() {
            let reference = Config::parse(FILE).expect("the reference file is valid");
            let mut minimal = Config::parse(MINIMAL).expect("it is valid");
            minimal.queues[0].name = "thumbs".to_owned();
            minimal.queues[0].function = "make-thumbnail:live".to_owned();
            minimal.functions.insert("make-thumbnail:live".to_owned(), Caps::default());
            let command = ["python3", "-m", "awslambdaric", "handler.handler"].map(str::to_owned);
            let program = Program::new(command.into());
            minimal.local.functions.insert("make-thumbnail".to_owned(), program);
            assert_eq!(reference, minimal);
        }

        #[test]
        fn it_has_every_key_of_the_code_and_no_other() {
            let source = with_optional_keys();
            let problems = Config::parse(&source).err();
            assert_eq!(problems, None);
            let reader = Reader::new(&source);
            super::super::file::config(reader.root());
            for key in reader.asked() {
                let last = key.rsplit('.').next().expect("a key has a last part");
                assert!(source.contains(&format!("{last} = ")), "{key} is not in the file");
            }
        }
    }
}

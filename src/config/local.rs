//! `[local]`: the user's own functions, as `burstd dev` runs them, and the limits to rehearse.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::file::value;
use super::reader::Section;

/// Lambda's own defaults and bounds
/// (docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html).
const TIMEOUT: Duration = Duration::from_secs(3);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(900);
const MEMORY_MB: u32 = 128;
const MOST_MEMORY_MB: u32 = 10_240;

/// More than this is surely a slip of the finger.
const MOST: u32 = 100_000;

/// After so long without an event an environment ends.
const IDLE: Duration = Duration::from_secs(300);

/// `[local]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalConfig {
    /// Calls of all functions together that run at once.
    pub account_concurrency: Option<u32>,
    /// New environments in 10 s, for each function.
    pub ramp: Option<u32>,
    /// An environment that has nothing to do for so long is ended.
    pub idle: Duration,
    /// The functions, by name.
    pub functions: BTreeMap<String, Program>,
}

/// `[local.functions.NAME]`: a program that speaks the Lambda Runtime API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where it runs.
    pub directory: PathBuf,
    /// Variables of its environment, beside those of burstd's own and Lambda's.
    pub environment: BTreeMap<String, String>,
    /// The longest an invocation may run.
    pub timeout: Duration,
    /// Megabytes that it is told it has, and is billed for.
    pub memory_mb: u32,
    /// Invocations at once.
    pub max_concurrency: Option<u32>,
    /// What is added to the start of each environment.
    pub cold_start: Duration,
}

impl Program {
    /// A program with the defaults of everything else.
    pub fn new(command: Vec<String>) -> Self {
        Program {
            command,
            directory: PathBuf::from("."),
            environment: BTreeMap::new(),
            timeout: TIMEOUT,
            memory_mb: MEMORY_MB,
            max_concurrency: None,
            cold_start: Duration::ZERO,
        }
    }
}

impl Default for LocalConfig {
    fn default() -> Self {
        LocalConfig {
            account_concurrency: None,
            ramp: None,
            idle: IDLE,
            functions: BTreeMap::new(),
        }
    }
}

/// The section as it is written.
pub(super) fn local(mut section: Section<'_, '_>) -> LocalConfig {
    let account_entry = section.number("account_concurrency", 1..=MOST);
    let account_concurrency = account_entry.as_ref().map(|entry| entry.value);
    let ramp = section.number("ramp", 1..=MOST).map(|entry| entry.value);
    let idle = section.duration("idle", Duration::from_secs(1)..=Duration::from_secs(86_400));
    let named = section.section("functions").sections();
    let functions: BTreeMap<_, _> =
        named.into_iter().map(|(name, section)| (name, program(section))).collect();
    let reserved = functions.values().filter_map(|program| program.max_concurrency);
    let reserved: u64 = reserved.map(u64::from).sum();
    if let Some(account) = &account_entry
        && reserved > u64::from(account.value)
    {
        let message = format!("is less than the functions' max_concurrency together: {reserved}");
        section.complain(account, message);
    }
    section.finish();
    LocalConfig { account_concurrency, ramp, idle: value(idle, IDLE), functions }
}

fn program(mut section: Section<'_, '_>) -> Program {
    let advice = "name the program and its arguments: command = [\"./bootstrap\"]";
    let command = section.required_strings("command", advice);
    let default = Program::new(Vec::new());
    let second = Duration::from_secs(1);
    let program = Program {
        command: match command {
            Some(entry) if entry.value.first().is_none_or(String::is_empty) => {
                section.complain(&entry, "must name a program".to_owned());
                Vec::new()
            }
            entry => value(entry, Vec::new()),
        },
        directory: section.string("directory").map_or(default.directory, |it| it.value.into()),
        environment: section.section("environment").texts(),
        timeout: value(section.duration("timeout", second..=LONGEST_TIMEOUT), TIMEOUT),
        memory_mb: value(section.number("memory", MEMORY_MB..=MOST_MEMORY_MB), MEMORY_MB),
        max_concurrency: section.number("max_concurrency", 0..=MOST).map(|entry| entry.value),
        cold_start: value(
            section.duration("cold_start", Duration::ZERO..=LONGEST_TIMEOUT),
            default.cold_start,
        ),
    };
    section.finish();
    program
}

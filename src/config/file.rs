//! The file as people write it: every key, its default and its bounds, once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytesize::ByteSize;

use super::local::local;
use super::rate;
use super::reader::{Entry, Problem, Reader, Section};
use super::{AwsConfig, Config, LogConfig, QueueConfig, Timeout};
use crate::aws::Http;
use crate::dispatcher::{Limits, Pace};
use crate::governor::Caps;
use crate::retry::{Backoff, OnUnknown, Policy};
use crate::telemetry::{self, Format, Metrics};

/// More in flight than this is surely a slip of the finger.
const MOST_IN_FLIGHT: u32 = 100_000;

/// The largest item and a result.
const LEAST_BYTES: ByteSize = ByteSize::mb(1);

/// More than any machine has.
const MOST_BYTES: ByteSize = ByteSize::tb(1);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a whole file, and says everything that is wrong with it.
pub(super) fn read(source: &str) -> Result<Config, Vec<Problem>> {
    let reader = Reader::new(source);
    let config = config(reader.root());
    let problems = reader.into_problems();
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// The configuration; where the reader has noted a problem a default stands in for the value.
pub(super) fn config(mut root: Section<'_, '_>) -> Config {
    let table = root.required_string("table", "name the DynamoDB table: table = \"tasks\"");
    let max_in_flight = value(root.number("max_in_flight", 1..=MOST_IN_FLIGHT), 500);
    let max_bytes_in_flight = root.size("max_bytes_in_flight", LEAST_BYTES..=MOST_BYTES);
    let mut queues = root.section("queues");
    let named = queues.sections();
    if named.is_empty() {
        queues.complain_of_all("there must be at least one queue: write [queues.NAME]");
    }
    let queues: Vec<_> =
        named.into_iter().map(|(name, of)| queue(name, of, max_in_flight)).collect();
    let functions = functions(root.section("functions"), &queues);
    let limits = Limits {
        max_in_flight: max_in_flight as usize,
        max_bytes_in_flight: bytes(max_bytes_in_flight, 64_000_000),
        pace: pace(root.section("poll")),
        drain: drain(root.section("shutdown")),
    };
    let config = Config {
        table: value(table, String::new()),
        queues,
        functions,
        limits,
        aws: aws(root.section("aws")),
        log: log(root.section("log")),
        local: local(root.section("local")),
    };
    root.finish();
    config
}

fn queue(name: String, mut section: Section<'_, '_>, max_in_flight: u32) -> QueueConfig {
    if name.is_empty() || name.len() > 255 || name.contains(|c: char| c == '#' || c.is_control()) {
        section.complain_of_all("a queue's name has 1 to 255 bytes, no # and no control character");
    }
    let function = section.required_string("function", "name the Lambda function to run");
    let second = Duration::from_secs(1);
    let queue = QueueConfig {
        function: function_name(&section, function),
        max_in_flight: value(section.number("max_in_flight", 1..=MOST_IN_FLIGHT), max_in_flight)
            as usize,
        timeout: timeout(&mut section),
        lease_margin: value(section.duration("lease_margin", second..=DAY), 30 * second),
        shards: value(section.number("shards", 1..=256), 1),
        policy: Policy {
            max_attempts: value(section.number("max_attempts", 1..=1000), 5),
            backoff: backoff(section.section("backoff")),
            on_unknown: value(
                section.word(
                    "on_unknown",
                    &[
                        ("wait", OnUnknown::Wait),
                        ("retry", OnUnknown::Retry),
                        ("fail", OnUnknown::Fail),
                    ],
                ),
                OnUnknown::Wait,
            ),
            retention: section
                .duration("retention", second..=3650 * DAY)
                .map(|retention| retention.value),
        },
        name,
    };
    section.finish();
    queue
}

/// What the operator allows of functions, each named as the queues name it.
fn functions(mut section: Section<'_, '_>, queues: &[QueueConfig]) -> BTreeMap<String, Caps> {
    let named = section.sections().into_iter().map(|(name, section)| {
        if !queues.iter().any(|queue| queue.function == name) {
            let used: BTreeSet<_> =
                queues.iter().map(|queue| format!("{:?}", queue.function)).collect();
            let used = used.into_iter().collect::<Vec<_>>().join(", ");
            section.complain_of_all(&format!(
                "no queue runs this function; name it as the queues do: {used}"
            ));
        }
        (name, caps(section))
    });
    named.collect()
}

fn caps(mut section: Section<'_, '_>) -> Caps {
    let max_concurrency = section.number("max_concurrency", 1..=MOST_IN_FLIGHT);
    let caps = Caps {
        max_concurrency: max_concurrency.map(|entry| entry.value as usize),
        start_rate: start_rate(&mut section),
        ramp: value(section.number("ramp", 1..=MOST_IN_FLIGHT), Caps::LAMBDAS_RAMP),
    };
    section.finish();
    caps
}

/// Starts in a second, written as `"50/s"`, `"200/m"` or `"1000/h"`.
fn start_rate(section: &mut Section<'_, '_>) -> Option<f64> {
    let entry = section.string("start_rate")?;
    let rate = rate::per_second(&entry.value);
    if rate.is_none() {
        section.complain(&entry, format!("must be a number of starts {}", rate::FORM));
    }
    rate
}

/// Name, `name:alias`, or ARN, as far as its letters tell.
fn function_name(section: &Section<'_, '_>, entry: Option<Entry<String>>) -> String {
    let Some(entry) = entry else { return String::new() };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_:$./".contains(c);
    if entry.value.is_empty() || entry.value.len() > 256 || !entry.value.chars().all(allowed) {
        section.complain(&entry, "must be a function's name, name:alias, or ARN".to_owned());
    }
    entry.value
}

/// Lambda lets no function run longer than 900 s
/// (docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html).
fn timeout(section: &mut Section<'_, '_>) -> Timeout {
    let Some(entry) = section.string("timeout") else { return Timeout::Auto };
    if entry.value == "auto" {
        return Timeout::Auto;
    }
    match humantime::parse_duration(&entry.value) {
        Ok(fixed) if (1..=900).contains(&fixed.as_secs()) && fixed.as_secs_f64() <= 900.0 => {
            return Timeout::Fixed(fixed);
        }
        Ok(_) => section.complain(&entry, "must be between 1s and 900s, or \"auto\"".to_owned()),
        Err(error) => section.complain(
            &entry,
            format!("must be \"auto\" or a duration in quotes, such as \"60s\" ({error})"),
        ),
    }
    Timeout::Auto
}

fn backoff(mut section: Section<'_, '_>) -> Backoff {
    let millisecond = Duration::from_millis(1);
    let base = section.duration("base", millisecond..=DAY);
    let max = section.duration("max", millisecond..=365 * DAY);
    let backoff = Backoff {
        base: at_most(&section, base, &max, Duration::from_secs(2)),
        max: value(max, Duration::from_secs(600)),
    };
    section.finish();
    backoff
}

fn pace(mut section: Section<'_, '_>) -> Pace {
    let (least, most) = (Duration::from_millis(1), Duration::from_secs(3600));
    let min = section.duration("min", least..=most);
    let max = section.duration("max", least..=most);
    let pace = Pace {
        min: at_most(&section, min, &max, Duration::from_millis(50)),
        max: value(max, Duration::from_millis(250)),
    };
    section.finish();
    Pace { min: pace.min, max: pace.max.max(pace.min) }
}

fn drain(mut section: Section<'_, '_>) -> Duration {
    let drain = value(section.duration("drain", Duration::ZERO..=DAY), Duration::from_secs(60));
    section.finish();
    drain
}

fn aws(mut section: Section<'_, '_>) -> AwsConfig {
    let aws = AwsConfig {
        region: section.string("region").map(|entry| entry.value),
        profile: section.string("profile").map(|entry| entry.value),
        endpoint_url: url(&mut section, "endpoint_url"),
        dynamodb_endpoint_url: url(&mut section, "dynamodb_endpoint_url"),
        lambda_endpoint_url: url(&mut section, "lambda_endpoint_url"),
        http: value(
            section.word("http", &[("auto", Http::Auto), ("h1", Http::H1), ("h2", Http::H2)]),
            Http::Auto,
        ),
    };
    section.finish();
    aws
}

fn url(section: &mut Section<'_, '_>, key: &'static str) -> Option<String> {
    let entry = section.string(key)?;
    let host = entry.value.strip_prefix("https://").or(entry.value.strip_prefix("http://"));
    if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
        section.complain(&entry, "must be a URL: http://HOST:PORT or https://HOST".to_owned());
    }
    Some(entry.value)
}

fn log(mut section: Section<'_, '_>) -> LogConfig {
    let format = section
        .word("format", &[("auto", Format::Auto), ("text", Format::Text), ("json", Format::Json)]);
    let level = section.string("level");
    if let Some(level) = &level
        && let Err(error) = telemetry::levels(&level.value)
    {
        section.complain(level, error);
    }
    let buffer = section.size("buffer", ByteSize::kb(64)..=ByteSize::gb(1));
    let format = value(format, Format::Auto);
    let emf = section.truth("emf");
    if let (Some(emf), Format::Text) = (&emf, format)
        && emf.value
    {
        section.complain(emf, "needs format = \"json\"".to_owned());
    }
    let log = LogConfig {
        format,
        level: value(level, "info".to_owned()),
        buffer: bytes(buffer, telemetry::BUFFER),
        metrics: match value(emf, false) {
            true => Metrics::Embedded,
            false => Metrics::None,
        },
    };
    section.finish();
    log
}

fn bytes(entry: Option<Entry<ByteSize>>, default: usize) -> usize {
    let bytes = entry.map(|entry| usize::try_from(entry.value.as_u64()).unwrap_or(usize::MAX));
    bytes.unwrap_or(default)
}

pub(super) fn value<T>(entry: Option<Entry<T>>, default: T) -> T {
    entry.map_or(default, |entry| entry.value)
}

/// The lower of two bounds. A default that would be above a chosen upper bound is that bound.
fn at_most(
    section: &Section<'_, '_>,
    lower: Option<Entry<Duration>>,
    upper: &Option<Entry<Duration>>,
    default: Duration,
) -> Duration {
    match (lower, upper) {
        (Some(lower), Some(upper)) if lower.value > upper.value => {
            section.complain(&lower, "must not be longer than max".to_owned());
            upper.value
        }
        (Some(lower), _) => lower.value,
        (None, Some(upper)) => default.min(upper.value),
        (None, None) => default,
    }
}

//! What the machine allows, and what is made of a configuration that asks for more.

use tracing::warn;

use crate::aws::Http;
use crate::config::{AwsConfig, Config};
use crate::{descriptors, usage};

/// Descriptors beside those of invocations: DynamoDB's connections, logs, the runtime's own. Where
/// there are few, half of them ...
const SPARE_DESCRIPTORS: u64 = 200;

/// ... but no fewer than DynamoDB takes with as many calls as are made at once.
const LEAST_SPARE_DESCRIPTORS: u64 = 100;

/// Calls that share an HTTP/2 connection, at the least that Lambda is known to allow.
const CALLS_ON_A_CONNECTION: u64 = 100;

/// Memory of the process beside its tasks, ...
const BASE_BYTES: u64 = 40_000_000;

/// ... of each task in flight beside its payload and result, ...
const TASK_BYTES: u64 = 30_000;

/// ... and of payloads and results, by the bytes that `max_bytes_in_flight` counts: they are held
/// in several forms at once (`cargo bench --bench figures -- memory`).
const FORMS: u64 = 3;

/// No less makes sense.
const LEAST_BYTES: usize = 1_000_000;

/// The configuration as this machine allows it, with Lambda where `aws` says. What is cut is said.
pub fn fit(mut config: Config, aws: &AwsConfig) -> Config {
    fit_descriptors(&mut config, aws, descriptors::raise());
    if let Some(bytes) = usage::memory_limit() {
        fit_memory(&mut config, bytes);
    }
    config
}

/// What a machine allows of what a configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What the machine gives.
    pub allowed: u64,
    /// What all that is configured takes of it.
    pub needed: u64,
    /// What is configured.
    pub wanted: usize,
    /// What of that is possible.
    pub possible: usize,
}

impl Room {
    /// Whether nothing has to be cut.
    pub fn is_enough(&self) -> bool {
        self.possible >= self.wanted
    }

    /// What so many descriptors are enough for, with Lambda where `aws` says: `max_in_flight`.
    pub fn of_descriptors(config: &Config, aws: &AwsConfig, allowed: u64) -> Room {
        let share = if calls_share_connections(aws) { CALLS_ON_A_CONNECTION } else { 1 };
        let wanted = config.limits.max_in_flight;
        let spare = SPARE_DESCRIPTORS.min(allowed / 2).max(LEAST_SPARE_DESCRIPTORS);
        let possible = allowed.saturating_sub(spare).saturating_mul(share).max(1);
        let needed = (wanted as u64).div_ceil(share) + SPARE_DESCRIPTORS;
        Room { allowed, needed, wanted, possible: usize::try_from(possible).unwrap_or(usize::MAX) }
    }

    /// What so much memory is enough for, with the fewest bytes of payloads and results:
    /// `max_in_flight`.
    pub fn of_memory_for_tasks(config: &Config, allowed: u64) -> Room {
        let wanted = config.limits.max_in_flight;
        let rest = BASE_BYTES + LEAST_BYTES as u64 * FORMS;
        let possible = (allowed.saturating_sub(rest) / TASK_BYTES).max(1);
        let needed = rest + wanted as u64 * TASK_BYTES;
        Room { allowed, needed, wanted, possible: usize::try_from(possible).unwrap_or(usize::MAX) }
    }

    /// What so much memory is enough for beside the tasks: `max_bytes_in_flight`.
    pub fn of_memory(config: &Config, allowed: u64) -> Room {
        let wanted = config.limits.max_bytes_in_flight;
        let tasks = config.limits.max_in_flight as u64 * TASK_BYTES;
        let possible = allowed.saturating_sub(BASE_BYTES + tasks) / FORMS;
        let possible = usize::try_from(possible).unwrap_or(usize::MAX).max(LEAST_BYTES);
        Room { allowed, needed: BASE_BYTES + tasks + wanted as u64 * FORMS, wanted, possible }
    }
}

fn fit_descriptors(config: &mut Config, aws: &AwsConfig, allowed: u64) {
    let room = Room::of_descriptors(config, aws, allowed);
    if !room.is_enough() {
        config.limits.max_in_flight = room.possible;
        warn!(
            event = "daemon.limits",
            limit = "file descriptors",
            allowed,
            needed = room.needed,
            key = "max_in_flight",
            from = room.wanted,
            to = room.possible,
            "cut to what the descriptors are enough for; raise LimitNOFILE, or lower it"
        );
    }
}

fn fit_memory(config: &mut Config, allowed: u64) {
    let room = Room::of_memory_for_tasks(config, allowed);
    if !room.is_enough() {
        config.limits.max_in_flight = room.possible;
        say_memory("max_in_flight", room);
    }
    let room = Room::of_memory(config, allowed);
    if !room.is_enough() {
        config.limits.max_bytes_in_flight = room.possible;
        say_memory("max_bytes_in_flight", room);
    }
}

fn say_memory(key: &str, room: Room) {
    warn!(
        event = "daemon.limits",
        limit = "memory",
        allowed = room.allowed,
        needed = room.needed,
        key,
        from = room.wanted,
        to = room.possible,
        "cut to what the memory is enough for; raise MemoryHigh and MemoryMax, or lower it"
    );
}

/// Whether Lambda will be spoken to in HTTP/2: it offers that over TLS.
fn calls_share_connections(aws: &AwsConfig) -> bool {
    let place = super::place(aws);
    let is_plain = place.lambda_endpoint_url.is_some_and(|url| url.starts_with("http://"));
    match aws.http {
        Http::H1 => false,
        Http::H2 => true,
        Http::Auto => !is_plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(keys: &str) -> Config {
        let rest = "table = \"t\"\n[queues.a]\nfunction = \"f\"\n";
        Config::parse(&format!("max_in_flight = 5000\n{keys}\n{rest}")).expect("it is valid")
    }

    #[test]
    fn with_too_few_descriptors_as_many_are_in_flight_as_they_are_enough_for() {
        for (aws, allowed, expected) in [
            ("http = \"h1\"", 1024, 824),
            ("http = \"h1\"", 5200, 5000),
            ("http = \"h1\"", 128, 28),
            ("http = \"h1\"", 64, 1),
            ("http = \"auto\"", 110, 1000),
            ("http = \"auto\"", 1024, 5000),
            ("lambda_endpoint_url = \"http://127.0.0.1:9\"", 1024, 824),
        ] {
            let mut config = Config::parse(&format!(
                "table = \"t\"\nmax_in_flight = 5000\n[queues.a]\nfunction = \"f\"\n[aws]\n{aws}\n"
            ))
            .expect("it is valid");
            let place = config.aws.clone();
            fit_descriptors(&mut config, &place, allowed);
            assert_eq!(config.limits.max_in_flight, expected, "{aws}, {allowed}");
        }
    }

    #[test]
    fn with_too_little_memory_fewer_bytes_are_in_flight_and_then_fewer_tasks() {
        const MB: u64 = 1_000_000;
        for (allowed, bytes, tasks) in [
            (2000 * MB, 64 * MB, 5000),
            (250 * MB, 20 * MB, 5000),
            (100 * MB, MB, 1900),
            (60 * MB, MB, 566),
            (10 * MB, MB, 1),
        ] {
            let mut config = config("max_bytes_in_flight = \"64MB\"");
            fit_memory(&mut config, allowed);
            assert_eq!(config.limits.max_in_flight, tasks, "{allowed}");
            let fitted = config.limits.max_bytes_in_flight as u64;
            assert!(fitted.abs_diff(bytes) < 20_000, "{fitted} bytes of {allowed}");
        }
    }
}

//! Judging this machine and its way to AWS.

use std::time::Duration;

use bytesize::ByteSize;

use super::findings::{Findings, Machine};
use super::line::{Blame, Check, Line, Untold, remedy, said};
use super::time;
use crate::aws::{Cause, Credentials, Endpoint, Http, Identity};
use crate::clock::Offset;
use crate::config::Config;
use crate::daemon::Room;

/// With more calls at once than this, it matters that HTTP/2 carries many on a connection.
const MANY: usize = 100;

pub(super) fn descriptors(config: &Config, machine: Machine) -> Line {
    let (soft, hard) = machine.descriptors;
    // The daemon raises its own limit.
    let room = Room::of_descriptors(config, &config.aws, hard);
    let check = Check::of("descriptors").fact("soft", soft).fact("hard", hard);
    let check = check.fact("needed", room.needed);
    let words =
        |limit| if limit == u64::MAX { "any number".to_owned() } else { format!("{limit}") };
    let found = format!(
        "{} allowed (now {}), {} needed for max_in_flight = {}",
        words(hard),
        words(soft),
        room.needed,
        room.wanted
    );
    if room.is_enough() {
        return check.ok(found);
    }
    let advice = "raise the hard limit (ulimit -Hn; LimitNOFILE of the unit), or lower it";
    check.warn(format!("{found}, which would be cut to {}", room.possible), advice)
}

pub(super) fn memory(config: &Config, machine: Machine) -> Line {
    let check = Check::of("memory");
    let Some(allowed) = machine.memory else { return check.ok("not limited by a control group") };
    let mut config = config.clone();
    let in_flight = Room::of_descriptors(&config, &config.aws, machine.descriptors.1);
    config.limits.max_in_flight = in_flight.wanted.min(in_flight.possible);
    let tasks = Room::of_memory_for_tasks(&config, allowed);
    let needed = Room::of_memory(&config, allowed).needed;
    config.limits.max_in_flight = tasks.wanted.min(tasks.possible);
    let room = Room::of_memory(&config, allowed);
    let check = check.fact("allowed_bytes", allowed).fact("needed_bytes", needed);
    let size = |bytes| ByteSize::b(bytes).display().si();
    let found = format!("{} allowed, up to {} needed", size(allowed), size(needed));
    if room.is_enough() {
        return check.ok(found);
    }
    let possible = size(room.possible as u64);
    let tasks = match tasks.is_enough() {
        true => String::new(),
        false => format!(", and max_in_flight to {}", tasks.possible),
    };
    check.warn(
        format!("{found}; max_bytes_in_flight would be cut to {possible}{tasks}"),
        "raise MemoryMax, or lower max_bytes_in_flight or max_in_flight",
    )
}

pub(super) fn region(region: &Result<String, String>) -> Line {
    let check = Check::of("region");
    match region {
        Ok(region) => check.ok(region),
        Err(none) => {
            let (message, advice) = none.split_once(": ").unwrap_or((none, "set AWS_REGION"));
            check.fail(Blame::Configuration, message, advice)
        }
    }
}

pub(super) fn credentials(findings: &Findings) -> Line {
    let check = Check::of("credentials");
    match &findings.credentials {
        Ok(Credentials { source, key_end, expires_at }) => {
            let ends = match expires_at {
                Some(at) => format!(", good until {}", crate::cli::tasks::time(*at)),
                None => String::new(),
            };
            check.ok(format!("from {source}, access key …{key_end}{ends}"))
        }
        Err(Untold::Fault(fault)) => check.fail(
            Blame::Way,
            format!("none were found: {}", fault.message),
            "set AWS_PROFILE or AWS_ACCESS_KEY_ID, or give this machine a role",
        ),
        Err(Untold::NotTried(why)) => check.not_tried(why),
    }
}

/// burstd itself never asks who it is: what matters is whether AWS takes the credentials, and what
/// stands in for DynamoDB takes any.
pub(super) fn identity(findings: &Findings) -> Line {
    let check = Check::of("identity");
    let is_aws = findings.dynamodb.as_ref().map_or(true, Endpoint::is_aws);
    match &findings.identity {
        Ok(Identity { account, arn }) => check.fact("account", account.as_str()).ok(arn.as_str()),
        Err(Untold::NotTried(why)) => check.not_tried(why),
        Err(Untold::Fault(fault)) => match Cause::of(fault) {
            Cause::Credentials if is_aws => check.fail(Blame::Way, said(fault), remedy(fault)),
            _ if is_aws => check.warn(
                format!("not known: {}", said(fault)),
                "nothing, unless something else is wrong, too: burstd does not need STS",
            ),
            _ => check.warn(
                format!("not known: {}", said(fault)),
                "nothing: DynamoDB's endpoint is not AWS's own; AWS_ENDPOINT_URL_STS names its STS",
            ),
        },
    }
}

/// Where a service is, how far away, and how it is spoken to.
pub(super) fn endpoint(service: &'static str, findings: &Findings, config: &Config) -> Line {
    let check = Check::of("endpoint").about(service);
    let found = if service == LAMBDA { &findings.lambda } else { &findings.dynamodb };
    let endpoint = match found {
        Ok(endpoint) => endpoint,
        Err(untold) => return check.untold(untold),
    };
    let ms = (endpoint.round_trip.as_secs_f64() * 1e4).round() / 10.0;
    let check = check.fact("round_trip_ms", ms).fact("http", endpoint.http);
    let check = check.fact("url", endpoint.origin.as_str());
    let message = format!("{}, {ms} ms there and back, {}", endpoint.origin, endpoint.http);
    let many = config.limits.max_in_flight > MANY;
    if service == LAMBDA && many && endpoint.is_old() && config.aws.http != Http::H1 {
        return check.warn(
            format!("{message}: each of {} calls takes a connection", config.limits.max_in_flight),
            "see what stands between: Lambda itself offers HTTP/2, a proxy may not",
        );
    }
    check.ok(message)
}

/// The services by their names here.
pub(super) const DYNAMODB: &str = "dynamodb";
pub(super) const LAMBDA: &str = "lambda";

pub(super) fn clock(offset: Option<Offset>) -> Line {
    let check = Check::of("clock");
    let Some(offset) = offset else { return check.not_tried("AWS has not told the time") };
    // Adding nothing takes the sign from -0.
    let seconds = (offset.seconds * 10.0).round() / 10.0 + 0.0;
    let check = check.fact("offset_s", seconds);
    let found = match seconds {
        0.0 => "as AWS's, as far as a second or so".to_owned(),
        behind if behind < 0.0 => format!("{} s behind AWS's, give or take one", -behind),
        ahead => format!("{ahead} s ahead of AWS's, give or take one"),
    };
    match offset.is_wrong {
        false => check.ok(found),
        true => check.warn(
            found,
            "set it, by NTP (timedatectl set-ntp true); burstd works by AWS's meanwhile",
        ),
    }
}

/// Whether a stop lets the longest function end.
pub(super) fn stop(config: &Config, longest: Option<(String, Duration)>) -> Line {
    let drain = config.limits.drain;
    let check = Check::of("stop").fact("drain_s", drain.as_secs_f64());
    let Some((function, timeout)) = longest else {
        return check.not_tried("no function's timeout is known");
    };
    let check = check.fact("timeout_s", timeout.as_secs_f64());
    let found =
        format!("[shutdown] drain is {}, {function} may take {}", time(drain), time(timeout));
    if drain >= timeout {
        return check.ok(found);
    }
    check.warn(
        format!("{found}: what still runs when burstd stops is left to its lease"),
        "raise drain above the timeout, unless that is as you want it",
    )
}

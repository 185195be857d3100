//! Judging the functions, and what the configuration makes of them.

use std::time::Duration;

use super::findings::{Findings, Function};
use super::line::{Blame, Check, Line, Untold, remedy, said};
use super::{table, time};
use crate::aws::{Account, Cause, Settings};
use crate::clock::Offset;
use crate::config::{Config, QueueConfig, Timeout};

/// A lease that long makes for slow recovery.
const LONG: Duration = Duration::from_secs(900);

/// Where AWS's time has to be used instead of the machine's, no lease margin below this will do.
const DOUBTFUL_MARGIN: Duration = Duration::from_secs(12);

const NO_FUNCTION: &str = "there is no such function";

/// All that is said of a function.
pub(super) fn lines(config: &Config, name: &str, function: &Function) -> Vec<Line> {
    let queues: Vec<_> = queues_of(config, name).collect();
    let mut lines = vec![existence(name, &queues, function)];
    lines.push(match function.is_missing() {
        true => right("lambda:InvokeFunction", name).not_tried(NO_FUNCTION),
        false => table::right("lambda:InvokeFunction", name, &function.invoke),
    });
    lines.push(settings_right(name, &queues, function));
    lines.push(reserved_right(name, function));
    lines.push(concurrency(config, name, function));
    lines
}

fn queues_of<'a>(config: &'a Config, name: &str) -> impl Iterator<Item = &'a QueueConfig> {
    let name = name.to_owned();
    config.queues.iter().filter(move |queue| queue.function == name)
}

fn right(action: &'static str, name: &str) -> Check {
    Check::of("permission").about(name).fact("action", action)
}

impl Function {
    /// Whether Lambda says that there is none.
    fn is_missing(&self) -> bool {
        let is_missing = |untold: Option<&Untold>| match untold {
            Some(Untold::Fault(fault)) => Cause::of(fault) == Cause::Missing,
            _ => false,
        };
        is_missing(self.settings.as_ref().err()) || is_missing(self.invoke.as_ref().err())
    }

    fn timeout(&self) -> Option<Duration> {
        self.settings.as_ref().ok().map(|settings| settings.timeout)
    }
}

fn existence(name: &str, queues: &[&QueueConfig], function: &Function) -> Line {
    let names: Vec<_> = queues.iter().map(|queue| queue.name.as_str()).collect();
    let check = Check::of("function").about(name).fact("queues", names.clone());
    let of = format!("queues: {}", names.join(", "));
    if function.is_missing() {
        return check.fail(
            Blame::Configuration,
            format!("{NO_FUNCTION}; {of}"),
            "correct its name, alias or region in the configuration, or make it",
        );
    }
    let settings = match &function.settings {
        Ok(settings) => settings,
        Err(Untold::NotTried(why)) => return check.not_tried(why),
        Err(Untold::Fault(_)) if function.invoke.is_ok() => {
            return check.ok(format!("it is there; its settings cannot be read; {of}"));
        }
        Err(Untold::Fault(_)) => return check.not_tried("its settings cannot be read"),
    };
    let check = check.fact("timeout_s", settings.timeout.as_secs());
    let because = |reason: &Option<String>| {
        reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"))
    };
    let Settings { state, state_reason, update, update_reason, timeout } = settings;
    match (state.as_deref().unwrap_or("Active"), update.as_deref()) {
        ("Failed", _) => check.fail(
            Blame::Configuration,
            format!("its state is Failed{}; {of}", because(state_reason)),
            "repair the function: nothing runs until then",
        ),
        ("Active", Some("Failed")) => check.warn(
            format!("its last update failed{}; {of}", because(update_reason)),
            "update it again: the version before runs meanwhile",
        ),
        ("Active", _) => check.ok(format!("active, timeout {}; {of}", time(*timeout))),
        (other, _) => check.warn(
            format!("its state is {other}{}; {of}", because(state_reason)),
            "wait, or invoke it once: tasks wait meanwhile, and keep their attempts",
        ),
    }
}

fn settings_right(name: &str, queues: &[&QueueConfig], function: &Function) -> Line {
    let check = right("lambda:GetFunctionConfiguration", name);
    let auto = queues.iter().filter(|queue| queue.timeout == Timeout::Auto);
    let auto: Vec<_> = auto.map(|queue| queue.name.as_str()).collect();
    match &function.settings {
        Ok(_) => check.ok("allowed"),
        _ if function.is_missing() => check.not_tried(NO_FUNCTION),
        Err(Untold::Fault(fault)) if Cause::of(fault) == Cause::Denied => match auto.is_empty() {
            true => check.warn(
                said(fault),
                "nothing, as timeout is set; without it nobody notices that it is too short",
            ),
            false => check.fail(
                Blame::Right,
                format!("{}; leases would be as for a timeout of 15m", said(fault)),
                format!("allow it, or set timeout for: {}", auto.join(", ")),
            ),
        },
        Err(Untold::Fault(fault)) if auto.is_empty() => check.warn(said(fault), remedy(fault)),
        Err(untold) => check.untold(untold),
    }
}

fn reserved_right(name: &str, function: &Function) -> Line {
    let check = right("lambda:GetFunctionConcurrency", name);
    match &function.reserved {
        Ok(_) => check.ok("allowed"),
        _ if function.is_missing() => check.not_tried(NO_FUNCTION),
        Err(untold) => optional(check, untold),
    }
}

/// A right without which limits are learnt from throttles.
fn optional(check: Check, untold: &Untold) -> Line {
    match untold {
        Untold::NotTried(why) => check.not_tried(why),
        Untold::Fault(fault) if Cause::of(fault) == Cause::Denied => check.warn(
            said(fault),
            "nothing, or allow it: without it the limit is learnt from Lambda's throttles",
        ),
        Untold::Fault(fault) => check.warn(said(fault), remedy(fault)),
    }
}

/// How many tasks of a function the configuration lets be in flight.
fn demand(config: &Config, name: &str) -> usize {
    let queues = queues_of(config, name).map(|queue| queue.max_in_flight);
    let cap = config.caps(name).max_concurrency.unwrap_or(usize::MAX);
    queues.fold(0_usize, usize::saturating_add).min(cap).min(config.limits.max_in_flight)
}

fn concurrency(config: &Config, name: &str, function: &Function) -> Line {
    let demand = demand(config, name);
    let check = Check::of("concurrency").about(name).fact("max_in_flight", demand);
    match &function.reserved {
        Ok(Some(0)) => check.fact("reserved", 0).fail(
            Blame::Configuration,
            "the function is switched off: its reserved concurrency is 0",
            "raise it or take it away; tasks wait until then, and keep their attempts",
        ),
        Ok(Some(reserved)) => {
            let check = check.fact("reserved", *reserved);
            let found = format!("{reserved} reserved, up to {demand} may be in flight");
            match usize::try_from(*reserved).is_ok_and(|reserved| reserved < demand) {
                true => check.warn(
                    format!("{found}: what is reserved binds"),
                    "reserve more, or lower max_in_flight or max_concurrency to what is meant",
                ),
                false => check.ok(found),
            }
        }
        Ok(None) => check.ok(format!("none reserved, up to {demand} may be in flight")),
        Err(Untold::NotTried(why)) => check.not_tried(why),
        Err(Untold::Fault(_)) if function.is_missing() => check.not_tried(NO_FUNCTION),
        Err(Untold::Fault(_)) => check.not_tried("reserved concurrency cannot be read"),
    }
}

/// What the account gives, and all that may ask for it.
pub(super) fn account(config: &Config, findings: &Findings) -> Vec<Line> {
    let right = Check::of("permission").fact("action", "lambda:GetAccountSettings");
    let check = Check::of("account_concurrency");
    let account = match &findings.account {
        Ok(account) => account,
        Err(untold) => {
            let why = match untold {
                Untold::NotTried(why) => why,
                Untold::Fault(_) => "the account's settings cannot be read",
            };
            return vec![optional(right, untold), check.not_tried(why)];
        }
    };
    vec![right.ok("allowed"), unreserved(config, findings, check, *account)]
}

fn unreserved(config: &Config, findings: &Findings, check: Check, account: Account) -> Line {
    let shares = |(_, function): &(&String, &Function)| !matches!(function.reserved, Ok(Some(_)));
    let sharing = findings.functions.iter().filter(shares).map(|(name, _)| demand(config, name));
    let demand = sharing.fold(0, usize::saturating_add).min(config.limits.max_in_flight);
    let check = check.fact("max_in_flight", demand);
    let Some(unreserved) = account.unreserved else { return check.ok("Lambda tells no limit") };
    let check = check.fact("concurrency", account.concurrency).fact("unreserved", unreserved);
    let of = account.concurrency.map_or(String::new(), |all| format!(" of {all}"));
    let found = format!("{unreserved}{of} unreserved, up to {demand} may be in flight without own");
    match usize::try_from(unreserved).is_ok_and(|unreserved| unreserved < demand) {
        true => check.warn(
            format!("{found}: the account binds"),
            "have the account's quota raised, or lower max_in_flight",
        ),
        false => check.ok(found),
    }
}

/// Whether a queue's lease outlasts its function.
pub(super) fn lease(queue: &QueueConfig, findings: &Findings) -> Line {
    let check = Check::of("lease").about(queue.name.as_str());
    let function = &findings.functions[&queue.function];
    let (timeout, whose) = match (queue.timeout, function.timeout()) {
        (Timeout::Fixed(fixed), Some(own)) if fixed < own => {
            return check.fact("timeout_s", fixed.as_secs_f64()).fail(
                Blame::Configuration,
                format!(
                    "timeout is {}, but {} may run for {}: a task could run beside its former self",
                    time(fixed),
                    queue.function,
                    time(own)
                ),
                "raise timeout, say \"auto\", or shorten the function's own",
            );
        }
        (Timeout::Fixed(fixed), Some(_)) => (fixed, "a timeout"),
        (Timeout::Auto, Some(own)) => (own, "the function's timeout"),
        (_, None) => return check.not_tried("the function's own timeout is not known"),
    };
    let (lease, margin) = (timeout + queue.lease_margin, queue.lease_margin);
    let check = check.fact("lease_s", lease.as_secs_f64());
    let found =
        format!("{}: {whose} of {} and a margin of {}", time(lease), time(timeout), time(margin));
    let is_doubtful = |clock: Offset| clock.is_doubtful || clock.is_wrong;
    if findings.clock.is_some_and(is_doubtful) && margin < DOUBTFUL_MARGIN {
        return check.warn(
            format!("{found}; with this machine's clock nothing may be claimed"),
            "set the clock, or raise lease_margin to 12s",
        );
    }
    match lease >= LONG {
        true => check.ok(format!("{found}; so long waits the task of a daemon that was killed")),
        false => check.ok(found),
    }
}

/// The function that may run longest, as far as anybody says.
pub(super) fn longest(config: &Config, findings: &Findings) -> Option<(String, Duration)> {
    let timeouts = config.queues.iter().filter_map(|queue| {
        let name = &queue.function;
        let fixed = match queue.timeout {
            Timeout::Fixed(fixed) => Some(fixed),
            Timeout::Auto => None,
        };
        Some((name.clone(), findings.functions[name].timeout().or(fixed)?))
    });
    timeouts.max_by_key(|(_, timeout)| *timeout)
}

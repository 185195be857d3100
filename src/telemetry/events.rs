//! Every event of the log: what users may rely on, in one place.
//!
//! A field may be added. One that is renamed or taken away, an event that changes its name or its
//! level, is another version of the log (`v`). In debug builds each line is held against this.

use tracing::Level;

/// An event, as users know it.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Its name.
    pub name: &'static str,
    /// How much it matters.
    pub level: Level,
    /// Its own fields in their order, with spaces between; `?` after one that may be absent.
    pub fields: &'static str,
    /// What it tells, in Markdown.
    pub meaning: &'static str,
}

impl Event {
    /// Its fields in their order, and whether each may be absent.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.fields.split_whitespace().map(|field| match field.strip_suffix('?') {
            Some(name) => (name, true),
            None => (field, false),
        })
    }

    /// What is wrong with an event that has these fields; nothing when it is as promised.
    fn objection<'a>(&self, fields: impl Iterator<Item = &'a str>) -> Option<String> {
        let mut promised = self.fields();
        for field in fields {
            loop {
                match promised.next() {
                    Some((name, _)) if name == field => break,
                    Some((_, true)) => {}
                    Some((name, false)) => {
                        return Some(format!("{field} stands where {name} must"));
                    }
                    None => return Some(format!("{field} is unknown, or not in its place")),
                }
            }
        }
        let missing = promised.find(|(_, may_be_absent)| !may_be_absent);
        missing.map(|(name, _)| format!("{name} is missing"))
    }
}

/// Panics unless the event is as promised here.
pub(super) fn check<'a>(name: &str, level: Level, fields: impl Iterator<Item = &'a str>) {
    let Some(event) = EVENTS.iter().find(|event| event.name == name && event.level == level) else {
        panic!("{OBJECTION} has no {name:?} of level {level}");
    };
    if let Some(objection) = event.objection(fields) {
        panic!("{OBJECTION} says otherwise of {name:?}: {objection}");
    }
}

/// How the words of a panic over an event begin.
pub const OBJECTION: &str = "the catalogue of events, src/telemetry/events.rs,";

/// The fields of every line about an attempt that ended, and more.
macro_rules! attempt {
    ($more:literal) => {
        concat!(
            "queue task_id attempt outcome queue_ms? claim_ms invoke_ms write_ms request_id? ",
            $more
        )
    };
}

/// The same of one that failed, and more.
macro_rules! failure {
    ($more:literal) => {
        concat!(
            attempt!("function log_group? log_since? log_bytes error_type? max_attempts"),
            $more
        )
    };
}

/// All of them. An event of two levels stands here twice.
pub const EVENTS: &[Event] = &[
    info("task.succeeded", attempt!("result_bytes"), "an attempt succeeded"),
    warn(
        "task.attempt_failed",
        failure!(" retry_in_ms"),
        "an attempt failed or its outcome is unknown; it is tried again in `retry_in_ms`. \
         `log_group` and `log_since` (epoch milliseconds) lead to the function's own log; \
         `log_bytes` of it are in the item's `error.log`",
    ),
    error("task.failed", failure!(""), "the last attempt failed, or there can be none"),
    error(
        "task.rejected",
        "queue task_id reason code?",
        "the item is not a task, and `INVALID` now; `reason` names the attribute. With `code`: \
         DynamoDB takes no claim of it, and it is left alone for a while",
    ),
    warn(
        "task.rescued",
        "queue task_id attempt previous_attempt",
        "taken over from a worker that died or never learnt the outcome",
    ),
    warn(
        "task.write_refused",
        attempt!("wanted found"),
        "the claim was no longer ours; nothing was written",
    ),
    warn(
        "task.abandoned",
        "queue task_id",
        "burstd stopped before it ended: it may run on in Lambda, and is claimed again when its \
         lease has ended",
    ),
    error("task.unwritable", attempt!("code error"), "DynamoDB does not take the outcome"),
    warn(
        "task.result_omitted",
        "queue task_id result_bytes reason",
        "the result is not kept on the item",
    ),
    warn("task.shortened", "task_id code omitted", "the item has no room for all of the outcome"),
    info(
        "burst",
        "function started took_ms peak throttled",
        "many tasks were put in flight: `started`, in `took_ms` from the first to the last, the \
         `peak`, how many were `throttled`",
    ),
    info(
        "limiter.changed",
        "function from? to unit why code? error?",
        "how many tasks of the function may be in flight, or start in a second, from now on, and \
         `why`; at most every 5 s",
    ),
    debug("task.released", "queue task_id attempt reason", "given back; no attempt was spent"),
    debug("claim.lost", "queue task_id found", "somebody else's, finished, or gone"),
    error(
        "lambda.broken",
        "queue function code error",
        "the function runs no task (not found, access denied, key disabled, …): its queue pauses \
         and is probed",
    ),
    warn(
        "lambda.unavailable",
        "queue function code error",
        "Lambda cannot start the function for now, or lets not one in",
    ),
    info(
        "lambda.recovered",
        "queue function episode_s refusals",
        "Lambda starts the function again",
    ),
    warn(
        "function.timeout_unknown",
        "queue function code error assumed_s",
        "the function's timeout, from which leases are made, cannot be read",
    ),
    warn(
        "function.timeout_longer",
        "queue function timeout_s function_timeout_s",
        "the function may run for longer than the queue's `timeout`, so that a task could run \
         beside its former self: raise it, or make it `auto`",
    ),
    info(
        "function.timeout_changed",
        "queue function from_s to_s",
        "the function's timeout, from which leases are made, is another one",
    ),
    warn("store.unavailable", "operation code error", "DynamoDB is away"),
    info("store.recovered", "episode_s faults", "DynamoDB answers again"),
    error(
        "store.refused",
        "operation code error",
        "DynamoDB refuses: a table, index or right was taken away",
    ),
    warn(
        "aws.clock_skew",
        "skew_s",
        "this machine's clock is `skew_s` ahead of AWS's (behind when negative), which burstd goes \
         by",
    ),
    info("aws.clock_right", "", "this machine's clock is right again"),
    warn(
        "claims.paused",
        "reason doubt_s?",
        "nothing is claimed for a while. `reason` is `clock`: a clock has jumped, or is wrong and \
         AWS has been silent, until its next answer tells the time; or `log`: nobody takes the \
         lines of the log, as when the journal stalls",
    ),
    info("claims.resumed", "episode_s", "claims go on"),
    info(
        "queue.paused",
        "queue by since_s",
        "a person paused the queue, `since_s` ago: nothing more of it is claimed",
    ),
    info("queue.resumed", "queue", "a person lets the queue go on"),
    warn(
        "control.unavailable",
        "operation code error",
        "the control item cannot be read or written: pauses are not heard of; tasks go on",
    ),
    info("control.recovered", "episode_s", "the control item can be read and written again"),
    warn(
        "log.dropped",
        "count since_s",
        "`count` lines were left out because nobody took them: those for debugging, or a great \
         many others",
    ),
    info(
        "stats.summary",
        "table span_s claimed succeeded failed retried unknown released rejected rescued refused \
         claims_lost in_flight waiting limit bound_by? backlog oldest_due_s? waiting_to_retry \
         queue_p50_ms? queue_p95_ms? queue_p99_ms? invoke_p50_ms? invoke_p95_ms? invoke_p99_ms? \
         write_p50_ms? write_p95_ms? write_p99_ms? throttled store_throttled store_faults \
         read_units write_units bytes_in_flight memory_waits resident_bytes? descriptors? \
         log_dropped",
        "every 10 s while there is work, every 5 min while there is none: what was done in \
         `span_s`, how long it took (half, 95 % and 99 % of it within that), how many are \
         and may be in flight, how many are `waiting` to start beside them, what it is `bound_by`, \
         how many due tasks wait unclaimed as far as the index was read, what it cost",
    ),
    info(
        "daemon.started",
        "version pid config table queues max_in_flight",
        "it has read its configuration",
    ),
    info("daemon.ready", "startup_s", "table, index and credentials are good; it polls"),
    info(
        "daemon.draining",
        "reason in_flight deadline_s",
        "it was told to stop, and claims no more",
    ),
    info("daemon.drain_progress", "in_flight waited_s", "it waits for what is in flight"),
    info(
        "daemon.stopped",
        "reason? uptime_s? attempts? released? abandoned?",
        "the last line; `abandoned` tasks run on in Lambda",
    ),
    error("daemon.failed", "error", "it cannot start; `error` says why"),
    warn(
        "daemon.limits",
        "limit allowed needed key from to",
        "too few file descriptors for `max_in_flight` (on HTTP/1.1 each call takes one, on HTTP/2 \
         a hundred share one), or too little memory (the lower of MemoryHigh and MemoryMax) for \
         `max_in_flight` or `max_bytes_in_flight`: `key` is cut to what is enough",
    ),
    info(
        "config.reloaded",
        "path changed needs_restart",
        "the file was read again; what `changed`, and what a running daemon cannot change",
    ),
    warn(
        "config.needs_restart",
        "path needs_restart",
        "the file has changed in what a running daemon cannot change: restart burstd",
    ),
    error(
        "config.reload_failed",
        "path error",
        "the file is wrong; the configuration before stays in force",
    ),
    warn(
        "watchdog.late",
        "loop stalled_ms",
        "a loop of burstd's does not come round; unless it does, the service manager restarts it",
    ),
    warn(
        "daemon.ca_bundle_unreadable",
        "path error",
        "AWS_CA_BUNDLE names a file that cannot be read as certificates",
    ),
    error("daemon.panic", "error", "a bug; the task is left to its lease"),
    warn("systemd.unreachable", "error", "the service manager cannot be told"),
    warn(
        "function.ended",
        "function reason",
        "`burstd dev`: a function's process ended between two invocations; the next one gets \
         another",
    ),
    warn(
        "function.not_started",
        "function error",
        "`burstd dev`: this machine has no room for one more process; the task keeps its attempt",
    ),
    info("function.output", "function request_id? line", "`burstd dev`: what the function printed"),
    warn(
        "function.output_cut",
        "function request_id? bytes",
        "`burstd dev`: the function printed so much more than is told here",
    ),
    error("dev.dynamodb_failed", "error", "`burstd dev`: its table is gone"),
    warn("dev.lambda_failed", "error", "`burstd dev`: its functions are gone"),
    warn("dev.sweep_failed", "error", "`burstd dev`: expired items stay for now"),
];

const fn error(name: &'static str, fields: &'static str, meaning: &'static str) -> Event {
    Event { name, level: Level::ERROR, fields, meaning }
}

const fn warn(name: &'static str, fields: &'static str, meaning: &'static str) -> Event {
    Event { name, level: Level::WARN, fields, meaning }
}

const fn info(name: &'static str, fields: &'static str, meaning: &'static str) -> Event {
    Event { name, level: Level::INFO, fields, meaning }
}

const fn debug(name: &'static str, fields: &'static str, meaning: &'static str) -> Event {
    Event { name, level: Level::DEBUG, fields, meaning }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const EVENT: Event = warn("e", "a b? c d?", "");

    fn objection(fields: &str) -> Option<String> {
        EVENT.objection(fields.split_whitespace())
    }

    #[test]
    fn an_event_has_every_field_that_must_be_there_and_no_other_all_in_their_order() {
        for fields in ["a c", "a b c", "a c d", "a b c d"] {
            assert_eq!(objection(fields), None, "{fields}");
        }
        for (fields, said) in [
            ("a b", "c is missing"),
            ("b c", "b stands where a must"),
            ("a c b", "b is unknown, or not in its place"),
            ("a c e", "e is unknown, or not in its place"),
        ] {
            assert_eq!(objection(fields).as_deref(), Some(said), "{fields}");
        }
    }

    #[test]
    #[should_panic(expected = "has no \"daemon.ready\" of level WARN")]
    fn an_event_of_another_level_is_another_event() {
        check("daemon.ready", Level::WARN, ["startup_s"].into_iter());
    }

    #[test]
    fn each_stands_here_once() {
        let known: BTreeSet<_> = EVENTS.iter().map(|it| (it.name, it.level.as_str())).collect();
        assert_eq!(known.len(), EVENTS.len());
    }
}

//! Judging the table.

use super::findings::Table;
use super::line::{Blame, Check, Line, Tried, Untold, remedy, said};
use crate::aws::{Cause, Difference, Survey};
use crate::config::Config;

const MADE: &str = "make it with `burstd table create`, or correct the table's name or the region";

/// All that is said of it.
pub(super) fn lines(config: &Config, table: &Table) -> Vec<Line> {
    let name = config.table.as_str();
    let mut lines =
        vec![survey(name, &table.survey), index(name, &table.survey), ttl(config, table)];
    let described = match &table.survey {
        // Who may not look is not told this.
        Err(Untold::Fault(fault)) if Cause::of(fault) == Cause::Missing => Ok(()),
        described => described.clone().map(drop),
    };
    lines.push(right("dynamodb:DescribeTable", name, &described));
    lines.push(right("dynamodb:GetItem", name, &table.read));
    lines.push(right("dynamodb:UpdateItem", name, &table.update));
    for (queue, query) in &table.queries {
        lines.push(right("dynamodb:Query", queue, query));
    }
    lines
}

fn survey(name: &str, survey: &Tried<Survey>) -> Line {
    let check = Check::of("table").about(name);
    match survey {
        Ok(Survey { busy: Some(status), .. }) => {
            check.warn(format!("it is {status}"), "wait: burstd does, too")
        }
        Ok(survey) => check.ok(format!("active, with the key {}", survey.keys())),
        Err(Untold::Fault(fault)) if Cause::of(fault) == Cause::Missing => {
            check.fail(Blame::Configuration, "there is no such table", MADE)
        }
        Err(Untold::Fault(fault)) if Cause::of(fault) == Cause::Denied => {
            check.not_tried("it may not be described")
        }
        Err(untold) => check.untold(untold),
    }
}

fn index(table: &str, survey: &Tried<Survey>) -> Line {
    let check = Check::of("index").about("due-index");
    let survey = match survey {
        Ok(survey) => survey,
        Err(Untold::NotTried(why)) => return check.not_tried(why),
        Err(Untold::Fault(fault)) if Cause::of(fault) == Cause::Missing => {
            return check.not_tried("there is no table");
        }
        Err(Untold::Fault(_)) => return check.not_tried("the table is not described"),
    };
    let of = |is_fatal| {
        let some = survey.differences.iter().filter(move |it| it.is_fatal == is_fatal);
        some.map(Difference::to_string).collect::<Vec<_>>().join("; ")
    };
    let (fatal, other) = (of(true), of(false));
    let advice = format!(
        "add it, and delete it before if it is there, since an index cannot be changed: aws \
         dynamodb update-table --table-name {table} --attribute-definitions \
         AttributeName=queue,AttributeType=S AttributeName=due,AttributeType=N \
         --global-secondary-index-updates '[{{\"Create\": {{\"IndexName\": \"due-index\", \
         \"KeySchema\": [{{\"AttributeName\": \"queue\", \"KeyType\": \"HASH\"}}, \
         {{\"AttributeName\": \"due\", \"KeyType\": \"RANGE\"}}], \"Projection\": \
         {{\"ProjectionType\": \"KEYS_ONLY\"}}}}}}]'"
    );
    match &survey.index_busy {
        _ if !fatal.is_empty() => check.fail(Blame::Configuration, fatal, advice),
        Some(status) => check.warn(format!("it is {status}"), "wait: burstd does, too"),
        None if !other.is_empty() => check.warn(other, "nothing: it only costs more"),
        None => check.ok("as burstd needs it"),
    }
}

/// Only what is kept for a while has to be deleted; and only who makes tables must be allowed to
/// look.
fn ttl(config: &Config, table: &Table) -> Line {
    let check = Check::of("ttl").about(config.table.as_str());
    let kept = config.queues.iter().filter(|queue| queue.policy.retention.is_some());
    let kept: Vec<_> = kept.map(|queue| queue.name.as_str()).collect();
    match &table.ttl {
        Ok(None) => check.ok("on, by expires_at"),
        Ok(Some(_)) if kept.is_empty() => check.ok("not by expires_at; no queue has retention"),
        Ok(Some(difference)) => check.warn(
            format!("{difference}; retention is set for {}", kept.join(", ")),
            format!(
                "switch it on: aws dynamodb update-time-to-live --table-name {} \
                 --time-to-live-specification Enabled=true,AttributeName=expires_at",
                config.table
            ),
        ),
        Err(Untold::NotTried(why)) => check.not_tried(why),
        Err(Untold::Fault(fault)) if Cause::of(fault) == Cause::Denied => check.warn(
            format!("not known: {}", said(fault)),
            "nothing: the daemon does not need this right, only `burstd table create` does",
        ),
        Err(Untold::Fault(fault)) => {
            check.warn(format!("not known: {}", said(fault)), remedy(fault))
        }
    }
}

/// A right that the daemon cannot do without.
pub(super) fn right(action: &'static str, subject: &str, tried: &Tried<()>) -> Line {
    let check = Check::of("permission").about(subject).fact("action", action);
    match tried {
        Ok(()) => check.ok("allowed"),
        Err(untold) => check.untold(untold),
    }
}

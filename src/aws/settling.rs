//! What is written on an item when its claim ends.

use aws_sdk_dynamodb::types::AttributeValue;

use super::item::{self, name, number, string};
use super::store::held_by;
use super::update::Update;
use crate::claim::Rev;
use crate::invoker::TaskResult;
use crate::retry::{Settlement, Verdict};
use crate::task::{Status, Timestamp};

/// The update that does it, by the holder of the claim alone.
pub(super) fn settling(held: &Rev, settlement: &Settlement) -> Update {
    let update = held_by(held)
        .set(name::REV, string(settlement.rev.as_str()))
        .set(name::ATTEMPT, number(settlement.attempts));
    if let Verdict::Release = settlement.verdict {
        return waits(update);
    }
    if settlement.is_bare {
        return bare(update, settlement);
    }
    let update = dated(update, settlement)
        .set(name::HISTORY, item::write_history(&settlement.history))
        .set_some(name::REQUEST_ID, settlement.request_id.as_ref().map(string));
    match &settlement.verdict {
        Verdict::Release => update,
        Verdict::Succeed(result) => {
            ends(set_result(update, result).remove(name::ERROR), Status::Succeeded)
        }
        Verdict::Retry { due, failure } => {
            waits(update).set(name::DUE, number(due)).set(name::ERROR, item::error(failure))
        }
        Verdict::Hold(failure) => update.set(name::ERROR, item::error(failure)),
        Verdict::Fail(failure) => {
            ends(update.set(name::ERROR, item::error(failure)), Status::Failed)
        }
    }
}

/// For an item that has no room for anything else: what is set takes less than what is removed,
/// and a task that is to be tried again can be claimed again. That is at once then: a `due` that is
/// longer than it was might have no room, either.
fn bare(update: Update, settlement: &Settlement) -> Update {
    let update = make_room(update).remove(name::STARTED_AT).remove(name::WORKER);
    match &settlement.verdict {
        Verdict::Succeed(_) => ends(dated(update, settlement), Status::Succeeded),
        Verdict::Fail(_) => ends(dated(update, settlement), Status::Failed),
        Verdict::Retry { .. } => waits(update).remove(name::FINISHED_AT),
        Verdict::Hold(_) | Verdict::Release => update.remove(name::FINISHED_AT),
    }
}

/// The task may be claimed again.
fn waits(update: Update) -> Update {
    update.set(name::STATUS, string(Status::Pending.as_str())).remove(name::LEASE_UNTIL)
}

/// The task has ended, and leaves the index.
fn ends(update: Update, status: Status) -> Update {
    update.set(name::STATUS, string(status.as_str())).remove(name::DUE).remove(name::LEASE_UNTIL)
}

fn dated(update: Update, settlement: &Settlement) -> Update {
    update
        .set(name::FINISHED_AT, number(settlement.finished_at))
        .set_some(name::EXPIRES_AT, settlement.expires_at.map(whole_seconds))
}

/// Removes what burstd has written on the item and can do without.
pub(super) fn make_room(update: Update) -> Update {
    let spared = [
        name::ERROR,
        name::HISTORY,
        name::REQUEST_ID,
        name::RESULT,
        name::RESULT_BYTES,
        name::RESULT_OMITTED,
    ];
    spared.into_iter().fold(update, Update::remove)
}

fn set_result(update: Update, result: &TaskResult) -> Update {
    match result {
        TaskResult::Empty => {
            update.remove(name::RESULT).remove(name::RESULT_BYTES).remove(name::RESULT_OMITTED)
        }
        TaskResult::Json(text) => update
            .set(name::RESULT, string(text))
            .remove(name::RESULT_BYTES)
            .remove(name::RESULT_OMITTED),
        TaskResult::Omitted { bytes, why } => update
            .set(name::RESULT_BYTES, number(bytes))
            .set(name::RESULT_OMITTED, string(*why))
            .remove(name::RESULT),
    }
}

/// DynamoDB's TTL reads whole seconds only.
fn whole_seconds(at: Timestamp) -> AttributeValue {
    number(at.as_millis().div_ceil(1000))
}

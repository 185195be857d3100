//! When a task may be claimed again, after what came of it.

use std::time::Duration;

use tokio::time::Instant;

use super::Dispatcher;
use crate::claim::Standing;
use crate::invoker::Invoker;
use crate::retry::Verdict;
use crate::store::{Store, Write};
use crate::task::{Status, Timestamp};
use crate::worker::Attempted;

/// How long the index is expected to go on listing a task that we have just settled.
pub(super) const INDEX_LAG: Duration = Duration::from_secs(2);

/// How long a task is left alone that the index lists although the item says it is finished,
/// gone, or takes no write. Long, because each further try costs a write unit; not longer,
/// because a person may put a task of the same name meanwhile.
pub(super) const LEFT_ALONE: Duration = Duration::from_secs(60);

impl<S: Store, I: Invoker> Dispatcher<S, I> {
    /// Until when claiming a task is of no use that was found like this.
    pub(super) fn free_again(&self, standing: &Standing) -> Instant {
        let now = self.worker.clock.now();
        let final_or_gone = standing.due.is_none()
            || standing.status.as_deref().and_then(Status::parse).is_some_and(Status::is_final);
        let at = if final_or_gone { now + LEFT_ALONE } else { standing.free_at() };
        self.instant(at)
    }

    /// Until when claiming a task is of no use after what we wrote.
    pub(super) fn free_after(&self, attempted: &Attempted) -> Option<Instant> {
        let lag = Instant::now() + INDEX_LAG;
        match (&attempted.write, &attempted.settlement.verdict) {
            (Ok(Write::Lost(standing)), _) => Some(self.free_again(standing)),
            (Err(_), _) => Some(self.instant(attempted.claim.lease.until)),
            (_, Verdict::Succeed(_) | Verdict::Fail(_)) => Some(lag),
            (_, Verdict::Retry { due, .. }) => Some(self.instant(*due)),
            (_, Verdict::Hold(_)) => Some(self.instant(attempted.claim.lease.until)),
            (_, Verdict::Release) => None,
        }
    }

    /// A moment of the table's clock on the monotonic one.
    fn instant(&self, at: Timestamp) -> Instant {
        let now = Instant::now();
        now.checked_add(at.since(self.worker.clock.now())).unwrap_or(now + LEFT_ALONE)
    }
}

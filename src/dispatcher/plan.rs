//! What a dispatcher is to do. It can be replaced while it works.

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Dispatcher, Limits, lane};
use crate::invoker::Invoker;
use crate::queue::Queue;
use crate::store::Store;

/// What a dispatcher is to do.
#[derive(Debug)]
pub struct Plan {
    /// The queues it serves, and how.
    pub queues: Vec<Queue>,
    /// Its caps and paces.
    pub limits: Limits,
}

/// Where new plans go.
#[derive(Clone, Debug)]
pub struct Plans(pub(super) mpsc::UnboundedSender<Plan>);

impl Plans {
    /// Hands a plan over. A dispatcher that drains takes none any more, and need not.
    pub fn send(&self, plan: Plan) {
        self.0.send(plan).ok();
    }
}

impl<S: Store, I: Invoker> Dispatcher<S, I> {
    /// Works by another plan from now on. Tasks in flight go on as they began.
    pub(super) fn adopt(&mut self, plan: Plan) {
        self.limits = plan.limits;
        self.worker.memory.resize(plan.limits.max_bytes_in_flight);
        // Pages on their way are of shards that may be gone.
        self.polls = JoinSet::new();
        let (lanes, loads) = (&mut self.lanes, &mut self.loads);
        lane::arrange(lanes, loads, plan.queues, plan.limits.pace, Instant::now());
        self.hold();
    }

    /// Does as people wish of its queues.
    pub(super) fn hold(&mut self) {
        let held = &self.worker.held;
        self.lanes.iter_mut().for_each(|lane| lane.hold(held.contains(&lane.queue.name)));
    }
}

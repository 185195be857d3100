//! What a dispatcher is to do. It can be replaced while it works.

use tokio::sync::mpsc;

use super::Limits;
use crate::queue::Queue;

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

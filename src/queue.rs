//! A queue: a named line of tasks with one function and one policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::episode::Episode;
use crate::governor::Governor;
use crate::memory::ResultSize;
use crate::retry::Policy;

/// A queue that is served, as the engine sees it.
#[derive(Debug)]
pub struct Queue {
    /// Its name: what an item's `queue` says, before any `#`.
    pub name: String,
    /// The function its tasks are run by.
    pub function: Arc<Function>,
    /// When and how often they are tried.
    pub policy: Policy,
    /// How much longer than the function's timeout a lease is.
    pub lease_margin: Duration,
    /// How many may be in flight at once.
    pub max_in_flight: usize,
    /// The index partitions its tasks stand in.
    pub shards: Vec<String>,
}

impl Queue {
    /// The partitions of a queue with `count` shards. Its plain name is always among them, so
    /// that nothing is stranded when shards are introduced.
    pub fn shards(name: &str, count: u32) -> Vec<String> {
        let plain = std::iter::once(name.to_owned());
        let numbered = (0..count).filter(|_| count > 1).map(|shard| format!("{name}#{shard}"));
        plain.chain(numbered).collect()
    }
}

/// A Lambda function.
#[derive(Debug)]
pub struct Function {
    /// Name, `name:alias`, or ARN.
    pub name: String,
    /// Milliseconds; read anew now and then while tasks run.
    timeout_ms: AtomicU64,
    /// Whether it is in trouble.
    pub trouble: Episode,
    /// How large its results are.
    pub result_size: ResultSize,
    /// When its tasks may start; shared by all queues of the function.
    pub governor: Arc<Governor>,
}

impl Function {
    /// A function that runs `timeout` at most.
    pub fn new(name: impl Into<String>, timeout: Duration, governor: Arc<Governor>) -> Self {
        let function = Function {
            name: name.into(),
            timeout_ms: AtomicU64::new(0),
            trouble: Episode::default(),
            result_size: ResultSize::default(),
            governor,
        };
        function.set_timeout(timeout);
        function
    }

    /// Where its own log is, unless it was given another group.
    pub fn log_group(&self) -> String {
        let unqualified = match self.name.split_once(":function:") {
            Some((_, rest)) => rest,
            None => &self.name,
        };
        let name = unqualified.split_once(':').map_or(unqualified, |(name, _)| name);
        format!("/aws/lambda/{name}")
    }

    /// The longest it may run.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.load(Ordering::Relaxed))
    }

    /// Sets the longest it may run, for claims from now on.
    pub fn set_timeout(&self, timeout: Duration) {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.timeout_ms.store(millis, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governor::{CallerRate, Caps};

    #[test]
    fn a_function_s_log_group_has_its_bare_name() {
        for name in [
            "work",
            "work:live",
            "function:live",
            "123456789012:function:work",
            "arn:aws:lambda:eu-west-1:123456789012:function:work",
            "arn:aws-cn:lambda:cn-north-1:123456789012:function:work:7",
        ] {
            let governor = Governor::new(name, Caps::default(), Arc::new(CallerRate::default()));
            let function = Function::new(name, Duration::from_secs(1), Arc::new(governor));
            let bare = if name.starts_with("function") { "function" } else { "work" };
            assert_eq!(function.log_group(), format!("/aws/lambda/{bare}"), "{name}");
        }
    }

    #[test]
    fn a_queue_is_one_partition_until_it_has_shards_and_keeps_that_one_then() {
        assert_eq!(Queue::shards("q", 1), ["q"]);
        assert_eq!(Queue::shards("q", 3), ["q", "q#0", "q#1", "q#2"]);
    }
}

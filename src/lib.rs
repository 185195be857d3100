//! burstd runs a DynamoDB table as a task queue for AWS Lambda: it claims each due item with a
//! conditional write, invokes one function per item, as many at once as are allowed, and writes
//! status and result back onto the item.
//!
//! # The life of a task
//!
//! ```text
//!            insert                    claim                        settle
//! producer ----------> (no status) ------------> RUNNING ------------------------> SUCCEEDED
//!                           ^                     |  |  \
//!                           |                     |  |   `-- no attempts left ---> FAILED
//!                        PENDING <---- retry -----'  |
//!                           ^                        |
//!                           '-------- release -------'      cannot be read ------> INVALID
//! ```
//!
//! [`dispatcher`] asks the [`store`] for due tasks and starts one [`worker::Worker::run`] for
//! each free slot. That one function is a task's life, from top to bottom: claim, start, invoke,
//! decide, settle. What follows from an outcome is decided by the pure [`retry::decide`].
//! Dropping the function's future anywhere is a crash, and the [`claim::Lease`] covers it.
//!
//! # The promises
//!
//! 1. At least once: an inserted task reaches a final status or stays visibly due.
//! 2. One holder: every write is conditional, and a stale holder's is refused.
//! 3. No overlap: a lease outlasts the function's own timeout (a queue whose `timeout` says less is
//!    warned of), so nothing is ever renewed while it runs, and a task is not claimed again beside
//!    its former self.
//! 4. An attempt counts when the function may have run, and only then.
//! 5. Unknown is not failed: what nobody can tell is left to its lease.
//! 6. Poison does not spread: what cannot be read becomes `INVALID`, what always dies `FAILED`.
//! 7. Stopping loses nothing.
//!
//! # The map
//!
//! Words, which import nothing but one another and what they speak of: [`task`], [`claim`],
//! [`queue`], [`retry`], [`counts`], [`episode`], [`backlog`], [`pulse`], and [`notices`], what
//! people and workers tell one another on the table's control item, which no task needs. Ports:
//! [`store`], [`invoker`], [`clock`], [`shutdown`], [`reload`]. The engine: [`dispatcher`],
//! [`worker`], [`governor`], which says when a claimed task may start, [`memory`], which says when
//! one may be claimed, and [`held`], the queues that people have paused. The adapters: [`aws`],
//! which alone names the SDK. The shell: [`config`], [`telemetry`], [`systemd`], [`daemon`] (which
//! puts all together, reads the configuration again, hears what people wish, and tells the service
//! manager), [`cli`], [`descriptors`] and [`usage`] (what the machine allows and what is used of
//! it), and [`local`], the endpoints of `burstd demo`, `dev` and `bench`, and the processes of
//! users' own functions.
//!
//! There is deliberately no reaper, no heartbeat for a lease, no leader and no second index: one
//! query finds new, delayed, retried and abandoned tasks alike.

pub mod task;

pub mod backlog;
pub mod claim;
pub mod counts;
pub mod episode;
pub mod notices;
pub mod pulse;
pub mod queue;
pub mod retry;

pub mod clock;
pub mod invoker;
pub mod reload;
pub mod shutdown;
pub mod store;

pub mod dispatcher;
pub mod governor;
pub mod held;
pub mod memory;
mod waiting;
pub mod worker;

pub mod aws;

pub mod cli;
pub mod config;
pub mod daemon;
pub mod descriptors;
mod failpoint;
#[cfg(feature = "local")]
pub mod local;
pub mod systemd;
pub mod telemetry;
pub mod usage;

#[cfg(test)]
mod testing;

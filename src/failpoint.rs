//! Named points of a task's life at which a test kills the process, as kill -9 would. A release
//! build has none.
//!
//! `BURSTD_KILL_AT=settle.send:3` dies when a task is about to be settled for the third time.

/// Dies here if the environment says so.
#[cfg(not(debug_assertions))]
pub(crate) fn reach(_: &'static str) {}

#[cfg(debug_assertions)]
pub(crate) use armed::reach;

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    /// Where to die, and how often that is passed before.
    struct Plan {
        point: String,
        left: AtomicU32,
    }

    /// Dies here if the environment says so.
    pub(crate) fn reach(point: &'static str) {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        let Some(plan) = PLAN.get_or_init(plan) else { return };
        if plan.point == point && plan.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
        }
    }

    fn plan() -> Option<Plan> {
        let written = std::env::var("BURSTD_KILL_AT").ok()?;
        let (point, times) = written.split_once(':').unwrap_or((&written, "1"));
        let left = AtomicU32::new(times.parse().expect("BURSTD_KILL_AT is POINT:NUMBER"));
        Some(Plan { point: point.to_owned(), left })
    }
}

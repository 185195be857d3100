//! Named points of a task's life, and of the dispatcher's, at which a test kills the process, as
//! kill -9 would, or makes what comes there hang. A release build has none.
//!
//! `BURSTD_KILL_AT=settle.send:3` dies when a task is about to be settled for the third time;
//! `BURSTD_HANG_AT=dispatcher.turn:9` never goes beyond the dispatcher's ninth turn.

/// Dies or hangs here if the environment says so.
#[cfg(not(debug_assertions))]
pub(crate) fn reach(_: &'static str) {}

#[cfg(debug_assertions)]
pub(crate) use armed::reach;

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use rustix::process::{Signal, getpid, kill_process};

    /// Where, what, and how often that is passed before.
    struct Plan {
        deed: fn(),
        point: String,
        left: AtomicU32,
    }

    /// Dies or hangs here if the environment says so.
    pub(crate) fn reach(point: &'static str) {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        let Some(plan) = PLAN.get_or_init(plan) else { return };
        if plan.point == point && plan.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            (plan.deed)();
        }
    }

    fn die() {
        kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
    }

    fn hang() {
        loop {
            thread::park();
        }
    }

    fn plan() -> Option<Plan> {
        let deeds: [(_, fn()); 2] = [("BURSTD_KILL_AT", die), ("BURSTD_HANG_AT", hang)];
        let mut asked = deeds.into_iter();
        let (written, deed) =
            asked.find_map(|(name, deed)| std::env::var(name).ok().map(|value| (value, deed)))?;
        let (point, times) = written.split_once(':').unwrap_or((&written, "1"));
        let left = AtomicU32::new(times.parse().expect("it is POINT:NUMBER"));
        Some(Plan { deed, point: point.to_owned(), left })
    }
}

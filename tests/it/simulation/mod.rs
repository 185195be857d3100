//! The real dispatcher, worker, governor and retry code in a simulated world: a table that loses
//! requests and replies, functions that fail, hang and outlive their callers, workers that crash,
//! stop and stand still, people who meddle. Time is simulated, and one seed decides everything.
//!
//! `BURSTD_SEED=17 cargo test simulation` replays a seed and prints its trace;
//! `BURSTD_SEEDS=100000 cargo test simulation` tries more.

pub mod lives;
pub mod ports;
pub mod world;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use lives::{Ended, live};
use world::Sabotage;

/// Runs one seed to its end, on a clock that moves by itself.
fn run(seed: u64, sabotage: Sabotage) -> Ended {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(live(seed, sabotage))
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Runs seeds on all cores until one fails; that one, and how.
fn first_failure(seeds: u64, sabotage: Sabotage) -> Option<(u64, Ended)> {
    let (next, cores) = (AtomicU64::new(0), thread::available_parallelism().map_or(1, usize::from));
    let search = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds {
            return None;
        }
        let ended = catch_unwind(AssertUnwindSafe(|| run(seed, sabotage)));
        let ended = ended.unwrap_or_else(|_| Ended::panicked());
        if !ended.violations.is_empty() {
            next.store(seeds, Ordering::Relaxed);
            return Some((seed, ended));
        }
    };
    thread::scope(|scope| {
        let searches: Vec<_> = (0..cores).map(|_| scope.spawn(search)).collect();
        searches.into_iter().find_map(|search| search.join().expect("it does not panic"))
    })
}

#[test]
fn in_a_simulated_world_with_every_fault_each_promise_is_kept() {
    if let Some(seed) = number("BURSTD_SEED") {
        let ended = run(seed, Sabotage::None);
        println!("{}", ended.trace.join("\n"));
        assert!(ended.violations.is_empty(), "seed {seed}: {:?}", ended.violations);
        return;
    }
    let seeds = number("BURSTD_SEEDS").unwrap_or(1000);
    if let Some((seed, ended)) = first_failure(seeds, Sabotage::None) {
        println!("{}", ended.trace.join("\n"));
        panic!("BURSTD_SEED={seed}: {:?}", ended.violations);
    }
}

#[test]
fn the_same_seed_gives_the_same_simulation_byte_for_byte() {
    for seed in 0..20 {
        let (first, second) = (run(seed, Sabotage::None), run(seed, Sabotage::None));
        assert!(first.trace.len() > 30, "seed {seed}: something happens");
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
}

#[test]
fn the_simulation_notices_each_protection_that_is_missing() {
    for (sabotage, noticed) in [
        (Sabotage::NoFence, "did not hold it"),
        (Sabotage::NoLease, "beside its former self"),
        (Sabotage::NoRecognition, "without an execution"),
        (Sabotage::LongRuns, "beside its former self"),
        (Sabotage::Recreate, "created anew"),
        (Sabotage::CountsReleases, "without an execution"),
        (Sabotage::ForgetsTheEnd, "ended twice"),
        (Sabotage::TrustsTheMachine, "beside its former self"),
        (Sabotage::TrustsTheMachine, "before it was due"),
        (Sabotage::HearsNoPause, "was claimed while its queue was paused"),
        (Sabotage::HearsNoPause, "was started while its queue was paused"),
    ] {
        let mut said = Vec::new();
        let found = (0..300).any(|seed| {
            let ended = run(seed, sabotage);
            let found = ended.violations.iter().any(|violation| violation.contains(noticed));
            said.extend(ended.violations);
            found
        });
        said.truncate(5);
        assert!(found, "{sabotage:?} is not noticed as {noticed:?}; said: {said:?}");
    }
}

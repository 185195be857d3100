//! Real functions: processes that are killed at random, and so are the daemons. Each run writes
//! down for itself when it began and when it ended.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use burstd::config;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, interval};

use super::number;
use crate::own::example;
use crate::support::eventually;
use crate::support::program::Program;
use crate::support::world::{World, config_with, text};

const TASKS: usize = 600;

/// While fewer functions run, none of them is killed.
const MANY: usize = 10;

/// One run, as it wrote itself down.
#[derive(Debug)]
struct Run {
    began: u64,
    /// Nothing when it was killed.
    ended: Option<u64>,
}

/// The runs by task and attempt; what a killed process had half written is left out.
fn runs(notes: &Path) -> BTreeMap<String, BTreeMap<u32, Vec<Run>>> {
    let mut runs: BTreeMap<String, BTreeMap<u32, Vec<Run>>> = BTreeMap::new();
    for line in fs::read_to_string(notes).expect("there are notes").lines() {
        let parts: Vec<_> = line.split(' ').collect();
        let [what, task, attempt, at, _] = parts.as_slice() else { continue };
        let (attempt, at) = (attempt.parse().expect("a number"), at.parse().expect("a number"));
        let of_attempt = runs.entry((*task).to_owned()).or_default().entry(attempt).or_default();
        match *what {
            "begin" => of_attempt.push(Run { began: at, ended: None }),
            _ => of_attempt.last_mut().expect("it began").ended = Some(at),
        }
    }
    runs
}

/// One of many processes that have begun and not ended.
fn victim(notes: &Path, rng: &mut StdRng) -> Option<Pid> {
    let notes = fs::read_to_string(notes).expect("there are notes");
    let process = |line: &str| line.rsplit(' ').next()?.parse::<i32>().ok();
    let mut running = Vec::new();
    for line in notes.lines() {
        match line.starts_with("begin") {
            true => running.extend(process(line)),
            false => running.retain(|it| Some(*it) != process(line)),
        }
    }
    // One that was killed never wrote its end, and its number may be another's by now.
    let is_it = |process: &i32| {
        let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains("examples/naughty")
    };
    running.retain(is_it);
    // The last ones would be killed until they had no attempt left.
    (running.len() >= MANY)
        .then(|| running[rng.random_range(0..running.len())])
        .and_then(Pid::from_raw)
}

#[tokio::test(flavor = "multi_thread")]
async fn real_functions_and_daemons_killed_at_random_lose_nothing_and_run_nothing_twice_at_once() {
    let seed = number("BURSTD_SEED", rand::make_rng::<StdRng>().random());
    println!("BURSTD_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let directory = tempfile::TempDir::new().expect("a directory");
    let notes = directory.path().join("notes");
    fs::write(&notes, "").expect("it is written");
    let code = config::Program {
        timeout: Duration::from_secs(3),
        environment: [("NOTES".to_owned(), notes.display().to_string())].into(),
        ..config::Program::new(vec![example("naughty").display().to_string()])
    };
    let world = World::running(code).await;
    let config = config_with("max_attempts = 50\nmax_in_flight = 30");
    let config = config.replace("lease_margin = \"1s\"", "lease_margin = \"4s\"");
    let program = Program::in_world(&world, &(config + "[log]\nlevel = \"info\"\n"));
    let mut daemons: Vec<_> = (0..2).map(|_| program.start()).collect();
    world.put_many(TASKS, "{\"do\": \"note\", \"ms\": 150}").await;

    let mut ticks = interval(Duration::from_millis(50));
    let (mut functions_killed, mut daemons_killed) = (0, 0);
    let until = Instant::now() + Duration::from_secs(12);
    while Instant::now() < until {
        ticks.tick().await;
        if let Some(process) = victim(&notes, &mut rng) {
            // It may have ended by itself since.
            functions_killed += u32::from(kill_process(process, Signal::KILL).is_ok());
        }
        if rng.random_bool(0.02) {
            let index = rng.random_range(0..daemons.len());
            daemons[index].signal(Signal::KILL);
            daemons[index] = program.start();
            daemons_killed += 1;
        }
    }
    world.until_all(TASKS, "SUCCEEDED").await;
    eventually("no function runs any more", async || match world.lambda.running().now {
        0 => Ok(()),
        now => Err(now),
    })
    .await;
    let (runs, items) = (runs(&notes), world.items().await);
    let count: usize = runs.values().flat_map(BTreeMap::values).map(Vec::len).sum();
    println!(
        "{TASKS} tasks, {count} runs; {functions_killed} functions and {daemons_killed} daemons \
         killed"
    );
    assert!(functions_killed > 20, "it was no trial");
    for (id, item) in items {
        let attempts = &runs[&id];
        let counted: u32 = text(&item, "attempt").parse().expect("a number");
        assert!(attempts.keys().all(|attempt| *attempt <= counted), "{id}: {attempts:?}");
        let mut last = 0;
        for (attempt, runs) in attempts {
            assert_eq!(runs.len(), 1, "{id}: attempt {attempt} ran more than once: {runs:?}");
            assert!(runs[0].began >= last, "{id}: attempt {attempt} beside another: {attempts:?}");
            last = runs[0].ended.unwrap_or(runs[0].began);
        }
        assert!(attempts.values().any(|runs| runs[0].ended.is_some()), "{id}: none ended well");
    }
}

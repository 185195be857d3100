//! The real program, three of it on one table in a process of its own, and somebody who kills,
//! stops and signals them at random, and takes the table away. Afterwards the table, the record of
//! what was executed and the logs must agree that every promise was kept.
//!
//! `BURSTD_KILLS=1000 BURSTD_TASKS=50000 cargo test nemesis -- --nocapture` goes on for longer;
//! `BURSTD_SEED=17` makes the same choices again, though not at the same moments.

mod daemons;
mod executions;
mod history;
mod processes;
mod table;

use std::env;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::interval;

use daemons::Daemons;
use executions::Executions;
use table::Table;

/// The longest the function may run, and how much longer a lease is.
pub const TIMEOUT: Duration = Duration::from_secs(1);
pub const MARGIN: Duration = Duration::from_secs(3);

/// A task that fails this often has failed.
pub const MAX_ATTEMPTS: u32 = 6;

const DAEMONS: usize = 3;

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_stopped_and_cut_off_at_random_three_daemons_lose_nothing_and_run_nothing_twice() {
    let (kills, tasks) = (number("BURSTD_KILLS", 50), number("BURSTD_TASKS", 2000));
    let seed = number("BURSTD_SEED", rand::make_rng::<StdRng>().random());
    println!("BURSTD_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let began = Instant::now();
    let table = Table::start().await;
    let executions = Executions::start(rng.random());
    let mut daemons = Daemons::start(DAEMONS, &table.proxy.url, &executions.url());

    let mut ticks = interval(Duration::from_millis(20));
    let (mut next_deed, mut next_trouble) = (Instant::now(), Instant::now());
    let (mut inserted, mut told) = (0, 0);
    while daemons.kills() < kills || inserted < tasks {
        ticks.tick().await;
        daemons.look_after(&mut rng);
        if daemons.kills() >= told + 100 {
            told = daemons.kills();
            println!("{told} kills, {inserted} tasks, {:.0} s", began.elapsed().as_secs_f64());
        }
        // As many as there are kills: they come to an end together.
        let due = (daemons.kills() + 1) * tasks / kills.max(1);
        if inserted < due.min(tasks) {
            let batch = 25.min(due.min(tasks) - inserted);
            table.insert(inserted..inserted + batch).await;
            inserted += batch;
        }
        let now = Instant::now();
        if now >= next_deed && daemons.kills() < kills {
            daemons.suffer(&mut rng);
            next_deed = now + Duration::from_millis(rng.random_range(0..700));
        }
        if now >= next_trouble {
            table.trouble(&mut rng);
            next_trouble = now + Duration::from_millis(rng.random_range(1000..6000));
        }
    }
    table.calm();
    daemons.calm();
    table.until_all_have_ended(tasks).await;
    let logs = daemons.stop().await;
    let history = history::History::new(table.items().await, executions.all(), logs);
    println!("{history} in {:.0} s", began.elapsed().as_secs_f64());
    history.check(tasks);
}

//! What the daemon and the service manager tell each other while it runs.

use std::time::{Duration, Instant};

use super::{LONG, START, STOP, until_ended};
use crate::support::eventually;
use crate::support::machine::Machine;
use crate::support::program::failure;
use crate::support::world::{World, config};

const RELOAD: [&str; 3] = ["systemctl", "reload", "burstd"];

/// The configuration, with so many in flight at once.
fn at_most(tasks: usize) -> String {
    config().replace("max_in_flight = 1000", &format!("max_in_flight = {tasks}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn its_status_tells_what_is_in_flight() {
    let Some(machine) = Machine::boot() else { return };
    let (world, gate) = World::gated(LONG).await;
    machine.configure("burstd", &world, &config());
    machine.run(&START);
    world.put_many(7, "{}").await;
    world.until_running(7).await;
    eventually("the status tells of seven", async || {
        let status = machine.show("burstd", "StatusText");
        let is_so = status.contains('7') && status.contains("in flight");
        if is_so { Ok(()) } else { Err(status) }
    })
    .await;
    gate.add_permits(7);
    world.until_all(7, "SUCCEEDED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_over_new_limits_and_a_wrong_file_changes_nothing() {
    let Some(machine) = Machine::boot() else { return };
    let (world, gate) = World::gated(LONG).await;
    machine.configure("burstd", &world, &at_most(2));
    machine.run(&START);
    let pid = machine.show("burstd", "MainPID");
    world.put_many(20, "{}").await;
    world.until_running(2).await;

    machine.configure("burstd", &world, &at_most(5));
    machine.run(&RELOAD);
    world.until_running(5).await;

    let wrong = at_most(9).replace("table = \"tasks\"", "table = 5");
    machine.configure("burstd", &world, &wrong);
    assert_ne!(failure(&machine.try_run(&RELOAD)).0, 0);
    let journal = machine.journal(&["--unit=burstd"]).join("\n");
    assert!(journal.contains("table = 5: must be a string in quotes"), "{journal}");
    // Nor when it is asked past the check.
    machine.run(&["systemctl", "kill", "--signal=HUP", "burstd"]);
    eventually("the journal says that it changes nothing", async || {
        let journal = machine.journal(&["--unit=burstd"]).join("\n");
        if journal.contains("config.reload_failed") { Ok(()) } else { Err(journal) }
    })
    .await;
    machine.until("burstd", "ActiveState", "active").await;
    world.until_running(5).await;

    gate.add_permits(1);
    world.until_all(20, "SUCCEEDED").await;
    assert_eq!(machine.show("burstd", "MainPID"), pid);
    assert_eq!(machine.show("burstd", "NRestarts"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_hang_ups_at_once_do_no_harm() {
    let Some(machine) = Machine::boot() else { return };
    let (world, gate) = World::gated(LONG).await;
    machine.configure("burstd", &world, &config());
    machine.run(&START);
    let pid = machine.show("burstd", "MainPID");
    world.put_many(20, "{}").await;
    world.until_running(20).await;
    let all = format!("for i in $(seq 50); do kill -HUP {pid}; done");
    machine.run(&["sh", "-c", &all]);
    machine.until("burstd", "ActiveState", "active").await;
    world.task("later").put().await;
    world.until_running(21).await;
    gate.add_permits(21);
    world.until_all(21, "SUCCEEDED").await;
    machine.until("burstd", "ActiveState", "active").await;
    assert_eq!(machine.show("burstd", "MainPID"), pid);
    assert_eq!(machine.show("burstd", "NRestarts"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_is_killed_by_the_watchdog_and_comes_back_to_its_tasks() {
    let Some(machine) = Machine::boot() else { return };
    let world = World::echoing().await;
    machine.configure("burstd", &world, &config());
    let watchdog = "[Service]\nWatchdogSec=3s\n";
    machine.edit(&format!("{watchdog}Environment=BURSTD_HANG_AT=dispatcher.turn:40\n"));
    machine.run(&START);
    world.put_many(20, "{}").await;
    eventually("the watchdog kills it", async || {
        let journal = machine.journal(&["--unit=burstd"]).join("\n");
        if journal.contains("Watchdog timeout") { Ok(()) } else { Err(journal) }
    })
    .await;
    machine.edit(watchdog);
    machine.until("burstd", "ActiveState", "active").await;
    for number in 0..20 {
        world.task(&format!("later-{number}")).put().await;
    }
    world.until_all(40, "SUCCEEDED").await;
    world.calls.assert_no_overlap();
    assert_ne!(machine.show("burstd", "NRestarts"), "0");
    // One that does not hang is left alone.
    let (pid, began) = (machine.show("burstd", "MainPID"), Instant::now());
    eventually("the watchdog would have come twice", async || {
        assert_eq!(machine.show("burstd", "MainPID"), pid);
        let took = began.elapsed();
        if took > Duration::from_secs(7) { Ok(()) } else { Err(took) }
    })
    .await;
    assert_eq!(machine.show("burstd", "ActiveState"), "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_may_take_longer_than_systemd_allows_for_stopping() {
    let Some(machine) = Machine::boot() else { return };
    let (world, gate) = World::gated(LONG).await;
    machine.configure("burstd", &world, &config());
    machine.edit("[Service]\nTimeoutStopSec=3s\n");
    machine.run(&START);
    world.put_many(10, "{}").await;
    world.until_running(10).await;
    let began = Instant::now();
    let mut stopping = machine.spawn(&STOP);
    eventually("eight seconds of it", async || {
        assert!(stopping.try_wait().expect("it is ours").is_none(), "it was cut short");
        let took = began.elapsed();
        if took > Duration::from_secs(8) { Ok(()) } else { Err(took) }
    })
    .await;
    gate.add_permits(10);
    until_ended(stopping).await;
    assert_eq!(machine.show("burstd", "Result"), "success");
    assert_eq!(machine.show("burstd", "ExecMainStatus"), "0");
    world.until_all(10, "SUCCEEDED").await;
}

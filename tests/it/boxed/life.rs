//! Start, stop, crashes, the sandbox, the journal.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use burstd::local::lambda::{Answer, Call, Functions};
use burstd::local::tls::Manner;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{LONG, START, STOP, until_ended};
use crate::support::calls::Calls;
use crate::support::eventually;
use crate::support::machine::Machine;
use crate::support::program::failure;
use crate::support::relay::Relay;
use crate::support::tls::TlsLambda;
use crate::support::world::{World, config, patient, text};

fn port(url: &str) -> u16 {
    url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("it has a port")
}

#[tokio::test(flavor = "multi_thread")]
async fn systemctl_start_returns_when_it_is_ready_and_not_before() {
    let Some(machine) = Machine::boot() else { return };
    let world = World::echoing().await;
    // It connects, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    machine.configure_between(
        "burstd",
        &format!("http://{address}"),
        &world.lambda.url(),
        &config(),
    );
    let mut starting = machine.spawn(&START);
    machine.until_told("store.unavailable", 1).await;
    assert_eq!(machine.show("burstd", "ActiveState"), "activating");
    assert!(starting.try_wait().expect("it is ours").is_none(), "nor has it returned");
    let _relay = Relay::on(silent, port(&world.dynamodb.url())).expect("it listens");
    until_ended(starting).await;
    assert_eq!(machine.show("burstd", "ActiveState"), "active");
    assert_eq!(machine.told("burstd", "daemon.ready"), 1);
    world.task("a").put().await;
    world.until("a", "SUCCEEDED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_configurations_run_side_by_side_and_the_journal_tells_them_apart() {
    let Some(machine) = Machine::boot() else { return };
    let (one, two) = (World::echoing().await, World::echoing().await);
    machine.configure("burstd", &one, &config());
    machine.configure("two", &two, &config());
    machine.run(&["systemctl", "start", "burstd", "burstd@two"]);
    for (world, id) in [(&one, "of-one"), (&two, "of-two")] {
        world.task(id).put().await;
        world.until(id, "SUCCEEDED").await;
    }
    machine.until_told("task.succeeded", 1).await;
    for (name, own, other) in [("burstd", "of-one", "of-two"), ("two", "of-two", "of-one")] {
        let which = format!("BURSTD_CONFIG={name}");
        eventually(&format!("{own} is told by {name}"), async || {
            let lines = machine.journal(&[&which]).concat();
            assert!(!lines.contains(other), "{name}: {lines}");
            if lines.contains(own) { Ok(()) } else { Err(lines) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_fails_once_and_the_journal_says_why() {
    let Some(machine) = Machine::boot() else { return };
    machine.write("/etc/burstd/burstd.toml", "table = 5\n");
    let (_, said) = failure(&machine.try_run(&START));
    assert!(said.contains("burstd.service failed"), "{said}");
    // A restart would be two seconds away in this state: "activating".
    assert_eq!(machine.show("burstd", "ActiveState"), "failed");
    assert_eq!(machine.show("burstd", "ExecMainStatus"), "78");
    assert_eq!(machine.show("burstd", "NRestarts"), "0");
    let errors = machine.journal(&["--unit=burstd", "--priority=err"]).join("\n");
    assert!(errors.contains("line 1: table = 5: must be a string in quotes"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_credentials_that_is_not_there_fails_once() {
    let Some(machine) = Machine::boot() else { return };
    let world = World::echoing().await;
    machine.configure("burstd", &world, &config());
    machine.edit("[Service]\nLoadCredential=aws:/etc/burstd/nothing\n");
    failure(&machine.try_run(&START));
    assert_eq!(machine.show("burstd", "ActiveState"), "failed");
    assert_eq!(machine.show("burstd", "NRestarts"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_are_too_few_threads_it_says_so_and_does_not_hang() {
    let Some(machine) = Machine::boot() else { return };
    let world = World::echoing().await;
    machine.configure("burstd", &world, &config());
    // For the log and the signals, and for what works.
    for (failed, tasks) in [2, 4].into_iter().enumerate() {
        machine.edit(&format!("[Service]\nTasksMax={tasks}\nRestart=no\n"));
        failure(&machine.try_run(&START));
        assert_eq!(machine.show("burstd", "ExecMainStatus"), "71", "{tasks}");
        let errors = machine.journal(&["--unit=burstd", "--priority=err"]).join("\n");
        assert_eq!(errors.matches("raise TasksMax").count(), failed + 1, "{tasks}: {errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_it_is_always_back_and_loses_nothing() {
    let Some(machine) = Machine::boot() else { return };
    let world = World::with(async |call: Call| {
        tokio::time::sleep(Duration::from_millis(500)).await;
        Answer::Returned(call.payload)
    })
    .await;
    machine.configure("burstd", &world, &config());
    machine.run(&START);
    for round in 1..=5 {
        for number in 0..20 {
            world.task(&format!("{round}-{number}")).put().await;
        }
        eventually("some run", async || match world.lambda.running().now {
            0 => Err(world.calls.count()),
            _ => Ok(()),
        })
        .await;
        machine.run(&["systemctl", "kill", "--signal=KILL", "burstd"]);
        machine.until("burstd", "NRestarts", &round.to_string()).await;
        machine.until("burstd", "ActiveState", "active").await;
    }
    world.until_all(100, "SUCCEEDED").await;
    world.calls.assert_no_overlap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_waits_for_what_runs() {
    let Some(machine) = Machine::boot() else { return };
    let (world, gate) = World::gated(LONG).await;
    machine.configure("burstd", &world, &config());
    machine.run(&START);
    world.put_many(20, "{}").await;
    world.until_running(20).await;
    let mut stopping = machine.spawn(&STOP);
    machine.until_told("daemon.draining", 1).await;
    assert_eq!(machine.show("burstd", "ActiveState"), "deactivating");
    assert!(stopping.try_wait().expect("it is ours").is_none(), "it waits for them");
    gate.add_permits(20);
    until_ended(stopping).await;
    assert_eq!(machine.show("burstd", "ActiveState"), "inactive");
    assert_eq!(machine.show("burstd", "Result"), "success");
    assert_eq!(machine.show("burstd", "ExecMainStatus"), "0");
    world.until_all(20, "SUCCEEDED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_calls_at_once_over_tls_pass_the_sandbox() {
    let Some(machine) = Machine::boot() else { return };
    let (world, calls) = (World::echoing().await, Calls::default());
    let gate = Arc::new(Semaphore::new(0));
    let closed = gate.clone();
    let function = calls.function(LONG, move |call: Call| {
        let closed = closed.clone();
        async move {
            drop(closed.acquire().await);
            Answer::Returned(call.payload)
        }
    });
    let functions = Functions::from([("work".to_owned(), function)]);
    let lambda = TlsLambda::start(functions, Manner::default()).expect("it starts");
    machine.configure_between("burstd", &world.dynamodb.url(), &lambda.url(), &patient());
    machine.write("/etc/burstd/ca.pem", lambda.certificate());
    machine.write("/etc/burstd/burstd.env", "AWS_CA_BUNDLE=/etc/burstd/ca.pem\n");
    machine.run(&START);
    world.put_many(500, "{}").await;
    eventually("all run at once", async || {
        match calls.all().iter().filter(|execution| execution.ended.is_none()).count() {
            500 => Ok(()),
            running => Err(running),
        }
    })
    .await;
    gate.add_permits(500);
    world.until_all(500, "SUCCEEDED").await;
    assert_eq!(calls.count(), 500, "each ran once");
    assert_eq!(machine.show("burstd", "NRestarts"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_stalls_restarts_or_dies_stops_nothing_and_loses_no_line() {
    let Some(machine) = Machine::boot() else { return };
    let world = World::echoing().await;
    machine.configure("burstd", &world, &patient());
    machine.run(&START);
    let journald = "systemd-journald";
    let trouble: [&[&str]; 3] = [
        &["systemctl", "kill", "--signal=STOP", journald],
        &["systemctl", "restart", journald],
        &["systemctl", "kill", "--signal=KILL", journald],
    ];
    let mut put = 0;
    for (round, trouble) in trouble.iter().enumerate() {
        // Some before it, some during it.
        for number in 0..200 {
            if number == 100 {
                machine.run(trouble);
            }
            world.task(&format!("{round}-{number}")).put().await;
        }
        put += 200;
        world.until_all(put, "SUCCEEDED").await;
        assert_eq!(machine.show("burstd", "ActiveState"), "active");
        machine.run(&["systemctl", "kill", "--signal=CONT", journald]);
        machine.until_told("task.succeeded", put).await;
    }
    assert_eq!(machine.told("burstd", "task.succeeded"), put);
    assert_eq!(machine.told("burstd", "log.dropped"), 0);
    assert_eq!(machine.show("burstd", "NRestarts"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_was_stopped_gets_every_line_when_it_is_there_again() {
    let Some(machine) = Machine::boot() else { return };
    let world = World::echoing().await;
    machine.configure("burstd", &world, &patient());
    machine.run(&START);
    world.put_many(50, "1").await;
    machine.until_told("task.succeeded", 50).await;
    let all = ["systemd-journald", "systemd-journald.socket", "systemd-journald-dev-log.socket"];
    machine.run(&[&["systemctl", "stop"], &all[..]].concat());
    for number in 0..50 {
        world.task(&format!("meanwhile-{number}")).put().await;
    }
    world.until_all(100, "SUCCEEDED").await;
    machine.run(&["systemctl", "start", "systemd-journald"]);
    machine.until_told("task.succeeded", 100).await;
    world.task("later").put().await;
    machine.until_told("task.succeeded", 101).await;
    assert_eq!(machine.told("burstd", "log.dropped"), 0);
    assert_eq!(machine.show("burstd", "NRestarts"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_root_alone_may_read_reach_the_daemon() {
    let Some(machine) = Machine::boot() else { return };
    let world = World::echoing().await;
    machine.configure("burstd", &world, &config());
    machine.write("/etc/default/burstd", "AWS_EC2_METADATA_DISABLED=true\n");
    let file = "/etc/burstd/burstd.aws-credentials";
    machine.write(file, "[default]\naws_access_key_id = file\naws_secret_access_key = secret\n");
    let private = Permissions::from_mode(0o600);
    fs::set_permissions(machine.path(file), private).expect("it is root's");
    // What the unit has as comments.
    let unit = fs::read_to_string(machine.path("/etc/systemd/system/burstd.service"));
    let unit = unit.expect("it can be read");
    let is_about = |line: &&str| line.contains("Credential=") || line.contains("CREDENTIALS_FILE");
    let lines: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix('#')).collect();
    let lines: Vec<_> = lines.into_iter().filter(is_about).collect();
    assert_eq!(lines.len(), 2, "{unit}");
    let mut starting = machine.spawn(&START);
    machine.until_told("store.unavailable", 1).await;
    machine.run(&STOP);
    starting.wait().expect("it is ours");
    machine.edit(&format!("[Service]\n{}\n", lines.join("\n")));
    machine.run(&START);
    world.task("a").put().await;
    let item = world.until("a", "SUCCEEDED").await;
    assert_eq!(text(&item, "attempt"), "1");
    let pid = machine.show("burstd", "MainPID");
    let user = machine.run(&["stat", "--format=%u", &format!("/proc/{pid}")]);
    assert_ne!(user.trim(), "0");
    let tried = machine.try_run(&["setpriv", &format!("--reuid={}", user.trim()), "cat", file]);
    assert!(failure(&tried).1.contains("Permission denied"), "{tried:?}");
}

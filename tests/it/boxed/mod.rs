//! The units in a real systemd.

mod life;
mod manager;

use std::process::Child;
use std::time::Duration;

use crate::support::eventually;

const START: [&str; 3] = ["systemctl", "start", "burstd"];
const STOP: [&str; 3] = ["systemctl", "stop", "burstd"];

/// A function's timeout that no test waits for.
const LONG: Duration = Duration::from_secs(300);

async fn until_ended(mut command: Child) {
    let ended = eventually("the command ends", async || {
        command.try_wait().expect("it is ours").ok_or("it runs")
    })
    .await;
    assert!(ended.success(), "{ended}");
}

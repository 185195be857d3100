//! A process that does nothing but wait for the end of burstd, however that ends, and then kills
//! what its functions' processes have left behind, wherever that has hidden itself.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, make_rng};
use rustix::process::{Pid, Signal, kill_process};

/// The variable by which the processes of functions, and all that they start, are known.
pub(super) const MARK: &str = "BURSTD_LOCAL";

/// Rounds of looking for processes that start others while they are being killed, ...
const ROUNDS: u32 = 100;

/// ... and the time between two. One that was just being started is seen in the next.
const BETWEEN: Duration = Duration::from_millis(20);

/// The process, as long as this value lives.
#[derive(Debug)]
pub(super) struct Warden {
    mark: String,
    child: Child,
}

impl Warden {
    /// Starts it, in a group of its own, so that no Ctrl-C reaches it.
    pub(super) fn start(burstd: &Path) -> io::Result<Self> {
        let mark = format!("{:032x}", make_rng::<StdRng>().random::<u128>());
        let child = Command::new(burstd)
            .args(["local-warden", &mark])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Warden { mark, child })
    }

    /// What the variable says in this burstd's processes.
    pub(super) fn mark(&self) -> &str {
        &self.mark
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends by itself then. If it was killed, there is nothing to wait for.
        self.child.wait().ok();
    }
}

/// What the process does: waits until its standard input ends, and kills then.
///
/// # Errors
///
/// When the processes cannot be listed, or start faster than they can be killed.
pub fn watch(mark: &str) -> io::Result<()> {
    let mut nothing = [0; 16];
    while io::stdin().read(&mut nothing)? > 0 {}
    let mut was_empty = false;
    for _ in 0..ROUNDS {
        let marked = marked(mark)?;
        if marked.is_empty() && was_empty {
            return Ok(());
        }
        was_empty = marked.is_empty();
        for process in marked {
            // It may have ended by itself.
            kill_process(process, Signal::KILL).ok();
        }
        #[expect(clippy::disallowed_methods, reason = "nothing tells when a process is there")]
        thread::sleep(BETWEEN);
    }
    Err(io::Error::other("processes start faster than they can be killed"))
}

/// The processes that have this mark. One that has ended has none any more.
fn marked(mark: &str) -> io::Result<Vec<Pid>> {
    let variable = format!("{MARK}={mark}");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // What is not ours cannot be read, and what has ended is not there.
        let Ok(variables) = fs::read(format!("/proc/{process}/environ")) else { continue };
        if variables.split(|byte| *byte == 0).any(|it| it == variable.as_bytes()) {
            found.extend(Pid::from_raw(process));
        }
    }
    Ok(found)
}

//! The log when nobody takes it: the work goes on, and no line about what happened is lost.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use burstd::local::lambda::{Answer, Call};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::eventually;
use crate::support::program::{Program, command, objection};
use crate::support::world::{World, config, config_with};

/// A daemon whose output nobody reads. Dropping it kills it.
struct Unread(Child);

impl Unread {
    fn start(program: &Program, stdout: impl Into<Stdio>) -> Self {
        let mut run = command(&["run", "--config"]);
        run.arg(program.config()).stdout(stdout).stderr(Stdio::piped());
        Unread(run.spawn().expect("the program starts"))
    }

    /// Tells it to stop; its exit code, and what it said on standard error.
    fn stop(mut self) -> (Option<i32>, String) {
        let id = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).expect("a number");
        kill_process(id, Signal::TERM).expect("it runs");
        let status = self.0.wait().expect("it is ours");
        let mut said = String::new();
        self.0.stderr.take().expect("a pipe").read_to_string(&mut said).expect("it is text");
        (status.code(), said)
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_reads_claims_pause_and_then_every_attempt_has_its_line() {
    const TASKS: u64 = 100;
    const ATTEMPTS: u64 = 5;
    // Lines are as long as can be.
    let world = World::with(async |_: Call| Answer::Raised {
        error_type: "Long".repeat(60),
        message: String::new(),
    })
    .await;
    for number in 0..TASKS {
        world.task(&format!("{number} {}", "long".repeat(25))).put().await;
    }
    let few = config_with(&format!("max_attempts = {ATTEMPTS}"));
    let few = few.replace("max_in_flight = 1000", "max_in_flight = 50");
    let program = Program::in_world(&world, &(few + "[log]\nbuffer = \"64kB\"\n"));
    let mut daemon = Unread::start(&program, Stdio::piped());
    let (mut begun, mut since) = (0, Instant::now());
    eventually("nothing more is claimed", async || {
        let running = world.lambda.running();
        if running.begun != begun {
            (begun, since) = (running.begun, Instant::now());
        }
        let is_still = running.now == 0 && since.elapsed() > Duration::from_secs(2);
        if is_still && begun > 0 { Ok(()) } else { Err(running) }
    })
    .await;
    assert!((100..TASKS * ATTEMPTS).contains(&begun), "{begun} ran, unread");

    let output = BufReader::new(daemon.0.stdout.take().expect("a pipe"));
    let reader = thread::spawn(move || output.lines().map_while(Result::ok).collect::<Vec<_>>());
    eventually("all have begun", async || match world.lambda.running().begun {
        begun if begun == TASKS * ATTEMPTS => Ok(()),
        begun => Err(begun),
    })
    .await;
    let (code, said) = daemon.stop();
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let lines = reader.join().expect("it reads");
    let of = |event: &str| {
        let event = format!("\"event\":\"{event}\"");
        lines.iter().filter(|line| line.contains(&event)).count() as u64
    };
    assert_eq!(lines.iter().find_map(|line| objection(line)), None);
    assert_eq!(of("task.attempt_failed") + of("task.failed"), TASKS * ATTEMPTS);
    assert!(of("claims.paused") >= 1 && of("claims.resumed") >= 1);
    assert_eq!(of("log.dropped"), 0);
    assert_eq!(of("daemon.stopped"), 1, "the last words are there, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_log_cannot_be_written_it_is_said_once_and_the_work_goes_on() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("it is there"));
    let closed = || Stdio::from(std::io::pipe().expect("a pipe").1);
    for (what, stdout) in [("full", full()), ("closed", closed())] {
        let world = World::echoing().await;
        let program = Program::in_world(&world, &config());
        let daemon = Unread::start(&program, stdout);
        for number in 0..20 {
            world.task(&number.to_string()).put().await;
        }
        world.until_all(20, "SUCCEEDED").await;
        let (code, said) = daemon.stop();
        assert_eq!(code, Some(0), "{what}: {said}");
        assert_eq!(said.matches("the log cannot be written").count(), 1, "{what}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_nobody_has_taken_when_it_stops_are_counted_on_standard_error() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    let mut daemon = Unread::start(&program, Stdio::piped());
    world.put_many(600, "1").await;
    world.until_all(600, "SUCCEEDED").await;
    let unread = daemon.0.stdout.take().expect("a pipe");
    let (code, said) = daemon.stop();
    assert_eq!(code, Some(0), "{said}");
    let lost = said.trim().strip_prefix("burstd: nobody took the last ");
    let lost: usize = lost
        .and_then(|lost| lost.strip_suffix(" lines of the log")?.parse().ok())
        .unwrap_or_else(|| panic!("how many? {said}"));
    let read = BufReader::new(unread).lines().count();
    assert!(lost >= 100 && read + lost >= 600, "{read} were taken, {lost} not");
}

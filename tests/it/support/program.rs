//! The real program, as a process.

use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use burstd::telemetry::events::OBJECTION;
use burstd::usage;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;

use super::eventually;
use super::manager::Manager;
use super::world::World;

/// Stands in credentials, environment, payloads, results and errors of all tests, and must never
/// stand in what a program says.
pub const CANARY: &str = "canary-5b1f09e7";

/// burstd with a configuration of its own.
pub struct Program {
    directory: TempDir,
}

impl Program {
    /// The program, with this configuration. It logs all there is, unless told otherwise.
    pub fn with(config: &str) -> Self {
        let program = Program { directory: TempDir::new().expect("a directory") };
        let trace = "[log]\nlevel = \"trace\"\n";
        let config = match (config.contains("[log]"), config.contains("\nlevel = ")) {
            (true, true) => config.to_owned(),
            (true, false) => config.replace("[log]\n", trace),
            (false, _) => format!("{config}\n{trace}"),
        };
        std::fs::write(program.config(), config).expect("the file is written");
        program
    }

    /// The same, working in `world`.
    pub fn in_world(world: &World, config: &str) -> Self {
        Program::between(&world.dynamodb.url(), &world.lambda.url(), config)
    }

    /// The same, between these endpoints.
    pub fn between(dynamodb: &str, lambda: &str, config: &str) -> Self {
        Program::with(&configuration(dynamodb, lambda, config))
    }

    pub fn config(&self) -> PathBuf {
        self.directory.path().join("burstd.toml")
    }

    /// A file beside the configuration.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).expect("the file is written");
        path
    }

    /// Runs a command that takes `--config` to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = command(arguments);
        command.arg("--config").arg(self.config());
        let output = command.output().expect("the program runs");
        check(&output);
        output
    }

    /// Starts the daemon.
    pub fn start(&self) -> Process {
        self.start_with(&[])
    }

    /// Starts the daemon with more in its environment.
    pub fn start_with(&self, environment: &[(&str, &str)]) -> Process {
        let mut command = command(&["run", "--config"]);
        command.arg(self.config()).envs(environment.iter().copied());
        Process::start(command)
    }

    /// Starts the daemon under a service manager, which hears what this says beside the rest.
    pub fn start_under(&self, manager: &Manager, environment: &[(&str, &str)]) -> Process {
        let socket = manager.socket();
        let socket = ("NOTIFY_SOCKET", socket.to_str().expect("its path is text"));
        self.start_with(&[environment, &[socket]].concat())
    }

    /// Writes another configuration over the first.
    pub fn rewrite(&self, change: impl FnOnce(&str) -> String) {
        let before = std::fs::read_to_string(self.config()).expect("it is there");
        std::fs::write(self.config(), change(&before)).expect("the file is written");
    }

    /// Starts the daemon; it dies when a task's life reaches this point for so many times.
    pub fn start_and_die_at(&self, point: &str, times: u32) -> Process {
        self.start_with(&[("BURSTD_KILL_AT", &format!("{point}:{times}"))])
    }

    /// Starts the daemon with no more file descriptors than this.
    pub fn start_with_descriptors(&self, most: u32) -> Process {
        let daemon = command(&["run", "--config"]);
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(format!("ulimit -n {most} && exec \"$@\"")).arg("sh");
        shell.arg(daemon.get_program()).args(daemon.get_args()).arg(self.config());
        shell.env_clear();
        shell.envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Process::start(shell)
    }
}

/// The configuration with these endpoints.
pub fn configuration(dynamodb: &str, lambda: &str, config: &str) -> String {
    format!(
        "{config}\n[aws]\nregion = \"us-east-1\"\ndynamodb_endpoint_url = \"{dynamodb}\"\n\
         lambda_endpoint_url = \"{lambda}\"\n"
    )
}

/// The program with an environment of its own.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_burstd"));
    command.args(arguments).env_clear().envs([
        ("AWS_ACCESS_KEY_ID", CANARY),
        ("AWS_SECRET_ACCESS_KEY", CANARY),
        ("AWS_SESSION_TOKEN", CANARY),
        ("PASSWORD_OF_SOMETHING", CANARY),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("HOME", "/nonexistent"),
    ]);
    command
}

/// What is wrong with a line, whatever the test is about.
pub fn objection(line: &str) -> Option<String> {
    let is_wrong = line.contains(CANARY) || line.contains(OBJECTION);
    is_wrong.then(|| format!("no program may say this: {line}"))
}

/// Fails when a program has said what none may.
pub fn check(output: &Output) {
    for said in [&output.stdout, &output.stderr] {
        assert_eq!(String::from_utf8_lossy(said).lines().find_map(objection), None);
    }
}

/// A program that runs. Dropping it kills it, and fails when it has said what none may.
pub struct Process {
    child: Child,
    lines: Lines,
    errors: Lines,
    readers: Vec<JoinHandle<()>>,
}

type Lines = Arc<Mutex<Vec<String>>>;

/// Reads lines as they come.
fn read(output: impl Read + Send + 'static, each: fn(&str)) -> (Lines, JoinHandle<()>) {
    let lines = Lines::default();
    let seen = lines.clone();
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            each(&line);
            seen.lock().expect("nobody panics with it").push(line);
        }
    });
    (lines, reader)
}

impl Process {
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let (lines, reader) = read(child.stdout.take().expect("it is a pipe"), |_| {});
        let errors = child.stderr.take().expect("it is a pipe");
        let (errors, reader_of_errors) = read(errors, |line| eprintln!("{line}"));
        Process { child, lines, errors, readers: vec![reader, reader_of_errors] }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).expect("it can be signalled");
    }

    /// Allows it no more file descriptors than this.
    pub fn limit_descriptors(&self, most: u64) {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        prlimit(Some(self.id()), Resource::Nofile, limit).expect("it is ours");
    }

    fn id(&self) -> Pid {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        id.expect("it has an id")
    }

    /// Memory that it took at most, in kilobytes.
    pub fn peak_resident_kb(&self) -> u64 {
        usage::peak_resident_kb(&self.child.id().to_string()).expect("it runs")
    }

    /// How it ended, if it has.
    pub fn try_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is ours")
    }

    /// Kills it if it runs still; everything it has printed.
    pub fn finish(mut self) -> Vec<String> {
        self.end();
        self.lines()
    }

    fn end(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
        for reader in self.readers.drain(..) {
            reader.join().expect("the reader does not panic");
        }
    }

    /// What it has printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("nobody panics with it").clone()
    }

    /// The first line it printed that has this in it.
    pub async fn line_with(&self, part: &str) -> String {
        eventually(&format!("a line with {part:?}"), async || {
            let lines = self.lines();
            lines.iter().find(|line| line.contains(part)).cloned().ok_or(lines)
        })
        .await
    }

    /// How often it has told an event.
    pub fn told(&self, event: &str) -> usize {
        let event = format!("\"event\":\"{event}\"");
        self.lines().iter().filter(|line| line.contains(&event)).count()
    }

    /// Waits until it has told an event so many times.
    pub async fn until_told(&self, event: &str, times: usize) {
        eventually(&format!("{times} times {event}"), async || match self.told(event) {
            told if told == times => Ok(()),
            told => Err(told),
        })
        .await;
    }

    /// How it ended.
    pub async fn ended(&mut self) -> ExitStatus {
        eventually("the program ends", async || self.try_ended().ok_or("it runs")).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        let errors = self.errors.lock().expect("nobody panics with it");
        let wrong = self.lines().iter().chain(errors.iter()).find_map(|line| objection(line));
        if !thread::panicking() {
            assert_eq!(wrong, None);
        }
    }
}

/// A command's exit code, and what it said: as an error, or in its log.
pub fn failure(output: &Output) -> (i32, String) {
    check(output);
    let said = [&output.stderr[..], &output.stdout[..]].concat();
    let code = output.status.code().expect("it was not killed");
    (code, String::from_utf8_lossy(&said).replace("\\\"", "\""))
}

/// What a command printed; it must have succeeded.
pub fn success(output: &Output) -> String {
    check(output);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

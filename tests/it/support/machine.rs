//! A machine with a systemd of its own, in namespaces of this one, where burstd is installed.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::{env, io, thread};

use super::eventually;
use super::program::{configuration, success};
use super::world::World;

/// Seconds that a command in the machine may take.
const PATIENCE: &str = "90";

/// Dropping it turns it off.
pub struct Machine {
    sdbox: PathBuf,
    state: PathBuf,
    root: PathBuf,
    /// There can be one at a time.
    _lock: File,
}

impl Machine {
    /// Boots one, with the program and its units. Where that cannot be, it says so, and there is
    /// none: the test passes, and has tried nothing.
    pub fn boot() -> Option<Machine> {
        let booted = Machine::try_boot();
        let test = thread::current().name().unwrap_or("a test").to_owned();
        let said = match &booted {
            Ok(_) => format!("in a systemd of its own: {test}"),
            Err(reason) => format!("skipped: {test}: {reason}"),
        };
        // Who names an sdbox wants to know.
        assert!(booted.is_ok() || env::var_os("SDBOX").is_none(), "{said}");
        // Unlike what a test prints, this is seen when the test passes.
        writeln!(io::stderr(), "{said}").expect("it is there");
        booted.ok()
    }

    fn try_boot() -> Result<Machine, String> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let sdbox = env::var_os("SDBOX").map(PathBuf::from);
        let sdbox = sdbox.unwrap_or_else(|| here.join("../shared/tools/sdbox"));
        if !sdbox.is_file() {
            return Err(format!("there is no {}, and SDBOX names no other", sdbox.display()));
        }
        if !rustix::process::getuid().is_root() {
            return Err("only root can boot one".to_owned());
        }
        if !Path::new("/lib/systemd/systemd").exists() {
            return Err("systemd is not installed".to_owned());
        }
        let state = env::temp_dir().join("burstd-machine");
        fs::create_dir_all(&state).expect("a directory");
        let lock = File::create(state.join("lock")).expect("a file");
        lock.lock().expect("it can be locked");
        let root = PathBuf::new();
        let mut machine = Machine { sdbox, state, root, _lock: lock };
        if machine.state.join("pid").exists() {
            // A test was killed and left it behind.
            machine.sdbox(&["stop"]).output().expect("the script runs");
        }
        let booted = machine.sdbox(&["start", "--hostnet"]).output().expect("the script runs");
        let said = String::from_utf8_lossy(&[booted.stdout, booted.stderr].concat()).into_owned();
        if !said.contains("state=running") && !said.contains("state=degraded") {
            return Err(format!("it does not boot: {said}"));
        }
        let pid = success(&machine.sdbox(&["pid"]).output().expect("the script runs"));
        machine.root = Path::new("/proc").join(pid.trim()).join("root");
        machine.install(here);
        Ok(machine)
    }

    fn install(&self, repository: &Path) {
        fs::copy(env!("CARGO_BIN_EXE_burstd"), self.path("/usr/bin/burstd")).expect("it is copied");
        for unit in ["burstd.service", "burstd@.service"] {
            let text = fs::read_to_string(repository.join("systemd").join(unit));
            self.write(&format!("/etc/systemd/system/{unit}"), &text.expect("it can be read"));
        }
        self.run(&["systemctl", "daemon-reload"]);
        let environment = "AWS_ACCESS_KEY_ID=test\nAWS_SECRET_ACCESS_KEY=test\n\
                           AWS_EC2_METADATA_DISABLED=true\n";
        self.write("/etc/default/burstd", environment);
    }

    /// Configures the instance `name` to work in `world`.
    pub fn configure(&self, name: &str, world: &World, config: &str) {
        self.configure_between(name, &world.dynamodb.url(), &world.lambda.url(), config);
    }

    /// The same, between these endpoints.
    pub fn configure_between(&self, name: &str, dynamodb: &str, lambda: &str, config: &str) {
        let config = configuration(dynamodb, lambda, config);
        self.write(&format!("/etc/burstd/{name}.toml"), &config);
    }

    /// Changes the unit `burstd.service`.
    pub fn edit(&self, settings: &str) {
        self.write("/etc/systemd/system/burstd.service.d/test.conf", settings);
        self.run(&["systemctl", "daemon-reload"]);
    }

    /// Writes a file that all may read.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("it is in a directory")).expect("it is made");
        fs::write(&path, text).expect("it is written");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("it is root's");
    }

    /// Where a file of the machine is seen from here.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// What a command in the machine prints; it must succeed.
    pub fn run(&self, arguments: &[&str]) -> String {
        success(&self.try_run(arguments))
    }

    pub fn try_run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the script runs")
    }

    /// Starts a command in the machine.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).spawn().expect("the script runs")
    }

    pub fn show(&self, unit: &str, property: &str) -> String {
        self.run(&["systemctl", "show", "-P", property, unit]).trim().to_owned()
    }

    /// Waits until a unit's property is this.
    pub async fn until(&self, unit: &str, property: &str, value: &str) {
        eventually(&format!("{property} of {unit} is {value}"), async || {
            match self.show(unit, property) {
                shown if shown == value => Ok(()),
                shown => Err(shown),
            }
        })
        .await;
    }

    /// What the journal has of these, in the order it came.
    pub fn journal(&self, which: &[&str]) -> Vec<String> {
        let read = [&["journalctl", "--quiet", "--no-pager", "--output=cat"], which].concat();
        self.run(&read).lines().map(str::to_owned).collect()
    }

    /// How often a unit's processes have told an event.
    pub fn told(&self, unit: &str, event: &str) -> usize {
        let event = format!("\"event\":\"{event}\"");
        let lines = self.journal(&[&format!("_SYSTEMD_UNIT={unit}.service")]);
        lines.iter().filter(|line| line.contains(&event)).count()
    }

    /// Waits until `burstd.service` has told an event so many times.
    pub async fn until_told(&self, event: &str, times: usize) {
        eventually(&format!("{times} times {event}"), async || match self.told("burstd", event) {
            told if told >= times => Ok(()),
            told => Err(told),
        })
        .await;
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.sdbox(&[&["exec", "timeout", PATIENCE], arguments].concat())
    }

    fn sdbox(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.sdbox);
        command.args(arguments).env("SDBOX_STATE", &self.state);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let stopped = self.sdbox(&["stop"]).output().expect("the script runs");
        assert!(stopped.status.success() || thread::panicking(), "{stopped:?}");
    }
}

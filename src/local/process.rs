//! Processes of users' functions: started so that they die with burstd, and killed with all that
//! they have started.

use std::io::{self, PipeWriter};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::absolute;
use std::process::{Command, Stdio};

use rustix::process::set_parent_process_death_signal;
use rustix::process::{Pid, Signal, getpid, getppid, kill_process_group};
use tokio::process::Child;

use super::environments::Environments;

/// How a process ends that cannot become its program, as with shells.
pub const NO_PROGRAM: u8 = 127;

/// Starts a process in a group of its own. burstd itself comes first, asks the kernel to kill it
/// when its parent dies, and then becomes the function.
pub(super) fn start(of: &Environments, api: SocketAddr, output: PipeWriter) -> io::Result<Child> {
    let program = &of.program;
    let mut command = tokio::process::Command::new(of.host.burstd());
    command
        .args(["local-function", &getpid().as_raw_nonzero().to_string(), "--"])
        .args(&program.command)
        .env("AWS_LAMBDA_RUNTIME_API", api.to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", &of.name)
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", program.memory_mb.to_string())
        .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", of.name))
        .env("AWS_LAMBDA_LOG_STREAM_NAME", format!("local/{}", api.port()))
        .env("LAMBDA_TASK_ROOT", absolute(&program.directory)?)
        .env("_HANDLER", program.command.last().map_or("", String::as_str))
        .env(super::warden::MARK, of.host.mark())
        .envs(&program.environment)
        .current_dir(&program.directory)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .kill_on_drop(true);
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        if std::env::var_os(name).is_none() && !program.environment.contains_key(name) {
            command.env(name, super::REGION);
        }
    }
    command.spawn()
}

/// The group of a process that was started here. It outlives the process if others are in it.
pub(super) fn group(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

/// Kills a whole group.
pub(super) fn kill(group: Pid) {
    // There may be nobody left, and that is as it should be.
    kill_process_group(group, Signal::KILL).ok();
}

/// Becomes the function, in a process that was started for it. Returns only when that fails.
pub fn become_function(parent: i32, command: &[String]) -> io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // It may have died before it was asked for.
    if getppid().is_none_or(|now| now.as_raw_nonzero().get() != parent) {
        return io::Error::other("burstd has ended");
    }
    let Some((program, arguments)) = command.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "there is no command");
    };
    Command::new(program).args(arguments).exec()
}

//! The functions of `burstd dev`: those built in, those of the configuration, and those of
//! `--function`.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::exit::Exit;
use crate::config::{Config, Program};
use crate::local::environments::{Environments, Host};
use crate::local::functions::{BUILT_IN, built_in};
use crate::local::lambda::{Functions, LocalFunction};
use crate::local::plain_name;

/// burstd itself, whatever has become of its file.
const BURSTD: &str = "/proc/self/exe";

/// The functions, and what is known of those that are programs.
pub(super) struct Own {
    pub(super) functions: Functions,
    pub(super) programs: Vec<(String, Arc<Environments>)>,
}

/// Reads `NAME=COMMAND`.
pub(super) fn parse(text: &str) -> Result<(String, Program), String> {
    let (name, command) = text.split_once('=').ok_or("write NAME=COMMAND")?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(format!("{name:?} is no function's name: letters, digits, - and _"));
    }
    let command = shlex::split(command).ok_or("a quote is not closed")?;
    if command.is_empty() {
        return Err(format!("{name} needs a command"));
    }
    Ok((name.to_owned(), Program::new(command)))
}

/// Makes the functions that the configuration's queues run.
pub(super) fn make(config: &Config) -> Result<Own, Exit> {
    let mut functions = built_in();
    let mut programs = Vec::new();
    if !config.local.functions.is_empty() {
        let host = Host::new(PathBuf::from(BURSTD), config.local.idle);
        let host =
            host.map_err(|error| Exit::os(format!("a process cannot be started: {error}")))?;
        for (name, program) in &config.local.functions {
            find(name, program)?;
            let environments = Environments::new(name.clone(), program.clone(), host.clone());
            functions.insert(name.clone(), LocalFunction::program(environments.clone()));
            programs.push((name.clone(), environments));
        }
    }
    for queue in &config.queues {
        if !functions.contains_key(plain_name(&queue.function)) {
            let known: Vec<_> = functions.keys().map(String::as_str).collect();
            return Err(Exit::wrong_thing(format!(
                "queue {:?} runs the function {:?}, which is not here: write \
                 [local.functions.{}] with its command, or --function {}=COMMAND. Here are: {}",
                queue.name,
                queue.function,
                plain_name(&queue.function),
                plain_name(&queue.function),
                known.join(", ")
            )));
        }
    }
    Ok(Own { functions, programs })
}

/// What each queue's function is, for people.
pub(super) fn described(config: &Config) -> Vec<(String, String)> {
    let built_in: BTreeMap<_, _> = BUILT_IN.into_iter().collect();
    let queues = config.queues.iter();
    queues
        .map(|queue| {
            let name = plain_name(&queue.function);
            let does = match config.local.functions.get(name) {
                Some(program) => program.command.join(" "),
                None => built_in[name].to_owned(),
            };
            (queue.name.clone(), does)
        })
        .collect()
}

/// Looks whether the program is there, so that nobody has to wait for the first task to learn it.
fn find(name: &str, program: &Program) -> Result<(), Exit> {
    let wrong = |what: String| Err(Exit::wrong_thing(format!("function {name:?}: {what}")));
    if !program.directory.is_dir() {
        return wrong(format!("the directory {} is not there", program.directory.display()));
    }
    let command = &program.command[0];
    let is_program = |path: &Path| {
        let found = path.metadata();
        found.is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    };
    if command.contains('/') {
        let path = program.directory.join(command);
        return match is_program(&path) {
            true => Ok(()),
            false => wrong(format!("{} is no program; is it built?", path.display())),
        };
    }
    // Its own PATH is where it is looked for.
    let own = program.environment.get("PATH").map(OsString::from);
    let folders = own.or_else(|| env::var_os("PATH")).unwrap_or_default();
    match env::split_paths(&folders).any(|folder| is_program(&folder.join(command))) {
        true => Ok(()),
        false => wrong(format!("the program {command:?} is not in PATH")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_read_as_a_shell_would() {
        let (name, program) = parse("thumb='./my function' --size \"1 2\"").expect("it is right");
        assert_eq!(name, "thumb");
        assert_eq!(program.command, ["./my function", "--size", "1 2"]);
        for wrong in ["thumb", "=x", "a b=x", "thumb=", "thumb='x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

//! `burstd generate`: manual pages and completions, for packages.

mod page;
mod pages;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;
use super::exit::Exit;

#[derive(Args)]
pub(super) struct Generate {
    /// The directory; it is made if it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Generate {
    pub(super) fn run(self) -> Result<(), Exit> {
        let Generate { directory } = self;
        write(&directory).map_err(|error| Exit::io(format!("{}: {error}", directory.display())))
    }
}

fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut command = visible(&Cli::command());
    command.build();
    fs::write(directory.join("burstd.8"), pages::burstd(&command)?)?;
    fs::write(directory.join("burstd.toml.5"), pages::configuration())?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "burstd", directory)?;
    }
    Ok(())
}

/// The program without the commands that are nobody's business.
fn visible(program: &Command) -> Command {
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let visible =
        Command::new("burstd").version(env!("CARGO_PKG_VERSION")).disable_help_subcommand(true);
    visible.subcommand_required(true).subcommands(commands)
}

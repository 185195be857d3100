//! The `burstd` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    burstd::cli::main()
}

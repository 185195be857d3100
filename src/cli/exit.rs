//! Ending with an error: one message, and a code of sysexits(3).

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::{self, ExitCode};

use crate::aws::NoRegion;
use crate::config::ConfigError;
use crate::daemon::DaemonError;
use crate::store::StoreError;
use crate::telemetry;

/// Wrong arguments.
pub(super) const USAGE: u8 = 64;
/// Wrong input.
const DATA: u8 = 65;
/// An input that cannot be read.
const NO_INPUT: u8 = 66;
/// AWS, or something else that is needed, is not there.
const UNAVAILABLE: u8 = 69;
/// What should have happened did not.
const SOFTWARE: u8 = 70;
/// The operating system refuses.
const OS: u8 = 71;
/// Writing failed.
pub(super) const IO: u8 = 74;
/// A right is missing.
const NO_PERMISSION: u8 = 77;
/// The configuration, or the table it names, is wrong.
const CONFIG: u8 = 78;

/// Every code, for the manual.
pub(super) const MEANINGS: [(u8, &str); 10] = [
    (0, "Done, or stopped as told."),
    (USAGE, "Wrong arguments."),
    (DATA, "Wrong input."),
    (NO_INPUT, "An input cannot be read."),
    (UNAVAILABLE, "AWS, or something else that is needed, is not there."),
    (SOFTWARE, "A bug of burstd's."),
    (OS, "The operating system refuses."),
    (IO, "Writing failed."),
    (NO_PERMISSION, "A right is missing."),
    (CONFIG, "The configuration, or the table or a function it names, is wrong."),
];

/// An end that is not a success.
#[derive(Debug)]
pub(super) struct Exit {
    code: u8,
    message: String,
    is_said: bool,
}

impl Exit {
    pub(super) fn usage(message: impl Display) -> Self {
        Exit::new(USAGE, message)
    }

    pub(super) fn data(message: impl Display) -> Self {
        Exit::new(DATA, message)
    }

    pub(super) fn no_input(message: impl Display) -> Self {
        Exit::new(NO_INPUT, message)
    }

    pub(super) fn unavailable(message: impl Display) -> Self {
        Exit::new(UNAVAILABLE, message)
    }

    pub(super) fn software(message: impl Display) -> Self {
        Exit::new(SOFTWARE, message)
    }

    pub(super) fn os(message: impl Display) -> Self {
        Exit::new(OS, message)
    }

    /// The system refuses a thread, a descriptor or the like.
    pub(super) fn refused(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock => Exit::no_threads(error),
            _ => Exit::os(error),
        }
    }

    pub(super) fn no_threads(why: impl Display) -> Self {
        Exit::os(format!("no more threads: {why}; raise TasksMax of the unit, or ulimit -u"))
    }

    pub(super) fn io(message: impl Display) -> Self {
        Exit::new(IO, message)
    }

    /// Nobody reads what is said any more, which is no error: `burstd show … | head`.
    fn unread() -> Self {
        Exit::new(0, "").said()
    }

    /// Somebody was asked, and said no.
    pub(super) fn stopped() -> Self {
        Exit::new(0, "").said()
    }

    pub(super) fn config(error: ConfigError) -> Self {
        Exit::new(CONFIG, error)
    }

    /// The configuration is right in itself, and what it names is not.
    pub(super) fn wrong_thing(message: impl Display) -> Self {
        Exit::new(CONFIG, message)
    }

    pub(super) fn no_permission(message: impl Display) -> Self {
        Exit::new(NO_PERMISSION, message)
    }

    /// A process that was to become somebody else's program ends as that would.
    #[cfg(feature = "local")]
    pub(super) fn of_function(code: u8, message: impl Display) -> Self {
        Exit::new(code, message)
    }

    fn new(code: u8, message: impl Display) -> Self {
        Exit { code, message: message.to_string(), is_said: false }
    }

    /// What is said.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The same end, when the log has said why.
    pub(super) fn said(self) -> Self {
        Exit { is_said: true, ..self }
    }

    /// Says why and ends the process where it is: nothing is cleaned up.
    pub(super) fn at_once(self) -> ! {
        let code = self.code;
        self.report();
        process::exit(code.into())
    }

    /// Says why on standard error, if nobody has.
    pub(super) fn report(self) -> ExitCode {
        if !self.is_said {
            telemetry::complain(&format!("burstd: {}", self.message));
        }
        ExitCode::from(self.code)
    }
}

/// Says something on standard output.
pub(super) fn say(words: impl Display) -> Result<(), Exit> {
    match writeln!(io::stdout().lock(), "{words}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Exit::unread()),
        Err(error) => Err(Exit::io(format!("standard output: {error}"))),
    }
}

impl From<StoreError> for Exit {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Unavailable(_) => UNAVAILABLE,
            StoreError::Refused(fault) if fault.code == "AccessDeniedException" => NO_PERMISSION,
            StoreError::Refused(_) => CONFIG,
            StoreError::Rejected(_) => DATA,
        };
        Exit::new(code, error)
    }
}

impl From<NoRegion> for Exit {
    fn from(error: NoRegion) -> Self {
        Exit::new(CONFIG, error)
    }
}

impl From<DaemonError> for Exit {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::NoRegion(error) => error.into(),
            DaemonError::Table(error) => error.into(),
        }
    }
}

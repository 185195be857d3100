//! How invocations end that the function itself has no word in, as Lambda says it.

use std::io;
use std::process::ExitStatus;

use rustix::io::Errno;
use serde_json::json;
use tracing::warn;

use super::lambda::{Answer, Call, Ended};

/// What Lambda says of a process that ended without an error.
pub(super) const NO_REASON: &str = "Runtime exited without providing a reason";

/// How a process ended, in Lambda's words.
pub(super) fn exit_words(status: &io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(0), _) => NO_REASON.to_owned(),
            (Some(code), _) => format!("Runtime exited with error: exit status {code}"),
            (None, Some(signal)) => {
                let name = match signal {
                    6 => "aborted".to_owned(),
                    9 => "killed".to_owned(),
                    11 => "segmentation fault".to_owned(),
                    15 => "terminated".to_owned(),
                    other => other.to_string(),
                };
                format!("Runtime exited with error: signal: {name}")
            }
            (None, None) => "Runtime exited".to_owned(),
        },
        Err(error) => format!("Runtime exited with error: {error}"),
    }
}

/// A process could not even be started: its program is not there, or this machine has no room for
/// one more.
pub(super) fn not_started(call: &Call, function: &str, error: &io::Error) -> Ended {
    let has_no_room = error.raw_os_error().map(Errno::from_raw_os_error).is_some_and(|errno| {
        [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::ADDRINUSE].contains(&errno)
    });
    if !has_no_room {
        return failed(call, "Runtime.InvalidEntrypoint", &error.to_string());
    }
    warn!(event = "function.not_started", function, %error, "there is no room for more");
    let body = json!({ "Type": "Server", "Message": error.to_string() });
    refused(Answer::Refused { status: 502, code: "EC2ThrottledException", body })
}

/// An end without a beginning: nothing has run.
pub(super) fn refused(answer: Answer) -> Ended {
    Ended { answer, log: String::new() }
}

/// An end that the function itself has no word in.
pub(super) fn failed(call: &Call, error_type: &str, words: &str) -> Ended {
    let message = format!("RequestId: {} Error: {words}", call.request_id);
    let answer = Answer::Raised { error_type: error_type.to_owned(), message };
    Ended { answer, log: String::new() }
}

//! The log: which lines there are, how they look, and where they go.

mod emf;
pub mod events;
mod journal;
mod line;
mod writer;

use std::env;
use std::fs::File;
use std::io::{self, IsTerminal as _, stderr, stdout};
use std::os::fd::AsFd as _;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

use line::Form;
pub use writer::Lines;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Whether summaries are metrics, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metrics {
    /// They are lines like others.
    None,
    /// Where lines are JSON, CloudWatch Logs reads metrics from them.
    Embedded,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output: the log is what the program is for.
    Stdout,
    /// Standard error: standard output is for something else.
    Stderr,
}

/// Which lines there are; it may change while there are some.
#[derive(Clone, Debug)]
pub struct Levels(reload::Handle<Targets, Registry>);

impl Levels {
    /// Lines of these levels from now on.
    pub fn set(&self, levels: Targets) {
        // Where the log has ended there are no lines of any level.
        self.0.reload(levels).ok();
    }
}

/// Bytes of the log that may wait unless something else is said.
pub const BUFFER: usize = 1_000_000;

/// Begins to log. `worker` stands on every line of JSON. While more than `buffer` bytes wait to
/// be written, nothing is claimed.
///
/// # Errors
///
/// When something in this process logs already, or the system gives no descriptor or thread.
pub fn start(
    (format, metrics): (Format, Metrics),
    levels: Targets,
    output: Output,
    worker: &str,
    buffer: usize,
) -> io::Result<(Lines, Levels)> {
    // Without the buffer that the standard library puts before it.
    let (out, is_terminal) = match output {
        Output::Stdout => (stdout().as_fd().try_clone_to_owned()?, stdout().is_terminal()),
        Output::Stderr => (stderr().as_fd().try_clone_to_owned()?, stderr().is_terminal()),
    };
    let out = File::from(out);
    let form = match format {
        Format::Json => Form::json(worker, metrics),
        Format::Auto if !is_terminal => Form::json(worker, metrics),
        Format::Auto | Format::Text => Form::text(),
    };
    let is_journal = journal::is_read_by(&out, env::var_os("JOURNAL_STREAM"));
    let (form, (writer, lines)) = match is_journal {
        true => (form.for_the_journal(), writer::start(journal::Journal(out), buffer)?),
        false => (form, writer::start(out, buffer)?),
    };
    // What libraries say is for their authors, comes again with every call, and may hold anything.
    // What it means to an operator burstd says itself.
    let ours = filter_fn(|metadata| metadata.target().starts_with("burstd"));
    let (levels, handle) = reload::Layer::new(levels);
    let layer = tracing_subscriber::fmt::layer()
        .event_format(form)
        .with_writer(writer)
        .with_filter(levels.and(ours));
    tracing_subscriber::registry().with(layer).try_init().map_err(io::Error::other)?;
    Ok((lines, Levels(handle)))
}

/// Writes to standard error what ends the program. Where that is the journal each line tells it
/// that this is an error.
pub fn complain(message: &str) {
    let err = stderr().as_fd().try_clone_to_owned().map(File::from);
    let is_journal = err.is_ok_and(|err| journal::is_read_by(&err, env::var_os("JOURNAL_STREAM")));
    let priority = if is_journal { journal::priority(Level::ERROR) } else { "" };
    for line in message.lines() {
        eprintln!("{priority}{line}");
    }
}

/// Reads `info`, or `info,burstd::worker=debug`.
///
/// # Errors
///
/// When a part is neither a level nor a target with one.
pub fn levels(text: &str) -> Result<Targets, String> {
    let advice = "must be error, warn, info, debug or trace, or target=level pairs with commas \
                  between";
    let mut targets = Targets::new();
    for part in text.split(',').map(str::trim) {
        targets = match part.split_once('=') {
            None => targets.with_default(level(part).ok_or(advice)?),
            Some((target, word)) => {
                targets.with_target(target.trim(), level(word.trim()).ok_or(advice)?)
            }
        };
    }
    Ok(targets)
}

fn level(word: &str) -> Option<LevelFilter> {
    match word {
        "error" => Some(LevelFilter::ERROR),
        "warn" => Some(LevelFilter::WARN),
        "info" => Some(LevelFilter::INFO),
        "debug" => Some(LevelFilter::DEBUG),
        "trace" => Some(LevelFilter::TRACE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_for_all_and_a_target_has_its_own() {
        let levels = levels("warn, burstd::worker=debug").expect("it is right");
        assert!(levels.would_enable("burstd::dispatcher", &Level::WARN));
        assert!(!levels.would_enable("burstd::dispatcher", &Level::INFO));
        assert!(levels.would_enable("burstd::worker", &Level::DEBUG));
    }

    #[test]
    fn what_is_no_level_is_refused() {
        for text in ["", "loud", "INFO", "burstd=", "info,,warn", "=loud"] {
            assert!(levels(text).is_err(), "{text:?}");
        }
    }
}

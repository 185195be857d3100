//! The log: which lines there are, how they look, and where they go.

mod line;

use std::io::{IsTerminal as _, stderr, stdout};

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use line::Lines;

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

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output: the log is what the program is for.
    Stdout,
    /// Standard error: standard output is for something else.
    Stderr,
}

/// Begins to log. `worker` stands on every line of JSON.
///
/// # Errors
///
/// When something in this process logs already.
pub fn start(
    format: Format,
    levels: Targets,
    output: Output,
    worker: &str,
) -> Result<(), TryInitError> {
    let (writer, is_terminal) = match output {
        Output::Stdout => (BoxMakeWriter::new(stdout), stdout().is_terminal()),
        Output::Stderr => (BoxMakeWriter::new(stderr), stderr().is_terminal()),
    };
    let lines = match format {
        Format::Json => Lines::json(worker),
        Format::Auto if !is_terminal => Lines::json(worker),
        Format::Auto | Format::Text => Lines::text(),
    };
    // What libraries say below a warning is for their authors, and may hold payloads. The
    // embedded DynamoDB warns of each refused condition, which is nothing unusual.
    let ours = filter_fn(|metadata| {
        let (target, level) = (metadata.target(), *metadata.level());
        let is_quiet = level <= Level::WARN && !target.starts_with("dynoxide");
        target.starts_with("burstd") || is_quiet
    });
    let layer = tracing_subscriber::fmt::layer()
        .event_format(lines)
        .with_writer(writer)
        .with_filter(levels.and(ours));
    tracing_subscriber::registry().with(layer).try_init()
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

//! The options that say which tasks are meant.

use clap::Args;

use super::when;
use crate::aws::{Filter, Wanted};
use crate::clock::Clock;
use crate::config::Config;
use crate::queue::Queue;
use crate::task::Timestamp;

/// Which tasks are meant: those for which all of this holds.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FilterOptions {
    /// Tasks of this queue, in all its shards
    #[arg(long, value_name = "QUEUE")]
    pub(super) queue: Option<String>,
    /// Tasks with this status: PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED, INVALID; or new:
    /// without one, which PENDING includes. May be several, with commas between
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = Wanted::parse)]
    pub(super) status: Vec<Wanted>,
    /// Tasks that ended, started or became due at this time or later
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time)]
    pub(super) since: Option<String>,
    /// Tasks whose last error has this type
    #[arg(long, value_name = "TYPE")]
    pub(super) error: Option<String>,
}

/// Refuses what is no time before anything is done.
fn time(text: &str) -> Result<String, String> {
    when::parse(text, Clock::system().now()).map(|_| text.trim().to_owned())
}

impl FilterOptions {
    /// Whether nothing is said.
    pub(super) fn is_empty(&self) -> bool {
        *self == FilterOptions::default()
    }

    /// The filter at this moment.
    pub(super) fn filter(&self, now: Timestamp) -> Filter {
        Filter {
            queue: self.queue.clone(),
            statuses: self.status.clone(),
            since: self.since.as_deref().and_then(|text| when::parse(text, now).ok()),
            error_type: self.error.clone(),
            retryable: None,
        }
    }

    /// The partitions of the index that the queue's tasks stand in, if they are known.
    pub(super) fn shards(&self, config: &Config) -> Vec<String> {
        let Some(name) = &self.queue else { return Vec::new() };
        match config.queue(name) {
            Some(queue) => Queue::shards(name, queue.shards),
            None if name.contains('#') => vec![name.clone()],
            None => Vec::new(),
        }
    }

    /// The same options, however they were written: what says the same has the same words.
    pub(super) fn words(&self) -> String {
        let mut statuses: Vec<_> = self.status.iter().map(|status| status.as_str()).collect();
        statuses.sort_unstable();
        statuses.dedup();
        let mut words = Vec::new();
        for (option, value) in [
            ("--queue", self.queue.clone()),
            ("--status", (!statuses.is_empty()).then(|| statuses.join(","))),
            ("--since", self.since.clone()),
            ("--error", self.error.clone()),
        ] {
            words.extend(value.map(|value| format!("{option} {value:?}")));
        }
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Status;

    #[test]
    fn what_says_the_same_has_the_same_words_and_what_says_another_thing_has_others() {
        let (failed, invalid) = (Wanted::Is(Status::Failed), Wanted::Is(Status::Invalid));
        let options = |status: &[Wanted], queue: &str| FilterOptions {
            status: status.to_vec(),
            queue: Some(queue.to_owned()),
            ..FilterOptions::default()
        };
        let words = options(&[invalid, failed, failed], "a").words();
        assert_eq!(words, "--queue \"a\" --status \"FAILED,INVALID\"");
        assert_eq!(words, options(&[failed, invalid], "a").words());
        assert_ne!(words, options(&[failed], "a").words());
        assert_ne!(words, options(&[failed, invalid], "a\" --status \"FAILED,INVALID").words());
        assert_eq!(FilterOptions::default().words(), "");
    }
}

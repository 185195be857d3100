//! The commands about tasks by name: `burstd show`, `explain`, `retry` and `cancel`; and the last
//! two by filter. They work over the table alone, whether or not a daemon is up.

mod campaign;
mod change;
mod explain;
mod preview;
pub(super) mod show;
mod writing;

use clap::Args;
use serde_json::{Value, json};

use super::exit::{Exit, say};
use super::{ConfigFile, Speech, block_on, cost, plain};
use crate::aws::{Changed, Clients, Desk, Record};
use crate::config::Config;
use crate::daemon;
use crate::notices::Notices;
use crate::store::StoreError;
use crate::task::{Status, TaskId, Timestamp};
pub(super) use change::{Cancel, Retry};
use explain::Circumstances;

/// What these commands share.
#[derive(Args)]
pub(super) struct About {
    #[command(flatten)]
    config: ConfigFile,
    /// The task's name, as the log writes it: in a table with a sort key, PARTITION/SORT
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    speech: Speech,
}

/// What is wished of the tasks that are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    Show,
    Explain,
    Change(Wish),
}

/// What is to become of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Retry,
    Cancel,
}

impl Wish {
    fn word(self) -> &'static str {
        match self {
            Wish::Retry => "retry",
            Wish::Cancel => "cancel",
        }
    }
}

/// The table, and what the configuration says of its queues.
struct Office {
    desk: Desk,
    config: Config,
    /// What daemons and people have told; nothing when nobody asks.
    notices: Notices,
    now: Timestamp,
}

impl About {
    pub(super) fn run(self, errand: Errand) -> Result<(), Exit> {
        block_on(self.answer(errand))
    }

    async fn answer(self, errand: Errand) -> Result<(), Exit> {
        let config = self.config.load()?;
        let clients = Clients::new(&daemon::place(&config.aws)).await?;
        let desk = clients.table(&config.table).desk().await?;
        let notices = match errand {
            Errand::Explain => notices(&desk).await?,
            _ => Notices::default(),
        };
        // The table's own time, if it has told one.
        let office = Office { desk, config, notices, now: clients.clock().now() };
        let mut ids = Vec::new();
        for text in &self.ids {
            ids.push(office.desk.id(text).map_err(Exit::usage)?);
        }
        let mut failures = 0;
        for id in &ids {
            let answer = office.about(errand, id).await?;
            failures += u32::from(!answer.is_good);
            match self.speech.json {
                true => say(&answer.json)?,
                // It has lines of its own, each of which is plain.
                false if errand == Errand::Show => say(&answer.words)?,
                false => say(plain::one_line(&answer.words))?,
            }
        }
        if self.speech.verbose {
            cost::tell(office.desk.consumed());
        }
        match failures {
            0 => Ok(()),
            _ => {
                let so = match errand {
                    Errand::Show | Errand::Explain => "not there",
                    Errand::Change(_) => "not done",
                };
                Err(Exit::data(format!("{failures} of {} {so}", ids.len())))
            }
        }
    }
}

/// What is told on the control item. Without it there is less to say, and still something.
pub(super) async fn notices(desk: &Desk) -> Result<Notices, StoreError> {
    match desk.control().read().await {
        Err(StoreError::Refused(fault)) => {
            eprintln!("what daemons and people have told cannot be read: {fault}");
            Ok(Notices::default())
        }
        read_or_away => read_or_away,
    }
}

/// What is said of a task.
struct Answer {
    words: String,
    json: Value,
    is_good: bool,
}

impl Office {
    fn circumstances<'a>(&'a self, record: &'a Record) -> Circumstances<'a> {
        let Office { config, notices, now, .. } = self;
        Circumstances { record, config, notices, now: *now }
    }

    async fn about(&self, errand: Errand, id: &TaskId) -> Result<Answer, StoreError> {
        let record = self.desk.read(id);
        Ok(match errand {
            Errand::Show => record
                .await?
                .map_or_else(|| missing(id), |record| show::answer(id, &record, self.now)),
            Errand::Explain => record.await?.map_or_else(
                || missing(id),
                |record| explain::answer(id, &self.circumstances(&record)),
            ),
            Errand::Change(Wish::Retry) => retried(id, self.desk.retry(id, self.now).await?),
            Errand::Change(Wish::Cancel) => {
                cancelled(id, self.desk.cancel(id, self.now).await?, self.now)
            }
        })
    }
}

fn missing(id: &TaskId) -> Answer {
    answer(id, false, "missing", "there is no such task")
}

fn answer(id: &TaskId, is_good: bool, outcome: &str, words: &str) -> Answer {
    let json = json!({ "id": id.to_string(), "outcome": outcome, "message": words });
    Answer { words: format!("{id}: {words}"), json, is_good }
}

fn retried(id: &TaskId, changed: Changed) -> Answer {
    match changed {
        Changed::Made(before) => {
            let words = match before.is_final() {
                true => "is due now, and begins again at its first attempt",
                false => "is due now; its attempts count on",
            };
            answer(id, true, "retried", words)
        }
        Changed::Refused(record) if record.status() == Some(Status::Running.as_str()) => {
            answer(id, false, "running", "is running; it was left alone. Cancel it first, or wait")
        }
        Changed::Refused(record) => {
            let status = record.status().unwrap_or("none");
            let words =
                format!("was left alone: it changes just now, or its status ({status}) is none");
            answer(id, false, "refused", &words)
        }
        Changed::Missing => missing(id),
    }
}

/// Whether a task that was cancelled runs on, to judge by its item before that; or after it, where
/// a reply was lost: a task that is cancelled keeps its lease.
fn runs_on(record: &Record, now: Timestamp) -> bool {
    let lease = record.moment("lease_until").ok().flatten();
    match record.status().and_then(Status::parse) {
        Some(Status::Running) => lease.is_none_or(|until| until > now),
        Some(Status::Cancelled) => lease.is_some_and(|until| until > now),
        _ => false,
    }
}

fn cancelled(id: &TaskId, changed: Changed, now: Timestamp) -> Answer {
    match changed {
        Changed::Made(record) if runs_on(&record, now) => {
            let words =
                "is cancelled. Its function runs on in Lambda; what it returns is discarded";
            answer(id, true, "cancelled", words)
        }
        Changed::Made(_) => answer(id, true, "cancelled", "is cancelled"),
        Changed::Refused(record) => {
            let status = record.status().unwrap_or_default();
            answer(id, false, "ended", &format!("has ended ({status}); it was left as it is"))
        }
        Changed::Missing => missing(id),
    }
}

/// A moment as people read it.
pub(super) fn time(at: Timestamp) -> String {
    let millis = i64::try_from(at.as_millis()).ok();
    let time = millis.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    time.map_or_else(|| format!("{at} s"), |time| format!("{time:.3}"))
}

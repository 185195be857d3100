//! `burstd pause` and `burstd resume`: people's wishes about whole queues, kept in the table.

use clap::Args;
use serde_json::json;

use super::exit::{Exit, say};
use super::tasks::time;
use super::{ConfigFile, Speech, block_on, cost, person, plain, unknown_queue};
use crate::aws::Clients;
use crate::daemon;
use crate::notices::Pause;

/// What both commands take.
#[derive(Args)]
pub(super) struct Queues {
    #[command(flatten)]
    config: ConfigFile,
    /// A queue of the configuration
    #[arg(value_name = "QUEUE", required = true)]
    queues: Vec<String>,
    #[command(flatten)]
    speech: Speech,
}

/// What is wished of the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Pause,
    Resume,
}

impl Queues {
    pub(super) fn run(self, wish: Wish) -> Result<(), Exit> {
        block_on(self.wish(wish))
    }

    async fn wish(self, wish: Wish) -> Result<(), Exit> {
        let config = self.config.load()?;
        let mut unknown = self.queues.iter().filter(|queue| config.queue(queue).is_none());
        // A pause may outlast its queue in the configuration, and is to be lifted all the same.
        if let (Wish::Pause, Some(queue)) = (wish, unknown.next()) {
            return Err(unknown_queue(&config, queue));
        }
        let clients = Clients::new(&daemon::place(&config.aws)).await?;
        let control = clients.table(&config.table).control().await?;
        let pause = Pause { since: clients.clock().now(), by: person() };
        for queue in &self.queues {
            let (outcome, pause, words) = match wish {
                Wish::Pause => {
                    let stands = control.pause(queue, &pause).await?;
                    let outcome = if stands == pause { "paused" } else { "paused_before" };
                    let words = match outcome {
                        "paused" => "is paused: within seconds nothing more of it is started. \
                                     What runs goes on"
                            .to_owned(),
                        _ => format!(
                            "has been paused since {}, by {}; that stands",
                            time(stands.since),
                            stands.by
                        ),
                    };
                    (outcome, Some(stands), words)
                }
                Wish::Resume => match control.resume(queue).await? {
                    Some(before) => {
                        let words = format!(
                            "goes on within seconds. It was paused since {}, by {}",
                            time(before.since),
                            before.by
                        );
                        ("resumed", Some(before), words)
                    }
                    None if config.queue(queue).is_none() => {
                        return Err(unknown_queue(&config, queue));
                    }
                    None => ("not_paused", None, "was not paused".to_owned()),
                },
            };
            match self.speech.json {
                true => say(json!({
                    "queue": queue,
                    "outcome": outcome,
                    "since": pause.as_ref().map(|pause| pause.since.as_millis() as f64 / 1e3),
                    "by": pause.as_ref().map(|pause| pause.by.as_str()),
                    "message": words,
                }))?,
                false => say(plain::one_line(&format!("{queue}: {words}")))?,
            }
        }
        if self.speech.verbose {
            cost::tell(control.consumed());
        }
        Ok(())
    }
}

//! `burstd doctor`: tries whether all that the daemon needs is there. It works over the table and
//! AWS's APIs alone, whether or not a daemon is up, and changes nothing.

mod findings;
mod functions;
mod line;
mod place;
mod table;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal as _, stdout};
use std::time::Duration;

use clap::Args;

use super::exit::{Exit, say};
use super::{ConfigFile, Speech, block_on, cost};
use crate::config::Config;
use findings::Findings;
use line::{Blame, Check, Line, Verdict, paragraphs};

const HELP: &str = "\
Each line says ok, warn or fail, what was looked at, what was found and, after
->, what to do. The exit code is 0 unless something failed; then it is by what
failed first: 78 the configuration, table or function, 77 a right, 69 the way
to AWS or the credentials. What could not be tried is a warning.";

/// Try whether all that the daemon needs is there, without changing anything
#[derive(Args)]
#[command(after_help = HELP)]
pub(super) struct Doctor {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    speech: Speech,
}

impl Doctor {
    pub(super) fn run(self) -> Result<(), Exit> {
        block_on(self.examine())
    }

    async fn examine(self) -> Result<(), Exit> {
        let config = self.config.load()?;
        let (findings, consumed) = Findings::find(&config).await;
        let path = self.config.config.display().to_string();
        let lines = [vec![configuration(&path, &config)], judge(&config, &findings)].concat();
        let is_for_people = stdout().is_terminal();
        match self.speech.json {
            true => lines.iter().try_for_each(|line| say(line.json()))?,
            false => paragraphs(&lines).iter().try_for_each(|paragraph| {
                say(if is_for_people { paragraph.wrapped() } else { paragraph.text() })
            })?,
        }
        if self.speech.verbose {
            cost::tell(consumed);
        }
        let count = |word| lines.iter().filter(|line| line.verdict.word() == word).count();
        if !self.speech.json {
            let not_tried = lines.iter().filter(|line| line.lacks.is_some()).count();
            let warn = count("warn") - not_tried;
            let counts = format!("{} ok, {warn} warn, {} fail", count("ok"), count("fail"));
            match not_tried {
                0 => say(counts)?,
                _ => say(format_args!("{counts}, {not_tried} not tried"))?,
            }
        }
        let first = lines.iter().find_map(|line| match line.verdict {
            Verdict::Fail(blame) => Some(blame),
            Verdict::Ok | Verdict::Warn => None,
        });
        let message = format!("{} of {} checks failed", count("fail"), lines.len());
        match first {
            None => Ok(()),
            Some(Blame::Configuration) => Err(Exit::wrong_thing(message)),
            Some(Blame::Right) => Err(Exit::no_permission(message)),
            Some(Blame::Way) => Err(Exit::unavailable(message)),
        }
    }
}

/// What `burstd check` says, too.
fn configuration(path: &str, config: &Config) -> Line {
    let queues: Vec<_> = config.queues.iter().map(|queue| queue.name.as_str()).collect();
    let most = config.limits.max_in_flight;
    let found = format!("valid; at most {most} in flight, queues: {}", queues.join(", "));
    Check::of("configuration").about(path).ok(found)
}

/// What is to be said of all that was found.
fn judge(config: &Config, findings: &Findings) -> Vec<Line> {
    let mut lines = vec![
        place::descriptors(config, findings.machine),
        place::memory(config, findings.machine),
        place::region(&findings.region),
        place::credentials(findings),
        place::identity(findings),
        place::endpoint(place::DYNAMODB, findings, config),
        place::clock(findings.clock),
    ];
    lines.extend(table::lines(config, &findings.table));
    lines.push(place::endpoint(place::LAMBDA, findings, config));
    for (name, function) in &findings.functions {
        lines.extend(functions::lines(config, name, function));
    }
    lines.extend(functions::account(config, findings));
    lines.extend(config.queues.iter().map(|queue| functions::lease(queue, findings)));
    lines.push(place::stop(config, functions::longest(config, findings)));
    lines
}

/// A span as people read it.
fn time(span: Duration) -> String {
    humantime::format_duration(span).to_string()
}

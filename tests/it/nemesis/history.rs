//! What happened, from three sources that must agree: the table, the record of what was executed,
//! and the daemons' logs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};

use super::MAX_ATTEMPTS;
use super::daemons::Log;
use super::executions::Execution;
use crate::support::world::{Item, n, outcomes, s, text};

/// A task, by name, and one of its attempts.
type Attempt = (String, u32);

pub struct History {
    items: Vec<Item>,
    executions: BTreeMap<String, Vec<Execution>>,
    /// Attempts whose end a log tells.
    told: BTreeSet<Attempt>,
    /// How often a log tells that a task has ended.
    ends: BTreeMap<String, usize>,
    /// Workers that were killed, and may have left something unsaid.
    killed: BTreeSet<String>,
    starts: usize,
    refused: usize,
    panics: Vec<String>,
}

impl History {
    pub fn new(items: Vec<Item>, executions: Vec<Execution>, logs: Vec<Log>) -> Self {
        let mut history = History {
            items,
            executions: BTreeMap::new(),
            told: BTreeSet::new(),
            ends: BTreeMap::new(),
            killed: BTreeSet::new(),
            starts: logs.len(),
            refused: 0,
            panics: Vec::new(),
        };
        for execution in executions {
            history.executions.entry(execution.task.clone()).or_default().push(execution);
        }
        for log in logs {
            history.read(log);
        }
        history
    }

    fn read(&mut self, log: Log) {
        for line in log.lines {
            // The last line of a killed process may be half a line.
            let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
            if log.was_killed
                && let Some(worker) = line["worker"].as_str()
            {
                self.killed.insert(worker.to_owned());
            }
            let task = line["task_id"].as_str().unwrap_or_default().to_owned();
            let number = |field: &str| {
                line[field].as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
            };
            match line["event"].as_str().unwrap_or_default() {
                "task.succeeded" | "task.failed" => {
                    *self.ends.entry(task.clone()).or_default() += 1;
                    self.told.insert((task, number("attempt")));
                }
                "task.attempt_failed" => {
                    self.told.insert((task, number("attempt")));
                }
                "task.write_refused" => {
                    self.refused += 1;
                    self.told.insert((task, number("attempt")));
                }
                "task.rescued" => {
                    self.told.insert((task, number("previous_attempt")));
                }
                "daemon.panic" | "task.unwritable" => self.panics.push(line.to_string()),
                _ => {}
            }
        }
    }

    /// Holds it to every promise.
    pub fn check(&self, tasks: u64) {
        let mut broken = self.panics.clone();
        if self.items.len() as u64 != tasks {
            broken.push(format!("{} tasks were inserted, {} are there", tasks, self.items.len()));
        }
        for item in &self.items {
            let id = text(item, "id");
            broken.extend(self.breaches(item, &id).into_iter().map(|what| format!("{id}: {what}")));
        }
        broken.truncate(20);
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    /// What is wrong with one task.
    fn breaches(&self, item: &Item, id: &str) -> Vec<String> {
        let mut broken = Vec::new();
        let status = text(item, "status");
        if !["SUCCEEDED", "FAILED"].contains(&status.as_str()) || item.contains_key("due") {
            broken.push(format!("it never ended: {status:?}"));
        }
        if id.starts_with("poison") && status == "SUCCEEDED" {
            broken.push("it succeeded, and cannot".to_owned());
        }
        let attempts: u32 = text(item, "attempt").parse().unwrap_or_default();
        let none = Vec::new();
        let executions = self.executions.get(id).unwrap_or(&none);
        if executions.len() > attempts as usize || attempts > MAX_ATTEMPTS {
            let ran = executions.len();
            broken.push(format!("{ran} executions, {attempts} attempts of {MAX_ATTEMPTS}"));
        }
        if status == "SUCCEEDED" && executions.is_empty() {
            broken.push("it succeeded without an execution".to_owned());
        }
        for pair in executions.windows(2) {
            if pair[0].ended.is_none_or(|ended| ended > pair[1].began) {
                broken.push(format!("two executions overlap: {pair:?}"));
            }
            if pair[0].attempt >= pair[1].attempt {
                broken.push(format!("an attempt ran twice, or late: {pair:?}"));
            }
        }
        if self.ends.get(id).copied().unwrap_or_default() > 1 {
            broken.push("the logs tell of two ends".to_owned());
        }
        let told = outcomes(item).len();
        if told != attempts as usize {
            broken.push(format!("{attempts} attempts, and {told} in its history"));
        }
        for attempt in 1..=attempts {
            let execution = executions.iter().find(|execution| execution.attempt == attempt);
            // Who is killed says no more; who was killed before the start left no trace at all.
            let excused = execution.is_none_or(|execution| self.killed.contains(&execution.worker));
            if !excused && !self.told.contains(&(id.to_owned(), attempt)) {
                broken.push(format!("no log tells of attempt {attempt}: {execution:?}"));
            }
        }
        broken
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let executions: usize = self.executions.values().map(Vec::len).sum();
        let failed = self.items.iter().filter(|item| text(item, "status") == "FAILED").count();
        write!(
            f,
            "{} tasks, {failed} of them failed for good; {executions} executions; {} starts of the \
             program, {} ended by a kill; {} stale writes refused",
            self.items.len(),
            self.starts,
            self.killed.len(),
            self.refused
        )
    }
}

/// What a history of one task, `t`, is made of.
struct Told {
    status: &'static str,
    attempts: u32,
    /// Attempt, and the seconds between which it ran.
    ran: Vec<(u32, u64, u64)>,
    /// Events of the log, and the attempt.
    said: Vec<(&'static str, u32)>,
}

impl Told {
    /// A task that failed once and then succeeded, as it should be told.
    fn well() -> Self {
        Told {
            status: "SUCCEEDED",
            attempts: 2,
            ran: vec![(1, 0, 1), (2, 2, 3)],
            said: vec![("task.attempt_failed", 1), ("task.succeeded", 2)],
        }
    }

    fn breaches(self) -> Vec<String> {
        let attempt = || AttributeValue::M(HashMap::new());
        let history = (0..self.attempts).map(|_| attempt()).collect();
        let item = Item::from([
            ("id".to_owned(), s("t")),
            ("status".to_owned(), s(self.status)),
            ("attempt".to_owned(), n(self.attempts)),
            ("history".to_owned(), AttributeValue::L(history)),
        ]);
        let zero = Instant::now();
        let at = |seconds| zero + Duration::from_secs(seconds);
        let executions = self.ran.into_iter().map(|(attempt, began, ended)| Execution {
            task: "t".to_owned(),
            attempt,
            worker: "w".to_owned(),
            began: at(began),
            ended: Some(at(ended)),
        });
        let lines = self.said.into_iter().map(|(event, attempt)| {
            json!({ "event": event, "worker": "w", "task_id": "t", "attempt": attempt }).to_string()
        });
        let log = Log { lines: lines.collect(), was_killed: false };
        let history = History::new(vec![item.clone()], executions.collect(), vec![log]);
        history.breaches(&item, "t")
    }
}

#[test]
fn a_history_as_it_should_be_is_found_good() {
    assert_eq!(Told::well().breaches(), Vec::<String>::new());
}

#[test]
fn each_broken_promise_is_found_in_a_history() {
    let well = Told::well;
    for (told, found) in [
        (Told { status: "RUNNING", ..well() }, "never ended"),
        (Told { attempts: 1, ..well() }, "2 executions, 1 attempts"),
        (Told { attempts: MAX_ATTEMPTS + 1, ..well() }, "7 attempts of 6"),
        (Told { ran: Vec::new(), ..well() }, "without an execution"),
        (Told { ran: vec![(1, 0, 3), (2, 2, 4)], ..well() }, "overlap"),
        (Told { ran: vec![(1, 0, 1), (1, 2, 3)], ..well() }, "ran twice"),
        (Told { ran: vec![(2, 0, 1), (1, 2, 3)], ..well() }, "or late"),
        (Told { said: vec![("task.succeeded", 2)], ..well() }, "no log tells of attempt 1"),
        (
            Told { said: vec![("task.succeeded", 1), ("task.succeeded", 2)], ..well() },
            "tell of two ends",
        ),
    ] {
        let breaches = told.breaches();
        assert!(breaches.iter().any(|breach| breach.contains(found)), "{found}: {breaches:?}");
    }
}

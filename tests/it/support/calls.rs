//! The record of what the Lambda endpoint ran.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use burstd::local::lambda::{Answer, Call, LocalFunction};

use super::program::CANARY;

/// One execution, as the endpoint saw it.
#[derive(Clone, Debug)]
pub struct Execution {
    pub call: Call,
    pub task: String,
    pub attempt: u32,
    pub began: Instant,
    /// Nothing while it runs.
    pub ended: Option<Instant>,
}

/// Everything that was executed, in the order it began.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Mutex<Vec<Execution>>>);

impl Calls {
    /// A function that does `code` and is recorded. The words of its errors must not be logged.
    pub fn function<F, R>(&self, timeout: Duration, code: F) -> LocalFunction
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        let calls = self.clone();
        let code = Arc::new(code);
        LocalFunction::new(timeout, move |call: Call| {
            let (calls, code) = (calls.clone(), code.clone());
            async move {
                let execution = EndOnDrop { index: calls.begin(&call), calls };
                let mut answer = code(call).await;
                if let Answer::Raised { message, .. } = &mut answer {
                    message.push_str(CANARY);
                }
                drop(execution);
                answer
            }
        })
    }

    pub fn all(&self) -> Vec<Execution> {
        self.0.lock().expect("no test panics with it").clone()
    }

    pub fn count(&self) -> usize {
        self.0.lock().expect("no test panics with it").len()
    }

    pub fn of(&self, task: &str) -> Vec<Execution> {
        self.all().into_iter().filter(|execution| execution.task == task).collect()
    }

    /// No task ran twice at the same moment.
    pub fn assert_no_overlap(&self) {
        let mut by_task: BTreeMap<String, Vec<Execution>> = BTreeMap::new();
        for execution in self.all() {
            by_task.entry(execution.task.clone()).or_default().push(execution);
        }
        for (task, executions) in by_task {
            for pair in executions.windows(2) {
                let ended = pair[0].ended.expect("what ran before has ended");
                assert!(
                    ended <= pair[1].began,
                    "task {task} ran twice at once: attempt {} beside attempt {}",
                    pair[0].attempt,
                    pair[1].attempt
                );
            }
        }
    }

    fn begin(&self, call: &Call) -> usize {
        let context = call.context.as_ref();
        let mut calls = self.0.lock().expect("no test panics with it");
        calls.push(Execution {
            task: context.map(|context| context.task_id.clone()).unwrap_or_default(),
            attempt: context.map_or(0, |context| context.attempt),
            call: call.clone(),
            began: Instant::now(),
            ended: None,
        });
        calls.len() - 1
    }
}

struct EndOnDrop {
    calls: Calls,
    index: usize,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let mut calls = self.calls.0.lock().expect("no test panics with it");
        calls[self.index].ended = Some(Instant::now());
    }
}

//! One execution environment: a process of the user's function, which asks for events over the
//! Lambda Runtime API at a port of its own, as in Lambda
//! (docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).
//!
//! One task owns all there is of it: the process, its connections, its output, and the invocation
//! that it is at. The clock of an invocation begins when its event is handed out; that of the
//! initialisation when the process starts.

use std::io;
use std::net::Ipv4Addr;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;
use tokio::net::TcpListener;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::ending::{exit_words, failed, not_started, refused};
use super::environments::Environments;
use super::lambda::{Answer, Call, Ended};
use super::limits;
use super::output::Output;
use super::process;
use super::runtime_api::{self, Event, Heard, Request};

/// How long a process may take until it first asks for an event. Lambda, too, then goes on within
/// the function's own timeout
/// (docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html).
const INITIALISATION: Duration = Duration::from_secs(10);

/// How long a process may take at the least to ask for the next event after it has answered. It may
/// use up the invocation's time for it, as in Lambda.
const COMING_BACK: Duration = Duration::from_secs(2);

/// When a connection could not be accepted, it is tried again after this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);

/// An event for an environment.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) call: Arc<Call>,
    /// When it is later than this, the event is not handed out.
    pub(super) latest: Instant,
    /// Dropped without an answer when the environment ended before it took the event.
    pub(super) answer: oneshot::Sender<Ended>,
}

/// Where the jobs of an environment go.
pub(super) type Jobs = mpsc::UnboundedSender<Job>;

/// Whether an environment has begun well: where its jobs go, or what its first caller is told.
pub(super) type Begun = Result<Jobs, Ended>;

/// An environment that lives.
struct Environment {
    of: Arc<Environments>,
    child: Child,
    group: Option<Pid>,
    output: Output,
    began: Instant,
    /// How long the initialisation took, until somebody is billed for it.
    init: Option<Duration>,
    phase: Phase,
    /// The first caller, who waits for the initialisation.
    first: Option<(Arc<Call>, oneshot::Sender<Begun>)>,
    own_jobs: Jobs,
}

/// What it is at.
enum Phase {
    /// It has not asked for an event yet.
    Initialising,
    /// It has asked for an event.
    Waiting(Heard, Instant),
    /// It has one.
    Busy(Current),
    /// It has said that it cannot begin, and has until then to end.
    Broken(Instant),
    /// It has answered, and may take until then to ask for the next one.
    ComingBack(Instant),
}

/// The invocation that it is at.
struct Current {
    call: Arc<Call>,
    began: Instant,
    answer: oneshot::Sender<Ended>,
}

/// Starts an environment and lives for it. `first` hears when it is ready, or why it is not.
pub(super) async fn live(of: Arc<Environments>, call: Arc<Call>, first: oneshot::Sender<Begun>) {
    let (own_jobs, mut jobs) = mpsc::unbounded_channel();
    let (listener, child, output) = match start(&of).await {
        Ok(started) => started,
        Err(error) => {
            // Nobody waits for it any more: that is no loss.
            first.send(Err(not_started(&call, &of.name, &error))).ok();
            return;
        }
    };
    let mut environment = Environment {
        of,
        group: process::group(&child),
        child,
        output,
        began: Instant::now(),
        init: None,
        phase: Phase::Initialising,
        first: Some((call, first)),
        own_jobs,
    };
    let (tell, mut requests) = mpsc::unbounded_channel();
    let mut connections = JoinSet::new();
    let mut accepts_from = Instant::now();
    let end = loop {
        let is_waiting = matches!(environment.phase, Phase::Waiting(..));
        let until = environment.until();
        tokio::select! {
            biased;
            Some(request) = requests.recv() => environment.hear(request),
            // No event is for a process that has ended.
            status = environment.child.wait() => break End::Exited(status),
            Some(job) = jobs.recv(), if is_waiting => environment.hand_out(job),
            accepted = listener.accept(), if accepts_from <= Instant::now() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(runtime_api::serve(stream, tell.clone()));
                }
                // Out of descriptors, most likely: it is accepted when there are some again.
                Err(_) => accepts_from = Instant::now() + ACCEPT_AGAIN,
            },
            () = sleep_until(until) => break End::Late,
            () = environment.output.more() => {}
            Some(_) = connections.join_next() => {}
            () = sleep_until(accepts_from), if accepts_from > Instant::now() => {}
        }
    };
    // Who finds it in the pool from now on, finds that it is closed; and what it was given and has
    // not taken up, another one gets.
    drop(jobs);
    environment.end(&end);
}

/// Why an environment ends.
enum End {
    /// Its process has ended by itself.
    Exited(io::Result<ExitStatus>),
    /// It took too long, or nobody wants it any more.
    Late,
}

async fn start(of: &Environments) -> io::Result<(TcpListener, Child, Output)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (reader, writer) = io::pipe()?;
    let child = process::start(of, listener.local_addr()?, writer)?;
    Ok((listener, child, Output::new(of.name.clone(), reader)?))
}

impl Environment {
    /// Until when it may stay as it is.
    fn until(&self) -> Instant {
        match &self.phase {
            Phase::Initialising => self.began + INITIALISATION + self.of.program.timeout,
            Phase::Waiting(_, since) => *since + self.of.host.idle_time(),
            Phase::Busy(current) => current.began + self.of.program.timeout,
            Phase::ComingBack(until) | Phase::Broken(until) => *until,
        }
    }

    fn hear(&mut self, request: Request) {
        let Request { event, heard } = request;
        match event {
            Event::Next => self.waits(heard),
            Event::InitError(payload) => {
                self.never_begins(|_| Answer::Errored(payload));
                if let Phase::Initialising = self.phase {
                    self.phase = Phase::Broken(Instant::now() + COMING_BACK);
                }
                heard.accepted();
            }
            Event::Answer { request_id, answer } => self.answers(&request_id, answer, heard),
        }
    }

    /// It asks for an event.
    fn waits(&mut self, heard: Heard) {
        let message = match self.phase {
            // It forgot to answer, and never will.
            Phase::Busy(_) => {
                Some("the runtime asked for an event before it had answered the last one")
            }
            Phase::Broken(_) => Some("the runtime has said that it cannot begin"),
            Phase::Initialising | Phase::Waiting(..) | Phase::ComingBack(_) => None,
        };
        if let Some(message) = message {
            heard.refused(403, "InvalidStateTransition", message);
            return;
        }
        let before = std::mem::replace(&mut self.phase, Phase::Waiting(heard, Instant::now()));
        let jobs = self.own_jobs.clone();
        match (before, self.first.take()) {
            (_, Some((_, first))) => {
                self.init = Some(self.began.elapsed());
                if first.send(Ok(jobs.clone())).is_err() {
                    self.of.freed(jobs);
                }
            }
            (Phase::ComingBack(_), None) => {
                self.of.has_come_back();
                self.of.freed(jobs);
            }
            // It asks again: the first request has nobody behind it any more, most likely.
            (Phase::Waiting(heard, _), None) => {
                let message = "another request for the next event has taken the place of this one";
                heard.refused(403, "InvalidStateTransition", message);
            }
            (Phase::Initialising | Phase::Busy(_) | Phase::Broken(_), None) => {
                unreachable!("who initialises has a first caller, and the others were refused")
            }
        }
    }

    /// Tells the first caller that it cannot begin. Lambda bills that, too.
    fn never_begins(&mut self, answer: impl FnOnce(&Call) -> Answer) {
        let Some((call, first)) = self.first.take() else { return };
        let answer = answer(&call);
        let init = Some(self.began.elapsed());
        let report = self.of.bill(Duration::ZERO, init, &call.request_id, &answer);
        let log = self.output.finish(&call.request_id) + &report;
        // Nobody waits for it any more: that is no loss.
        first.send(Err(Ended { answer, log })).ok();
    }

    fn hand_out(&mut self, job: Job) {
        let Job { call, latest, answer } = job;
        let now = Instant::now();
        if now > latest {
            answer.send(refused(limits::shared_limit())).ok();
            self.forget_slow_start();
            self.of.freed(self.own_jobs.clone());
            return;
        }
        // What its initialisation took beyond its own time it has had of the invocation's.
        let over = self.init.map_or(Duration::ZERO, |init| init.saturating_sub(INITIALISATION));
        let timeout = self.of.program.timeout;
        let began = now.checked_sub(over.min(timeout)).unwrap_or(now);
        let coming_back = Phase::ComingBack(now + COMING_BACK);
        let Phase::Waiting(heard, _) = std::mem::replace(&mut self.phase, coming_back) else {
            unreachable!("jobs are taken while it waits");
        };
        if heard.is_gone() {
            // Its connection broke. It may ask again; another one gets the event.
            self.forget_slow_start();
            self.of.comes_back();
            return;
        }
        self.phase = Phase::Busy(Current { call: call.clone(), began, answer });
        self.output.begin(&call.request_id);
        heard.event(&call, timeout.saturating_sub(over));
    }

    /// The invocation for which it began is not to be: no other one has to make up for what that
    /// took.
    fn forget_slow_start(&mut self) {
        self.init = self.init.map(|init| init.min(INITIALISATION));
    }

    /// It answers an invocation: the one that it is at, or its answer is refused.
    fn answers(&mut self, request_id: &str, answer: Answer, heard: Heard) {
        match std::mem::replace(&mut self.phase, Phase::Initialising) {
            Phase::Busy(current) if current.call.request_id == request_id => {
                let until = current.began + self.of.program.timeout;
                self.phase = Phase::ComingBack(until.max(Instant::now() + COMING_BACK));
                if let Answer::TooLarge = answer {
                    let words = "Exceeded maximum allowed payload size (6291556 bytes).";
                    heard.refused(413, "RequestEntityTooLarge", words);
                } else {
                    heard.accepted();
                }
                self.of.comes_back();
                self.finish(current, answer);
            }
            other => {
                self.phase = other;
                heard.refused(400, "InvalidRequestID", "Invalid request ID");
            }
        }
    }

    /// Tells the caller how an invocation ended.
    fn finish(&mut self, current: Current, answer: Answer) {
        let Current { call, began, answer: tell } = current;
        // What was taken of the invocation's time is billed with that.
        let init = self.init.take().map(|init| init.min(INITIALISATION));
        let report = self.of.bill(began.elapsed(), init, &call.request_id, &answer);
        let mut log = self.output.finish(&call.request_id);
        log += &report;
        tell.send(Ended { answer, log }).ok();
    }

    /// Ends it: the process, and all that it has started in its group.
    fn end(mut self, end: &End) {
        self.kill();
        let (error_type, words) = match end {
            End::Exited(Ok(status)) if self.is_no_program(*status) => {
                ("Runtime.InvalidEntrypoint", "its program cannot be run".to_owned())
            }
            End::Exited(status) => ("Runtime.ExitError", exit_words(status)),
            End::Late => {
                let timeout = self.of.program.timeout.as_secs_f64();
                ("Sandbox.Timedout", format!("Task timed out after {timeout:.2} seconds"))
            }
        };
        self.never_begins(|call| failed(call, error_type, &words).answer);
        match std::mem::replace(&mut self.phase, Phase::Initialising) {
            Phase::Busy(current) => {
                let Ended { answer, .. } = failed(&current.call, error_type, &words);
                self.finish(current, answer);
            }
            Phase::ComingBack(_) => {
                self.of.has_come_back();
                self.ended_alone(match end {
                    End::Exited(_) => &words,
                    End::Late => "it did not ask for the next event in time, and was killed",
                });
            }
            Phase::Waiting(..) if matches!(end, End::Exited(_)) => self.ended_alone(&words),
            Phase::Initialising | Phase::Broken(_) | Phase::Waiting(..) => {}
        }
        self.output.rest();
        self.of.gone();
    }

    /// Whether the process never became the function's program.
    fn is_no_program(&self, status: ExitStatus) -> bool {
        matches!(self.phase, Phase::Initialising)
            && status.code() == Some(process::NO_PROGRAM.into())
    }

    /// Says how a process ended that had no invocation which could tell.
    fn ended_alone(&self, reason: &str) {
        warn!(
            event = "function.ended",
            function = self.of.name,
            reason,
            "its process ended between two invocations; the next one gets another"
        );
    }

    fn kill(&mut self) {
        if let Some(group) = self.group.take() {
            process::kill(group);
        }
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        self.kill();
    }
}

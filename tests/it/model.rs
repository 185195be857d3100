//! The claim protocol as a model, searched to its last state: one task, two workers, requests and
//! replies that get lost, crashes, leases that end, a person who cancels or begins anew.
//!
//! Time is a lease's stage: *fresh*, the function may be started; *late*, it may run on but not be
//! started; *over*, the function has surely ended and anybody may claim. Faults are bounded, what
//! mends them is not.

use stateright::{Checker as _, HasDiscoveries, Model, Property};

const WORKERS: u8 = 2;
const MAX_ATTEMPTS: u8 = 2;

/// What is wrong with the protocol, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// Writes under a claim do not ask for its token.
    NoFence,
    /// A worker's claims all have the same token.
    TokenIsTheWorker,
    /// A write that finds itself applied believes that somebody else was there.
    OwnWriteUnrecognised,
    /// An attempt is counted when it ends, not when it is claimed.
    CountedAtTheEnd,
    /// A lease is trusted as if it began when the claim's reply came.
    TrustedFromTheReply,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Status {
    Pending,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Fresh,
    Late,
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Verdict {
    Succeed,
    /// Tried again, or failed for good if it was the last attempt.
    Again,
    Release,
    Exhausted,
    /// Nobody knows; left to its lease.
    Hold,
}

/// A request on its way to the table, or its reply on the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    Claim { worker: u8, token: u8 },
    Settle { worker: u8, held: u8, token: u8, verdict: Verdict },
    Claimed { worker: u8, token: u8, won: Option<u8> },
    Settled { worker: u8, token: u8, applied: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Claiming { token: u8 },
    Holding { token: u8, attempt: u8 },
    Invoking { token: u8, attempt: u8 },
    Settling { held: u8, token: u8, verdict: Verdict },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    status: Status,
    attempt: u8,
    token: u8,
    /// Of the lease on the item.
    stage: Stage,
    workers: [Phase; WORKERS as usize],
    messages: Vec<Message>,
    /// Claims whose function runs at this moment, and how many ran at all.
    runs: Vec<u8>,
    ran: u8,
    next_token: u8,
    /// Faults that may still happen.
    losses: u8,
    crashes: u8,
    unknowns: u8,
    meddles: u8,
    /// Times that a worker is too slow for its lease, or stops before a start.
    delays: u8,
    /// What must never be, noted as it happens.
    ends: u8,
    is_touched: bool,
    wrote_unheld: bool,
    ran_beside: bool,
    /// Attempts that may have been spent without a run: somebody crashed, or was too slow.
    excused: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Claim(u8),
    Resend(u8),
    Deliver(Message),
    Lose(Message),
    Start(u8),
    GiveBack(u8),
    End { worker: u8, well: bool },
    BreakOff(u8),
    FunctionEnds(u8),
    Age,
    Crash(u8),
    Cancel,
    BeginAnew,
}

struct Protocol {
    flaw: Flaw,
    losses: u8,
    crashes: u8,
}

impl Protocol {
    fn token(&self, state: &mut State, worker: u8) -> u8 {
        if self.flaw == Flaw::TokenIsTheWorker {
            return 100 + worker;
        }
        state.next_token += 1;
        state.next_token
    }

    fn is_claimable(&self, state: &State) -> bool {
        match state.status {
            Status::Pending => true,
            Status::Running => state.stage == Stage::Over,
            _ => false,
        }
    }

    /// The table takes a claim, or says who was there.
    fn claim(&self, state: &mut State, worker: u8, token: u8) {
        let is_own = state.token == token && state.status == Status::Running;
        let won = if is_own && self.flaw != Flaw::OwnWriteUnrecognised {
            Some(state.attempt)
        } else if self.is_claimable(state) {
            state.status = Status::Running;
            state.attempt += u8::from(self.flaw != Flaw::CountedAtTheEnd);
            (state.token, state.stage) = (token, Stage::Fresh);
            Some(state.attempt)
        } else {
            None
        };
        state.send(Message::Claimed { worker, token, won });
    }

    /// The table takes what became of a task, from who holds it.
    fn settle(&self, state: &mut State, worker: u8, held: u8, token: u8, verdict: Verdict) {
        let is_held = state.token == held && state.status == Status::Running;
        let is_own = state.token == token && held != token;
        let applied = if is_own && self.flaw != Flaw::OwnWriteUnrecognised {
            true
        } else if is_held || self.flaw == Flaw::NoFence {
            state.wrote_unheld |= !is_held;
            self.apply(state, verdict);
            if verdict == Verdict::Hold {
                // The lease stands, under a new token.
                state.runs.iter_mut().filter(|of| **of == held).for_each(|of| *of = token);
            }
            state.token = token;
            true
        } else {
            false
        };
        state.send(Message::Settled { worker, token, applied });
    }

    fn apply(&self, state: &mut State, verdict: Verdict) {
        let counts = matches!(verdict, Verdict::Succeed | Verdict::Again | Verdict::Hold);
        if self.flaw == Flaw::CountedAtTheEnd {
            state.attempt += u8::from(counts);
        }
        state.status = match verdict {
            Verdict::Succeed => Status::Succeeded,
            Verdict::Exhausted => Status::Failed,
            Verdict::Again if state.attempt >= MAX_ATTEMPTS => Status::Failed,
            Verdict::Hold if state.attempt >= MAX_ATTEMPTS => Status::Failed,
            Verdict::Hold => Status::Running,
            Verdict::Again | Verdict::Release => Status::Pending,
        };
        match verdict {
            Verdict::Release if self.flaw != Flaw::CountedAtTheEnd => {
                state.attempt = state.attempt.saturating_sub(1);
            }
            // Claims that found nothing left to try were no attempts.
            Verdict::Exhausted => state.attempt = state.attempt.min(MAX_ATTEMPTS),
            _ => {}
        }
        state.ends += u8::from(state.is_final());
    }
}

impl State {
    fn send(&mut self, message: Message) {
        self.messages.push(message);
        self.messages.sort();
    }

    fn receive(&mut self, message: Message) {
        let at = self.messages.iter().position(|it| *it == message).expect("it was on its way");
        self.messages.remove(at);
    }

    fn is_final(&self) -> bool {
        matches!(self.status, Status::Succeeded | Status::Failed | Status::Cancelled)
    }

    /// Numbers the tokens anew: which ones are the same matters, and nothing else.
    fn renumber(&mut self) {
        let mut seen = vec![0];
        let mut number = |token: &mut u8| {
            let known = seen.iter().position(|it| it == token);
            let index = known.unwrap_or_else(|| {
                seen.push(*token);
                seen.len() - 1
            });
            *token = u8::try_from(index).expect("there are few");
        };
        number(&mut self.token);
        for phase in &mut self.workers {
            match phase {
                Phase::Idle => {}
                Phase::Claiming { token }
                | Phase::Holding { token, .. }
                | Phase::Invoking { token, .. } => number(token),
                Phase::Settling { held, token, .. } => {
                    number(held);
                    number(token);
                }
            }
        }
        self.runs.iter_mut().for_each(&mut number);
        for message in &mut self.messages {
            match message {
                Message::Claim { token, .. }
                | Message::Claimed { token, .. }
                | Message::Settled { token, .. } => number(token),
                Message::Settle { held, token, .. } => {
                    number(held);
                    number(token);
                }
            }
        }
        self.messages.sort();
        self.runs.sort_unstable();
        self.next_token = u8::try_from(seen.len()).expect("there are few");
    }

    /// Whether a living worker is about to start or to settle under the item's claim.
    fn is_tended(&self) -> bool {
        self.workers.iter().any(|phase| match *phase {
            Phase::Claiming { token } | Phase::Holding { token, .. } => token == self.token,
            Phase::Settling { held, .. } => held == self.token,
            Phase::Idle | Phase::Invoking { .. } => false,
        })
    }

    /// Whether anything of this worker's current request is on its way.
    fn is_under_way(&self, worker: u8, wanted: u8) -> bool {
        self.messages.iter().any(|message| match *message {
            Message::Claim { worker: of, token }
            | Message::Settle { worker: of, token, .. }
            | Message::Claimed { worker: of, token, .. }
            | Message::Settled { worker: of, token, .. } => of == worker && token == wanted,
        })
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            status: Status::Pending,
            attempt: 0,
            token: 0,
            stage: Stage::Over,
            workers: [Phase::Idle; WORKERS as usize],
            messages: Vec::new(),
            runs: Vec::new(),
            ran: 0,
            next_token: 0,
            losses: self.losses,
            crashes: self.crashes,
            unknowns: 1,
            meddles: 1,
            delays: 1,
            ends: 0,
            is_touched: false,
            wrote_unheld: false,
            ran_beside: false,
            excused: 0,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for worker in 0..WORKERS {
            match state.workers[worker as usize] {
                Phase::Idle if self.is_claimable(state) => steps.push(Step::Claim(worker)),
                Phase::Idle => {}
                Phase::Claiming { token } | Phase::Settling { token, .. } => {
                    if !state.is_under_way(worker, token) {
                        steps.push(Step::Resend(worker));
                    }
                }
                Phase::Holding { token, .. } => {
                    let trusts = self.flaw == Flaw::TrustedFromTheReply;
                    let is_fresh = state.token == token && state.stage == Stage::Fresh;
                    if is_fresh || trusts {
                        steps.push(Step::Start(worker));
                    }
                    if !is_fresh || state.delays > 0 {
                        steps.push(Step::GiveBack(worker));
                    }
                }
                Phase::Invoking { token, .. } if state.runs.contains(&token) => {
                    steps.push(Step::End { worker, well: true });
                    steps.push(Step::End { worker, well: false });
                    if state.unknowns > 0 {
                        steps.push(Step::BreakOff(worker));
                    }
                }
                // The function has ended, and its answer was lost.
                Phase::Invoking { .. } => steps.push(Step::BreakOff(worker)),
            }
            if state.crashes > 0 && state.workers[worker as usize] != Phase::Idle {
                steps.push(Step::Crash(worker));
            }
        }
        for message in &state.messages {
            steps.push(Step::Deliver(*message));
            if state.losses > 0 {
                steps.push(Step::Lose(*message));
            }
        }
        // Functions whose callers have gone end by themselves, at their timeout at the latest.
        let waits = |token: &u8| {
            state
                .workers
                .iter()
                .any(|phase| matches!(phase, Phase::Invoking { token: of, .. } if of == token))
        };
        steps.extend(
            state.runs.iter().filter(|token| !waits(token)).map(|it| Step::FunctionEnds(*it)),
        );
        // A lease is over when a function that was started while it was fresh has ended. Started
        // later, it may outlive it.
        let may_be_over = state.stage == Stage::Late
            && (!state.runs.contains(&state.token) || self.flaw == Flaw::TrustedFromTheReply);
        let ages = state.stage == Stage::Fresh || may_be_over;
        if state.status == Status::Running && ages && (state.delays > 0 || !state.is_tended()) {
            steps.push(Step::Age);
        }
        if state.meddles > 0 {
            steps.push(if state.is_final() { Step::BeginAnew } else { Step::Cancel });
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Claim(worker) => {
                let token = self.token(&mut state, worker);
                state.workers[worker as usize] = Phase::Claiming { token };
                state.send(Message::Claim { worker, token });
            }
            Step::Resend(worker) => match state.workers[worker as usize] {
                Phase::Claiming { token } => state.send(Message::Claim { worker, token }),
                Phase::Settling { held, token, verdict } => {
                    state.send(Message::Settle { worker, held, token, verdict });
                }
                _ => return None,
            },
            Step::Deliver(message) => {
                state.receive(message);
                self.deliver(&mut state, message);
            }
            Step::Lose(message) => {
                state.receive(message);
                state.losses -= 1;
            }
            Step::Start(worker) => {
                let Phase::Holding { token, attempt } = state.workers[worker as usize] else {
                    return None;
                };
                state.ran_beside |= !state.runs.is_empty() && !state.is_touched;
                state.runs.push(token);
                state.runs.sort_unstable();
                state.ran += 1;
                state.workers[worker as usize] = Phase::Invoking { token, attempt };
            }
            Step::GiveBack(worker) => {
                let is_fresh = state.stage == Stage::Fresh && state.is_tended();
                state.delays -= u8::from(is_fresh && state.delays > 0);
                self.conclude(&mut state, worker, Verdict::Release)?;
            }
            Step::End { worker, well } => {
                let Phase::Invoking { token, .. } = state.workers[worker as usize] else {
                    return None;
                };
                state.runs.retain(|of| *of != token);
                let verdict = if well { Verdict::Succeed } else { Verdict::Again };
                self.conclude(&mut state, worker, verdict)?;
            }
            Step::BreakOff(worker) => {
                state.unknowns = state.unknowns.saturating_sub(1);
                self.conclude(&mut state, worker, Verdict::Hold)?;
            }
            Step::FunctionEnds(token) => state.runs.retain(|of| *of != token),
            Step::Age => {
                // Who is too slow for its lease may lose it before the start.
                let is_slow = u8::from(state.is_tended());
                (state.delays, state.excused) = (state.delays - is_slow, state.excused + is_slow);
                state.stage = if state.stage == Stage::Fresh { Stage::Late } else { Stage::Over };
            }
            Step::Crash(worker) => {
                state.crashes -= 1;
                // What it has sent may yet win a claim that nobody will use.
                let orphans = state.messages.iter();
                let orphans = orphans
                    .filter(|it| matches!(it, Message::Claim { worker: of, .. } if *of == worker));
                state.excused += 1 + u8::try_from(orphans.count()).expect("there are few");
                state.workers[worker as usize] = Phase::Idle;
            }
            Step::Cancel => {
                state.meddles -= 1;
                (state.status, state.is_touched) = (Status::Cancelled, true);
            }
            Step::BeginAnew => {
                state.meddles -= 1;
                (state.status, state.attempt, state.ends) = (Status::Pending, 0, 0);
                (state.is_touched, state.ran, state.stage) = (true, 0, Stage::Over);
            }
        }
        if self.flaw != Flaw::TokenIsTheWorker {
            state.renumber();
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("it ends once", |_, state: &State| state.ends <= 1),
            Property::always("only who holds it writes", |_, state: &State| !state.wrote_unheld),
            Property::always("it never runs beside itself", |_, state: &State| !state.ran_beside),
            Property::always("it never runs more often than allowed", |_, state: &State| {
                state.is_touched || state.ran <= MAX_ATTEMPTS
            }),
            Property::always("no more attempts are counted than allowed", |_, state: &State| {
                let settled = state.status != Status::Running;
                state.is_touched || !settled || state.attempt <= MAX_ATTEMPTS
            }),
            Property::always("each run is an attempt", |_, state: &State| {
                let settled = state.status != Status::Running;
                state.is_touched || !settled || state.ran <= state.attempt
            }),
            Property::always("an attempt is a run, unless nobody can know", |_, state: &State| {
                let settled = state.status != Status::Running;
                state.is_touched || !settled || state.attempt <= state.ran + state.excused
            }),
            Property::eventually("it ends", |_, state: &State| state.is_final()),
        ]
    }
}

impl Protocol {
    fn deliver(&self, state: &mut State, message: Message) {
        match message {
            Message::Claim { worker, token } => self.claim(state, worker, token),
            Message::Settle { worker, held, token, verdict } => {
                self.settle(state, worker, held, token, verdict);
            }
            Message::Claimed { worker, token, won } => {
                let phase = &mut state.workers[worker as usize];
                if *phase != (Phase::Claiming { token }) {
                    return;
                }
                let Some(attempt) = won else {
                    *phase = Phase::Idle;
                    return;
                };
                *phase = Phase::Holding { token, attempt };
                let spent = if self.flaw == Flaw::CountedAtTheEnd { attempt + 1 } else { attempt };
                if spent > MAX_ATTEMPTS {
                    self.conclude(state, worker, Verdict::Exhausted);
                }
            }
            Message::Settled { worker, token, .. } => {
                let phase = &mut state.workers[worker as usize];
                if matches!(*phase, Phase::Settling { token: of, .. } if of == token) {
                    *phase = Phase::Idle;
                }
            }
        }
    }

    /// A worker writes what became of its task.
    fn conclude(&self, state: &mut State, worker: u8, verdict: Verdict) -> Option<()> {
        let (Phase::Holding { token: held, .. } | Phase::Invoking { token: held, .. }) =
            state.workers[worker as usize]
        else {
            return None;
        };
        let token = self.token(state, worker);
        state.workers[worker as usize] = Phase::Settling { held, token, verdict };
        state.send(Message::Settle { worker, held, token, verdict });
        Some(())
    }
}

#[test]
fn the_protocol_keeps_its_promises_in_every_state_there_is() {
    let protocol = Protocol { flaw: Flaw::None, losses: 1, crashes: 1 };
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("{states} states");
    let discoveries = checker.discoveries();
    let told = |(property, path): (_, stateright::Path<_, _>)| (property, path.into_actions());
    let broken: Vec<_> = discoveries.into_iter().map(told).collect();
    assert!(broken.is_empty(), "{broken:?}");
    assert!(states > 100_000, "{states} states are too few to prove anything");
}

#[test]
fn each_flaw_of_the_protocol_is_found() {
    for (flaw, broken, losses, crashes) in [
        (Flaw::NoFence, "only who holds it writes", 0, 0),
        (Flaw::TokenIsTheWorker, "it never runs beside itself", 1, 1),
        (Flaw::OwnWriteUnrecognised, "an attempt is a run, unless nobody can know", 1, 0),
        (Flaw::CountedAtTheEnd, "it never runs more often than allowed", 0, 2),
        (Flaw::TrustedFromTheReply, "it never runs beside itself", 0, 0),
    ] {
        let protocol = Protocol { flaw, losses, crashes };
        let found = HasDiscoveries::AnyOf([broken].into());
        let checker = protocol.checker().threads(2).finish_when(found).spawn_bfs().join();
        let discoveries = checker.discoveries();
        println!("{flaw:?}: {} states", checker.unique_state_count());
        assert!(discoveries.contains_key(broken), "{flaw:?} does not break {broken:?}");
    }
}

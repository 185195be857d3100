//! Lambda's limits, so that they can be met on this machine
//! (docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use serde_json::json;

use super::lambda::{Answer, Functions};

/// What a Lambda endpoint allows all its functions together, and each in the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Calls of all functions together that run at once.
    pub account_concurrency: Option<u32>,
    /// New environments in 10 s, for each function.
    pub ramp: Option<u32>,
    /// Callers are not allowed to ask for the limits.
    pub is_secret: bool,
}

/// Lets calls in.
#[derive(Debug)]
pub(super) struct Gate {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    functions: BTreeMap<String, Function>,
    /// The concurrency that is reserved for functions, and is their limit.
    reserved: BTreeMap<String, u32>,
}

#[derive(Debug, Default)]
struct Function {
    running: u32,
    /// Environments that there are, where nobody else counts them.
    alive: u32,
    /// New environments that may be made.
    ramp: Option<Ramp>,
}

/// A call that was let in, until this is dropped.
#[derive(Debug)]
pub(super) struct Admission {
    gate: Arc<Gate>,
    function: String,
}

impl Gate {
    pub(super) fn new(limits: Limits, functions: &Functions) -> Self {
        let reserved = functions.iter();
        let reserved =
            reserved.filter_map(|(name, function)| Some((name.clone(), function.max_concurrency?)));
        let state = State { reserved: reserved.collect(), ..State::default() };
        Gate { limits, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding this lock")
    }

    /// The concurrency that is reserved for a function.
    pub(super) fn reserved(&self, name: &str) -> Option<u32> {
        self.state().reserved.get(name).copied()
    }

    /// Reserves so much for a function; nothing when `most` is not there.
    /// False, and nothing is changed, when the account has not so much left.
    pub(super) fn reserve(&self, name: &str, most: Option<u32>) -> bool {
        let mut state = self.state();
        let Some(most) = most else {
            state.reserved.remove(name);
            return true;
        };
        let own = state.reserved.get(name).copied().unwrap_or(0);
        let all = state.reserved() - u64::from(own) + u64::from(most);
        let is_there = self.limits.account_concurrency.is_none_or(|it| all <= u64::from(it));
        if is_there {
            state.reserved.insert(name.to_owned(), most);
        }
        is_there
    }

    /// Whether callers may ask for the limits.
    pub(super) fn is_secret(&self) -> bool {
        self.limits.is_secret
    }

    /// The account's concurrency, if it has a limit.
    pub(super) fn account(&self) -> Option<u32> {
        self.limits.account_concurrency
    }

    /// How much of it is not reserved by a function.
    pub(super) fn unreserved(&self) -> Option<u32> {
        let left = u64::from(self.account()?).saturating_sub(self.state().reserved());
        u32::try_from(left).ok()
    }

    /// Lets a call in, or answers as Lambda does.
    /// A function with processes of its own has its ramp where these are made.
    pub(super) fn admit(
        self: &Arc<Self>,
        name: &str,
        has_own_ramp: bool,
    ) -> Result<Admission, Answer> {
        let mut state = self.state();
        let state = &mut *state;
        let own_limit = state.reserved.get(name).copied();
        let is_full = self.limits.account_concurrency.is_some_and(|account| {
            let others = state.functions.iter();
            let others = others.filter(|(name, _)| !state.reserved.contains_key(*name));
            let running: u32 = others.map(|(_, function)| function.running).sum();
            u64::from(running) >= u64::from(account).saturating_sub(state.reserved())
        });
        let function = state.functions.entry(name.to_owned()).or_default();
        if own_limit.is_some_and(|limit| function.running >= limit) {
            return Err(throttled("ReservedFunctionConcurrentInvocationLimitExceeded"));
        }
        let is_full = own_limit.is_none() && is_full;
        let ramp = self.limits.ramp.filter(|_| !has_own_ramp);
        if is_full || !function.has_environment(ramp) {
            return Err(shared_limit());
        }
        function.running += 1;
        Ok(Admission { gate: self.clone(), function: name.to_owned() })
    }
}

impl State {
    /// What is reserved for all functions together.
    fn reserved(&self) -> u64 {
        self.reserved.values().copied().map(u64::from).sum()
    }
}

impl Function {
    /// Takes an environment: a warm one, or a new one if one may be made.
    fn has_environment(&mut self, ramp: Option<u32>) -> bool {
        let Some(ramp) = ramp else { return true };
        let is_there = self.alive > self.running;
        let is_made = !is_there && self.ramp.get_or_insert_with(|| Ramp::new(ramp)).take();
        self.alive += u32::from(is_made);
        is_there || is_made
    }
}

/// How many new environments may be made: so many at once, and then as many in ten seconds.
#[derive(Debug)]
pub(super) struct Ramp {
    most: f64,
    left: f64,
    at: Instant,
}

impl Ramp {
    pub(super) fn new(most: u32) -> Self {
        let most = f64::from(most);
        Ramp { most, left: most, at: Instant::now() }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self) -> bool {
        let now = Instant::now();
        let gained = (now - self.at).as_secs_f64() * self.most / 10.0;
        (self.left, self.at) = ((self.left + gained).min(self.most), now);
        let is_one = self.left >= 1.0;
        self.left -= if is_one { 1.0 } else { 0.0 };
        is_one
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        if let Some(function) = state.functions.get_mut(&self.function) {
            function.running -= 1;
        }
    }
}

/// No room is left that all functions share, or no new environment may be made.
pub(super) fn shared_limit() -> Answer {
    throttled("ConcurrentInvocationLimitExceeded")
}

fn throttled(reason: &'static str) -> Answer {
    Answer::Refused {
        status: 429,
        code: "TooManyRequestsException",
        body: json!({ "Reason": reason, "Type": "User", "message": "Rate Exceeded." }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(refused: Result<Admission, Answer>) -> String {
        match refused {
            Err(Answer::Refused { body, .. }) => body["Reason"].as_str().unwrap_or("").to_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_function_s_own_limit_the_account_s_and_the_ramp_have_their_own_reasons() {
        let limits = Limits { account_concurrency: Some(3), ramp: Some(2), is_secret: false };
        let gate = Arc::new(Gate::new(limits, &Functions::new()));
        gate.reserve("own", Some(1));
        let own = gate.admit("own", false).expect("the first");
        let reserved = "ReservedFunctionConcurrentInvocationLimitExceeded";
        assert_eq!(reason(gate.admit("own", false)), reserved);
        let _first = gate.admit("f", false).expect("the first new environment");
        let second = gate.admit("f", false).expect("the second");
        let shared = "ConcurrentInvocationLimitExceeded";
        assert_eq!(reason(gate.admit("g", false)), shared, "the account is full");
        drop(own);
        assert_eq!(reason(gate.admit("f", false)), shared, "no third new environment yet");
        drop(second);
        assert!(gate.admit("f", false).is_ok(), "a warm one is used again");
    }

    #[test]
    fn what_is_reserved_is_there_for_one_function_and_not_for_the_others() {
        let limits = Limits { account_concurrency: Some(3), ..Limits::default() };
        let gate = Arc::new(Gate::new(limits, &Functions::new()));
        gate.reserve("own", Some(2));
        let _first = gate.admit("f", false).expect("one is not reserved");
        let shared = "ConcurrentInvocationLimitExceeded";
        assert_eq!(reason(gate.admit("g", false)), shared);
        let _own =
            [gate.admit("own", false), gate.admit("own", false)].map(|it| it.expect("its own"));
        gate.reserve("own", None);
        assert_eq!(reason(gate.admit("own", false)), shared, "it shares with the others now");
    }

    #[test]
    fn no_more_is_reserved_than_the_account_has() {
        let limits = Limits { account_concurrency: Some(10), ..Limits::default() };
        let gate = Gate::new(limits, &Functions::new());
        assert!(gate.reserve("f", Some(6)));
        assert!(!gate.reserve("g", Some(5)));
        assert!(gate.reserve("f", Some(3)) && gate.reserve("g", Some(7)));
        assert_eq!(gate.unreserved(), Some(0));
        let boundless = Gate::new(Limits::default(), &Functions::new());
        assert!(boundless.reserve("f", Some(u32::MAX)) && boundless.reserve("g", Some(u32::MAX)));
        assert_eq!(boundless.unreserved(), None);
    }
}

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
    /// New environments that may be made, as of then.
    new: Option<(f64, Instant)>,
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
    pub(super) fn reserve(&self, name: &str, most: Option<u32>) {
        let mut state = self.state();
        match most {
            Some(most) => state.reserved.insert(name.to_owned(), most),
            None => state.reserved.remove(name),
        };
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
        let reserved = self.state().reserved.values().sum();
        Some(self.account()?.saturating_sub(reserved))
    }

    /// Lets a call in, or answers as Lambda does.
    /// `alive` is how many environments the function has, where that is counted elsewhere.
    pub(super) fn admit(
        self: &Arc<Self>,
        name: &str,
        alive: Option<u32>,
    ) -> Result<Admission, Answer> {
        let mut state = self.state();
        let state = &mut *state;
        let own_limit = state.reserved.get(name).copied();
        let is_full = self.limits.account_concurrency.is_some_and(|account| {
            let reserved: u32 = state.reserved.values().sum();
            let others = state.functions.iter();
            let others = others.filter(|(name, _)| !state.reserved.contains_key(*name));
            let running: u32 = others.map(|(_, function)| function.running).sum();
            running >= account.saturating_sub(reserved)
        });
        let function = state.functions.entry(name.to_owned()).or_default();
        if own_limit.is_some_and(|limit| function.running >= limit) {
            return Err(throttled("ReservedFunctionConcurrentInvocationLimitExceeded"));
        }
        if (own_limit.is_none() && is_full) || !function.has_environment(self.limits.ramp, alive) {
            return Err(throttled("ConcurrentInvocationLimitExceeded"));
        }
        function.running += 1;
        Ok(Admission { gate: self.clone(), function: name.to_owned() })
    }
}

impl Function {
    /// Takes an environment: a warm one, or a new one if one may be made.
    fn has_environment(&mut self, ramp: Option<u32>, alive: Option<u32>) -> bool {
        let Some(ramp) = ramp else { return true };
        if alive.unwrap_or(self.alive) > self.running {
            return true;
        }
        let (ramp, now) = (f64::from(ramp), Instant::now());
        let (left, at) = self.new.unwrap_or((ramp, now));
        let left = (left + (now - at).as_secs_f64() * ramp / 10.0).min(ramp);
        let is_made = left >= 1.0;
        self.new = Some((if is_made { left - 1.0 } else { left }, now));
        self.alive += u32::from(is_made);
        is_made
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
        let own = gate.admit("own", None).expect("the first");
        let reserved = "ReservedFunctionConcurrentInvocationLimitExceeded";
        assert_eq!(reason(gate.admit("own", None)), reserved);
        let _first = gate.admit("f", None).expect("the first new environment");
        let second = gate.admit("f", None).expect("the second");
        let shared = "ConcurrentInvocationLimitExceeded";
        assert_eq!(reason(gate.admit("g", None)), shared, "the account is full");
        drop(own);
        assert_eq!(reason(gate.admit("f", None)), shared, "no third new environment yet");
        drop(second);
        assert!(gate.admit("f", None).is_ok(), "a warm one is used again");
    }

    #[test]
    fn what_is_reserved_is_there_for_one_function_and_not_for_the_others() {
        let limits = Limits { account_concurrency: Some(3), ..Limits::default() };
        let gate = Arc::new(Gate::new(limits, &Functions::new()));
        gate.reserve("own", Some(2));
        let _first = gate.admit("f", None).expect("one is not reserved");
        let shared = "ConcurrentInvocationLimitExceeded";
        assert_eq!(reason(gate.admit("g", None)), shared);
        let _own =
            [gate.admit("own", None), gate.admit("own", None)].map(|it| it.expect("its own"));
        gate.reserve("own", None);
        assert_eq!(reason(gate.admit("own", None)), shared, "it shares with the others now");
    }

    #[test]
    fn an_environment_that_ended_is_none_that_could_be_used_again() {
        let limits = Limits { ramp: Some(2), ..Limits::default() };
        let gate = Arc::new(Gate::new(limits, &Functions::new()));
        let admitted = [gate.admit("f", Some(0)), gate.admit("f", Some(0))];
        let [first, second] = admitted.map(|it| it.expect("a new one"));
        drop(first);
        let again = gate.admit("f", Some(2)).expect("the one that is there");
        drop(again);
        let shared = "ConcurrentInvocationLimitExceeded";
        assert_eq!(reason(gate.admit("f", Some(1))), shared, "it has ended, and none may be made");
        drop(second);
        assert!(gate.admit("f", Some(1)).is_ok());
    }
}

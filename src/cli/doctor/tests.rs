//! What is made of what was found.

use std::time::Duration;

use serde_json::Value;

use super::findings::{Findings, Function, Machine, Table};
use super::judge;
use super::line::Untold;
use crate::aws::{Account, Credentials, Endpoint, Identity, Settings};
use crate::clock::Offset;
use crate::config::Config;
use crate::store::Fault;

fn config(keys: &str) -> Config {
    let rest = "[queues.a]\nfunction = \"f\"\n";
    Config::parse(&format!("table = \"t\"\n{keys}\n{rest}")).expect("it is valid")
}

/// The same with more keys for the queue.
fn queue(keys: &str) -> Config {
    let source = format!("table = \"t\"\n[queues.a]\nfunction = \"f\"\n{keys}\n");
    Config::parse(&source).expect("it is valid")
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn fault(code: &str) -> Untold {
    let (code, message) = (code.to_owned(), "said so".to_owned());
    Untold::Fault(Fault { operation: "service:Call", code, message })
}

fn endpoint(origin: &str, http: &'static str) -> Endpoint {
    Endpoint { origin: origin.to_owned(), round_trip: Duration::from_micros(1260), http }
}

fn settings(timeout: Duration) -> Settings {
    let [state, update] = ["Active", "Successful"].map(|word| Some(word.to_owned()));
    Settings { state, update, timeout, ..Settings::default() }
}

/// AWS with everything as it should be: a function `f` of 20 s.
fn well() -> Findings {
    let settings = Ok(settings(seconds(20)));
    let function = Function { invoke: Ok(()), settings, reserved: Ok(None) };
    let (account, arn) = ("123456789012".to_owned(), "arn:aws:iam::123456789012:user/u".to_owned());
    let not_tried = Err(Untold::NotTried("this is about other things"));
    Findings {
        machine: Machine { descriptors: (1024, 65536), memory: None },
        region: Ok("eu-west-1".to_owned()),
        credentials: Ok(Credentials {
            source: "the environment".to_owned(),
            key_end: "CDEF".to_owned(),
            expires_at: None,
        }),
        identity: Ok(Identity { account, arn }),
        dynamodb: Ok(endpoint("https://dynamodb.eu-west-1.amazonaws.com", "HTTP/1.1")),
        table: Table {
            survey: Err(Untold::NotTried("this is about other things")),
            ttl: Ok(None),
            read: Ok(()),
            update: Ok(()),
            queries: [("a".to_owned(), Ok(()))].into(),
        },
        lambda: Ok(endpoint("https://lambda.eu-west-1.amazonaws.com", "HTTP/2")),
        functions: [("f".to_owned(), function)].into(),
        account: Ok(Account { concurrency: Some(1000), unreserved: Some(900) }),
        clock: Some(Offset { seconds: 0.3, is_wrong: false, is_doubtful: false }),
    }
    .with(|findings| findings.table.survey = not_tried)
}

impl Findings {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn function(self, change: impl FnOnce(&mut Function)) -> Self {
        self.with(|it| change(it.functions.get_mut("f").expect("it is there")))
    }

    fn settings(self, change: impl FnOnce(&mut Settings)) -> Self {
        self.function(|it| change(it.settings.as_mut().expect("they are told")))
    }

    fn reserved(self, reserved: Option<u32>) -> Self {
        self.function(|it| it.reserved = Ok(reserved))
    }
}

/// What a script is told of one check; of permissions, by their action.
fn told(config: &Config, findings: &Findings, check: &str) -> Value {
    let lines = judge(config, findings).into_iter().map(|line| line.json());
    let mut about = lines.filter(|line| line["check"] == check || line["action"] == check);
    let line = about.next().unwrap_or_else(|| panic!("nothing is said of {check}"));
    assert!(about.next().is_none(), "{check} is told once");
    let has_advice = line["advice"].is_string();
    let is_not_tried = line["message"].as_str().is_some_and(|it| it.starts_with("not tried"));
    assert_eq!(has_advice, line["verdict"] != "ok" && !is_not_tried, "{line}");
    line
}

#[track_caller]
fn check(check: &str, cases: Vec<(Config, Findings, &str, &str)>) {
    for (config, findings, verdict, words) in cases {
        let line = told(&config, &findings, check);
        assert_eq!(line["verdict"], verdict, "{words}: {line}");
        assert!(line["message"].as_str().is_some_and(|it| it.contains(words)), "{words}: {line}");
    }
}

#[test]
fn a_lease_outlasts_the_function_and_a_clock_that_is_wrong() {
    let clock = |seconds| Some(Offset { seconds, is_wrong: seconds >= 2.0, is_doubtful: true });
    let late = |findings: Findings| findings.with(|it| it.clock = clock(600.0));
    let long = |timeout| well().settings(|it| it.timeout = seconds(timeout));
    let unknown = || well().function(|it| it.settings = Err(fault("AccessDeniedException")));
    check(
        "lease",
        vec![
            (config(""), well(), "ok", "50s: the function's timeout of 20s and a margin of 30s"),
            (queue("timeout = \"20s\""), well(), "ok", "50s: a timeout of 20s"),
            (queue("timeout = \"19s\""), well(), "fail", "could run beside its former self"),
            (queue("timeout = \"19s\""), unknown(), "warn", "not tried"),
            (config(""), unknown(), "warn", "not tried"),
            (config(""), long(869), "ok", "14m 59s: the function's timeout of 14m 29s"),
            (
                config(""),
                long(870),
                "ok",
                "15m: the function's timeout of 14m 30s and a margin of 30s; so long",
            ),
            (config(""), late(well()), "ok", "50s"),
            (queue("lease_margin = \"11s\""), late(well()), "warn", "nothing may be claimed"),
            (queue("lease_margin = \"12s\""), late(well()), "ok", "32s"),
            (queue("lease_margin = \"11s\""), well(), "ok", "31s"),
        ],
    );
}

#[test]
fn what_is_reserved_is_held_against_what_may_be_in_flight() {
    let capped = |most| {
        let source = format!(
            "table = \"t\"\n[queues.a]\nfunction = \"f\"\n[queues.b]\nfunction = \"f\"\n\
             [functions.f]\nmax_concurrency = {most}\n"
        );
        Config::parse(&source).expect("it is valid")
    };
    check(
        "concurrency",
        vec![
            (config(""), well(), "ok", "none reserved, up to 500"),
            (config(""), well().reserved(Some(0)), "fail", "switched off"),
            (config(""), well().reserved(Some(499)), "warn", "what is reserved binds"),
            (config(""), well().reserved(Some(500)), "ok", "500 reserved, up to 500"),
            (queue("max_in_flight = 10"), well().reserved(Some(10)), "ok", "10 reserved, up to 10"),
            (capped(40), well().reserved(Some(39)), "warn", "39 reserved, up to 40"),
            (capped(40), well().reserved(Some(40)), "ok", "40 reserved, up to 40"),
            (config(""), well().function(|it| it.reserved = Err(fault("X"))), "warn", "not tried"),
        ],
    );
}

#[test]
fn what_the_account_gives_is_held_against_what_is_not_reserved() {
    let gives = |unreserved| {
        let account = Account { concurrency: Some(1000), unreserved };
        well().with(|it| it.account = Ok(account))
    };
    check(
        "account_concurrency",
        vec![
            (config(""), gives(Some(500)), "ok", "500 of 1000 unreserved, up to 500"),
            (config(""), gives(Some(499)), "warn", "the account binds"),
            (config(""), gives(Some(100)).reserved(Some(500)), "ok", "up to 0"),
            (config("max_in_flight = 100"), gives(Some(100)), "ok", "up to 100"),
            (config(""), gives(None), "ok", "tells no limit"),
            (config(""), well().with(|it| it.account = Err(fault("X"))), "warn", "not tried"),
        ],
    );
}

#[test]
fn a_function_s_state_says_whether_it_runs() {
    let state = |word: &str| {
        well().settings(|it| {
            it.state = Some(word.to_owned());
            it.state_reason = Some("it says why".to_owned());
        })
    };
    let update = |word: &str| well().settings(|it| it.update = Some(word.to_owned()));
    let missing = || well().function(|it| it.settings = Err(fault("ResourceNotFoundException")));
    let unseen = || well().function(|it| it.settings = Err(fault("AccessDeniedException")));
    check(
        "function",
        vec![
            (config(""), well(), "ok", "active, timeout 20s; queues: a"),
            (config(""), well().settings(|it| it.state = None), "ok", "active"),
            (config(""), state("Pending"), "warn", "its state is Pending (it says why)"),
            (config(""), state("Inactive"), "warn", "its state is Inactive"),
            (config(""), state("Failed"), "fail", "its state is Failed (it says why)"),
            (config(""), update("InProgress"), "ok", "active"),
            (config(""), update("Failed"), "warn", "its last update failed"),
            (config(""), missing(), "fail", "there is no such function"),
            (config(""), unseen(), "ok", "its settings cannot be read"),
            (
                config(""),
                unseen().function(|it| it.invoke = Err(fault("AccessDeniedException"))),
                "warn",
                "not tried",
            ),
        ],
    );
}

#[test]
fn the_rights_to_read_from_lambda_may_be_missing_unless_a_timeout_is_to_be_read() {
    let denied = || fault("AccessDeniedException");
    let blind = || {
        let blind = well().with(|it| it.account = Err(denied()));
        blind.function(|it| (it.settings, it.reserved) = (Err(denied()), Err(denied())))
    };
    let fixed = || queue("timeout = \"20s\"");
    check(
        "lambda:GetFunctionConfiguration",
        vec![
            (config(""), blind(), "fail", "leases would be as for a timeout of 15m"),
            (fixed(), blind(), "warn", "AccessDeniedException"),
            (config(""), well(), "ok", "allowed"),
            (
                config(""),
                well().function(|it| it.settings = Err(fault("Burstd.NoAnswer"))),
                "fail",
                "NoAnswer",
            ),
        ],
    );
    check("lambda:GetFunctionConcurrency", vec![(config(""), blind(), "warn", "AccessDenied")]);
    check("lambda:GetAccountSettings", vec![(config(""), blind(), "warn", "AccessDenied")]);
    let dumb = well().function(|it| it.invoke = Err(denied()));
    check("lambda:InvokeFunction", vec![(config(""), dumb, "fail", "AccessDenied")]);
}

#[test]
fn a_stop_that_does_not_wait_for_the_longest_function_is_told() {
    let unknown = || well().function(|it| it.settings = Err(fault("AccessDeniedException")));
    let drain = |drain: &str| config(&format!("[shutdown]\ndrain = \"{drain}\""));
    check(
        "stop",
        vec![
            (drain("20s"), well(), "ok", "drain is 20s, f may take 20s"),
            (drain("19s"), well(), "warn", "is left to its lease"),
            (drain("19s"), unknown(), "warn", "not tried"),
            (queue("timeout = \"61s\""), unknown(), "warn", "drain is 1m, f may take 1m 1s"),
        ],
    );
}

#[test]
fn a_machine_with_too_little_of_something_is_told_and_what_would_be_cut() {
    let machine =
        |descriptors, memory| well().with(|it| it.machine = Machine { descriptors, memory });
    let h1 = || config("[aws]\nhttp = \"h1\"");
    check(
        "descriptors",
        vec![
            (config(""), machine((64, 1024), None), "ok", "1024 allowed (now 64), 205 needed"),
            (h1(), machine((1024, 1024), None), "ok", "700 needed"),
            (h1(), machine((64, 600), None), "warn", "would be cut to 400"),
            (h1(), machine((1024, u64::MAX), None), "ok", "any number allowed"),
        ],
    );
    check(
        "memory",
        vec![
            (config(""), machine((1024, 1024), None), "ok", "not limited"),
            (config(""), machine((1024, 1024), Some(2_000_000_000)), "ok", "2.0 GB allowed"),
            (
                config(""),
                machine((1024, 1024), Some(100_000_000)),
                "warn",
                "would be cut to 15.0 MB",
            ),
        ],
    );
}

#[test]
fn a_clock_that_is_two_seconds_off_is_told() {
    let clock = |seconds: f64| {
        let is_wrong = seconds.abs() >= 2.0;
        well().with(|it| it.clock = Some(Offset { seconds, is_wrong, is_doubtful: false }))
    };
    check(
        "clock",
        vec![
            (config(""), clock(0.01), "ok", "as AWS's"),
            (config(""), clock(1.96), "ok", "2 s ahead"),
            (config(""), clock(2.04), "warn", "2 s ahead"),
            (config(""), clock(-3.0), "warn", "3 s behind"),
            (config(""), well().with(|it| it.clock = None), "warn", "not tried"),
        ],
    );
    assert_eq!(told(&config(""), &clock(-0.01), "clock")["offset_s"].to_string(), "0.0");
}

#[test]
fn http_1_1_is_told_where_lambda_offers_more_and_much_is_in_flight() {
    let lambda = |origin: &str, http| well().with(|it| it.lambda = Ok(endpoint(origin, http)));
    let old = || lambda("https://lambda.eu-west-1.amazonaws.com", "HTTP/1.1");
    for (config, findings, verdict) in [
        (config(""), well(), "ok"),
        (config(""), old(), "warn"),
        (config("max_in_flight = 100"), old(), "ok"),
        (config("[aws]\nhttp = \"h1\""), old(), "ok"),
        (config(""), lambda("http://127.0.0.1:9001", "HTTP/1.1"), "ok"),
    ] {
        let lines = judge(&config, &findings).into_iter().map(|line| line.json());
        let mut endpoints = lines.filter(|line| line["check"] == "endpoint");
        let dynamodb = endpoints.next().expect("it is told");
        assert_eq!((&dynamodb["verdict"], &dynamodb["round_trip_ms"]), (&"ok".into(), &1.3.into()));
        let lambda = endpoints.next().expect("it is told");
        assert_eq!(lambda["verdict"], verdict, "{lambda}");
    }
}

#[test]
fn credentials_that_aws_refuses_are_a_failure_and_what_stands_in_for_aws_takes_any() {
    let refused = |code| well().with(|it| it.identity = Err(fault(code)));
    let local = |findings: Findings| {
        findings.with(|it| it.dynamodb = Ok(endpoint("http://127.0.0.1:8000", "HTTP/1.1")))
    };
    check(
        "identity",
        vec![
            (config(""), well(), "ok", "user/u"),
            (config(""), refused("InvalidClientTokenId"), "fail", "InvalidClientTokenId"),
            (config(""), refused("Burstd.NotConnected"), "warn", "NotConnected"),
            (config(""), local(refused("InvalidClientTokenId")), "warn", "InvalidClientTokenId"),
            (config(""), local(refused("Burstd.NoAnswer")), "warn", "NoAnswer"),
        ],
    );
    check(
        "credentials",
        vec![
            (config(""), well(), "ok", "from the environment, access key …CDEF"),
            (
                config(""),
                well().with(|it| it.credentials = Err(fault("Burstd.Credentials"))),
                "fail",
                "none were found",
            ),
        ],
    );
}

//! Credentials that run out while burstd works, and a clock that is wrong: work waits and goes on,
//! and no attempt is spent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use burstd::aws::Clients;
use burstd::local::lambda::{Answer, Call};
use burstd::local::place;
use burstd::store::StoreError;
use serde_json::json;
use tokio::sync::Semaphore;

use super::description;
use crate::support::eventually;
use crate::support::invoke::{invoke, word};
use crate::support::program::{Process, Program, command};
use crate::support::raw::{Act, Raw, Reply, Request};
use crate::support::world::{World, config, outcomes, text};
use crate::support::writes::now;

/// The access keys that AWS takes at the moment.
#[derive(Clone, Default)]
struct Keys(Arc<Mutex<&'static str>>);

impl Keys {
    fn take(&self, key: &'static str) {
        *self.0.lock().expect("nobody panics with it") = key;
    }

    /// Passes on what is signed with the right key.
    fn check(&self, request: &Request) -> Act {
        let right = format!("Credential={}/", self.0.lock().expect("nobody panics with it"));
        let signed = request.header("authorization").expect("each request is signed");
        match signed.contains(&right) {
            true => Act::PassOn(Reply::bytes),
            false => refusal(403, "ExpiredTokenException", "").into(),
        }
    }
}

/// An error as either service words it.
fn refusal(status: u16, code: &str, headers: &str) -> Reply {
    let headers = format!("x-amzn-errortype: {code}\r\n{headers}");
    Reply::http(status, &headers, json!({ "__type": code }).to_string())
}

/// burstd with a profile whose credentials a process prints.
struct Profile {
    program: Program,
    keys: Keys,
    _aws: [Raw; 2],
}

impl Profile {
    async fn in_world(world: &World) -> Self {
        let keys = Keys::default();
        let (ours, theirs) = (keys.clone(), keys.clone());
        let dynamodb = Raw::before(&world.dynamodb.url(), move |it| ours.check(it)).await;
        let lambda = Raw::before(&world.lambda.url(), move |it| theirs.check(it)).await;
        let program = Program::with(&format!(
            "{}\n[aws]\nregion = \"us-east-1\"\nprofile = \"work\"\n\
             dynamodb_endpoint_url = \"{}\"\nlambda_endpoint_url = \"{}\"\n",
            config(),
            dynamodb.url,
            lambda.url
        ));
        Profile { program, keys, _aws: [dynamodb, lambda] }
    }

    /// From now on the process prints this key.
    fn print(&self, key: &str, good_for: Duration) {
        let expiration = (now() + good_for).as_millis().try_into().expect("it is soon");
        let expiration = jiff::Timestamp::from_millisecond(expiration).expect("it is a time");
        let printed = json!({
            "Version": 1,
            "AccessKeyId": key,
            "SecretAccessKey": "secret",
            "SessionToken": "session",
            "Expiration": expiration.to_string(),
        });
        self.program.file("printed.json", printed.to_string());
    }

    fn start(&self) -> Process {
        let directory = self.program.config();
        let directory = directory.parent().expect("it is in one").display();
        let process =
            format!("[profile work]\ncredential_process = cat {directory}/printed.json\n");
        let file = self.program.file("aws", process);
        let mut command = command(&["run", "--config"]);
        command
            .arg(self.program.config())
            .env("AWS_CONFIG_FILE", file)
            .env("PATH", "/usr/bin:/bin");
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        Process::start(command)
    }
}

/// A world whose function ends when the gate lets it.
async fn gated() -> (World, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let world = World::with(move |call: Call| {
        let held = held.clone();
        async move {
            drop(held.acquire().await);
            Answer::Returned(call.payload)
        }
    })
    .await;
    (world, gate)
}

/// So long that the SDK keeps them for some seconds at most: it wants new ones 5 to 10 s before.
const SOON: Duration = Duration::from_secs(8);
const LATER: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_expire_under_a_running_task_are_replaced_and_its_result_is_kept() {
    let (world, gate) = gated().await;
    let profile = Profile::in_world(&world).await;
    profile.keys.take("FIRST");
    profile.print("FIRST", SOON);
    let daemon = profile.start();
    daemon.line_with("daemon.ready").await;
    world.task("runs meanwhile").put().await;
    eventually("it runs", async || match world.calls.count() {
        1 => Ok(()),
        count => Err(count),
    })
    .await;
    profile.keys.take("SECOND");
    gate.add_permits(1);
    world.task("comes meanwhile").put().await;
    let trouble = daemon.line_with("store.unavailable").await;
    assert!(trouble.contains("ExpiredTokenException"), "{trouble}");
    profile.print("SECOND", LATER);
    daemon.line_with("store.recovered").await;
    for task in ["runs meanwhile", "comes meanwhile"] {
        let item = world.until(task, "SUCCEEDED").await;
        assert_eq!(outcomes(&item), ["1 succeeded"], "{task}");
        assert_eq!(text(&item, "attempt"), "1", "{task}");
    }
    assert_eq!(world.calls.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_cannot_be_had_are_waited_for_and_said() {
    let world = World::echoing().await;
    let profile = Profile::in_world(&world).await;
    profile.keys.take("FIRST");
    profile.print("FIRST", SOON);
    let daemon = profile.start();
    daemon.line_with("daemon.ready").await;
    profile.program.file("printed.json", "the login has expired");
    let trouble = daemon.line_with("store.unavailable").await;
    assert!(trouble.contains("Burstd.Credentials"), "{trouble}");
    world.task("a").put().await;
    profile.print("FIRST", LATER);
    daemon.line_with("store.recovered").await;
    let item = world.until("a", "SUCCEEDED").await;
    assert_eq!(outcomes(&item), ["1 succeeded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_refused_for_its_credentials_or_its_clock_spends_no_attempt() {
    let codes = ["ExpiredTokenException", "RequestExpired", "InvalidSignatureException"];
    for (status, code) in codes.map(|code| (403, code)).into_iter().chain([(400, "AuthFailure")]) {
        let world = World::echoing().await;
        let mut left = 2;
        let lambda = Raw::before(&world.lambda.url(), move |request| {
            let is_refused = request.operation() == "Invoke" && left > 0;
            left -= u32::from(is_refused);
            if is_refused { refusal(status, code, "").into() } else { Act::PassOn(Reply::bytes) }
        })
        .await;
        let program = Program::with(&format!(
            "{}\n[aws]\nregion = \"us-east-1\"\ndynamodb_endpoint_url = \"{}\"\n\
             lambda_endpoint_url = \"{}\"\n",
            config(),
            world.dynamodb.url(),
            lambda.url
        ));
        let daemon = program.start();
        world.task("a").put().await;
        let item = world.until("a", "SUCCEEDED").await;
        assert_eq!(outcomes(&item), ["1 succeeded"], "{code}");
        assert_eq!((lambda.count_of("Invoke"), world.calls.count()), (3, 1), "{code}");
        let trouble = daemon.line_with("lambda.unavailable").await;
        assert!(trouble.contains(code), "{trouble}");
        daemon.line_with("lambda.recovered").await;
    }
}

/// AWS, whose clock is so far ahead of ours: it refuses what was signed more than five minutes
/// ago, and tells the time.
async fn ahead(by: Duration, code: &'static str) -> Raw {
    Raw::start(move |request| {
        let now = jiff::Timestamp::from_millisecond(
            (now() + by).as_millis().try_into().expect("it is soon"),
        );
        let now = now.expect("it is a time");
        if now.duration_since(signed_at(request)).as_secs() > 300 {
            return refusal(403, code, &http_date(now));
        }
        Reply::http(200, &http_date(now), description())
    })
    .await
}

#[tokio::test]
async fn a_clock_that_is_wrong_costs_one_refusal_and_no_start_of_a_function() {
    let hour = Duration::from_secs(3600);
    for code in [
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "RequestTimeTooSkewed",
        "AuthFailure",
        "RequestExpired",
    ] {
        let aws = ahead(hour, code).await;
        let clients = Clients::new(&place(&aws.url, &aws.url)).await.expect("a region");
        let table = clients.table("work");
        let refused = table.open().await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{code}: {refused:?}");
        assert!(table.open().await.is_ok(), "{code}: it was told the time");
        assert_eq!(aws.count_of("DescribeTable"), 2, "{code}");

        let outcome = invoke(&clients.invoker(), "work", "{}").await;
        assert_eq!(word(&outcome), "succeeded", "{code}: {outcome:?}");
        assert_eq!(aws.count_of("Invoke"), 1, "{code}: signed by the right time");
    }
}

/// A moment as a `Date` says it.
fn http_date(at: jiff::Timestamp) -> String {
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at);
    format!("date: {}\r\n", date.expect("it is a time"))
}

/// When a request was signed.
fn signed_at(request: &Request) -> jiff::Timestamp {
    let signed = request.header("x-amz-date").expect("each request is signed");
    let signed = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", signed).expect("a time");
    signed.to_zoned(jiff::tz::TimeZone::UTC).expect("it is a time").timestamp()
}

#[tokio::test]
async fn after_a_call_of_fourteen_minutes_the_next_one_is_signed_by_the_right_time() {
    let signed = Arc::new(Mutex::new(Vec::new()));
    let seen = signed.clone();
    let lambda = Raw::start(move |request| {
        seen.lock().expect("nobody panics with it").push(signed_at(request));
        // The date of the answer, as if the function had taken so long.
        let late = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(14);
        Reply::http(200, &http_date(late), "{}")
    })
    .await;
    let clients = Clients::new(&place("http://127.0.0.1:1", &lambda.url)).await;
    let invoker = clients.expect("a region").invoker();
    for _ in 0..2 {
        assert_eq!(word(&invoke(&invoker, "work", "{}").await), "succeeded");
    }
    for signed in signed.lock().expect("nobody panics with it").iter() {
        let off = jiff::Timestamp::now().duration_since(*signed);
        assert!(off.abs().as_secs() < 60, "signed {off:#} beside the right time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_that_gives_credentials_writes_when_it_fails_is_not_logged() {
    let world = World::echoing().await;
    let profile = Profile::in_world(&world).await;
    let daemon = profile.start();
    let line = daemon.line_with("store.unavailable").await;
    assert!(line.contains("Burstd.Credentials") && line.contains("process"), "{line}");
    assert!(!line.contains("printed.json"), "cat has named it: {line}");
}

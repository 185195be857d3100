//! What `burstd doctor` finds: each kind of trouble has its line, its verdict and its exit code.

use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_sdk_dynamodb::types::{ProjectionType, ScalarAttributeType};
use burstd::local::functions::built_in;
use burstd::local::lambda::{Answer, Call};
use burstd::local::limits::Limits;
use burstd::local::tls::Manner;
use serde_json::Value;

use crate::support::program::{Program, check, command};
use crate::support::proxy::{Fate, Proxy};
use crate::support::raw::{Raw, Reply};
use crate::support::tables::create_table;
use crate::support::tls::TlsLambda;
use crate::support::world::{World, config, config_with};

/// Where nobody listens.
const NOWHERE: &str = "http://127.0.0.1:1";

/// What tells everybody that they are the user `u`.
async fn sts() -> Raw {
    let answer = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                  <GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/u</Arn>\
                  <UserId>U</UserId><Account>123456789012</Account></GetCallerIdentityResult>\
                  <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>\
                  </GetCallerIdentityResponse>";
    Raw::start(move |_| Reply::http(200, "content-type: text/xml\r\n", answer)).await
}

/// What the doctor said.
struct Report {
    code: Option<i32>,
    lines: Vec<Value>,
    errors: String,
}

impl Report {
    fn of(output: &Output) -> Self {
        check(output);
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("it is JSON"));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        Report { code: output.status.code(), lines: lines.collect(), errors }
    }

    /// What it said of a check, or of a right by its action.
    fn about(&self, what: &str) -> &Value {
        let is_it = |line: &&Value| match line["action"].as_str() {
            Some(action) => action == what,
            None => line["check"] == what || line["check"] == "endpoint" && line["subject"] == what,
        };
        self.lines.iter().find(is_it).unwrap_or_else(|| panic!("no {what}: {:#?}", self.lines))
    }

    /// What failed, in words that [`Report::about`] takes.
    fn failed(&self) -> Vec<&str> {
        let failed = self.lines.iter().filter(|line| line["verdict"] == "fail");
        failed
            .map(|line| match line["check"].as_str().expect("it is named") {
                "permission" => line["action"].as_str().expect("it is named"),
                "endpoint" => line["subject"].as_str().expect("it is named"),
                check => check,
            })
            .collect()
    }

    #[track_caller]
    fn says(&self, what: &str, verdict: &str, words: &str) {
        let line = self.about(what);
        assert_eq!(line["verdict"], verdict, "{line}");
        assert!(line["message"].as_str().is_some_and(|it| it.contains(words)), "{words}: {line}");
    }
}

/// Examines what a configuration names.
async fn examine(program: &Program) -> Report {
    examine_with(program, &[]).await
}

/// The same with more in its environment.
async fn examine_with(program: &Program, environment: &[(&str, &str)]) -> Report {
    let sts = sts().await;
    let mut command = command(&["doctor", "--json", "--config"]);
    command.arg(program.config()).env("AWS_ENDPOINT_URL_STS", &sts.url);
    command.envs(environment.iter().copied());
    Report::of(&tokio::task::block_in_place(|| command.output().expect("the program runs")))
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_is_well_each_check_is_told_and_nothing_is_changed() {
    let limits = Limits { account_concurrency: Some(1000), ..Limits::default() };
    let echo = async |call: Call| Answer::Returned(call.payload);
    let world = World::limited(None, limits, echo).await;
    world.task("a").put().await;
    let before = world.items().await;
    let report = examine(&Program::in_world(&world, &config())).await;
    assert_eq!((report.code, &report.errors[..]), (Some(0), ""), "{:#?}", report.lines);
    for what in [
        "configuration",
        "region",
        "credentials",
        "identity",
        "dynamodb",
        "clock",
        "table",
        "index",
        "ttl",
        "dynamodb:DescribeTable",
        "dynamodb:GetItem",
        "dynamodb:UpdateItem",
        "dynamodb:Query",
        "lambda",
        "function",
        "lambda:InvokeFunction",
        "lambda:GetFunctionConfiguration",
        "lambda:GetFunctionConcurrency",
        "concurrency",
        "lambda:GetAccountSettings",
        "account_concurrency",
        "lease",
        "stop",
    ] {
        assert_eq!(report.about(what)["verdict"], "ok", "{:#?}", report.about(what));
    }
    // The machine may be a small one.
    for what in ["descriptors", "memory"] {
        assert_ne!(report.about(what)["verdict"], "fail");
    }
    report.says("identity", "ok", "user/u");
    report.says("credentials", "ok", "from the environment, access key …");
    assert_eq!(report.about("account_concurrency")["unreserved"], 1000);
    assert_eq!(report.about("lease")["lease_s"], 3.0);
    for service in ["dynamodb", "lambda"] {
        assert_eq!(report.about(service)["http"], "HTTP/1.1");
        assert!(report.about(service)["round_trip_ms"].as_f64().is_some_and(|ms| ms > 0.0));
    }
    assert_eq!(world.items().await, before);
    assert_eq!(world.calls.count(), 0, "no function has run");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_that_is_missing_is_told_and_those_that_can_be_done_without_are_no_failure() {
    let world = World::echoing().await;
    let [dynamodb, lambda] = [&world.dynamodb.url(), &world.lambda.url()];
    let pass = |_: &str, _: &str| Fate::Pass;
    let [dynamodb, lambda] = [Proxy::start(dynamodb, pass).await, Proxy::start(lambda, pass).await];
    let auto = Program::between(&dynamodb.url, &lambda.url, &config());
    let fixed = Program::between(&dynamodb.url, &lambda.url, &config_with("timeout = \"2s\""));
    for (program, operation, what, verdict) in [
        (&auto, "DescribeTable", "dynamodb:DescribeTable", "fail"),
        (&auto, "GetItem", "dynamodb:GetItem", "fail"),
        (&auto, "UpdateItem", "dynamodb:UpdateItem", "fail"),
        (&auto, "Query", "dynamodb:Query", "fail"),
        (&auto, "DescribeTimeToLive", "ttl", "warn"),
        (&auto, "/invocations", "lambda:InvokeFunction", "fail"),
        (&auto, "/configuration", "lambda:GetFunctionConfiguration", "fail"),
        (&fixed, "/configuration", "lambda:GetFunctionConfiguration", "warn"),
        (&auto, "/concurrency", "lambda:GetFunctionConcurrency", "warn"),
        (&auto, "/account-settings", "lambda:GetAccountSettings", "warn"),
    ] {
        let is_lambda = operation.starts_with('/');
        let (asked, other) = if is_lambda { (&lambda, &dynamodb) } else { (&dynamodb, &lambda) };
        other.plan(pass);
        asked.plan(move |called, _| match called.ends_with(operation) {
            true => Fate::Refuse(400, "AccessDeniedException"),
            false => Fate::Pass,
        });
        let report = examine(program).await;
        report.says(what, verdict, "AccessDeniedException");
        assert!(report.about(what)["advice"].is_string());
        let (code, failed) = if verdict == "fail" { (77, vec![what]) } else { (0, vec![]) };
        assert_eq!((report.code, report.failed()), (Some(code), failed), "{operation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_aws_has_no_capacity_for_is_asked_again_and_is_no_lack_of_a_right() {
    let world = World::echoing().await;
    let pass = |_: &str, _: &str| Fate::Pass;
    let lambda = Proxy::start(&world.lambda.url(), pass).await;
    let program = Program::between(&world.dynamodb.url(), &lambda.url, &config());
    let throttled_first = |times: u32| {
        let asked = AtomicU32::new(0);
        move |called: &str, _: &str| match called.ends_with("/configuration")
            && asked.fetch_add(1, Ordering::Relaxed) < times
        {
            true => Fate::Refuse(429, "TooManyRequestsException"),
            false => Fate::Pass,
        }
    };
    let what = "lambda:GetFunctionConfiguration";
    lambda.plan(throttled_first(2));
    let report = examine(&program).await;
    assert_eq!((report.code, report.failed()), (Some(0), vec![]));
    lambda.plan(throttled_first(u32::MAX));
    let report = examine(&program).await;
    report.says(what, "fail", "TooManyRequestsException");
    let advice = report.about(what)["advice"].to_string();
    assert!(advice.contains("ask again in a while"), "{advice}");
    assert_eq!(report.code, Some(69), "nothing is wrong here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_there_is_told_and_what_needs_it_is_not_tried() {
    let world = World::echoing().await;
    let config = config().replace("table = \"tasks\"", "table = \"others\"");
    let report = examine(&Program::in_world(&world, &config)).await;
    assert_eq!((report.code, report.failed()), (Some(78), vec!["table"]));
    report.says("table", "fail", "there is no such table");
    for what in ["index", "ttl", "dynamodb:GetItem", "dynamodb:UpdateItem", "dynamodb:Query"] {
        report.says(what, "warn", "not tried: there is no table");
    }
    report.says("function", "ok", "active");
    assert_eq!(report.errors, format!("burstd: 1 of {} checks failed\n", report.lines.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_missing_or_too_large_and_ttl_that_is_off_are_told() {
    let others = |keys: &str| config_with(keys).replace("table = \"tasks\"", "table = \"others\"");
    for (projection, verdict, words, code) in [
        (None, "fail", "the index due-index is missing", 78),
        (Some(ProjectionType::All), "warn", "the projection of due-index is ALL", 0),
        (Some(ProjectionType::KeysOnly), "ok", "as burstd needs it", 0),
    ] {
        let world = World::echoing().await;
        create_table(&world, "others", &[("id", ScalarAttributeType::S)], projection).await;
        let report = examine(&Program::in_world(&world, &others(""))).await;
        report.says("index", verdict, words);
        report.says("ttl", "ok", "no queue has retention");
        assert_eq!(report.code, Some(code));
        let report = examine(&Program::in_world(&world, &others("retention = \"7d\""))).await;
        report.says("ttl", "warn", "TTL is switched off");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_keys_of_any_type_a_write_is_tried_and_nothing_is_written() {
    use ScalarAttributeType::{B, N, S};
    let config = config().replace("table = \"tasks\"", "table = \"others\"");
    for (keys, words) in [
        (vec![("number", N)], "number (N)"),
        (vec![("bytes", B)], "bytes (B)"),
        (vec![("name", S), ("number", N)], "name (S) and number (N)"),
        (vec![("number", N), ("bytes", B)], "number (N) and bytes (B)"),
    ] {
        let world = World::echoing().await;
        create_table(&world, "others", &keys, Some(ProjectionType::KeysOnly)).await;
        let report = examine(&Program::in_world(&world, &config)).await;
        report.says("table", "ok", words);
        for action in ["dynamodb:GetItem", "dynamodb:UpdateItem", "dynamodb:Query"] {
            report.says(action, "ok", "allowed");
        }
        let scan = world.client.scan().table_name("others").send().await;
        assert_eq!(scan.expect("it is read").count(), 0, "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_missing_switched_off_or_outlasts_its_lease_is_a_failure() {
    let world = World::echoing().await;
    let gone = config().replace("function = \"work\"", "function = \"gone\"");
    let report = examine(&Program::in_world(&world, &gone)).await;
    assert_eq!((report.code, report.failed()), (Some(78), vec!["function"]));
    report.says("function", "fail", "there is no such function");
    report.says("lease", "warn", "not tried");

    let short = Program::in_world(&world, &config_with("timeout = \"1s\""));
    let report = examine(&short).await;
    assert_eq!((report.code, report.failed()), (Some(78), vec!["lease"]));
    report.says("lease", "fail", "could run beside its former self");

    let echo = async |call: Call| Answer::Returned(call.payload);
    for (reserved, verdict, code) in [(0, "fail", 78), (999, "warn", 0), (1000, "ok", 0)] {
        let world = World::limited(Some(reserved), Limits::default(), echo).await;
        let report = examine(&Program::in_world(&world, &config())).await;
        assert_eq!(report.about("concurrency")["verdict"], verdict, "{reserved}");
        assert_eq!(report.about("concurrency")["reserved"], reserved);
        assert_eq!(report.code, Some(code), "{reserved}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_aws_is_not_asked_for_anything() {
    let aws = Raw::start(|_| Reply::silence()).await;
    let program = Program::between(&aws.url, &aws.url, &config());
    let mut command = command(&["doctor", "--json", "--config"]);
    command.arg(program.config()).env("AWS_ENDPOINT_URL_STS", &aws.url);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let output = tokio::task::block_in_place(|| command.output().expect("the program runs"));
    let report = Report::of(&output);
    assert_eq!((report.code, report.failed()), (Some(69), vec!["credentials"]));
    for what in ["identity", "dynamodb", "table", "lambda", "function", "lambda:InvokeFunction"] {
        report.says(what, "warn", "not tried: there are no credentials");
    }
    assert_eq!(aws.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_service_is_away_the_other_is_examined_all_the_same() {
    let world = World::echoing().await;
    let report = examine(&Program::between(NOWHERE, &world.lambda.url(), &config())).await;
    assert_eq!((report.code, report.failed()), (Some(69), vec!["dynamodb"]));
    report.says("dynamodb", "fail", "Burstd.NotConnected");
    report.says("table", "warn", "not tried: DynamoDB does not answer");
    report.says("clock", "warn", "not tried");
    report.says("lambda:InvokeFunction", "ok", "allowed");

    let report = examine(&Program::between(&world.dynamodb.url(), NOWHERE, &config())).await;
    assert_eq!((report.code, report.failed()), (Some(69), vec!["lambda"]));
    report.says("lambda:InvokeFunction", "warn", "not tried: Lambda does not answer");
    report.says("table", "ok", "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_somebody_is_does_not_matter_to_what_stands_in_for_aws() {
    let world = World::echoing().await;
    let program = Program::in_world(&world, &config());
    for (sts, words) in [
        (NOWHERE, "Burstd.NotConnected"),
        (&world.dynamodb.url(), "not known"),
        (&Raw::start(|_| Reply::silence()).await.url, "Burstd.N"),
    ] {
        let report = examine_with(&program, &[("AWS_ENDPOINT_URL_STS", sts)]).await;
        report.says("identity", "warn", words);
        assert_eq!(report.code, Some(0), "{sts}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_is_told_and_everything_is_examined_by_aws_s() {
    let world = World::echoing().await;
    let proxy = Proxy::start(&world.dynamodb.url(), |_, _| Fate::Pass).await;
    proxy.set_clock(600);
    let report = examine(&Program::between(&proxy.url, &world.lambda.url(), &config())).await;
    report.says("clock", "warn", "behind AWS's");
    let offset = report.about("clock")["offset_s"].as_f64().expect("it is a number");
    assert!((-602.0..-598.0).contains(&offset), "{offset}");
    report.says("lease", "warn", "with this machine's clock nothing may be claimed");
    assert_eq!((report.code, report.failed()), (Some(0), vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_http_that_lambda_really_speaks_is_told() {
    let world = World::echoing().await;
    let config = config().replace("function = \"work\"", "function = \"echo\"");
    for (offers_h2, http, verdict) in [(true, "HTTP/2", "ok"), (false, "HTTP/1.1", "warn")] {
        let lambda = TlsLambda::start(built_in(), Manner { offers_h2, ..Manner::default() });
        let lambda = lambda.expect("it starts");
        let program = Program::between(&world.dynamodb.url(), &lambda.url(), &config);
        let bundle = lambda.ca_bundle();
        let bundle = bundle.to_str().expect("its path is text");
        let report = examine_with(&program, &[("AWS_CA_BUNDLE", bundle)]).await;
        let line = report.about("lambda");
        assert_eq!((&line["http"], &line["verdict"]), (&http.into(), &verdict.into()), "{line}");
        assert_eq!(report.about("dynamodb")["http"], "HTTP/1.1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_told_in_words_what_was_found_and_what_it_cost() {
    let world = World::echoing().await;
    let gone = config().replace("function = \"work\"", "function = \"gone\"");
    let program = Program::in_world(&world, &gone);
    let mut command = command(&["doctor", "--verbose", "--config"]);
    command.arg(program.config()).env("AWS_ENDPOINT_URL_STS", NOWHERE);
    let output = tokio::task::block_in_place(|| command.output().expect("the program runs"));
    check(&output);
    let said = String::from_utf8_lossy(&output.stdout);
    for line in [
        "ok    table tasks: active, with the key id (S)",
        "fail  function gone: there is no such function; queues: work -> correct its name, ",
        "warn  not tried, as there is no such function: lambda:InvokeFunction of gone, lambda:Get",
    ] {
        assert!(said.lines().any(|it| it.starts_with(line)), "{line}\n{said}");
    }
    assert!(said.lines().last().is_some_and(|it| it.ends_with("1 fail, 6 not tried")), "{said}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains(" read units, 1 write units\n"), "{errors}");
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn a_configuration_that_is_wrong_is_told_as_everywhere() {
    let program = Program::with(&config_with("max_attempts = \"five\"\nlease_margin = 3"));
    let [doctor, check] = ["doctor", "check"].map(|command| program.run(&[command]));
    assert_eq!(doctor.status.code(), Some(78));
    assert_eq!((doctor.stdout, doctor.stderr), (check.stdout, check.stderr));
}

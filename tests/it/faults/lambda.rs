//! What can become of an Invoke on its way. It is never sent twice if it may have arrived, and an
//! answer is never taken for that to another call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use burstd::aws::{Clients, Http, LambdaInvoker, Place};
use burstd::invoker::{Outcome, TaskResult};
use burstd::local::place;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::invoke::{invoke, invoke_within, word};
use crate::support::raw::{Deaf, Raw, Reply};

const PATIENCE: Duration = Duration::from_secs(30);

/// Less than any answer takes that is slow or late.
const NO_PATIENCE: Duration = Duration::from_millis(500);

async fn invoker(place: &Place) -> LambdaInvoker {
    Clients::new(place).await.expect("a region").invoker()
}

/// An outcome, in as many words as it takes to tell it from others.
fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Succeeded(success) => match &success.result {
            TaskResult::Empty => "succeeded with nothing".to_owned(),
            TaskResult::Json(text) => format!("succeeded with {text}"),
            TaskResult::Omitted { bytes, why } => format!("succeeded with {bytes} bytes, {why}"),
        },
        Outcome::Failed(failure) => format!("failed with {}", failure.error_type),
        Outcome::Unknown(failure) => format!("unknown, {}", failure.error_type),
        Outcome::NotRun(refusal) => {
            format!("{}, {}", word(outcome), refusal.failure.error_type)
        }
    }
}

/// Each reply, as the answer to the first call of an endpoint of its own; the second is answered
/// as it should be.
async fn each_leads_to(patience: Duration, faults: Vec<(&'static str, Reply, &'static str)>) {
    let mut running = JoinSet::new();
    for (fault, reply, expected) in faults {
        running.spawn(async move {
            let found = both_calls(patience, reply).await;
            let expected = [expected, "sent 1", "succeeded with \"second\"", "sent 2"];
            (found != expected).then(|| format!("{fault}: {found:?}, not {expected:?}"))
        });
    }
    let wrong: Vec<_> = running.join_all().await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What became of each call, and how many requests had arrived by then.
async fn both_calls(patience: Duration, reply: Reply) -> [String; 4] {
    let mut first = Some(reply);
    let lambda =
        Raw::start(move |request| first.take().unwrap_or_else(|| Reply::json(200, &request.body)))
            .await;
    let invoker = invoker(&place("http://127.0.0.1:1", &lambda.url)).await;
    let sent = || format!("sent {}", lambda.count_of("Invoke"));
    let first = told(&invoke_within(patience, &invoker, "work", "\"first\"").await);
    let sent_first = sent();
    let second = told(&invoke(&invoker, "work", "\"second\"").await);
    [first, sent_first, second, sent()]
}

#[tokio::test]
async fn an_answer_that_does_not_arrive_whole_leaves_it_unknown() {
    let lost = "unknown, Burstd.ConnectionLost";
    let chunked = |chunks: &str| {
        Reply::bytes(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"))
    };
    let cut = |bytes: &str| Reply::bytes(bytes);
    let many = |count| Reply::http(200, &"x-header: y\r\n".repeat(count), "{}");
    each_leads_to(
        PATIENCE,
        vec![
            ("a reset", Reply::silence().then_reset(), lost),
            ("an end", Reply::silence().then_closed(), lost),
            ("half a status line", cut("HTTP/1.1 2").then_closed(), lost),
            ("half the headers", cut("HTTP/1.1 200 OK\r\ncontent-le").then_reset(), lost),
            (
                "a body cut off by the end",
                cut("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}").then_closed(),
                lost,
            ),
            (
                "a body cut off by a reset",
                cut("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}").then_reset(),
                lost,
            ),
            (
                "a function's error cut off",
                cut("HTTP/1.1 200 OK\r\nx-amz-function-error: Unhandled\r\n\
                     content-length: 9\r\n\r\n{}")
                .then_closed(),
                lost,
            ),
            (
                "a refusal cut off",
                cut("HTTP/1.1 429 -\r\nx-amzn-errortype: TooManyRequestsException\r\n\
                     content-length: 9\r\n\r\n{}")
                .then_closed(),
                lost,
            ),
            ("chunks without an end", chunked("2\r\n{}\r\n").then_closed(), lost),
            ("a chunk cut off", chunked("9\r\n{}").then_reset(), lost),
            ("a chunk of no size", chunked("two\r\n{}\r\n0\r\n\r\n"), lost),
            ("a chunk longer than it says", chunked("1\r\n{}\r\n0\r\n\r\n"), lost),
            ("no HTTP", cut("220 mail.example ESMTP\r\n"), lost),
            ("HTTP of the future", cut("HTTP/9.9 200 OK\r\n\r\n{}"), lost),
            ("a TLS alert", Reply::bytes([21, 3, 3, 0, 2, 2, 10]).then_closed(), lost),
            ("HTTP/2", Reply::bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]).then_closed(), lost),
            ("no status", cut("HTTP/1.1 OK\r\n\r\n"), lost),
            (
                "two lengths",
                cut("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}"),
                lost,
            ),
            ("a length in words", cut("HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\n{}"), lost),
            ("a header that is not text", Reply::http(200, "x: \u{e9}\r\n", "{}"), lost),
            ("a header without a name", Reply::http(200, ": y\r\n", "{}"), lost),
            ("a header of a megabyte", many(80_000), lost),
            ("two hundred headers", many(200), lost),
            (
                "another protocol",
                cut("HTTP/1.1 101 -\r\nupgrade: x\r\n\r\n").then_closed(),
                "unknown, Burstd.UnknownError",
            ),
            ("a refusal in HTML", Reply::http(403, "", "<html>"), "unknown, Burstd.UnknownError"),
            ("a gateway's error", Reply::http(502, "", "<html>"), "unknown, Burstd.UnknownError"),
            ("a refusal without a word", Reply::http(429, "", ""), "unknown, Burstd.UnknownError"),
            (
                "a throttle whose body is HTML",
                Reply::http(429, "x-amzn-errortype: TooManyRequestsException\r\n", "<html>"),
                "unknown, Burstd.UnknownError",
            ),
            ("an error in half JSON", Reply::json(500, "{"), "unknown, Burstd.UnknownError"),
            (
                "a way elsewhere",
                Reply::http(307, "location: http://127.0.0.1:1/\r\n", ""),
                "unknown, Burstd.UnknownError",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn whatever_a_function_s_answer_holds_it_ran() {
    let large = format!("\"{}\"", "x".repeat(6_000_000));
    let error = |headers: &str, body: &[u8]| {
        Reply::http(200, &format!("x-amz-function-error: Unhandled\r\n{headers}"), body)
    };
    each_leads_to(
        PATIENCE,
        vec![
            ("not JSON", Reply::json(200, "<html>"), "succeeded with 6 bytes, not JSON"),
            ("not UTF-8", Reply::json(200, [b'"', 0xff]), "succeeded with 2 bytes, not UTF-8"),
            ("nothing", Reply::json(200, ""), "succeeded with nothing"),
            ("no content", Reply::bytes("HTTP/1.1 204 -\r\n\r\n"), "succeeded with nothing"),
            (
                "six megabytes",
                Reply::json(200, large),
                "succeeded with 6000002 bytes, larger than 256 KB",
            ),
            (
                "more than its length",
                Reply::bytes(
                    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\
                              content-length: 7\r\n\r\n\"stale\"",
                ),
                "succeeded with {}",
            ),
            (
                "a length too short",
                Reply::bytes("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n\"long\""),
                "succeeded with 3 bytes, not JSON",
            ),
            (
                "no length, until the end",
                Reply::bytes("HTTP/1.1 200 OK\r\n\r\n{}").then_closed(),
                "succeeded with {}",
            ),
            (
                "chunks",
                Reply::bytes(
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                              1\r\n{\r\n1;x=y\r\n}\r\n0\r\nx: y\r\n\r\n",
                ),
                "succeeded with {}",
            ),
            (
                "go on first",
                Reply::bytes(
                    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\
                              \r\n\r\n{}",
                ),
                "succeeded with {}",
            ),
            (
                "old HTTP",
                Reply::bytes("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}").then_closed(),
                "succeeded with {}",
            ),
            (
                "a header of 100 KB",
                Reply::http(200, &format!("x: {}\r\n", "y".repeat(100_000)), "{}"),
                "succeeded with {}",
            ),
            ("an error of nothing", error("", b""), "failed with Unhandled"),
            ("an error that is not UTF-8", error("", b"\xff"), "failed with Unhandled"),
            (
                "an error whose log is not base64",
                error("x-amz-log-result: ?\r\n", b"{\"errorType\": \"T\"}"),
                "failed with T",
            ),
            (
                "an error of a future kind",
                Reply::http(200, "x-amz-function-error: Else\r\n", "{\"errorType\": \"T\"}"),
                "failed with T",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn an_answer_after_the_deadline_is_nobody_s() {
    let late = "unknown, Burstd.NoAnswer";
    let tick = Duration::from_millis(50);
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n\"fir";
    each_leads_to(
        NO_PATIENCE,
        vec![
            ("silence", Reply::silence(), late),
            ("a slow answer", Reply::json(200, "\"first\"").slowly(tick), late),
            ("half an answer", Reply::bytes(half), late),
        ],
    )
    .await;

    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let lambda = Raw::start(move |request| Reply::json(200, &request.body).behind(&held)).await;
    let invoker = invoker(&place("http://127.0.0.1:1", &lambda.url)).await;
    let outcome = invoke_within(NO_PATIENCE, &invoker, "work", "\"first\"").await;
    assert_eq!(told(&outcome), late);
    gate.add_permits(1);
    for call in 1..10 {
        let event = format!("\"call {call}\"");
        let outcome = invoke(&invoker, "work", &event).await;
        assert_eq!(told(&outcome), format!("succeeded with {event}"));
    }
    assert_eq!(lambda.count_of("Invoke"), 10);
}

#[tokio::test]
async fn a_request_that_began_to_arrive_is_unknown_even_if_nobody_has_read_it() {
    let (url, _serving) = Deaf::ToRequests.start().await;
    let invoker = invoker(&place("http://127.0.0.1:1", &url)).await;
    for _ in 0..20 {
        let outcome = invoke(&invoker, "work", "{}").await;
        assert_eq!(told(&outcome), "unknown, Burstd.ConnectionLost");
    }
}

#[tokio::test]
async fn a_connection_that_is_reset_at_once_may_or_may_not_have_carried_the_request() {
    let (url, _serving) = Deaf::AtOnce.start().await;
    let invoker = invoker(&place("http://127.0.0.1:1", &url)).await;
    for _ in 0..20 {
        let outcome = told(&invoke(&invoker, "work", "{}").await);
        let expected = ["unavailable, Burstd.NotConnected", "unknown, Burstd.ConnectionLost"];
        assert!(expected.contains(&outcome.as_str()), "{outcome}");
    }
}

#[tokio::test]
async fn a_second_call_on_a_connection_that_ends_with_it_is_not_sent_on_another() {
    for reply in [Reply::silence().then_closed(), Reply::silence().then_reset()] {
        let mut second = Some(reply);
        let lambda = Raw::start(move |request| match request.text().as_str() {
            "2" => second.take().expect("it comes once"),
            text => Reply::json(200, text),
        })
        .await;
        let invoker = invoker(&place("http://127.0.0.1:1", &lambda.url)).await;
        assert_eq!(told(&invoke(&invoker, "work", "1").await), "succeeded with 1");
        let outcome = invoke(&invoker, "work", "2").await;
        assert_eq!(told(&outcome), "unknown, Burstd.ConnectionLost");
        assert_eq!(told(&invoke(&invoker, "work", "3").await), "succeeded with 3");
        assert_eq!(lambda.count_of("Invoke"), 3);
    }
}

#[tokio::test]
async fn a_peer_that_goes_away_with_a_call_it_has_taken_leaves_it_unknown() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.expect("it speaks h2");
            while let Some(Ok((_, respond))) = connection.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                // Its last stream is this one: it was seen, and no answer will come.
                connection.abrupt_shutdown(h2::Reason::NO_ERROR);
                drop(respond);
            }
        }
    });
    let place = Place { http: Http::H2, ..place("http://127.0.0.1:1", &url) };
    let outcome = invoke(&invoker(&place).await, "work", "{}").await;
    assert_eq!(told(&outcome), "unknown, Burstd.ConnectionLost");
    assert_eq!(taken.load(Ordering::Relaxed), 1, "sent once");
}

#[tokio::test]
async fn a_call_whose_deadline_passes_before_a_connection_is_made_was_not_run() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let place = Place { http: Http::H2, ..place("http://127.0.0.1:1", &url) };
    let outcome = invoke_within(NO_PATIENCE, &invoker(&place).await, "work", "{}").await;
    assert_eq!(told(&outcome), "unavailable, Burstd.NotConnected");
}

#[tokio::test]
async fn a_call_whose_deadline_passes_after_its_stream_was_opened_is_unknown() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.expect("it speaks h2");
            let mut unanswered = Vec::new();
            while let Some(Ok(stream)) = connection.accept().await {
                unanswered.push(stream);
            }
        }
    });
    let place = Place { http: Http::H2, ..place("http://127.0.0.1:1", &url) };
    let outcome = invoke_within(NO_PATIENCE, &invoker(&place).await, "work", "{}").await;
    assert_eq!(told(&outcome), "unknown, Burstd.NoAnswer");
}

//! What carries invocations: over TLS and HTTP/2 as Lambda speaks it, and when connections fail.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::Response;
use burstd::aws::{Clients, Http, LambdaInvoker, Place};
use burstd::invoker::{Invoker as _, Outcome};
use burstd::local::lambda::{Answer, Call, Functions, LocalFunction};
use burstd::local::tls::Manner;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::calls::Calls;
use crate::support::eventually;
use crate::support::invoke::{invoke, invoke_between, invoke_within, word};
use crate::support::relay::Relay;
use crate::support::tls::TlsLambda;

async fn invoker(place: &Place) -> LambdaInvoker {
    Clients::new(place).await.expect("a region").invoker()
}

/// Functions that hold every call until the gate lets it through.
fn gated(calls: &Calls, gate: &Arc<Semaphore>) -> Functions {
    let gate = gate.clone();
    let function = calls.function(Duration::from_secs(60), move |call: Call| {
        let gate = gate.clone();
        async move {
            drop(gate.acquire().await);
            Answer::Returned(call.payload)
        }
    });
    Functions::from([("work".to_owned(), function)])
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_calls_are_in_flight_at_once_over_connections_of_128_streams() {
    for (http, manner, connections) in [
        (Http::Auto, Manner::default(), 4..=8),
        (Http::H2, Manner::default(), 4..=8),
        (Http::Auto, Manner { streams: 40, ..Manner::default() }, 13..=20),
        (Http::H1, Manner::default(), 500..=540),
        (Http::Auto, Manner { offers_h2: false, ..Manner::default() }, 500..=540),
    ] {
        let (calls, gate) = (Calls::default(), Arc::new(Semaphore::new(0)));
        let lambda = TlsLambda::start(gated(&calls, &gate), manner).expect("it starts");
        let invoker = invoker(&Place { http, ..lambda.place() }).await;
        invoker.expect(500);
        let mut running = JoinSet::new();
        for number in 0..500 {
            let invoker = invoker.clone();
            running.spawn(async move { invoke(&invoker, "work", &number.to_string()).await });
        }
        eventually(&format!("all run at once: {http:?}, {manner:?}"), async || {
            match calls.count() {
                500 => Ok(()),
                count => Err(count),
            }
        })
        .await;
        gate.add_permits(1);
        for outcome in running.join_all().await {
            assert_eq!(word(&outcome), "succeeded", "{http:?}, {manner:?}: {outcome:?}");
        }
        let made = lambda.connections();
        assert!(connections.contains(&made), "{made} connections: {http:?}, {manner:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_peers_go_away_no_call_fails_and_none_runs_twice() {
    let calls = Calls::default();
    let function = calls.function(Duration::from_secs(60), async |call: Call| {
        tokio::time::sleep(Duration::from_millis(2)).await;
        Answer::Returned(call.payload)
    });
    let functions = Functions::from([("work".to_owned(), function)]);
    let manner = Manner { goaway_after: Some(100), ..Manner::default() };
    let lambda = TlsLambda::start(functions, manner).expect("it starts");
    let invoker = invoker(&lambda.place()).await;
    let mut running = JoinSet::new();
    for _ in 0..50 {
        let invoker = invoker.clone();
        running.spawn(async move {
            for number in 0..60 {
                let outcome = invoke(&invoker, "work", &number.to_string()).await;
                assert_eq!(word(&outcome), "succeeded", "{outcome:?}");
            }
        });
    }
    running.join_all().await;
    assert_eq!(calls.count(), 50 * 60, "each ran once");
    assert!(lambda.connections() > 20, "peers did go away: {}", lambda.connections());
}

#[tokio::test]
async fn a_peer_that_nobody_vouches_for_is_not_spoken_to() {
    let gate = Arc::new(Semaphore::new(9));
    let lambda = TlsLambda::start(gated(&Calls::default(), &gate), Manner::default());
    let lambda = lambda.expect("it starts");
    let place = Place { ca_bundle: None, ..lambda.place() };
    let outcome = invoke(&invoker(&place).await, "work", "{}").await;
    let Outcome::NotRun(refusal) = outcome else { panic!("{outcome:?}") };
    assert!(refusal.failure.message.contains("certificate"), "{}", refusal.failure.message);
}

#[tokio::test]
async fn a_result_of_six_megabytes_arrives_whole() {
    let function = LocalFunction::new(Duration::from_secs(60), async |_| {
        Answer::Returned(format!("\"{}\"", "x".repeat(6_000_000)).into_bytes())
    });
    let functions = Functions::from([("work".to_owned(), function)]);
    for offers_h2 in [true, false] {
        let manner = Manner { offers_h2, ..Manner::default() };
        let lambda = TlsLambda::start(functions.clone(), manner).expect("it starts");
        let outcome = invoke(&invoker(&lambda.place()).await, "work", "{}").await;
        let Outcome::Succeeded(success) = outcome else { panic!("{outcome:?}") };
        assert_eq!(success.result.bytes(), 6_000_002);
    }
}

#[tokio::test]
async fn a_peer_that_stops_in_the_middle_leaves_it_unknown_and_the_next_call_connects_anew() {
    let (calls, gate) = (Calls::default(), Arc::new(Semaphore::new(0)));
    let lambda = TlsLambda::start(gated(&calls, &gate), Manner::default());
    let lambda = lambda.expect("it starts");
    let invoker = invoker(&lambda.place()).await;
    let mut running = JoinSet::new();
    for _ in 0..10 {
        let invoker = invoker.clone();
        running.spawn(async move { invoke(&invoker, "work", "{}").await });
    }
    eventually("all run", async || match calls.count() {
        10 => Ok(()),
        count => Err(count),
    })
    .await;
    drop(lambda);
    for outcome in running.join_all().await {
        assert_eq!(word(&outcome), "unknown", "{outcome:?}");
    }
    let outcome = invoke(&invoker, "work", "{}").await;
    assert_eq!(word(&outcome), "unavailable", "{outcome:?}");
}

/// An endpoint that speaks HTTP/2 without TLS, and resets the first streams for this reason.
async fn resetting(first: usize, reason: h2::Reason) -> Place {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let streams = Arc::new(AtomicUsize::new(0));
    let serve = async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let streams = streams.clone();
            connections.spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("it speaks h2");
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    if streams.fetch_add(1, Ordering::Relaxed) < first {
                        respond.send_reset(reason);
                        continue;
                    }
                    let mut body = respond.send_response(Response::new(()), false).expect("open");
                    body.send_data("{}".into(), true).expect("open");
                }
            });
        }
    };
    // It ends with the test's runtime.
    #[expect(clippy::disallowed_methods, reason = "nobody waits for it")]
    tokio::spawn(serve);
    let place = burstd::local::place("http://127.0.0.1:1", &format!("http://{address}"));
    Place { http: Http::H2, ..place }
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_at_once_and_after_some_times_given_back_as_not_run() {
    for (refused, expected) in [(1, "succeeded"), (3, "succeeded"), (99, "unavailable")] {
        let place = resetting(refused, h2::Reason::REFUSED_STREAM).await;
        let outcome = invoke(&invoker(&place).await, "work", "{}").await;
        assert_eq!(word(&outcome), expected, "{refused} refused: {outcome:?}");
    }
}

#[tokio::test]
async fn a_stream_that_is_reset_for_any_other_reason_leaves_it_unknown_and_is_not_sent_again() {
    for reason in [h2::Reason::INTERNAL_ERROR, h2::Reason::CANCEL, h2::Reason::NO_ERROR] {
        let invoker = invoker(&resetting(1, reason).await).await;
        let outcome = invoke(&invoker, "work", "{}").await;
        assert_eq!(word(&outcome), "unknown", "{reason:?}: {outcome:?}");
        let outcome = invoke(&invoker, "work", "{}").await;
        assert_eq!(word(&outcome), "succeeded", "{reason:?}: the second stream was the next call");
    }
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_was_never_spoken_to() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let place = Place { http: Http::H2, ..burstd::local::place("http://127.0.0.1:1", &url) };
    let outcome = invoke(&invoker(&place).await, "work", "{}").await;
    assert_eq!(word(&outcome), "unavailable", "without its SETTINGS no call is made: {outcome:?}");
}

#[tokio::test]
async fn a_connection_the_peer_closed_between_two_calls_costs_neither() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let (closed, mut closings) = tokio::sync::mpsc::unbounded_channel();
    let serve = async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 8192];
            let read = stream.read(&mut request).await.expect("a request comes");
            assert!(read > 0);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
            stream.write_all(answer).await.expect("it is answered");
            drop(stream);
            closed.send(()).expect("somebody waits for it");
        }
    };
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(serve);
    let invoker = invoker(&burstd::local::place("http://127.0.0.1:1", &url)).await;
    for call in 0..20 {
        let outcome = invoke(&invoker, "work", "{}").await;
        assert_eq!(word(&outcome), "succeeded", "call {call}: {outcome:?}");
        closings.recv().await.expect("it was closed");
    }
}

#[tokio::test]
async fn an_answer_with_headers_nobody_can_read_leaves_it_unknown_because_the_function_ran() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let serve = async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 8192];
            assert!(stream.read(&mut request).await.expect("a request comes") > 0);
            let answer =
                b"HTTP/1.1 200 OK\r\nx-amzn-requestid: \xff\r\ncontent-length: 2\r\n\r\n{}";
            stream.write_all(answer).await.expect("it is answered");
        }
    };
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(serve);
    let invoker = invoker(&burstd::local::place("http://127.0.0.1:1", &url)).await;
    let outcome = invoke(&invoker, "work", "{}").await;
    assert_eq!(word(&outcome), "unknown", "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_falls_silent_is_noticed_within_a_minute_and_its_calls_are_unknown() {
    let (calls, gate) = (Calls::default(), Arc::new(Semaphore::new(0)));
    let lambda = TlsLambda::start(gated(&calls, &gate), Manner::default()).expect("it starts");
    let port = lambda.url().rsplit(':').next().and_then(|port| port.parse().ok());
    let relay = Relay::start(port.expect("a URL with a port")).await.expect("a free port");
    let url = format!("https://localhost:{}", relay.address.port());
    let place = Place { lambda_endpoint_url: Some(url), ..lambda.place() };
    let invoker = invoker(&place).await;
    let call = invoke_within(Duration::from_secs(300), &invoker, "work", "{}");
    let (outcome, silent_for) = tokio::join!(call, async {
        eventually("it runs", async || if calls.count() == 1 { Ok(()) } else { Err(()) }).await;
        relay.fall_silent();
        Instant::now()
    });
    assert_eq!(word(&outcome), "unknown", "{outcome:?}");
    assert!(silent_for.elapsed() < Duration::from_secs(60), "{:?}", silent_for.elapsed());
}

#[tokio::test]
async fn a_request_in_hand_while_the_process_is_stopped_is_not_sent_once_its_lease_is_short() {
    for http in [Http::H1, Http::H2] {
        let calls = Calls::default();
        let function = calls
            .function(Duration::from_secs(60), async |call: Call| Answer::Returned(call.payload));
        let functions = Functions::from([("work".to_owned(), function)]);
        // On a runtime of its own, because ours is what is stopped.
        let elsewhere = Runtime::new().expect("a runtime");
        let lambda = {
            let _entered = elsewhere.enter();
            TlsLambda::start(functions, Manner::default()).expect("it starts")
        };
        let invoker = invoker(&Place { http, ..lambda.place() }).await;
        assert_eq!(word(&invoke(&invoker, "work", "1").await), "succeeded", "{http:?}");

        let now = Instant::now();
        let (start_by, deadline) =
            (now + Duration::from_millis(500), now + Duration::from_secs(20));
        let outcome = stopped_after_each_step(
            Duration::from_secs(1),
            invoke_between(start_by, deadline, &invoker, "work", "2"),
        )
        .await;
        assert_eq!(word(&outcome), "unknown", "it was in hand: {http:?}: {outcome:?}");
        assert_eq!(calls.count(), 1, "{http:?}");
        assert_eq!(word(&invoke(&invoker, "work", "3").await), "succeeded", "{http:?}");
        elsewhere.shutdown_background();
    }
}

/// Runs it on a thread that does nothing for a while after each step, the connections' included.
async fn stopped_after_each_step<T>(pause: Duration, of: impl Future<Output = T>) -> T {
    let mut of = pin!(of);
    poll_fn(|context| {
        let polled = of.as_mut().poll(context);
        if polled.is_pending() {
            #[expect(clippy::disallowed_methods, reason = "nothing else stops a thread")]
            std::thread::sleep(pause);
        }
        polled
    })
    .await
}

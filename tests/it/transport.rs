//! What carries invocations: over TLS and HTTP/2 as Lambda speaks it, and when connections fail.

use std::sync::Arc;
use std::time::Duration;

use burstd::aws::{Clients, Http, LambdaInvoker, Place};
use burstd::invoker::{Invoker as _, Outcome};
use burstd::local::lambda::{Answer, Call, Functions, LocalFunction};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::calls::Calls;
use crate::support::eventually;
use crate::support::invoke::{invoke, word};
use crate::support::tls::{Manner, TlsLambda};

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

//! The daemon before a function that may run 200 times at once: how full it keeps it, and how
//! often it asks in vain.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use burstd::aws::Clients;
use burstd::local::dynamodb::EmbeddedDynamoDb;
use burstd::local::lambda::{Answer, Call, EmbeddedLambda, Functions, LocalFunction};
use burstd::local::place;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::{interval, sleep};

use crate::{Daemon, task};

const LIMIT: usize = 200;
const TASKS: usize = 2000;
const TAKES: Duration = Duration::from_millis(500);

pub(crate) async fn measure() -> io::Result<()> {
    let (places, throttled) = (Arc::new(Semaphore::new(LIMIT)), Arc::new(AtomicU64::new(0)));
    let counted = throttled.clone();
    let function = LocalFunction::new(Duration::from_secs(10), move |_: Call| {
        let place = places.clone().try_acquire_owned();
        counted.fetch_add(u64::from(place.is_err()), Ordering::Relaxed);
        async move {
            let Ok(_place) = place else { return refusal() };
            sleep(TAKES).await;
            Answer::Returned(b"{}".to_vec())
        }
    });
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let dynamodb = EmbeddedDynamoDb::start(anywhere, None)?;
    let functions = Functions::from([("work".to_owned(), function)]);
    let lambda = EmbeddedLambda::start(anywhere, functions)?;
    let clients = Clients::new(&place(&dynamodb.url(), &lambda.url())).await;
    let table = clients.map_err(io::Error::other)?.table("tasks");
    table.create().await.map_err(io::Error::other)?;
    let producer = table.producer().await.map_err(io::Error::other)?;
    let tasks: Vec<_> = (0..TASKS).map(|number| task(&number.to_string())).collect();
    for batch in tasks.chunks(25) {
        producer.put_all(batch).await.map_err(io::Error::other)?;
    }
    let _daemon = Daemon::start(&dynamodb.url(), &lambda.url())?;
    while lambda.running().begun == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let began = Instant::now();
    let (mut sum, mut samples, mut first_second) = (0, 0, (0, 0));
    let mut ticks = interval(Duration::from_millis(10));
    loop {
        ticks.tick().await;
        let (running, vain) = (lambda.running(), throttled.load(Ordering::Relaxed));
        if began.elapsed() < Duration::from_secs(1) {
            first_second = (running.begun, vain);
        }
        // While there are fewer tasks left than places, none can be kept full.
        if running.begun - vain + LIMIT as u64 <= TASKS as u64 {
            sum += running.now;
            samples += 1;
        } else if running.now == 0 {
            break;
        }
    }
    let (begun, vain) = (lambda.running().begun, throttled.load(Ordering::Relaxed));
    let later = (begun - first_second.0, vain - first_second.1);
    println!("{TASKS} tasks of {TAKES:?}, {LIMIT} at once");
    println!("elapsed                             {:>8.2} s", began.elapsed().as_secs_f64());
    println!("mean in flight                      {:>8.1}", sum as f64 / f64::from(samples));
    println!("throttled in the first second       {:>8}", first_second.1);
    println!(
        "throttled later                     {:>8.1} %",
        later.1 as f64 * 100.0 / later.0 as f64
    );
    sleep(Duration::from_secs(1)).await;
    let items = table.read_all().await.map_err(io::Error::other)?;
    let once = items.iter().filter(|item| item.attempt == 1).count();
    println!("tasks with one attempt              {once:>8}");
    Ok(())
}

fn refusal() -> Answer {
    Answer::Refused {
        status: 429,
        code: "TooManyRequestsException",
        body: json!({
            "Reason": "ReservedFunctionConcurrentInvocationLimitExceeded",
            "message": "Rate Exceeded."
        }),
    }
}

//! The daemon before a function with a limit: how full it keeps it, and how often it asks in vain.

use std::io;
use std::time::{Duration, Instant};

use burstd::aws::Clients;
use burstd::local::dynamodb::EmbeddedDynamoDb;
use burstd::local::lambda::{Answer, Call, EmbeddedLambda, Functions, LocalFunction};
use burstd::local::limits::Limits;
use burstd::local::place;
use tokio::time::{interval, sleep};

use crate::{ANYWHERE, Daemon, task};

/// A function that may run 200 times at once, and does not say so.
pub(crate) async fn of_200() -> io::Result<()> {
    println!("2000 tasks of 0.5 s, 200 at once");
    Case { tasks: 2000, takes: Duration::from_millis(500), limit: Some(200), ramp: None }
        .measure()
        .await
}

/// A function for which Lambda makes 1,000 environments in 10 s.
pub(crate) async fn by_ramp() -> io::Result<()> {
    println!("5000 tasks of 20 s, 1000 new environments in 10 s");
    Case { tasks: 5000, takes: Duration::from_secs(20), limit: None, ramp: Some(1000) }
        .measure()
        .await
}

struct Case {
    tasks: usize,
    takes: Duration,
    limit: Option<u32>,
    ramp: Option<u32>,
}

impl Case {
    async fn measure(&self) -> io::Result<()> {
        let takes = self.takes;
        let mut function = LocalFunction::new(Duration::from_secs(60), move |_: Call| async move {
            sleep(takes).await;
            Answer::Returned(b"{}".to_vec())
        });
        function.max_concurrency = self.limit;
        let dynamodb = EmbeddedDynamoDb::start(ANYWHERE, None)?;
        let functions = Functions::from([("work".to_owned(), function)]);
        let limits = Limits { ramp: self.ramp, is_secret: true, ..Limits::default() };
        let lambda = EmbeddedLambda::limited(ANYWHERE, functions, limits)?;
        let clients = Clients::new(&place(&dynamodb.url(), &lambda.url())).await;
        let table = clients.map_err(io::Error::other)?.table("tasks");
        table.create().await.map_err(io::Error::other)?;
        let producer = table.producer().await.map_err(io::Error::other)?;
        let tasks: Vec<_> = (0..self.tasks).map(|number| task(&number.to_string())).collect();
        for batch in tasks.chunks(25) {
            producer.put_all(batch).await.map_err(io::Error::other)?;
        }
        let _daemon = Daemon::start(&dynamodb.url(), &lambda.url(), self.tasks)?;
        self.watch(&lambda).await;
        sleep(Duration::from_secs(1)).await;
        let items = table.read_all().await.map_err(io::Error::other)?;
        let once = items.iter().filter(|item| item.attempt == 1).count();
        println!("tasks with one attempt              {once:>8}");
        Ok(())
    }

    /// Watches until all have run.
    async fn watch(&self, lambda: &EmbeddedLambda) {
        while lambda.running().begun == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        let began = Instant::now();
        let (mut sum, mut samples, mut first_second) = (0, 0, (0, 0));
        let mut ticks = interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            let running = lambda.running();
            if began.elapsed() < Duration::from_secs(1) {
                first_second = (running.begun, running.throttled);
            }
            // While there are fewer tasks left than places, none can be kept full.
            let left = self.tasks as u64 - running.begun;
            if left >= u64::from(self.limit.unwrap_or(1)) {
                sum += running.now;
                samples += 1;
            } else if left == 0 && running.now == 0 {
                break;
            }
        }
        let all = lambda.running();
        let share =
            |(begun, throttled): (u64, u64)| throttled as f64 * 100.0 / (begun + throttled) as f64;
        let later = (all.begun - first_second.0, all.throttled - first_second.1);
        println!("elapsed                             {:>8.2} s", began.elapsed().as_secs_f64());
        println!("mean in flight                      {:>8.1}", sum as f64 / f64::from(samples));
        println!("at most in flight                   {:>8}", all.peak);
        println!("throttled in the first second       {:>8}", first_second.1);
        println!("throttled later                     {:>8.2} %", share(later));
        println!(
            "throttled in all                    {:>8.2} %",
            share((all.begun, all.throttled))
        );
    }
}

//! Bursts of invocations over TLS, from this process to an endpoint in another: burstd's
//! transport beside the SDK's own client, in turn.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use burstd::aws::{Clients, Http, LambdaInvoker, Place};
use burstd::invoker::{Invoker as _, Outcome};
use burstd::local::lambda::{Answer, Call, EmbeddedLambda, Functions, LocalFunction};
use burstd::local::place;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::invoke::invoke_within;
use crate::tls::{Manner, TlsLambda};

/// No call takes longer.
const LONG: Duration = Duration::from_secs(60);

/// What the endpoint's process does: it serves until its standard input ends.
pub(crate) async fn endpoint() -> io::Result<()> {
    let function = LocalFunction::new(Duration::from_secs(60), async |call: Call| {
        let event: serde_json::Value = serde_json::from_slice(&call.payload).unwrap_or_default();
        sleep(Duration::from_millis(event.as_u64().unwrap_or_default())).await;
        Answer::Returned(call.payload)
    });
    let functions = Functions::from([("work".to_owned(), function)]);
    let plain = EmbeddedLambda::start(([127, 0, 0, 1], 0).into(), functions.clone())?;
    let tls = TlsLambda::start(functions, Manner::default())?;
    println!("{}", plain.url());
    println!("{}", tls.place().lambda_endpoint_url.unwrap_or_default());
    println!("{}", tls.ca_bundle().display());
    tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new())).await??;
    Ok(())
}

/// The endpoint's process.
struct Endpoint {
    child: Child,
    plain: String,
    tls: String,
    ca: PathBuf,
}

impl Endpoint {
    fn start() -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("endpoint")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = child.stdout.take().map(BufReader::new).into_iter();
        let mut output = lines.next().ok_or_else(|| io::Error::other("no output"))?;
        let (plain, tls) = (line(&mut output)?, line(&mut output)?);
        let ca = PathBuf::from(line(&mut output)?);
        Ok(Endpoint { child, plain, tls, ca })
    }
}

fn line(output: &mut BufReader<ChildStdout>) -> io::Result<String> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Measures bursts of `calls` calls of `takes` each.
pub(crate) async fn measure(calls: usize, takes: Duration) -> io::Result<()> {
    let endpoint = Endpoint::start()?;
    println!("{calls} calls of {takes:?}, TLS, 128 calls on an HTTP/2 connection");
    println!(
        "{:<24}{:>10}{:>10}{:>12}{:>14}{:>8}",
        "", "elapsed", "ratio", "CPU a call", "memory a call", "failed"
    );
    for (name, http) in [("burstd, HTTP/2", Http::Auto), ("burstd, HTTP/1.1", Http::H1)] {
        let place = Place {
            http,
            ca_bundle: Some(endpoint.ca.clone()),
            ..place("http://127.0.0.1:1", &endpoint.tls)
        };
        let invoker = Clients::new(&place).await.map_err(io::Error::other)?.invoker();
        for state in ["cold", "warm"] {
            let burst = burst(&invoker, calls, takes).await?;
            burst.print(&format!("{name}, {state}"), calls, takes);
        }
    }
    let sdk = sdk_client(&endpoint)?;
    // It takes 128 at a time: more than this is a matter of patience.
    for state in ["cold", "warm"].into_iter().filter(|_| calls <= 1000) {
        let burst = sdk_burst(&sdk, calls, takes).await?;
        burst.print(&format!("the SDK's own, {state}"), calls, takes);
    }
    println!("\n20000 calls of 0 s over plain HTTP/1.1, 64 at a time: CPU of the caller a call");
    let plain = Clients::new(&place("http://127.0.0.1:1", &endpoint.plain)).await;
    let invoker = plain.map_err(io::Error::other)?.invoker();
    let sdk = sdk_config(&endpoint.plain).build();
    let sdk = aws_sdk_lambda::Client::from_conf(sdk);
    for round in 1..=3 {
        let ours = stream(|| {
            let invoker = invoker.clone();
            async move {
                invoke_within(LONG, &invoker, "work", "0").await;
            }
        })
        .await?;
        let theirs = stream(|| {
            let sdk = sdk.clone();
            async move {
                assert!(sdk_invoke(&sdk, "0").await);
            }
        })
        .await?;
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        println!("round {round}: burstd {ours:?}, the SDK's own {theirs:?}, ratio {ratio:.2}");
    }
    Ok(())
}

struct Burst {
    elapsed: Duration,
    cpu: Duration,
    memory_kb: f64,
    failed: usize,
}

impl Burst {
    fn print(&self, name: &str, calls: usize, takes: Duration) {
        println!(
            "{name:<24}{:>9.2}s{:>9.3}x{:>10.0}µs{:>12.1}KB{:>8}",
            self.elapsed.as_secs_f64(),
            self.elapsed.as_secs_f64() / takes.as_secs_f64(),
            self.cpu.as_secs_f64() * 1e6 / calls as f64,
            self.memory_kb / calls as f64,
            self.failed
        );
    }
}

async fn burst(invoker: &LambdaInvoker, calls: usize, takes: Duration) -> io::Result<Burst> {
    invoker.expect(calls);
    timed(calls, takes, || {
        let (invoker, event) = (invoker.clone(), takes.as_millis().to_string());
        async move {
            let outcome = invoke_within(LONG, &invoker, "work", &event).await;
            matches!(outcome, Outcome::Succeeded(_))
        }
    })
    .await
}

async fn sdk_burst(
    client: &aws_sdk_lambda::Client,
    calls: usize,
    takes: Duration,
) -> io::Result<Burst> {
    timed(calls, takes, || {
        let (client, event) = (client.clone(), takes.as_millis().to_string());
        async move { sdk_invoke(&client, &event).await }
    })
    .await
}

async fn timed<F>(calls: usize, takes: Duration, call: impl Fn() -> F) -> io::Result<Burst>
where
    F: Future<Output = bool> + Send + 'static,
{
    let (cpu_before, memory_before, began) = (cpu()?, memory_kb()?, Instant::now());
    let mut running = JoinSet::new();
    for _ in 0..calls {
        running.spawn(call());
    }
    sleep(takes * 9 / 10).await;
    let memory_kb = memory_kb()? - memory_before;
    let failed = running.join_all().await.into_iter().filter(|ok| !ok).count();
    Ok(Burst { elapsed: began.elapsed(), cpu: cpu()? - cpu_before, memory_kb, failed })
}

/// Calls one after the other in 64 tasks; the CPU of one call.
async fn stream<F>(call: impl Fn() -> F) -> io::Result<Duration>
where
    F: Future<Output = ()> + Send + 'static,
{
    const CALLS: u32 = 20_000;
    let before = cpu()?;
    let mut running = JoinSet::new();
    for _ in 0..CALLS {
        if running.len() >= 64 {
            running.join_next().await;
        }
        running.spawn(call());
    }
    running.join_all().await;
    Ok((cpu()? - before) / CALLS)
}

async fn sdk_invoke(client: &aws_sdk_lambda::Client, event: &str) -> bool {
    let payload = aws_sdk_lambda::primitives::Blob::new(event.as_bytes());
    client.invoke().function_name("work").payload(payload).send().await.is_ok()
}

fn sdk_client(endpoint: &Endpoint) -> io::Result<aws_sdk_lambda::Client> {
    let trust = TrustStore::default().with_pem_certificate(fs::read(&endpoint.ca)?);
    let tls = TlsContext::builder().with_trust_store(trust).build().map_err(io::Error::other)?;
    let http = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls)
        .build_https();
    Ok(aws_sdk_lambda::Client::from_conf(sdk_config(&endpoint.tls).http_client(http).build()))
}

fn sdk_config(url: &str) -> aws_sdk_lambda::config::Builder {
    let credentials =
        aws_sdk_lambda::config::Credentials::new("bench", "bench", None, None, "bench");
    aws_sdk_lambda::Config::builder()
        .behavior_version_latest()
        .endpoint_url(url)
        .region(aws_sdk_lambda::config::Region::new("us-east-1"))
        .credentials_provider(credentials)
}

/// CPU time of this process so far.
fn cpu() -> io::Result<Duration> {
    crate::cpu_of("self")
}

fn memory_kb() -> io::Result<f64> {
    Ok(crate::memory_mb("self", "VmRSS:")? * 1024.0)
}

//! Users' own functions, as processes: what the embedded Lambda adds to them. `-- functions` runs
//! the Rust function of `tests/functions`, and the Python handler where its client is installed.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use burstd::usage;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;

/// Warm calls of a function that does nothing, one after the other.
const WARM: usize = 2000;

/// So long that no call ends before each has a process of its own.
const COLD: f64 = 2.5;

/// All figures.
pub(crate) async fn measure() -> io::Result<()> {
    let examples = examples()?;
    let work = examples.join("work").display().to_string();
    let endpoint = Endpoint::start("work", &work, &examples)?;
    println!("Rust, a process for each call at once; calls of the SDK's own kind over HTTP/1.1");
    endpoint.burst(500, COLD, "500 calls of 2.5 s, cold").await?;
    for _ in 0..3 {
        endpoint.burst(500, 0.5, "500 calls of 0.5 s, warm").await?;
    }
    endpoint.one_after_the_other().await?;
    drop(endpoint);
    let Some(python) = python() else {
        println!("Python: skipped, python3 has no awslambdaric (BURSTD_PYTHON names one)");
        return Ok(());
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/functions");
    let command = format!("{} -m awslambdaric handler.handler", python.display());
    let endpoint = Endpoint::start("py", &command, &folder)?;
    println!("Python, likewise");
    endpoint.burst(200, COLD, "200 calls of 2.5 s, cold").await?;
    for _ in 0..3 {
        endpoint.burst(200, 0.5, "200 calls of 0.5 s, warm").await?;
    }
    Ok(())
}

/// Where `cargo bench` builds the functions.
fn examples() -> io::Result<PathBuf> {
    let bench = std::env::current_exe()?;
    let target = bench.parent().and_then(Path::parent).map(|target| target.join("examples"));
    let found = target.filter(|target| target.join("work").exists());
    found.ok_or_else(|| io::Error::other("build the functions: cargo build --release --examples"))
}

/// A Python that has the official runtime client, if there is one.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("BURSTD_PYTHON").map(PathBuf::from);
    let python = named.unwrap_or_else(|| "python3".into());
    let tried = Command::new(&python).args(["-c", "import awslambdaric"]).output();
    tried.is_ok_and(|output| output.status.success()).then_some(python)
}

type Http = Client<HttpConnector, Full<Bytes>>;

/// `burstd dev` with one function, which nobody inserts tasks for.
struct Endpoint {
    dev: Child,
    uri: String,
    client: Http,
}

impl Endpoint {
    fn start(name: &str, command: &str, folder: &Path) -> io::Result<Self> {
        let mut dev = Command::new(env!("CARGO_BIN_EXE_burstd"))
            .args(["dev", "--dynamodb-port", "0", "--lambda-port", "0", "--log-level", "warn"])
            .args(["--function", &format!("{name}={command}")])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(dev.stdout.take().expect("it is a pipe")).lines();
        let url = loop {
            let line = lines.next().ok_or_else(|| io::Error::other("burstd dev has ended"))??;
            if let Some(url) = line.strip_prefix("Lambda    ") {
                break url.to_owned();
            }
        };
        // What it says from now on is nobody's, and must not hold it up.
        std::thread::spawn(move || lines.count());
        let uri = format!("{url}/2015-03-31/functions/{name}/invocations");
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Endpoint { dev, uri, client })
    }

    fn cpu(&self) -> io::Result<Duration> {
        usage::cpu(&self.dev.id().to_string())
    }

    /// Processes of the function: those that `burstd dev` has started, but for its warden.
    fn processes(&self) -> io::Result<usize> {
        let mut count = 0;
        for entry in fs::read_dir("/proc")? {
            // What is no process has no status, and what has ended has none any more.
            let Ok(status) = fs::read_to_string(entry?.path().join("status")) else { continue };
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t"));
            count += usize::from(parent == Some(&*self.dev.id().to_string()));
        }
        Ok(count.saturating_sub(1))
    }

    /// So many calls at once, each taking so long.
    async fn burst(&self, calls: usize, seconds: f64, what: &str) -> io::Result<()> {
        let (before, began) = (self.cpu()?, Instant::now());
        let mut running = JoinSet::new();
        for _ in 0..calls {
            running.spawn(call(self.client.clone(), self.uri.clone(), seconds));
        }
        let mut times = Vec::new();
        let mut failed = 0;
        for took in running.join_all().await {
            match took {
                Ok(took) => times.push(took),
                Err(_) => failed += 1,
            }
        }
        let (all, cpu) = (began.elapsed(), self.cpu()? - before);
        times.sort();
        let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
        println!(
            "{what:<24}  answered {:>4}, failed {failed}, {} processes  p50 {:.3} s  p99 {:.3} s  \
             all {:.2} s  endpoint's CPU {} µs a call",
            times.len(),
            self.processes()?,
            at(50).as_secs_f64(),
            at(99).as_secs_f64(),
            all.as_secs_f64(),
            cpu.as_micros() / calls as u128
        );
        Ok(())
    }

    async fn one_after_the_other(&self) -> io::Result<()> {
        let mut times = Vec::new();
        let before = self.cpu()?;
        for _ in 0..WARM {
            times.push(call(self.client.clone(), self.uri.clone(), 0.0).await?);
        }
        let cpu = self.cpu()? - before;
        times.sort();
        println!(
            "{WARM} calls, one by one      p50 {} µs  p99 {} µs  endpoint's CPU {} µs a call",
            times[WARM / 2].as_micros(),
            times[WARM * 99 / 100].as_micros(),
            cpu.as_micros() / WARM as u128
        );
        Ok(())
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // It may have ended already.
        self.dev.kill().ok();
        self.dev.wait().ok();
    }
}

/// One call, and how long it took.
async fn call(client: Http, uri: String, seconds: f64) -> io::Result<Duration> {
    let body = format!("{{\"seconds\":{seconds}}}");
    let request =
        Request::post(uri).body(Full::new(Bytes::from(body))).map_err(io::Error::other)?;
    let began = Instant::now();
    let response = client.request(request).await.map_err(io::Error::other)?;
    let is_well =
        response.status().is_success() && !response.headers().contains_key("x-amz-function-error");
    response.into_body().collect().await.map_err(io::Error::other)?;
    is_well.then(|| began.elapsed()).ok_or_else(|| io::Error::other("the call failed"))
}

//! `burstd bench`: one burst of calls, made by burstd and by what people use otherwise.

mod caller;
mod endpoint;
mod plot;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use clap::builder::RangedI64ValueParser;
use clap::{Args, ValueEnum, value_parser};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

pub(super) use caller::call;
use caller::{Client, Orders, Round};
pub(super) use endpoint::serve;
use endpoint::{Address, Behaviour, Seen};

use super::exit::Exit;
use crate::aws::Http;
use crate::descriptors;

/// Calls that are made one at a time; more would be a matter of patience.
const ONE_AT_A_TIME: u64 = 5;

/// Threads of `concurrent.futures` on four cores, and as many calls as its users had.
const POOL: usize = 8;
const POOL_CALLS: u64 = 100;

/// The SDK's client has 128 calls in flight: more calls than these are a matter of patience.
const SDK_CALLS: u64 = 1000;

/// Descriptors beside those of connections.
const SPARE_DESCRIPTORS: u64 = 100;

#[derive(Args)]
pub(super) struct Bench {
    /// Calls at once by burstd
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = at_least_1())]
    concurrency: u32,
    /// Calls in all by burstd; as many as at once when absent
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    calls: Option<u64>,
    /// How long a call takes ...
    #[arg(long, value_name = "TIME", default_value = "1.8s", value_parser = duration)]
    duration: Duration,
    /// ... give or take so much
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = duration)]
    spread: Duration,
    /// Calls the endpoint takes on one HTTP/2 connection
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = at_least_1())]
    streams: u32,
    /// Connections end with GOAWAY after so many calls
    #[arg(long, value_name = "N")]
    goaway: Option<usize>,
    /// Calls the endpoint runs at once; it throttles more
    #[arg(long, value_name = "N", value_parser = at_least_1())]
    limit: Option<u32>,
    /// New environments the endpoint makes in 10 s; it throttles more
    #[arg(long, value_name = "N", value_parser = at_least_1())]
    ramp: Option<u32>,
    /// An endpoint without TLS, over HTTP/1.1
    #[arg(long)]
    plain: bool,
    /// Which HTTP burstd speaks
    #[arg(long, default_value = "auto")]
    http: HttpArgument,
    /// Only these
    #[arg(long, value_name = "WHO", value_delimiter = ',')]
    only: Vec<Way>,
    /// Plot calls in flight over time
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print the figures as JSON, one line for each round
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum HttpArgument {
    Auto,
    H1,
    H2,
}

/// A way to make calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// One call at a time, by the SDK's client
    One,
    /// Eight at a time, as a pool of threads has them, by the SDK's client
    Pool,
    /// All at once, by the SDK's client
    Sdk,
    /// All at once, by burstd
    Burstd,
}

/// One round of one way, as both sides saw it.
struct Row {
    name: &'static str,
    calls: u64,
    round: Round,
    seen: Seen,
}

impl Bench {
    pub(super) fn run(self) -> Result<(), Exit> {
        self.check()?;
        let directory = Directory::new()?;
        let mut endpoint = Process::start("bench-endpoint", &self.behaviour())?;
        let address: Address = endpoint.read()?;
        let certificate = directory.0.join("certificate.pem");
        std::fs::write(&certificate, &address.certificate).map_err(Exit::os)?;
        if !self.json {
            self.print_head();
        }
        let mut rows = Vec::new();
        for way in [Way::One, Way::Pool, Way::Sdk, Way::Burstd] {
            if !self.only.is_empty() && !self.only.contains(&way) {
                continue;
            }
            let orders = self.orders(way, &address.url, &certificate);
            let mut caller = Process::start("bench-caller", &orders)?;
            for name in way.rounds() {
                endpoint.ask::<Seen>()?;
                let round: Round = caller.ask()?;
                let row = Row { name, calls: orders.calls, round, seen: endpoint.ask()? };
                self.print(&row);
                rows.push(row);
            }
        }
        if let Some(file) = &self.svg {
            plot::draw(file, &self.title(), &rows)?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Exit> {
        if self.spread > self.duration {
            return Err(Exit::usage("--spread must not be longer than --duration"));
        }
        let h1 = self.plain || matches!(self.http, HttpArgument::H1);
        let allowed = descriptors::raise().saturating_sub(SPARE_DESCRIPTORS);
        if h1 && u64::from(self.concurrency) > allowed {
            return Err(Exit::os(format!(
                "{} calls on HTTP/1.1 need a file descriptor each, and this process may have \
                 {allowed}; use --concurrency {allowed}, or raise `ulimit -n`",
                self.concurrency
            )));
        }
        Ok(())
    }

    fn behaviour(&self) -> Behaviour {
        Behaviour {
            takes: self.duration,
            spread: self.spread,
            streams: self.streams,
            goaway_after: self.goaway,
            limit: self.limit,
            ramp: self.ramp,
            plain: self.plain,
        }
    }

    fn orders(&self, way: Way, url: &str, certificate: &Path) -> Orders {
        let all = self.calls.unwrap_or(u64::from(self.concurrency));
        let (calls, concurrency) = match way {
            Way::One => (ONE_AT_A_TIME.min(all), 1),
            Way::Pool => (POOL_CALLS.min(all), POOL),
            // Where nothing limits it to 128, there is no need for patience.
            Way::Sdk if self.plain => (all, self.concurrency as usize),
            Way::Sdk => (SDK_CALLS.min(all), self.concurrency as usize),
            Way::Burstd => (all, self.concurrency as usize),
        };
        let http = match self.http {
            HttpArgument::Auto => Http::Auto,
            HttpArgument::H1 => Http::H1,
            HttpArgument::H2 => Http::H2,
        };
        Orders {
            client: if way == Way::Burstd { Client::Burstd } else { Client::Sdk },
            url: url.to_owned(),
            certificate: (!self.plain).then(|| certificate.to_owned()),
            http,
            calls,
            concurrency,
            ramp: self.ramp,
        }
    }

    fn title(&self) -> String {
        let (takes, spread) =
            (humantime::format_duration(self.duration), humantime::format_duration(self.spread));
        let http = match self.plain {
            true => "HTTP/1.1 without TLS".to_owned(),
            false => format!("TLS, {} calls on an HTTP/2 connection", self.streams),
        };
        format!("calls of {takes} ± {spread}, {http}")
    }

    fn print_head(&self) {
        println!("{}\n", self.title());
        println!(
            "{:<19}{:>7}{:>7}{:>9}{:>9}{:>8}{:>9}{:>10}{:>10}{:>8}{:>10}",
            "",
            "calls",
            "peak",
            "to peak",
            "total",
            "÷ call",
            "CPU/call",
            "mem/call",
            "throttled",
            "failed",
            "ran again"
        );
    }

    fn print(&self, row: &Row) {
        let Row { name, calls, round, seen } = row;
        let to_peak = Duration::from_millis(seen.peak_at.saturating_sub(round.began_at));
        let total = round.elapsed.as_secs_f64();
        let longest = (self.duration + self.spread).as_secs_f64();
        let cpu_us = round.cpu.as_secs_f64() * 1e6 / *calls as f64;
        let memory_kb = round.memory_kb as f64 / f64::from(seen.peak.max(1));
        if self.json {
            let row = json!({
                "way": name,
                "calls": calls,
                "peak": seen.peak,
                "time_to_peak_s": to_peak.as_secs_f64(),
                "total_s": total,
                "total_by_longest_call": total / longest,
                "cpu_us_per_call": cpu_us,
                "memory_kb_per_call": memory_kb,
                "throttled": round.throttled,
                "failed": round.failed,
                "ran_again": seen.ran_again,
            });
            println!("{row}");
            return;
        }
        println!(
            "{name:<19}{calls:>7}{:>7}{:>8.2}s{total:>8.2}s{:>8.3}{cpu_us:>7.0}µs{memory_kb:>8.1}KB\
             {:>10}{:>8}{:>10}",
            seen.peak,
            to_peak.as_secs_f64(),
            total / longest,
            round.throttled,
            round.failed,
            seen.ran_again,
        );
    }
}

impl Way {
    /// The names of its rounds. The first has to connect.
    fn rounds(self) -> &'static [&'static str] {
        match self {
            Way::One => &["one at a time"],
            Way::Pool => &["a pool of 8"],
            Way::Sdk => &["SDK, cold", "SDK, warm"],
            Way::Burstd => &["burstd, cold", "burstd, warm"],
        }
    }
}

/// This program, as another process with another part to play.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(part: &str, with: &impl Serialize) -> Result<Self, Exit> {
        let with = serde_json::to_string(with).map_err(Exit::software)?;
        let mut child = Command::new(std::env::current_exe().map_err(Exit::os)?)
            .args([part, &with])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Exit::os)?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else {
            return Err(Exit::software("a child without pipes"));
        };
        Ok(Process { child, input, output: BufReader::new(output) })
    }

    fn ask<T: DeserializeOwned>(&mut self) -> Result<T, Exit> {
        writeln!(self.input).map_err(Exit::os)?;
        self.read()
    }

    fn read<T: DeserializeOwned>(&mut self) -> Result<T, Exit> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(Exit::os)?;
        let wrong = |error| Exit::software(format!("a part of the benchmark ended: {error}"));
        serde_json::from_str(&line).map_err(wrong)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A directory of our own, for the certificate.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self, Exit> {
        let path = std::env::temp_dir().join(format!("burstd-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(Exit::os)?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left behind is a certificate nobody uses.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn at_least_1() -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(1..)
}

fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').filter(|number| number.contains('.'));
    let duration = match seconds.map(str::parse) {
        Some(Ok(seconds)) => Duration::try_from_secs_f64(seconds).map_err(|it| it.to_string())?,
        _ => humantime::parse_duration(text).map_err(|error| error.to_string())?,
    };
    if duration > Duration::from_secs(600) {
        return Err("it must be 10m at most".to_owned());
    }
    Ok(duration)
}

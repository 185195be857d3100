//! An embedded Lambda endpoint: the part of the API that burstd uses, in front of functions
//! written in Rust.
//!
//! As in Lambda, a function runs to its end or its timeout whether or not the caller is still
//! there.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::sync::oneshot;

use super::dynamodb::listen;
use super::environments::Environments;
use super::limits::Limits;
use super::protocol;

/// One invocation, as a function sees it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The function's name, without account and qualifier.
    pub function: String,
    /// The alias or version that was called, if one was named.
    pub qualifier: Option<String>,
    /// Lambda's id of the request.
    pub request_id: String,
    /// The event.
    pub payload: Vec<u8>,
    /// What burstd tells of the task; nothing when somebody else called.
    pub context: Option<TaskContext>,
    /// The caller's ClientContext, whoever called: JSON.
    pub client_context: Option<Vec<u8>>,
    /// The X-Ray trace header.
    pub trace: Option<String>,
}

/// What burstd puts into ClientContext.
#[derive(Clone, Debug, Deserialize)]
pub struct TaskContext {
    /// The task's name.
    pub task_id: String,
    /// Its queue.
    pub queue: String,
    /// Which attempt this is.
    #[serde(deserialize_with = "from_text")]
    pub attempt: u32,
    /// Who invokes.
    pub worker: String,
    /// Until when nobody else will, in epoch seconds.
    #[serde(deserialize_with = "from_text")]
    pub lease_until: f64,
}

/// Reads what is in a text.
fn from_text<'de, D: Deserializer<'de>, T: FromStr>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| D::Error::custom(format!("{text:?} is no number")))
}

/// How a call ends.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The function returned this.
    Returned(Vec<u8>),
    /// The function raised an error.
    Raised {
        /// Its type.
        error_type: String,
        /// Its words.
        message: String,
    },
    /// The function failed, in the words of its own runtime: JSON.
    Errored(Vec<u8>),
    /// The function returned more than Lambda takes.
    TooLarge,
    /// Lambda did not run the function.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The error's code.
        code: &'static str,
        /// More fields of the error's body, such as `Reason`.
        body: Value,
    },
    /// The connection breaks without an answer.
    Disconnected,
}

/// How a call ended, and what it left in the log.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How.
    pub answer: Answer,
    /// The end of the function's log.
    pub log: String,
}

/// The code of a function that is written in Rust, in this process.
pub type Handler = Arc<dyn Fn(Call) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// A function: its code and its settings.
#[derive(Clone)]
pub struct LocalFunction {
    /// The longest it may run.
    pub timeout: Duration,
    /// The concurrency that is reserved for it, and is its limit.
    pub max_concurrency: Option<u32>,
    /// Memory of each of its environments, in megabytes.
    pub memory_mb: u32,
    /// Its code.
    pub code: Code,
}

/// Where a function's code is.
#[derive(Clone)]
pub enum Code {
    /// In this process.
    Handler(Handler),
    /// In processes of its own.
    Program(Arc<Environments>),
}

impl LocalFunction {
    /// A function with this code.
    pub fn new<F, R>(timeout: Duration, code: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |call| Box::pin(code(call)));
        let code = Code::Handler(handler);
        LocalFunction { timeout, max_concurrency: None, memory_mb: 128, code }
    }

    /// A function that runs in processes of its own.
    pub fn program(environments: Arc<Environments>) -> Self {
        let program = &environments.program;
        LocalFunction {
            timeout: program.timeout,
            max_concurrency: program.max_concurrency,
            memory_mb: program.memory_mb,
            code: Code::Program(environments),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Code::Handler(_) => "Handler",
            Code::Program(_) => "Program",
        })
    }
}

impl fmt::Debug for LocalFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalFunction").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// The ARN of a function here, or of an alias or version of it.
pub(super) fn arn(name: &str, qualifier: Option<&str>) -> String {
    let qualifier = qualifier.map(|qualifier| format!(":{qualifier}")).unwrap_or_default();
    format!("arn:aws:lambda:{}:000000000000:function:{name}{qualifier}", super::REGION)
}

/// The functions of an endpoint, by name.
pub type Functions = BTreeMap<String, LocalFunction>;

/// How many functions run, and when most did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Running {
    /// At this moment.
    pub now: u64,
    /// At most, so far.
    pub peak: u64,
    /// When that was first reached.
    pub peak_at: Option<Instant>,
    /// Invocations that were begun, in all.
    pub begun: u64,
    /// Invocations that a limit refused.
    pub throttled: u64,
}

/// Counts running functions.
#[derive(Debug, Default)]
pub(super) struct Gauge(Mutex<Running>);

impl Gauge {
    pub(super) fn begin(&self) {
        let mut running = self.0.lock().expect("nothing panics while holding this lock");
        running.now += 1;
        running.begun += 1;
        if running.now > running.peak {
            running.peak = running.now;
            running.peak_at = Some(Instant::now());
        }
    }

    pub(super) fn throttled(&self) {
        self.0.lock().expect("nothing panics while holding this lock").throttled += 1;
    }

    pub(super) fn end(&self) {
        self.0.lock().expect("nothing panics while holding this lock").now -= 1;
    }

    fn read(&self) -> Running {
        *self.0.lock().expect("nothing panics while holding this lock")
    }
}

/// A Lambda endpoint that lives as long as this value.
#[derive(Debug)]
pub struct EmbeddedLambda {
    address: SocketAddr,
    gauge: Arc<Gauge>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedLambda {
    /// Serves these functions at `address`, port 0 being any free one.
    ///
    /// # Errors
    ///
    /// When the port is taken, or the system gives no thread.
    pub fn start(address: SocketAddr, functions: Functions) -> io::Result<Self> {
        Self::limited(address, functions, Limits::default())
    }

    /// The same, within limits as Lambda's.
    ///
    /// # Errors
    ///
    /// When the port is taken, or the system gives no thread.
    pub fn limited(address: SocketAddr, functions: Functions, limits: Limits) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = listen(&runtime, address)?;
        let address = listener.local_addr()?;
        let gauge = Arc::new(Gauge::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let router = protocol::router(functions, limits, gauge.clone());
        let thread = thread::Builder::new().name("lambda".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    // An error means that the value was dropped: that is to stop, too.
                    _ = stopped => {}
                    served = async { axum::serve(listener, router).await } => {
                        if let Err(error) = served {
                            tracing::warn!(event = "dev.lambda_failed", %error, "it ended");
                        }
                    }
                }
            });
        })?;
        Ok(EmbeddedLambda { address, gauge, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many functions run.
    pub fn running(&self) -> Running {
        self.gauge.read()
    }
}

impl Drop for EmbeddedLambda {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there was printed there.
            drop(thread.join());
        }
    }
}

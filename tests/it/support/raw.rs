//! An endpoint of plain TCP that does to HTTP/1.1 what no HTTP server can be made to do: it reads
//! each request wholly, counts it, and answers as a plan says.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// A request, as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    head: String,
    pub body: Vec<u8>,
}

impl Request {
    /// `Invoke`, or what DynamoDB is asked for, such as `UpdateItem`.
    pub fn operation(&self) -> &str {
        let target = self.header("x-amz-target").and_then(|target| target.split('.').nth(1));
        let is_invoke = self.head.lines().next().is_some_and(|line| line.contains("/invocations"));
        target.unwrap_or(if is_invoke { "Invoke" } else { "other" })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The body, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Bytes in answer to a request, and how they come.
#[derive(Clone, Debug)]
pub struct Reply {
    bytes: Vec<u8>,
    pace: Pace,
    end: End,
}

#[derive(Clone, Debug)]
enum Pace {
    AtOnce,
    /// One byte in this time.
    Slow(Duration),
    /// Not before the gate opens.
    Behind(Arc<Semaphore>),
}

#[derive(Clone, Copy, Debug)]
enum End {
    /// The connection stays open for the next request.
    Open,
    Closed,
    /// No word of goodbye: what the peer has sent or will send is thrown away.
    Reset,
}

impl Reply {
    /// These bytes, HTTP or not.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Reply { bytes: bytes.into(), pace: Pace::AtOnce, end: End::Open }
    }

    pub fn silence() -> Self {
        Reply::bytes("")
    }

    /// An answer as it should be; `headers` end in CRLF each.
    pub fn http(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head =
            format!("HTTP/1.1 {status} -\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        Reply::bytes([head.as_bytes(), body].concat())
    }

    /// The same in JSON, without further headers.
    pub fn json(status: u16, body: impl AsRef<[u8]>) -> Self {
        Reply::http(status, "content-type: application/json\r\n", body)
    }

    #[must_use]
    pub fn slowly(self, each_byte: Duration) -> Self {
        Reply { pace: Pace::Slow(each_byte), ..self }
    }

    #[must_use]
    pub fn behind(self, gate: &Arc<Semaphore>) -> Self {
        Reply { pace: Pace::Behind(gate.clone()), ..self }
    }

    #[must_use]
    pub fn then_closed(self) -> Self {
        Reply { end: End::Closed, ..self }
    }

    #[must_use]
    pub fn then_reset(self) -> Self {
        Reply { end: End::Reset, ..self }
    }
}

/// What becomes of a request.
pub enum Act {
    /// It is answered, and has no effect.
    Answer(Reply),
    /// It takes effect in the endpoint behind this one, and this becomes of the answer.
    PassOn(fn(Vec<u8>) -> Reply),
}

impl From<Reply> for Act {
    fn from(reply: Reply) -> Self {
        Act::Answer(reply)
    }
}

type Plan = Box<dyn FnMut(&Request) -> Act + Send>;

pub struct Raw {
    pub url: String,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    behind: Option<String>,
    plan: Mutex<Plan>,
    seen: Mutex<Vec<Request>>,
}

impl Raw {
    /// An endpoint that answers as `plan` says.
    pub async fn start<A: Into<Act>>(mut plan: impl FnMut(&Request) -> A + Send + 'static) -> Self {
        Raw::serving(None, Box::new(move |request| plan(request).into())).await
    }

    /// The same before another endpoint.
    pub async fn before(url: &str, plan: impl FnMut(&Request) -> Act + Send + 'static) -> Self {
        let behind = url.trim_start_matches("http://").to_owned();
        Raw::serving(Some(behind), Box::new(plan)).await
    }

    async fn serving(behind: Option<String>, plan: Plan) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let shared = Arc::new(Shared { behind, plan: Mutex::new(plan), seen: Mutex::default() });
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, shared.clone()));
        Raw { url, shared, _serving: serving }
    }

    /// From now on another plan.
    pub fn plan(&self, plan: impl FnMut(&Request) -> Act + Send + 'static) {
        *self.shared.plan.lock().expect("no plan panics") = Box::new(plan);
    }

    /// How many requests arrived that are like this.
    pub fn count(&self, is_so: impl Fn(&Request) -> bool) -> usize {
        self.seen().iter().filter(|request| is_so(request)).count()
    }

    /// How many requests of this operation arrived.
    pub fn count_of(&self, operation: &str) -> usize {
        self.count(|request| request.operation() == operation)
    }

    /// Every request that arrived.
    pub fn seen(&self) -> Vec<Request> {
        self.shared.seen.lock().expect("nobody panics with it").clone()
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(converse(stream, shared.clone()));
    }
}

/// Answers one request after another, until one end or the other has had enough.
async fn converse(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Some(request) = read(&mut stream).await {
        shared.seen.lock().expect("nobody panics with it").push(request.clone());
        let act = shared.plan.lock().expect("no plan panics")(&request);
        let reply = match act {
            Act::Answer(reply) => reply,
            Act::PassOn(spoil) => {
                let behind = shared.behind.as_deref().expect("there is an endpoint behind");
                spoil(pass_on(behind, &request).await)
            }
        };
        // Whoever no longer listens has not heard it.
        if say(&mut stream, &reply.bytes, reply.pace).await.is_none() {
            return;
        }
        match reply.end {
            End::Open => {}
            End::Closed => return,
            End::Reset => return stream.set_zero_linger().expect("it is a socket"),
        }
    }
}

/// A whole request; nothing when the peer has gone.
async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).expect("a head is text");
            let request = Request { head, body: bytes[end + 4..].to_vec() };
            let length = request.header("content-length").unwrap_or("0");
            if request.body.len() == length.parse::<usize>().expect("a length is a number") {
                return Some(request);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

async fn say(stream: &mut TcpStream, bytes: &[u8], pace: Pace) -> Option<()> {
    match pace {
        Pace::AtOnce => {}
        Pace::Behind(gate) => drop(gate.acquire().await),
        Pace::Slow(each_byte) => {
            stream.set_nodelay(true).ok()?;
            let mut ticks = tokio::time::interval(each_byte);
            for byte in bytes {
                ticks.tick().await;
                stream.write_all(&[*byte]).await.ok()?;
            }
            return Some(());
        }
    }
    stream.write_all(bytes).await.ok()
}

/// The whole answer of the endpoint behind.
async fn pass_on(behind: &str, request: &Request) -> Vec<u8> {
    let mut stream = TcpStream::connect(behind).await.expect("it listens");
    let head = request.head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    let request = [head.as_bytes(), b"\r\n\r\n", &request.body].concat();
    stream.write_all(&request).await.expect("it takes requests");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("it answers");
    answer
}

/// When an endpoint resets its connections, of which it reads nothing.
#[derive(Clone, Copy, Debug)]
pub enum Deaf {
    /// As soon as they are made.
    AtOnce,
    /// As soon as a request begins to arrive.
    ToRequests,
}

impl Deaf {
    /// Its URL, and what serves it.
    pub async fn start(self) -> (String, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Deaf::ToRequests = self {
                    stream.peek(&mut [0]).await.expect("a request comes");
                }
                stream.set_zero_linger().expect("it is a socket");
            }
        });
        (url, serving)
    }
}

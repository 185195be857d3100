//! A proxy before the embedded DynamoDB, or Lambda, that loses requests and replies, and answers as
//! older emulators do.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::DATE;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use burstd::clock::Clock;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is passed on, and so is the reply.
    Pass,
    /// It takes effect, and the reply is lost.
    LoseReply,
    /// It takes effect, and the reply never comes.
    HoldReply,
    /// It has no effect, and the connection breaks.
    Lose,
    /// It waits for so long before it is passed on.
    Delay(Duration),
    /// It is answered with this error, and has no effect.
    Refuse(u16, &'static str),
    /// The reply to a failed condition does not show the item.
    HideItem,
    /// A batch is answered as if none of it had been processed.
    LeaveUnprocessed,
}

/// Decides what becomes of a request, by operation (such as `UpdateItem`; of Lambda's, method and
/// path) and body.
type Plan = Box<dyn FnMut(&str, &str) -> Fate + Send>;

pub struct Proxy {
    pub url: String,
    plan: Arc<Mutex<Plan>>,
    ahead: Arc<AtomicI64>,
    _serving: JoinSet<()>,
}

#[derive(Clone)]
struct Shared {
    upstream: String,
    client: Client<HttpConnector, Full<Bytes>>,
    plan: Arc<Mutex<Plan>>,
    /// Seconds that the `Date` of the replies is ahead.
    ahead: Arc<AtomicI64>,
}

impl Proxy {
    /// A proxy before `upstream`.
    pub async fn start(
        upstream: &str,
        plan: impl FnMut(&str, &str) -> Fate + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let plan: Arc<Mutex<Plan>> = Arc::new(Mutex::new(Box::new(plan)));
        let client = Client::builder(TokioExecutor::new()).build_http();
        let (upstream, ahead) = (upstream.to_owned(), Arc::<AtomicI64>::default());
        let shared = Shared { upstream, client, plan: plan.clone(), ahead: ahead.clone() };
        let router = Router::new().fallback(serve).with_state(shared);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            axum::serve(listener, router).await.expect("it serves until it is dropped");
        });
        Proxy { url, plan, ahead, _serving: serving }
    }

    /// From now on another plan.
    pub fn plan(&self, plan: impl FnMut(&str, &str) -> Fate + Send + 'static) {
        *self.plan.lock().expect("no plan panics") = Box::new(plan);
    }

    /// From now on the table's clock is so many seconds ahead.
    pub fn set_clock(&self, ahead: i64) {
        self.ahead.store(ahead, Ordering::Relaxed);
    }
}

async fn serve(
    State(shared): State<Shared>,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Response<Body> {
    let ahead = shared.ahead.load(Ordering::Relaxed);
    let mut response = forward(shared, method, headers, uri, body).await;
    let now = i64::try_from(Clock::system().now().as_millis() / 1000).expect("it is this age");
    let date = DateTime::from_secs(now + ahead).fmt(Format::HttpDate).expect("it has a form");
    response.headers_mut().insert(DATE, date.parse().expect("it is text"));
    response
}

async fn forward(
    shared: Shared,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Response<Body> {
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok());
    let path = format!("{method} {}", uri.path());
    let operation = target.and_then(|target| target.split('.').next_back()).unwrap_or(&path);
    let text = String::from_utf8_lossy(&body).into_owned();
    let fate = shared.plan.lock().expect("no plan panics")(operation, &text);
    if fate == Fate::Lose {
        return broken();
    }
    if let Fate::Delay(time) = fate {
        sleep(time).await;
    }
    if let Fate::Refuse(status, code) = fate {
        return error(status, &format!("{{\"__type\":\"com.amazonaws.dynamodb#{code}\"}}"));
    }
    if fate == Fate::LeaveUnprocessed {
        let request: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let all = &request["RequestItems"];
        let left = serde_json::json!({ "UnprocessedItems": all, "UnprocessedKeys": all });
        return Response::new(Body::from(left.to_string()));
    }
    let to = format!("{}{}", shared.upstream, uri.path());
    let mut request = Request::builder().method(method).uri(to);
    for (name, value) in &headers {
        if name != "host" {
            request = request.header(name, value);
        }
    }
    let request = request.body(Full::new(body)).expect("it was a request before");
    let (parts, body) = shared.client.request(request).await.expect("it answers").into_parts();
    let body = body.collect().await.expect("its answer arrives").to_bytes();
    match fate {
        Fate::LoseReply => broken(),
        Fate::HoldReply => std::future::pending().await,
        Fate::HideItem if String::from_utf8_lossy(&body).contains("ConditionalCheckFailed") => {
            let code = "ConditionalCheckFailedException";
            error(400, &format!("{{\"__type\":\"com.amazonaws.dynamodb#{code}\"}}"))
        }
        _ => Response::from_parts(parts, Body::from(body)),
    }
}

fn error(status: u16, body: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).expect("it is a status");
    response
}

/// Ends the connection's task, and the connection with it, without a word.
fn broken() -> Response<Body> {
    std::panic::resume_unwind(Box::new("request or reply is lost"))
}

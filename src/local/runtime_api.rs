//! The Lambda Runtime API's HTTP, as the runtimes' clients speak it
//! (docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request as HttpRequest, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::lambda::{Answer, Call};
use crate::clock::Clock;

/// No larger answer is taken
/// (docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: 6 MB, and some room).
const ANSWER_LIMIT_BYTES: usize = 6_291_556;

const PREFIX: &str = "/2018-06-01/runtime/";

type Reply = Response<Full<Bytes>>;

/// A request of a runtime.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) event: Event,
    pub(super) heard: Heard,
}

/// What a runtime tells.
#[derive(Debug)]
pub(super) enum Event {
    /// It wants an event.
    Next,
    /// It could not begin, and says why.
    InitError(Vec<u8>),
    /// An invocation has ended.
    Answer {
        /// Which.
        request_id: String,
        /// How.
        answer: Answer,
    },
}

/// The way back to the runtime. One that has gone meanwhile is not told, which does no harm.
#[derive(Debug)]
pub(super) struct Heard(oneshot::Sender<Reply>);

impl Heard {
    /// Hands an event out, to be answered within `timeout`.
    pub(super) fn event(self, call: &Call, timeout: Duration) {
        let mut reply = Response::new(Full::new(Bytes::copy_from_slice(&call.payload)));
        let deadline = (Clock::system().now() + timeout).as_millis();
        let mut header = |name: &'static str, value: &[u8]| {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                reply.headers_mut().insert(name, value);
            }
        };
        header("content-type", b"application/json");
        header("lambda-runtime-aws-request-id", call.request_id.as_bytes());
        header("lambda-runtime-deadline-ms", deadline.to_string().as_bytes());
        let arn = super::lambda::arn(&call.function, call.qualifier.as_deref());
        header("lambda-runtime-invoked-function-arn", arn.as_bytes());
        if let Some(trace) = &call.trace {
            header("lambda-runtime-trace-id", trace.as_bytes());
        }
        if let Some(context) = &call.client_context {
            header("lambda-runtime-client-context", context);
        }
        self.0.send(reply).ok();
    }

    /// Whether nobody waits for the reply any more.
    pub(super) fn is_gone(&self) -> bool {
        self.0.is_closed()
    }

    /// What it told was taken in.
    pub(super) fn accepted(self) {
        self.0.send(reply(StatusCode::ACCEPTED, &json!({ "status": "OK" }))).ok();
    }

    /// What it told was not.
    pub(super) fn refused(self, status: u16, error_type: &str, message: &str) {
        self.0.send(refusal(status, error_type, message)).ok();
    }
}

/// Serves one connection of a runtime. Its requests go to `tell`.
pub(super) async fn serve(stream: TcpStream, tell: mpsc::UnboundedSender<Request>) {
    // Without it an answer might wait; it is only slower.
    stream.set_nodelay(true).ok();
    let service = service_fn(move |request| {
        let tell = tell.clone();
        async move { Ok::<_, Infallible>(answer(request, &tell).await) }
    });
    // A runtime that goes away ends its connection like this; its environment looks after it.
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

async fn answer(request: HttpRequest<Incoming>, tell: &mpsc::UnboundedSender<Request>) -> Reply {
    let event = match event(request).await {
        Ok(event) => event,
        Err(refusal) => return refusal,
    };
    let (heard, reply) = oneshot::channel();
    let told = tell.send(Request { event, heard: Heard(heard) });
    match (told, reply.await) {
        (Ok(()), Ok(reply)) => reply,
        _ => refusal(410, "Gone", "the environment has ended"),
    }
}

async fn event(request: HttpRequest<Incoming>) -> Result<Event, Reply> {
    let path = request.uri().path().strip_prefix(PREFIX).map(str::to_owned);
    let parts: Vec<_> = path.as_deref().unwrap_or_default().split('/').collect();
    let is_post = request.method() == Method::POST;
    match parts.as_slice() {
        ["invocation", "next"] if request.method() == Method::GET => Ok(Event::Next),
        ["init", "error"] if is_post => match body(request).await? {
            Some(payload) => Ok(Event::InitError(payload)),
            None => Err(refusal(413, "RequestEntityTooLarge", "the error is too large")),
        },
        ["invocation", id, "response"] if is_post => {
            let answer = body(request).await?.map_or(Answer::TooLarge, Answer::Returned);
            Ok(Event::Answer { request_id: (*id).to_owned(), answer })
        }
        ["invocation", id, "error"] if is_post => {
            let answer = body(request).await?.map_or(Answer::TooLarge, Answer::Errored);
            Ok(Event::Answer { request_id: (*id).to_owned(), answer })
        }
        _ => Err(refusal(404, "NotFound", "the Runtime API has no such path")),
    }
}

/// The body; nothing when it is too large.
async fn body(request: HttpRequest<Incoming>) -> Result<Option<Vec<u8>>, Reply> {
    match Limited::new(request.into_body(), ANSWER_LIMIT_BYTES).collect().await {
        Ok(body) => Ok(Some(body.to_bytes().to_vec())),
        Err(error) if error.is::<LengthLimitError>() => Ok(None),
        Err(error) => Err(refusal(400, "BadRequest", &error.to_string())),
    }
}

fn refusal(status: u16, error_type: &str, message: &str) -> Reply {
    let status = StatusCode::from_u16(status).expect("the caller names one of HTTP's");
    reply(status, &json!({ "errorType": error_type, "errorMessage": message }))
}

fn reply(status: StatusCode, body: &serde_json::Value) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body.to_string())));
    *reply.status_mut() = status;
    reply.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    reply
}

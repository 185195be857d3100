//! What can become of a call to DynamoDB on its way: every error code, and every way in which a
//! reply can be lost or spoilt.

use std::sync::Arc;
use std::time::Duration;

use burstd::aws::{Clients, DynamoStore};
use burstd::claim::Rev;
use burstd::invoker::TaskResult;
use burstd::local::place;
use burstd::retry::{Settlement, Verdict};
use burstd::store::{Claimed, DueQuery, Store as _, StoreError, Write};
use burstd::task::TaskId;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::description;
use crate::support::raw::{Act, Raw, Reply, Request};
use crate::support::world::{World, text};
use crate::support::writes::{now, settlement, terms};

async fn clients(url: &str) -> Clients {
    Clients::new(&place(url, "http://127.0.0.1:1")).await.expect("a region")
}

fn reaction(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable(_) => "unavailable",
        StoreError::Refused(_) => "refused",
        StoreError::Rejected(_) => "rejected",
    }
}

/// An error as DynamoDB words it.
fn error(status: u16, code: &str) -> Reply {
    let body = json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{code}") });
    Reply::http(status, "content-type: application/x-amz-json-1.0\r\n", body.to_string())
}

fn table_of(request: &Request) -> String {
    let body: Value = serde_json::from_slice(&request.body).expect("a request is JSON");
    body["TableName"].as_str().expect("each call names its table").to_owned()
}

fn query(now: burstd::task::Timestamp) -> DueQuery<'static> {
    DueQuery { shard: "work", now, limit: 100, after: None }
}

fn succeeded(rev: &str) -> Settlement {
    settlement(rev, Verdict::Succeed(TaskResult::Json("1".to_owned())))
}

/// What Query, UpdateItem, GetItem and DescribeTable make of an error.
type Reactions = [&'static str; 4];

const AWAY: Reactions = ["unavailable"; 4];
const REFUSED: Reactions = ["refused"; 4];
const REJECTED: Reactions = ["refused", "rejected", "rejected", "refused"];

/// What is throttled, or is the other side's own fault, the SDK sends again at once.
const AGAIN: [usize; 4] = [4; 4];
const ONCE: [usize; 4] = [1; 4];

/// HTTP status and code of each error, what is made of it, and how often the call is sent
/// (docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html, the common
/// errors that it refers to, and the SDK's model).
const ERRORS: [(u16, &str, Reactions, [usize; 4]); 37] = [
    (400, "ProvisionedThroughputExceededException", AWAY, AGAIN),
    (400, "ThrottlingException", AWAY, AGAIN),
    (400, "Throttling", AWAY, AGAIN),
    (400, "RequestLimitExceeded", AWAY, AGAIN),
    (400, "LimitExceededException", AWAY, AGAIN),
    (500, "InternalServerError", AWAY, AGAIN),
    (500, "InternalFailure", AWAY, AGAIN),
    (503, "ServiceUnavailable", AWAY, AGAIN),
    (503, "ServiceUnavailableException", AWAY, AGAIN),
    (400, "RequestTimeoutException", AWAY, AGAIN),
    (400, "TransactionInProgressException", AWAY, AGAIN),
    (400, "TransactionConflictException", AWAY, ONCE),
    (400, "ReplicatedWriteConflictException", AWAY, [1, 4, 1, 1]),
    (400, "InvalidEndpointException", AWAY, ONCE),
    (400, "ResourceInUseException", AWAY, ONCE),
    (400, "RequestAbortedException", AWAY, ONCE),
    (400, "ExpiredTokenException", AWAY, ONCE),
    (400, "UnrecognizedClientException", AWAY, ONCE),
    (403, "InvalidClientTokenId", AWAY, ONCE),
    (400, "InvalidSignatureException", AWAY, ONCE),
    (400, "SignatureDoesNotMatch", AWAY, ONCE),
    (400, "IncompleteSignatureException", AWAY, ONCE),
    (400, "IncompleteSignature", AWAY, ONCE),
    (400, "MissingAuthenticationTokenException", AWAY, ONCE),
    (400, "MissingAuthenticationToken", AWAY, ONCE),
    (400, "RequestExpired", AWAY, ONCE),
    (403, "RequestTimeTooSkewed", AWAY, ONCE),
    (418, "ACodeOfTheFuture", AWAY, ONCE),
    (400, "AccessDeniedException", REFUSED, ONCE),
    (400, "NotAuthorized", REFUSED, ONCE),
    (403, "OptInRequired", REFUSED, ONCE),
    (404, "UnknownOperationException", REFUSED, ONCE),
    (400, "ResourceNotFoundException", REFUSED, ONCE),
    (400, "IndexNotFoundException", REFUSED, ONCE),
    (400, "ValidationException", REJECTED, ONCE),
    (400, "SerializationException", REJECTED, ONCE),
    (400, "ItemCollectionSizeLimitExceededException", ["rejected"; 4], ONCE),
];

/// Answers with the error that the table is named after. The table of `describe-…` cannot be
/// described; to `get-…` every write is refused without a word of why, so that it is read.
fn by_table(request: &Request) -> Reply {
    let table = table_of(request);
    let (on, code) = table.split_once('-').expect("ours are named so");
    let (status, ..) = ERRORS.iter().find(|error| error.1 == code).expect("it is in the list");
    match (request.operation(), on) {
        ("DescribeTable", "work" | "get") => Reply::json(200, description()),
        ("UpdateItem", "get") => error(400, "ConditionalCheckFailedException"),
        _ => error(*status, code),
    }
}

#[tokio::test]
async fn every_error_code_leads_to_its_reaction_whatever_the_http_status() {
    let dynamodb = Raw::start(by_table).await;
    let clients = clients(&dynamodb.url).await;
    let mut running = JoinSet::new();
    for (_, code, expected, sends) in ERRORS {
        let clients = clients.clone();
        running.spawn(async move {
            let failures = failures(&clients, code).await;
            for failure in &failures {
                assert_eq!(failure.fault().code, code, "{failure}");
            }
            (code, expected, sends, failures.map(|failure| reaction(&failure)))
        });
    }
    let (mut wrong, seen) = (Vec::new(), running.join_all().await);
    let sent = |operation: &str, table: String| {
        dynamodb.count(|request| request.operation() == operation && table_of(request) == table)
    };
    for (code, expected, sends, [query, claim, extend, settle, get, describe]) in seen {
        if [query, claim, get, describe] != expected || [extend, settle] != [claim, claim] {
            wrong.push(format!("{code}: {:?}", [query, claim, extend, settle, get, describe]));
        }
        let sent = [
            sent("Query", format!("work-{code}")),
            sent("UpdateItem", format!("work-{code}")),
            sent("GetItem", format!("get-{code}")),
            sent("DescribeTable", format!("describe-{code}")),
        ];
        let [query, write, get, describe] = sends;
        if sent != [query, 3 * write, get, describe] {
            wrong.push(format!("{code}: sent {sent:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What becomes of each call when all fail with `code`.
async fn failures(clients: &Clients, code: &str) -> [StoreError; 6] {
    let store = async |on| clients.table(&format!("{on}-{code}")).open().await;
    let (id, held, terms) = (TaskId::named("a"), Rev::from("held".to_owned()), terms("new"));
    let work = store("work").await.expect("it is described");
    let get = store("get").await.expect("it is described");
    [
        work.due(query(now())).await.expect_err("it fails"),
        work.claim(&id, &terms).await.expect_err("it fails"),
        work.extend(&id, &held, &terms).await.expect_err("it fails"),
        work.settle(&id, &held, &succeeded("new")).await.expect_err("it fails"),
        get.claim(&id, &terms).await.expect_err("it fails"),
        store("describe").await.expect_err("it fails"),
    ]
}

/// One fault, for the first request after it is armed.
#[derive(Clone, Copy)]
struct Spoiling {
    name: &'static str,
    act: fn() -> Act,
    /// What the first try comes to: claim, extend, settle; and how many requests each is.
    first_try: [(&'static str, usize); 3],
}

const fn spoiling(
    name: &'static str,
    act: fn() -> Act,
    first_try: [(&'static str, usize); 3],
) -> Spoiling {
    Spoiling { name, act, first_try }
}

/// The SDK sends it again, and the write recognises itself.
const SENT_AGAIN: [(&str, usize); 3] = [("written", 2); 3];

/// Nobody sends it again at once; the engine does, after a while.
const UNREADABLE: [(&str, usize); 3] = [("unavailable", 1); 3];

fn replaced(bytes: &[u8], then: fn(Reply) -> Reply) -> Reply {
    then(Reply::bytes(bytes))
}

const FAULTS: [Spoiling; 15] = [
    spoiling("reset unapplied", || Reply::silence().then_reset().into(), SENT_AGAIN),
    spoiling("closed unapplied", || Reply::silence().then_closed().into(), SENT_AGAIN),
    spoiling("reset", || Act::PassOn(|_| Reply::silence().then_reset()), SENT_AGAIN),
    spoiling("closed", || Act::PassOn(|_| Reply::silence().then_closed()), SENT_AGAIN),
    spoiling("cut off", || Act::PassOn(|all| cut(&all).then_closed()), SENT_AGAIN),
    spoiling("cut off by a reset", || Act::PassOn(|all| cut(&all).then_reset()), SENT_AGAIN),
    spoiling(
        "slower than 5 s",
        || Act::PassOn(|all| Reply::bytes(all).slowly(Duration::from_millis(100))),
        SENT_AGAIN,
    ),
    spoiling("no HTTP", || Act::PassOn(|_| replaced(b"220 ESMTP\r\n", |it| it)), SENT_AGAIN),
    spoiling(
        "a broken chunk",
        || {
            Act::PassOn(|_| {
                Reply::bytes("HTTP/1.1 200 -\r\ntransfer-encoding: chunked\r\n\r\nz\r\n{}")
            })
        },
        SENT_AGAIN,
    ),
    spoiling("a gateway's error", || Act::PassOn(|_| Reply::json(502, "<html>")), SENT_AGAIN),
    spoiling("not JSON", || Act::PassOn(|_| Reply::json(200, "<html>")), UNREADABLE),
    spoiling("not UTF-8", || Act::PassOn(|_| Reply::json(200, b"{\"\xff\": 1}")), UNREADABLE),
    spoiling(
        "a wrong length",
        || {
            Act::PassOn(|_| {
                Reply::bytes("HTTP/1.1 200 -\r\ncontent-length: 9\r\n\r\n{\"Attributes\": {}}")
            })
        },
        UNREADABLE,
    ),
    spoiling("another shape", || Act::PassOn(|_| Reply::json(200, "[1]")), UNREADABLE),
    spoiling(
        "nothing",
        || Act::PassOn(|_| Reply::json(200, "")),
        [("unavailable", 1), ("written", 1), ("written", 1)],
    ),
];

/// All but the last bytes.
fn cut(answer: &[u8]) -> Reply {
    Reply::bytes(&answer[..answer.len() - 5])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_reply_is_lost_or_spoilt_is_written_once_and_recognises_itself() {
    let world = Arc::new(World::echoing().await);
    let mut running = JoinSet::new();
    for fault in FAULTS {
        for spoilt in Kind::ALL {
            let world = world.clone();
            running.spawn(async move { life(&world, fault, spoilt).await });
        }
    }
    let wrong: Vec<_> = running.join_all().await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Claims, extends and settles a task, one of which is spoilt; says what is wrong.
async fn life(world: &World, fault: Spoiling, spoilt: Kind) -> Option<String> {
    let id = format!("{} {spoilt:?}", fault.name);
    let raw = Raw::before(&world.dynamodb.url(), |_| Act::PassOn(Reply::bytes)).await;
    let store = clients(&raw.url).await.table("tasks").open().await.expect("it is described");
    world.task(&id).put().await;
    let mut first_try = None;
    for kind in Kind::ALL {
        if kind == spoilt {
            let mut is_first = true;
            raw.plan(move |_| match std::mem::take(&mut is_first) {
                true => (fault.act)(),
                false => Act::PassOn(Reply::bytes),
            });
            let before = raw.count_of("UpdateItem");
            let came_to = written(&store, &id, kind).await;
            first_try = Some((came_to, raw.count_of("UpdateItem") - before));
        }
        assert_eq!(written(&store, &id, kind).await, "written", "{id}: sent again it is known");
    }
    let item = world.item(&id).await.expect("it is there");
    let end = ["status", "attempt", "rev"].map(|attribute| text(&item, attribute));
    assert_eq!(end, ["SUCCEEDED", "1", "settle"], "{id}");
    let expected = fault.first_try[spoilt as usize];
    (first_try != Some(expected)).then(|| format!("{id}: {first_try:?}, not {expected:?}"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Claim,
    Extend,
    Settle,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Claim, Kind::Extend, Kind::Settle];
}

/// What a write of this kind comes to.
async fn written(store: &DynamoStore, task: &str, kind: Kind) -> &'static str {
    let (id, rev) = (TaskId::named(task), |rev: &str| Rev::from(rev.to_owned()));
    let written = match kind {
        Kind::Claim => store.claim(&id, &terms("claim")).await.map(|claimed| match claimed {
            Claimed::Won(task) => task.attempt == 1,
            _ => false,
        }),
        Kind::Extend => {
            let extended = store.extend(&id, &rev("claim"), &terms("extend")).await;
            extended.map(|write| write == Write::Applied)
        }
        Kind::Settle => {
            let settled = store.settle(&id, &rev("extend"), &succeeded("settle")).await;
            settled.map(|write| write == Write::Applied)
        }
    };
    match written {
        Ok(true) => "written",
        Ok(false) => "lost",
        Err(error) => reaction(&error),
    }
}

#[tokio::test]
async fn a_read_whose_reply_is_spoilt_is_tried_again_and_then_away() {
    let faults = [
        ("reset", Reply::silence().then_reset(), 4, "the connection broke"),
        ("closed", Reply::silence().then_closed(), 4, "the connection broke"),
        (
            "cut off",
            Reply::bytes("HTTP/1.1 200 -\r\ncontent-length: 9\r\n\r\n{}").then_closed(),
            4,
            "the answer broke off",
        ),
        ("no HTTP", Reply::bytes("220 ESMTP\r\n"), 4, "the connection broke"),
        ("a gateway's error", Reply::json(503, "<html>"), 4, "503, and no body to be read"),
        ("a login page", Reply::http(403, "", "<html>"), 1, "403, and no body to be read"),
        (
            "a way elsewhere",
            Reply::http(302, "location: http://127.0.0.1:1/\r\n", ""),
            1,
            "302 without a message",
        ),
        ("not JSON", Reply::json(200, "<html>"), 1, "200, and no body to be read"),
        ("not UTF-8", Reply::json(200, b"{\"\xff\": 1}"), 1, "200, and no body to be read"),
        (
            "another shape",
            Reply::json(200, "{\"Items\": 1, \"Item\": 1, \"Table\": 1}"),
            1,
            "200, and no body to be read",
        ),
    ];
    for (fault, reply, sends, words) in faults {
        let dynamodb =
            Raw::start(move |request| match (request.operation(), table_of(request).as_str()) {
                ("DescribeTable", "work") => Reply::json(200, description()),
                ("UpdateItem", _) => error(400, "ConditionalCheckFailedException"),
                _ => reply.clone(),
            })
            .await;
        let clients = clients(&dynamodb.url).await;
        let store = clients.table("work").open().await.expect("it is described");
        for failure in [
            store.due(query(now())).await.expect_err("it fails"),
            store.claim(&TaskId::named("a"), &terms("new")).await.expect_err("it fails"),
            clients.table("other").open().await.expect_err("it fails"),
        ] {
            assert_eq!(reaction(&failure), "unavailable", "{fault}: {failure}");
            assert!(failure.fault().code.starts_with("Burstd."), "{fault}: {failure}");
            assert!(failure.fault().message.contains(words), "{fault}: {failure}");
        }
        let sent = ["Query", "GetItem", "DescribeTable"].map(|of| dynamodb.count_of(of));
        assert_eq!(sent, [sends, sends, 1 + sends], "{fault}");
    }
}

#[tokio::test]
async fn a_reply_that_describes_no_table_does_not_say_that_there_is_none() {
    for body in ["", "{}", "{\"Table\": null}"] {
        let dynamodb = Raw::start(move |_| Reply::json(200, body)).await;
        let opened = clients(&dynamodb.url).await.table("work").open().await;
        let failure = opened.expect_err("it is not described");
        assert_eq!(reaction(&failure), "unavailable", "{body:?}: {failure}");
    }
}

#[tokio::test]
async fn a_page_with_garbage_lists_what_can_be_read() {
    let items = json!([
        { "id": { "S": "first" }, "queue": { "S": "work" }, "due": { "N": "1" } },
        {},
        { "id": { "S": "without due" } },
        { "due": { "N": "1" } },
        { "id": { "S": "due in words" }, "due": { "S": "1" } },
        { "id": { "S": "due is no number" }, "due": { "N": "soon" } },
        { "id": { "BOOL": true }, "due": { "N": "1" } },
        { "id": { "SS": ["a"] }, "due": { "N": "1" } },
        { "id": { "S": "last" }, "due": { "N": "2.5" }, "more": { "M": { "a": { "L": [] } } } },
    ]);
    let page = |more: Value| {
        let mut page = json!({ "Items": items, "Count": 9, "ScannedCount": 9 });
        page.as_object_mut().expect("it is one").extend(more.as_object().cloned().expect("ours"));
        Reply::json(200, page.to_string())
    };
    let key = json!({ "id": { "S": "last" }, "queue": { "S": "work" }, "due": { "N": "2.5" } });
    for (more, has_next) in [
        (json!({}), false),
        (json!({ "LastEvaluatedKey": key }), true),
        (json!({ "LastEvaluatedKey": null }), false),
        (json!({ "LastEvaluatedKey": { "id": { "S": "a" } } }), false),
        (json!({ "LastEvaluatedKey": { "due": { "N": "1" } } }), false),
        (json!({ "ConsumedCapacity": { "CapacityUnits": "NaN" } }), false),
        (json!({ "Unknown": [{ "x": 1 }] }), false),
    ] {
        let reply = page(more.clone());
        let dynamodb = Raw::start(move |request| match request.operation() {
            "DescribeTable" => Reply::json(200, description()),
            _ => reply.clone(),
        })
        .await;
        let store = clients(&dynamodb.url).await.table("work").open().await;
        let page = store.expect("it is described").due(query(now())).await.expect("a page");
        let listed: Vec<_> = page.candidates.iter().map(|it| it.id.to_string()).collect();
        assert_eq!(
            (listed, page.next.is_some()),
            (vec!["first".into(), "last".into()], has_next),
            "{more}"
        );
    }
}

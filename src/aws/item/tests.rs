//! Properties of the item's codec: whatever an item holds, it is a task or its reason names the
//! attribute to blame; and what burstd writes it reads back.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::testing::cases;

/// What burstd reads of an item it has claimed.
const READ: [&str; 7] = [
    name::ATTEMPT,
    name::DUE,
    name::PAYLOAD,
    name::MAX_ATTEMPTS,
    name::DEADLINE,
    name::TRACE,
    name::HISTORY,
];

/// What decides whether it can be claimed.
const STANDS: [&str; 3] = [name::STATUS, name::ATTEMPT, name::LEASE_UNTIL];

/// Digits as DynamoDB has them, and what no number is.
fn digits() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        (0..5_i64).prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        "-?[0-9]{1,38}(\\.[0-9]{1,10})?([eE][+-]?[0-9]{1,3})?",
        ".*",
    ]
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        ".*",
        "[A-Z]{0,10}",
        Just("RUNNING".to_owned()),
        Just("{\"a\": [1, null]}".to_owned()),
        Just("[".repeat(100_000)),
    ]
}

fn scalar() -> impl Strategy<Value = AttributeValue> {
    prop_oneof![
        words().prop_map(AttributeValue::S),
        digits().prop_map(AttributeValue::N),
        any::<bool>().prop_map(AttributeValue::Bool),
        any::<bool>().prop_map(AttributeValue::Null),
        any::<Vec<u8>>().prop_map(|bytes| AttributeValue::B(Blob::new(bytes))),
        vec(words(), 0..3).prop_map(AttributeValue::Ss),
        vec(digits(), 0..3).prop_map(AttributeValue::Ns),
        vec(any::<Vec<u8>>(), 0..3)
            .prop_map(|sets| AttributeValue::Bs(sets.into_iter().map(Blob::new).collect())),
    ]
}

fn value() -> impl Strategy<Value = AttributeValue> {
    let nested = scalar().prop_recursive(5, 32, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(AttributeValue::L),
            vec((attribute(), inner), 0..4)
                .prop_map(|entries| AttributeValue::M(entries.into_iter().collect())),
        ]
    });
    // Most of what burstd reads is a number.
    prop_oneof![digits().prop_map(AttributeValue::N), nested]
}

/// Names that mean something in an item or in its history, and others.
fn attribute() -> impl Strategy<Value = String> {
    let known = [&READ[..], &STANDS[..], &["outcome", "error", "request_id", "started_at", "ms"]];
    let known: Vec<_> = known.concat().into_iter().map(str::to_owned).collect();
    prop_oneof![4 => proptest::sample::select(known), 1 => ".*"]
}

fn item() -> impl Strategy<Value = Item> {
    vec((attribute(), value()), 0..8).prop_map(|entries| entries.into_iter().collect())
}

/// The attribute that a reason begins with.
fn blamed(reason: &str, known: &[&'static str]) -> Option<&'static str> {
    let is_next = |rest: &str| rest.starts_with([' ', '.', '[']);
    known.iter().copied().find(|name| reason.strip_prefix(name).is_some_and(is_next))
}

fn id() -> TaskId {
    TaskId::named("a")
}

fn moment() -> impl Strategy<Value = Timestamp> {
    // Until the year 9999.
    (0..253_402_300_800_000_u64).prop_map(Timestamp::from_millis)
}

prop_compose! {
    fn written()(
        number in any::<u32>(),
        outcome in ".*",
        error_type in option::of(".*"),
        request_id in option::of(".*"),
        started_at in option::of(moment()),
        took in option::of(any::<u32>()),
    ) -> Attempt {
        let took = took.map(|millis| Duration::from_millis(millis.into()));
        Attempt { number, outcome, error_type, request_id, started_at, took }
    }
}

fn key_part() -> impl Strategy<Value = KeyValue> {
    prop_oneof![
        ".+".prop_map(KeyValue::S),
        "-?[0-9]{1,38}".prop_map(KeyValue::N),
        any::<Vec<u8>>().prop_map(KeyValue::B),
    ]
}

/// A value with a JSON form, and that form.
fn in_json() -> impl Strategy<Value = (AttributeValue, Value)> {
    let leaf = prop_oneof![
        ".*".prop_map(|text| (AttributeValue::S(text.clone()), Value::from(text))),
        any::<i64>().prop_map(|number| (super::number(number), Value::from(number))),
        any::<bool>().prop_map(|flag| (AttributeValue::Bool(flag), Value::from(flag))),
        Just((AttributeValue::Null(true), Value::Null)),
    ];
    leaf.prop_recursive(5, 32, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|list| {
                let (values, forms): (Vec<_>, Vec<_>) = list.into_iter().unzip();
                (AttributeValue::L(values), Value::from(forms))
            }),
            btree_map(".*", inner, 0..4).prop_map(|map: BTreeMap<String, (_, _)>| {
                let of = |(key, (value, form)): (String, (AttributeValue, Value))| {
                    ((key.clone(), value), (key, form))
                };
                let (values, forms): (Item, serde_json::Map<_, _>) =
                    map.into_iter().map(of).unzip();
                (AttributeValue::M(values), Value::from(forms))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_item_is_a_task_once_what_its_reasons_blame_is_gone(mut item in item()) {
        for _ in 0..=READ.len() {
            let task = match read_task(&id(), &item) {
                Ok(task) => task,
                Err(reason) => {
                    let name = blamed(&reason, &READ);
                    prop_assert!(name.is_some(), "{:?} names no attribute", reason);
                    match name {
                        // The claim has counted it: there is one.
                        Some(name::ATTEMPT) => item.insert(name::ATTEMPT.to_owned(), number(1)),
                        other => item.remove(other.unwrap_or_default()),
                    };
                    continue;
                }
            };
            prop_assert!(task.attempt >= 1 && task.max_attempts != Some(0));
            let trace = task.trace.unwrap_or_default();
            prop_assert!(trace.len() <= TRACE_LIMIT_BYTES);
            prop_assert!(http::HeaderValue::from_str(&trace).is_ok());
            if let Some(AttributeValue::S(text)) = item.get(name::PAYLOAD) {
                prop_assert_eq!(&task.payload.0, text);
                prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
            }
            return Ok(());
        }
        prop_assert!(false, "it is never a task: {:?}", item);
    }

    #[test]
    fn any_item_can_be_claimed_once_what_its_reasons_blame_is_gone(mut item in item()) {
        for _ in 0..=STANDS.len() {
            let Some(reason) = unclaimable(&item) else {
                let status = standing(&item).status;
                prop_assert!(status.is_none_or(|word| Status::parse(&word).is_some()));
                return Ok(());
            };
            let name = blamed(&reason, &STANDS);
            prop_assert!(name.is_some(), "{:?} names no attribute", reason);
            item.remove(name.unwrap_or_default());
        }
        prop_assert!(false, "it can never be claimed: {:?}", item);
    }

    #[test]
    fn anything_at_all_says_how_it_stands_and_has_a_key_or_none(item in item()) {
        drop((standing(&item), error_message(&item)));
        for sort in [None, Some(name::DUE)] {
            if let Some(id) = task_id(&item, name::STATUS, sort) {
                let key = key(&id, name::STATUS, sort);
                prop_assert!(key.iter().all(|(name, value)| item.get(name) == Some(value)));
            }
        }
    }

    #[test]
    fn what_burstd_writes_it_reads_back(
        history in vec(written(), 0..10),
        (attempt, max_attempts) in (1..u32::MAX, option::of(1..u32::MAX)),
        (due, deadline) in (moment(), option::of(moment())),
        trace in option::of("[ -~]{0,1024}"),
    ) {
        let deadline = deadline.filter(|at| !at.is_surely_millis());
        let mut item = Item::from([
            (name::ATTEMPT.to_owned(), number(attempt)),
            (name::DUE.to_owned(), number(due)),
            (name::HISTORY.to_owned(), write_history(&history)),
        ]);
        for (name, value) in [
            (name::MAX_ATTEMPTS, max_attempts.map(number)),
            (name::DEADLINE, deadline.map(number)),
            (name::TRACE, trace.as_ref().map(string)),
        ] {
            item.extend(value.map(|value| (name.to_owned(), value)));
        }
        let payload = Payload("{}".to_owned());
        let expected =
            Task { id: id(), attempt, due, payload, max_attempts, deadline, trace, history };
        prop_assert_eq!(read_task(&id(), &item), Ok(expected));
    }

    #[test]
    fn an_error_and_a_key_are_read_back(
        (error_type, message, log) in (".*", ".*", option::of(".*")),
        (partition, sort) in (key_part(), option::of(key_part())),
    ) {
        let failure = Failure { log, ..Failure::new(error_type, &message) };
        let item = Item::from([(name::ERROR.to_owned(), error(&failure))]);
        prop_assert_eq!(error_message(&item), message);
        let id = TaskId { partition, sort };
        let sort = id.sort.as_ref().map(|_| "sort");
        prop_assert_eq!(task_id(&key(&id, "partition", sort), "partition", sort), Some(id));
    }

    #[test]
    fn a_payload_of_any_shape_is_its_json_and_always_the_same(
        (value, form) in in_json().prop_filter("text is JSON already", |(it, _)| !it.is_s()),
    ) {
        let item = Item::from([(name::PAYLOAD.to_owned(), value)]);
        let written = payload(&item).expect("it has a JSON form");
        prop_assert_eq!(serde_json::from_str::<Value>(&written.0).expect("it is JSON"), form);
        prop_assert_eq!(payload(&item.clone()), Ok(written));
    }
}

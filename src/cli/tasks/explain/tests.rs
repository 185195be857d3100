//! Every answer of `burstd explain`.

use super::*;
use crate::notices::{Pause, Presence};

const NOW: u64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(NOW.saturating_add_signed(seconds) * 1000)
}

fn config() -> Config {
    let text = "table = \"t\"\n[queues.q]\nfunction = \"f\"\ntimeout = \"10s\"\n";
    Config::parse(text).expect("it is right")
}

fn limit(limit: Option<u64>, in_flight: u64) -> Option<Bound> {
    let why = if limit.is_some() { "max_in_flight" } else { "max_bytes_in_flight" };
    let (kind, why) = (Kind::Limit, why.to_owned());
    Some(Bound { kind, why, limit, in_flight, since: at(-5) })
}

fn no_time() -> Option<Bound> {
    let why = "paused: the time is not known".to_owned();
    Some(Bound { kind: Kind::Waits, why, limit: None, in_flight: 1, since: at(-90) })
}

fn broken() -> Option<Bound> {
    let why = "the function f is broken".to_owned();
    Some(Bound { kind: Kind::Broken, why, limit: None, in_flight: 1, since: at(-90) })
}

/// A worker that serves the queue, or nothing.
fn worker(seen: i64, waits: Option<&str>, serves: Option<Option<Bound>>) -> Presence {
    let service = |bound| Service { shards: 1, in_flight: 3, bound };
    Presence {
        seen_at: at(-seen),
        waits: waits.map(str::to_owned),
        queues: serves.map(|bound| ("q".to_owned(), service(bound))).into_iter().collect(),
    }
}

fn telling(workers: &[Presence]) -> Notices {
    let names = ["w1", "w2"].map(str::to_owned);
    Notices {
        workers: names.into_iter().zip(workers.iter().cloned()).collect(),
        ..Notices::default()
    }
}

fn explained(record: &Record, notices: &Notices) -> Reason {
    let config = config();
    Circumstances { record, config: &config, notices, now: at(0) }.reason()
}

#[test]
fn what_the_item_itself_says_comes_first() {
    let ready = telling(&[worker(1, None, Some(None))]);
    let [past, later, millis] = [-60, 42, 0].map(|s| at(s).to_string());
    let millis = format!("{millis}000");
    let large = format!("\"{}\"", "x".repeat(409_500));
    let (q, due) = (("queue", "q"), ("due", past.as_str()));
    let leased = |worker: Option<&'static str>| {
        let named = worker.map(|worker| ("worker", worker));
        let texts: Vec<_> = [q, ("status", "RUNNING")].into_iter().chain(named).collect();
        Record::saying(&texts, &[due, ("lease_until", &later)])
    };
    for (record, code, words) in [
        (Record::saying(&[], &[due]), "no_queue", "it has no `queue`"),
        (Record::saying(&[("queue", "")], &[due]), "no_queue", "its `queue` is empty"),
        (Record::saying(&[], &[("queue", "7"), due]), "wrong_type", "its `queue` is a number"),
        (Record::saying(&[q], &[]), "no_due", "it has no `due`"),
        (Record::saying(&[q, due], &[]), "wrong_type", "the index leaves the item out"),
        (Record::saying(&[q], &[("due", &millis)]), "milliseconds", "Is this in milliseconds?"),
        (Record::saying(&[("queue", "qq")], &[due]), "unknown_queue", "which has \"q\""),
        (Record::saying(&[q], &[("due", &later)]), "not_due", "it is delayed: due in 42.0 s"),
        (
            Record::saying(&[q, ("status", "PENDING")], &[("due", &later), ("attempt", "2")]),
            "not_due",
            "attempt 2 failed and it waits to be tried again",
        ),
        (
            Record::saying(&[q, ("status", "SUCCEEDED")], &[("finished_at", &past)]),
            "ended",
            "it has ended SUCCEEDED at 2027-01-15T07:59:00.000Z. `burstd retry`",
        ),
        (
            Record::saying(&[q, ("status", "INVALID")], &[("finished_at", &past)]),
            "ended",
            "Correct the item, then `burstd retry` runs it",
        ),
        (
            Record::saying(&[("queue", "q#3")], &[due]),
            "unknown_queue",
            "nobody looks there: `shards` of q is 1",
        ),
        (
            Record::saying(&[q], &[due, ("deadline", &millis)]),
            "unreadable",
            "deadline is beyond the year 5138",
        ),
        (Record::saying(&[q, ("payload", &large)], &[due]), "no_room", "no daemon can claim it"),
        (
            Record::saying(&[q, ("payload", "no JSON")], &[due]),
            "unreadable",
            "it is no task: payload is not JSON text",
        ),
        (
            Record::saying(&[q], &[due, ("deadline", &past)]),
            "deadline_passed",
            "its deadline passed 1m ago",
        ),
        (leased(None), "leased", "a worker that left no name holds it, for 42.0 s more"),
        (leased(Some("w1")), "leased", "it is running: w1 holds it, at the longest for 42"),
        (leased(Some("gone")), "leased", "Nothing is known of that daemon"),
    ] {
        let (found, told) = explained(&record, &ready);
        assert_eq!(found, code, "{told}");
        assert!(told.contains(words), "{told}");
    }
    let silent = telling(&[worker(200, None, Some(None))]);
    let (_, told) = explained(&leased(Some("w1")), &silent);
    assert!(told.contains("was last heard of 3m 20s ago"), "{told}");
}

#[test]
fn a_task_that_could_be_claimed_waits_for_what_the_daemons_say() {
    let task = Record::saying(&[("queue", "q")], &[("due", "0")]);
    let pauses = [("q".to_owned(), Pause { since: at(-9), by: "ann@web1".to_owned() })];
    for (notices, code, words) in [
        (telling(&[]), "no_worker", "none has been heard of lately"),
        (
            telling(&[worker(1, None, None)]),
            "no_worker",
            "w1, which works on this table, serves others",
        ),
        (telling(&[worker(200, None, Some(None))]), "no_worker", "w1 was last heard of 3m 20s ago"),
        (
            telling(&[worker(1, None, Some(None))]),
            "ready",
            "w1, which serves its queue, has room, as it said 1.0 s ago",
        ),
        (
            telling(&[worker(1, None, Some(limit(Some(9), 9))), worker(1, None, Some(None))]),
            "ready",
            "w2, which serves",
        ),
        (
            telling(&[worker(1, None, Some(limit(Some(9), 8)))]),
            "limit",
            "w1 has 8 in flight of the 9 that max_in_flight allows, 3 of its queue, for 5.0 s now",
        ),
        (
            telling(&[worker(1, None, Some(limit(None, 3)))]),
            "limit",
            "w1 has 3 in flight and no room for more by max_bytes_in_flight, for 5.0 s now",
        ),
        (
            telling(&[worker(1, None, Some(broken()))]),
            "function_broken",
            "the function f is broken, since 2027-01-15T07:58:30.000Z: its queue waits",
        ),
        (
            telling(&[worker(1, Some("draining"), Some(None))]),
            "worker_waits",
            "waits: w1 is draining",
        ),
        (
            telling(&[worker(1, None, Some(no_time()))]),
            "worker_waits",
            "waits: w1 is paused: the time is not known",
        ),
        (
            telling(&[worker(1, Some("draining"), Some(None)), worker(1, None, Some(broken()))]),
            "function_broken",
            "w1 is draining; the function f is broken",
        ),
        (
            Notices { pauses: pauses.into(), ..telling(&[]) },
            "paused",
            "by ann@web1. `burstd resume q` lets it go on",
        ),
    ] {
        let (found, told) = explained(&task, &notices);
        assert_eq!(found, code, "{told}");
        assert!(told.contains(words), "{told}");
    }
}

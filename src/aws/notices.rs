//! What stands on the control item: people's wishes, and how things stand with each worker.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::control::Control;
use super::item::{Item, number, seconds, string};
use crate::notices::{Bound, Kind, Notices, Pause, Presence, Service};
use crate::store::StoreError;
use crate::task::Timestamp;

/// How an attribute's name begins that is a queue's pause.
const PAUSE: &str = "pause ";

/// How an attribute's name begins that is a worker's presence.
const WORKER: &str = "worker ";

impl Control {
    /// Everything that is told there.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses or is away, or a task has the control item's name.
    pub async fn read(&self) -> Result<Notices, StoreError> {
        Ok(read(&self.item().await?))
    }

    /// Pauses a queue. A pause that stands stays as it is; the one that stands is returned.
    ///
    /// # Errors
    ///
    /// As [`Control::read`].
    pub async fn pause(&self, queue: &str, pause: &Pause) -> Result<Pause, StoreError> {
        let (name, value) = (pause_of(queue), write_pause(pause));
        let clause = "#pause = if_not_exists(#pause, :pause)";
        let item = self.set(clause, ("#pause", &name), (":pause", value), &[]).await?;
        Ok(item.get(&name).and_then(read_pause).unwrap_or_else(|| pause.clone()))
    }

    /// Lets a queue go on. Its pause, if it was paused.
    ///
    /// # Errors
    ///
    /// As [`Control::read`].
    pub async fn resume(&self, queue: &str) -> Result<Option<Pause>, StoreError> {
        // It is read before, because a reply may be lost after the effect.
        let stands = self.read().await?.pauses.remove(queue);
        if stands.is_some() {
            self.remove(&pause_of(queue)).await?;
        }
        Ok(stands)
    }

    /// A worker says how things stand with it, and clears away what `forgotten` ones have said.
    ///
    /// # Errors
    ///
    /// As [`Control::read`].
    pub async fn report(
        &self,
        worker: &str,
        presence: &Presence,
        forgotten: &[&str],
    ) -> Result<(), StoreError> {
        let gone = forgotten.iter().filter(|name| **name != worker);
        let gone: Vec<_> = gone.map(|name| presence_of(name)).collect();
        let (own, value) = (presence_of(worker), (":presence", write_presence(presence)));
        self.set("#worker = :presence", ("#worker", &own), value, &gone).await.map(drop)
    }

    /// A worker says that it ends.
    ///
    /// # Errors
    ///
    /// As [`Control::read`].
    pub async fn leave(&self, worker: &str) -> Result<(), StoreError> {
        self.remove(&presence_of(worker)).await
    }
}

/// The attribute for the pause of a queue.
fn pause_of(queue: &str) -> String {
    format!("{PAUSE}{queue}")
}

/// The attribute for the presence of a worker.
fn presence_of(worker: &str) -> String {
    format!("{WORKER}{worker}")
}

/// What the item tells. What cannot be read there is as if it were not.
fn read(item: &Item) -> Notices {
    Notices {
        pauses: entries(item, PAUSE, read_pause),
        workers: entries(item, WORKER, read_presence),
    }
}

fn entries<T>(
    item: &Item,
    prefix: &str,
    read: impl Fn(&AttributeValue) -> Option<T>,
) -> BTreeMap<String, T> {
    let named = item.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value)));
    named.filter_map(|(name, value)| Some((name.to_owned(), read(value)?))).collect()
}

fn write_pause(pause: &Pause) -> AttributeValue {
    map([("since", number(pause.since)), ("by", string(&pause.by))])
}

/// A pause stands even if nobody can read whose it is.
fn read_pause(value: &AttributeValue) -> Option<Pause> {
    let empty = Item::new();
    let entry = value.as_m().unwrap_or(&empty);
    let by = text(entry, "by").unwrap_or("somebody").to_owned();
    Some(Pause { since: moment(entry, "since").unwrap_or_default(), by })
}

fn write_presence(presence: &Presence) -> AttributeValue {
    let queues = presence.queues.iter().map(|(name, of)| (name.clone(), write_service(of)));
    let mut entry = Item::from([
        ("seen_at".to_owned(), number(presence.seen_at)),
        ("queues".to_owned(), AttributeValue::M(queues.collect())),
    ]);
    if let Some(waits) = &presence.waits {
        entry.insert("waits".to_owned(), string(waits));
    }
    AttributeValue::M(entry)
}

/// What is not said is as it mostly is: one shard, nothing in flight, nothing in the way. Many
/// workers with many queues share one item.
fn write_service(service: &Service) -> AttributeValue {
    let mut entry = Item::new();
    if service.shards != 1 {
        entry.insert("shards".to_owned(), number(service.shards));
    }
    if service.in_flight > 0 {
        entry.insert("in_flight".to_owned(), number(service.in_flight));
    }
    if let Some(Bound { kind, why, limit, in_flight, since }) = &service.bound {
        let mut bound = Item::from([
            ("kind".to_owned(), string(kind.as_str())),
            ("why".to_owned(), string(why)),
            ("in_flight".to_owned(), number(in_flight)),
            ("since".to_owned(), number(since)),
        ]);
        if let Some(limit) = limit {
            bound.insert("limit".to_owned(), number(limit));
        }
        entry.insert("bound".to_owned(), AttributeValue::M(bound));
    }
    AttributeValue::M(entry)
}

fn read_service(value: &AttributeValue) -> Option<Service> {
    let entry = value.as_m().ok()?;
    let bound = match entry.get("bound") {
        None => None,
        Some(bound) => {
            let bound = bound.as_m().ok()?;
            Some(Bound {
                kind: Kind::parse(text(bound, "kind")?)?,
                why: text(bound, "why")?.to_owned(),
                limit: whole(bound, "limit"),
                in_flight: whole(bound, "in_flight")?,
                since: moment(bound, "since")?,
            })
        }
    };
    Some(Service {
        shards: whole(entry, "shards").and_then(|it| it.try_into().ok()).unwrap_or(1),
        in_flight: whole(entry, "in_flight").unwrap_or(0),
        bound,
    })
}

fn read_presence(value: &AttributeValue) -> Option<Presence> {
    let entry = value.as_m().ok()?;
    let queues = entry.get("queues")?.as_m().ok()?;
    let queues = queues.iter().filter_map(|(name, of)| Some((name.clone(), read_service(of)?)));
    Some(Presence {
        seen_at: moment(entry, "seen_at")?,
        waits: text(entry, "waits").map(str::to_owned),
        queues: queues.collect(),
    })
}

fn map<const N: usize>(entries: [(&str, AttributeValue); N]) -> AttributeValue {
    AttributeValue::M(entries.map(|(name, value)| (name.to_owned(), value)).into())
}

fn text<'a>(entry: &'a Item, name: &str) -> Option<&'a str> {
    entry.get(name)?.as_s().ok().map(String::as_str)
}

fn whole(entry: &Item, name: &str) -> Option<u64> {
    entry.get(name)?.as_n().ok()?.parse().ok()
}

fn moment(entry: &Item, name: &str) -> Option<Timestamp> {
    seconds(entry, name).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read_and_garbage_beside_it_is_nothing() {
        let at = Timestamp::from_millis(1_795_404_000_500);
        let pause = Pause { since: at, by: "ann@web1".to_owned() };
        let limit = Bound {
            kind: Kind::Limit,
            why: "max_in_flight".to_owned(),
            limit: Some(200),
            in_flight: 190,
            since: at,
        };
        let broken = Bound { kind: Kind::Broken, limit: None, ..limit.clone() };
        let bound = |bound| Service { shards: 4, in_flight: 200, bound: Some(bound) };
        let idle = Service { shards: 1, in_flight: 0, bound: None };
        let queues = [("a", bound(limit)), ("b", bound(broken)), ("c", idle)];
        let presence = Presence {
            seen_at: at,
            waits: Some("draining".to_owned()),
            queues: queues.map(|(name, service)| (name.to_owned(), service)).into(),
        };
        let item = Item::from([
            (pause_of("thumbs #1"), write_pause(&pause)),
            (pause_of("by hand"), string("yes")),
            (presence_of("w-1"), write_presence(&presence)),
            (presence_of("w-2"), string("garbage")),
            (presence_of("w-3"), write_presence(&Presence::default())),
            ("id".to_owned(), string("burstd#control")),
        ]);
        let by_hand = Pause { since: Timestamp::default(), by: "somebody".to_owned() };
        let expected = Notices {
            pauses: [("thumbs #1".to_owned(), pause), ("by hand".to_owned(), by_hand)].into(),
            workers: [("w-1", presence), ("w-3", Presence::default())]
                .map(|(name, presence)| (name.to_owned(), presence))
                .into(),
        };
        assert_eq!(read(&item), expected);
    }
}

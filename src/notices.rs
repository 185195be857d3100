//! What operators and workers tell one another through the table: which queues are paused, and how
//! things stand with each worker. Nothing of it is needed to run a task.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::queue::Queue;
use crate::task::Timestamp;

/// How often a worker says how things stand when nothing changes.
pub const REPORT_EVERY: Duration = Duration::from_secs(60);

/// A worker that has said nothing for so long is taken for dead: two of its reports are missing.
pub const HEARD_OF_WITHIN: Duration = Duration::from_secs(150);

/// So long those are remembered that are taken for dead, ...
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// ... and no more of them than these.
const REMEMBERED: usize = 20;

/// As many are forgotten at once: DynamoDB takes an expression of 4 KB
/// (docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html).
const FORGOTTEN_AT_ONCE: usize = 50;

/// Everything that is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notices {
    /// The queues that are paused, by name.
    pub pauses: BTreeMap<String, Pause>,
    /// The workers that were heard of lately, by name.
    pub workers: BTreeMap<String, Presence>,
}

/// A person's wish that no task of a queue be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// Whose wish it is.
    pub by: String,
}

/// What a worker last said of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Presence {
    /// When.
    pub seen_at: Timestamp,
    /// What keeps it from claiming anything at all, in a word or two.
    pub waits: Option<String>,
    /// The queues that it serves, by name.
    pub queues: BTreeMap<String, Service>,
}

/// How a worker serves a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Into how many shards it takes the queue to be spread.
    pub shards: u32,
    /// The queue's tasks that it has in flight.
    pub in_flight: u64,
    /// What keeps it from starting more of them.
    pub bound: Option<Bound>,
}

/// What keeps tasks from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What kind of thing it is.
    pub kind: Kind,
    /// What it is called.
    pub why: String,
    /// How many it lets be in flight, if that is a number of tasks.
    pub limit: Option<u64>,
    /// How many are in flight of what it is a limit of: all tasks, a function's, or a queue's.
    pub in_flight: u64,
    /// Since when.
    pub since: Timestamp,
}

/// What may keep tasks from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As many as are allowed are in flight, or start.
    Limit,
    /// The function runs no task.
    Broken,
    /// The worker itself waits for something.
    Waits,
}

impl Kind {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Limit => "limit",
            Kind::Broken => "broken",
            Kind::Waits => "waits",
        }
    }

    /// What is written so.
    pub fn parse(text: &str) -> Option<Self> {
        [Kind::Limit, Kind::Broken, Kind::Waits].into_iter().find(|kind| kind.as_str() == text)
    }
}

impl Notices {
    /// The worker with this name, if it was heard of lately enough to be taken for alive.
    pub fn alive(&self, worker: &str, now: Timestamp) -> Option<&Presence> {
        self.workers.get(worker).filter(|presence| presence.is_alive(now))
    }

    /// The workers that nobody wants to know of any more.
    pub fn forgotten(&self, now: Timestamp) -> Vec<&str> {
        let dead = self.workers.iter().filter(|(_, presence)| !presence.is_alive(now));
        let mut dead: Vec<_> = dead.collect();
        dead.sort_by_key(|(_, presence)| std::cmp::Reverse(presence.seen_at));
        let is_old = |presence: &Presence| now.since(presence.seen_at) > REMEMBERED_FOR;
        let dead = dead.into_iter().enumerate();
        let forgotten =
            dead.filter(|(index, (_, presence))| *index >= REMEMBERED || is_old(presence));
        let forgotten = forgotten.map(|(_, (worker, _))| worker.as_str());
        forgotten.take(FORGOTTEN_AT_ONCE).collect()
    }

    /// Who serves the queue, or the shard, with this name, and how.
    pub fn servers(&self, shard: &str, now: Timestamp) -> Vec<(&str, &Service)> {
        let alive = self.workers.iter().filter(|(_, presence)| presence.is_alive(now));
        alive
            .flat_map(|(worker, presence)| {
                let services = presence.queues.iter();
                let serving = services.filter(|(queue, service)| service.serves(queue, shard));
                serving.map(|(_, service)| (worker.as_str(), service))
            })
            .collect()
    }

    /// The pause of the queue to which this shard belongs.
    pub fn pause(&self, shard: &str) -> Option<(&str, &Pause)> {
        let queue = shard.split_once('#').map_or(shard, |(queue, _)| queue);
        self.pauses.get_key_value(queue).map(|(queue, pause)| (queue.as_str(), pause))
    }
}

impl Presence {
    /// What it does, in a word or two.
    pub fn activity(&self) -> &str {
        self.waits.as_deref().unwrap_or("polling")
    }

    /// Whether it was heard of lately enough.
    pub fn is_alive(&self, now: Timestamp) -> bool {
        now.since(self.seen_at) <= HEARD_OF_WITHIN
    }
}

impl Service {
    fn serves(&self, queue: &str, shard: &str) -> bool {
        Queue::shards(queue, self.shards).iter().any(|name| name == shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_served_by_whoever_was_heard_of_and_takes_it_to_be_one_of_the_queue_s() {
        let now = Timestamp::from_millis(1_000_000);
        let presence = |shards, before: u64| Presence {
            seen_at: Timestamp::from_millis(1_000_000 - before * 1000),
            queues: [("q".to_owned(), Service { shards, ..Service::default() })].into(),
            ..Presence::default()
        };
        let workers = [("one", 1, 0), ("two", 2, 150), ("dead", 2, 151)];
        let workers = workers.map(|(name, shards, before)| (name.into(), presence(shards, before)));
        let notices = Notices { workers: workers.into(), ..Notices::default() };
        for (shard, servers) in
            [("q", vec!["one", "two"]), ("q#1", vec!["two"]), ("q#2", vec![]), ("r", vec![])]
        {
            let found: Vec<_> =
                notices.servers(shard, now).into_iter().map(|(name, _)| name).collect();
            assert_eq!(found, servers, "{shard}");
        }
    }

    #[test]
    fn the_dead_are_remembered_for_a_while_and_not_all_of_them() {
        let now = Timestamp::from_millis(10_000_000);
        let seen = |before: u64| Presence {
            seen_at: Timestamp::from_millis(10_000_000 - before * 1000),
            ..Presence::default()
        };
        let of = |ages: &[u64]| Notices {
            workers: ages.iter().map(|age| (format!("{age:04}"), seen(*age))).collect(),
            ..Notices::default()
        };
        assert_eq!(of(&[0, 150, 151, 600]).forgotten(now), Vec::<&str>::new());
        assert_eq!(of(&[0, 601, 9000]).forgotten(now), ["0601", "9000"]);
        let many: Vec<_> = (200..222).collect();
        assert_eq!(of(&many).forgotten(now), ["0220", "0221"]);
        let fleet: Vec<_> = (200..800).collect();
        assert_eq!(of(&fleet).forgotten(now).len(), 50, "the others the next time");
    }

    #[test]
    fn a_pause_is_of_all_shards_of_its_queue() {
        let pause = Pause { since: Timestamp::default(), by: "ann".to_owned() };
        let notices = Notices { pauses: [("q".to_owned(), pause)].into(), ..Notices::default() };
        assert!(notices.pause("q").is_some() && notices.pause("q#3").is_some());
        assert!(notices.pause("qq").is_none());
    }
}

//! What is different in a configuration that was read again.

use std::collections::{BTreeMap, BTreeSet};

use super::{Config, LogConfig};

/// What is different.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What is in force at once, by the keys of the file.
    pub changed: Vec<String>,
    /// What a running daemon cannot change.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// What is in force when a running daemon with this configuration is given `new`: all of it but
    /// what needs a restart.
    #[must_use]
    pub fn as_far_as_can_be(&self, new: Config) -> Config {
        let log = LogConfig { level: new.log.level, ..self.log.clone() };
        Config { table: self.table.clone(), aws: self.aws.clone(), log, ..new }
    }

    /// What is different in `new`.
    pub fn changes(&self, new: &Config) -> Changes {
        let named = |differs: bool, name: &str| differs.then(|| name.to_owned());
        let (old_limits, limits) = (&self.limits, &new.limits);
        let changed = [
            named(old_limits.max_in_flight != limits.max_in_flight, "max_in_flight"),
            named(
                old_limits.max_bytes_in_flight != limits.max_bytes_in_flight,
                "max_bytes_in_flight",
            ),
            named(old_limits.pace != limits.pace, "poll"),
            named(old_limits.drain != limits.drain, "shutdown"),
            named(self.log.level != new.log.level, "[log] level"),
        ];
        let by_name = |config: &Config| -> BTreeMap<_, _> {
            config.queues.iter().map(|queue| (queue.name.clone(), queue.clone())).collect()
        };
        let queues = compared("queues", &by_name(self), &by_name(new));
        let functions = compared("functions", &self.functions, &new.functions);
        let log = |config: &Config| LogConfig { level: String::new(), ..config.log.clone() };
        let needs_restart = [
            named(self.table != new.table, "table"),
            named(self.aws != new.aws, "aws"),
            named(log(self) != log(new), "log"),
        ];
        Changes {
            changed: changed.into_iter().flatten().chain(queues).chain(functions).collect(),
            needs_restart: needs_restart.into_iter().flatten().collect(),
        }
    }
}

fn compared<T: PartialEq>(
    section: &str,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
) -> Vec<String> {
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let differing = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    let said = differing.map(|name| match (old.get(name), new.get(name)) {
        (None, _) => format!("{section}.{name} (new)"),
        (_, None) => format!("{section}.{name} (gone)"),
        _ => format!("{section}.{name}"),
    });
    said.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text).expect("it is valid")
    }

    #[test]
    fn what_differs_is_named_by_its_key_and_what_needs_a_restart_apart() {
        let old = config(
            "table = \"t\"\n[queues.a]\nfunction = \"f\"\n[queues.b]\nfunction = \"f\"\n\
             [log]\nbuffer = \"2MB\"\n",
        );
        let new = config(
            "table = \"u\"\nmax_in_flight = 7\nmax_bytes_in_flight = \"9MB\"\n\
             [queues.a]\nfunction = \"f\"\nmax_in_flight = 500\nmax_attempts = 2\n\
             [queues.c]\nfunction = \"f\"\nmax_in_flight = 500\n[functions.f]\nramp = 5\n\
             [poll]\nmax = \"1s\"\n[shutdown]\ndrain = \"1s\"\n[aws]\nregion = \"x\"\n\
             [log]\nlevel = \"debug\"\n",
        );
        let changes = old.changes(&new);
        assert_eq!(
            changes.changed,
            [
                "max_in_flight",
                "max_bytes_in_flight",
                "poll",
                "shutdown",
                "[log] level",
                "queues.a",
                "queues.b (gone)",
                "queues.c (new)",
                "functions.f (new)"
            ]
        );
        assert_eq!(changes.needs_restart, ["table", "aws", "log"]);
        assert_eq!(new.changes(&new), Changes::default());
        let in_force = old.as_far_as_can_be(new.clone());
        assert_eq!(in_force.changes(&new).needs_restart, ["table", "aws", "log"]);
        assert_eq!(in_force.changes(&new).changed, [""; 0], "the rest is in force");
        assert_eq!(in_force.changes(&old).needs_restart, [""; 0], "the file was put right");
    }
}

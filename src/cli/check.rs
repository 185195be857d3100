//! `burstd check`.

use super::ConfigFile;
use super::exit::{Exit, say};

/// Says whether the file is valid; if not, all that is wrong with it.
pub(super) fn check(file: &ConfigFile) -> Result<(), Exit> {
    let config = file.load()?;
    let queues: Vec<_> = config.queues.iter().map(|queue| queue.name.as_str()).collect();
    say(format_args!(
        "{}: valid; table {:?}, at most {} in flight, queues: {}",
        file.config.display(),
        config.table,
        config.limits.max_in_flight,
        queues.join(", ")
    ))
}

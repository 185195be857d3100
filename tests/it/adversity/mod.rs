//! What people and machines do to a daemon at work, and how all of it ends well.

mod people;
mod plenty;
mod poison;
mod table;

use crate::support::world::config;

/// Leases that outlast a busy machine: nothing is extended, and nothing given back.
fn patient() -> String {
    config().replace("lease_margin = \"1s\"", "lease_margin = \"60s\"")
}

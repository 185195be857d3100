//! The last moments of a dispatcher.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use burstd::backlog::Backlog;
use burstd::claim::{Rev, Terms};
use burstd::clock::Clock;
use burstd::dispatcher::Dispatcher;
use burstd::memory::Memory;
use burstd::retry::Settlement;
use burstd::shutdown::Shutdown;
use burstd::store::{Claimed, Consumed, DueQuery, Page, Store, StoreError, Write};
use burstd::task::TaskId;
use burstd::worker::Worker;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::simulation::lives::plan;
use crate::simulation::ports::Port;
use crate::simulation::world::{BEGINNING, Sabotage, World, lock};

/// A table at whose first outcome burstd must stop at once.
struct LastWrite {
    port: Port,
    shutdown: Shutdown,
}

impl Store for LastWrite {
    async fn due(&self, query: DueQuery<'_>) -> Result<Page, StoreError> {
        self.port.due(query).await
    }

    async fn claim(&self, id: &TaskId, terms: &Terms) -> Result<Claimed, StoreError> {
        self.port.claim(id, terms).await
    }

    async fn extend(&self, id: &TaskId, held: &Rev, terms: &Terms) -> Result<Write, StoreError> {
        self.port.extend(id, held, terms).await
    }

    async fn settle(
        &self,
        id: &TaskId,
        held: &Rev,
        settlement: &Settlement,
    ) -> Result<Write, StoreError> {
        let write = self.port.settle(id, held, settlement).await;
        self.shutdown.stop();
        write
    }

    fn table(&self) -> &str {
        self.port.table()
    }

    fn consumed(&self) -> Consumed {
        self.port.consumed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ended_at_the_moment_burstd_must_stop_is_not_taken_for_an_abandoned_one() {
    let simulated = World::new(1, Sabotage::None, Duration::ZERO);
    let world = Arc::new(Mutex::new(simulated));
    for id in ["a", "b", "c"] {
        lock(&world).insert(id, BEGINNING);
    }
    let began = Instant::now();
    let clock = Clock::reading(move || BEGINNING + began.elapsed());
    let port = Port { world, worker: 0, max_in_flight: 9, clock: clock.clone() };
    let shutdown = Shutdown::new();
    let table = LastWrite { port: port.clone(), shutdown: shutdown.clone() };
    let name = "last".to_owned();
    let worker =
        Worker::new(name, table, port, clock, Backlog::default(), Memory::new(0), shutdown);
    let rng = StdRng::seed_from_u64(1);
    let counts = Dispatcher::new(Arc::new(worker), plan(), rng).run().await;
    assert_eq!((counts.claimed, counts.succeeded, counts.abandoned), (3, 1, 2), "{counts:?}");
}

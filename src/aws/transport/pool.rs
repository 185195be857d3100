//! The connections to one endpoint: as many as the calls need, and no more calls on one than it
//! takes.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, Uri, Version};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::TransportError;
use super::connect::Connector;
use super::connection::{Connection, Driver, H1, H2, Request};

/// Connections that are made at the same moment. Each costs a TLS handshake, about a millisecond
/// of one core; more at once only make each of them late.
const CONNECTING_AT_ONCE: usize = 32;

/// A connection that carried no call for so long is closed, ...
const IDLE: Duration = Duration::from_secs(60);

/// ... unless it is one of the warm few.
const WARM_H1: usize = 16;
const WARM_H2: usize = 1;

/// How often idle connections are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Pool {
    connector: Arc<Connector>,
    uri: Uri,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Unknown until the first connection is made.
    protocol: Option<Protocol>,
    h2: Vec<Shared>,
    /// The most recently used one is last.
    idle_h1: Vec<(H1, Instant)>,
    connecting: usize,
    waiting: VecDeque<oneshot::Sender<Result<Slot, TransportError>>>,
    /// Calls that were announced and have not come.
    expected: usize,
    next_id: u64,
    /// What drives the connections, and makes new ones.
    tasks: JoinSet<()>,
}

#[derive(Clone, Copy, Debug)]
enum Protocol {
    H1,
    H2 { streams: usize },
}

impl Protocol {
    fn calls_per_connection(self) -> usize {
        match self {
            Protocol::H1 => 1,
            Protocol::H2 { streams } => streams.max(1),
        }
    }
}

/// An HTTP/2 connection and how many calls it carries.
#[derive(Debug)]
struct Shared {
    id: u64,
    h2: H2,
    calls: usize,
    idle_since: Instant,
}

/// The right to make one call. Dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Slot {
    pool: Weak<Pool>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    H1(H1),
    H2 {
        id: u64,
        h2: H2,
    },
    /// Given back already.
    None,
}

impl Pool {
    pub(super) fn new(connector: Arc<Connector>, uri: Uri) -> Arc<Self> {
        let pool = Arc::new(Pool { connector, uri, state: Mutex::default() });
        let sweeper = sweep(Arc::downgrade(&pool));
        pool.state().tasks.spawn(sweeper);
        pool
    }

    /// So many calls will come soon.
    pub(super) fn expect(self: &Arc<Self>, calls: usize) {
        let mut state = self.state();
        state.expected = state.expected.saturating_add(calls);
        self.grow(&mut state);
    }

    /// Where it is.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The HTTP that is spoken there; nothing before the first connection.
    pub(super) fn spoken(&self) -> Option<Version> {
        Some(match self.state().protocol? {
            Protocol::H1 => Version::HTTP_11,
            Protocol::H2 { .. } => Version::HTTP_2,
        })
    }

    /// A place for a call, as soon as there is one.
    pub(super) async fn slot(self: &Arc<Self>) -> Result<Slot, TransportError> {
        let place = {
            let mut state = self.state();
            state.expected = state.expected.saturating_sub(1);
            match self.free_slot(&mut state) {
                Some(slot) => return Ok(slot),
                None => {
                    let (sender, receiver) = oneshot::channel();
                    state.waiting.push_back(sender);
                    self.grow(&mut state);
                    receiver
                }
            }
        };
        let lost = |_| TransportError::not_sent("the connection pool has ended", None);
        place.await.unwrap_or_else(|error| Err(lost(error)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding this lock")
    }

    fn slot_at(self: &Arc<Self>, place: Place) -> Slot {
        Slot { pool: Arc::downgrade(self), place }
    }

    /// The least loaded HTTP/2 connection with room, or the warmest HTTP/1.1 one.
    fn free_slot(self: &Arc<Self>, state: &mut State) -> Option<Slot> {
        while let Some((h1, _)) = state.idle_h1.pop() {
            if h1.is_ready() {
                return Some(self.slot_at(Place::H1(h1)));
            }
        }
        let roomy = state.h2.iter_mut().filter(|shared| shared.calls < shared.h2.limit());
        let shared = roomy.min_by_key(|shared| shared.calls)?;
        shared.calls += 1;
        Some(self.slot_at(Place::H2 { id: shared.id, h2: shared.h2.clone() }))
    }

    /// Makes connections for the calls that wait and those that are expected. Before the first
    /// one has told the protocol, there is one.
    fn grow(self: &Arc<Self>, state: &mut State) {
        while state.tasks.try_join_next().is_some() {}
        let room: usize = state
            .h2
            .iter()
            .map(|shared| shared.h2.limit().saturating_sub(shared.calls))
            .sum::<usize>()
            + state.idle_h1.len();
        let wanted = (state.waiting.len() + state.expected).saturating_sub(room);
        let each = state.protocol.map_or(usize::MAX, Protocol::calls_per_connection);
        let needed = wanted.div_ceil(each).min(CONNECTING_AT_ONCE);
        while state.connecting < needed {
            state.connecting += 1;
            let pool = self.clone();
            state.tasks.spawn(async move {
                let connection = pool.connector.connect(&pool.uri).await;
                pool.connected(connection);
            });
        }
    }

    /// A connection was made, or was not.
    fn connected(self: &Arc<Self>, connection: Result<Connection, TransportError>) {
        let mut state = self.state();
        state.connecting -= 1;
        match connection {
            Ok(Connection::H1(h1, driver)) => {
                state.protocol = Some(Protocol::H1);
                state.tasks.spawn(driver);
                self.give_back(&mut state, h1);
            }
            Ok(Connection::H2(h2, driver)) => {
                state.protocol = Some(Protocol::H2 { streams: h2.limit() });
                let id = state.next_id;
                state.next_id += 1;
                state.h2.push(Shared { id, h2, calls: 0, idle_since: Instant::now() });
                state.tasks.spawn(retire(Arc::downgrade(self), id, driver));
                self.serve(&mut state);
            }
            Err(error) => self.failed(&mut state, &error),
        }
        self.grow(&mut state);
    }

    /// Tells those whom this connection would have served. Who fails is not sent, and comes again
    /// when it is time; nobody waits for a connection that nobody makes.
    fn failed(&self, state: &mut State, error: &TransportError) {
        state.expected = 0;
        let each = state.protocol.map_or(usize::MAX, Protocol::calls_per_connection);
        let is_last = state.connecting == 0;
        let count = if is_last { state.waiting.len() } else { each.min(state.waiting.len()) };
        for waiting in state.waiting.drain(..count) {
            // Who no longer waits need not be told.
            waiting.send(Err(error.repeated())).ok();
        }
    }

    /// Gives free places to those who wait.
    fn serve(self: &Arc<Self>, state: &mut State) {
        while !state.waiting.is_empty() {
            let Some(slot) = self.free_slot(state) else { return };
            self.hand_over(state, slot);
        }
    }

    /// Gives a place to the first who still waits; keeps it otherwise.
    fn hand_over(self: &Arc<Self>, state: &mut State, mut slot: Slot) {
        while let Some(waiting) = state.waiting.pop_front() {
            match waiting.send(Ok(slot)) {
                Ok(()) => return,
                Err(Ok(unwanted)) => slot = unwanted,
                Err(Err(_)) => unreachable!("a place was sent"),
            }
        }
        match mem::replace(&mut slot.place, Place::None) {
            Place::H1(h1) => state.idle_h1.push((h1, Instant::now())),
            Place::H2 { id, .. } => state.leave(id),
            Place::None => {}
        }
    }

    fn give_back(self: &Arc<Self>, state: &mut State, h1: H1) {
        let slot = self.slot_at(Place::H1(h1));
        self.hand_over(state, slot);
    }

    /// No call is put on this connection any more; those on it may end.
    fn forget(&self, id: u64) {
        self.state().h2.retain(|shared| shared.id != id);
    }

    fn left(self: &Arc<Self>, place: Place) {
        let mut state = self.state();
        match place {
            Place::H1(h1) if h1.is_ready() => self.give_back(&mut state, h1),
            Place::H1(_) | Place::None => {}
            Place::H2 { id, .. } => {
                state.leave(id);
                self.serve(&mut state);
            }
        }
        self.grow(&mut state);
    }

    /// Closes what has been idle for long, except a warm few.
    fn close_idle(&self) {
        let mut state = self.state();
        let now = Instant::now();
        let is_old = |since: Instant| now.saturating_duration_since(since) > IDLE;
        let surplus = state.idle_h1.len().saturating_sub(WARM_H1);
        let mut index = 0;
        state.idle_h1.retain(|(h1, since)| {
            index += 1;
            h1.is_ready() && !(index <= surplus && is_old(*since))
        });
        let mut surplus = state.h2.len().saturating_sub(WARM_H2);
        state.h2.retain(|shared| {
            let close = surplus > 0 && shared.calls == 0 && is_old(shared.idle_since);
            surplus -= usize::from(close);
            !close
        });
        // What was announced and never came must not keep connections open.
        state.expected = 0;
    }
}

impl State {
    fn leave(&mut self, id: u64) {
        if let Some(shared) = self.h2.iter_mut().find(|shared| shared.id == id) {
            shared.calls -= 1;
            shared.idle_since = Instant::now();
        }
    }
}

/// Drives an HTTP/2 connection; when it ends, nobody calls on it any more.
async fn retire(pool: Weak<Pool>, id: u64, driver: Driver) {
    driver.await;
    if let Some(pool) = pool.upgrade() {
        pool.forget(id);
        pool.grow(&mut pool.state());
    }
}

async fn sweep(pool: Weak<Pool>) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(pool) = pool.upgrade() else { return };
        pool.close_idle();
    }
}

impl Slot {
    /// Makes the call.
    pub(super) async fn send(
        &mut self,
        request: &Request,
    ) -> Result<Response<Bytes>, TransportError> {
        match &mut self.place {
            Place::H1(h1) => h1.send(request).await,
            Place::H2 { h2, id } => {
                let sent = h2.send(request).await;
                if sent.as_ref().is_err_and(|error| error.has_gone_away)
                    && let Some(pool) = self.pool.upgrade()
                {
                    pool.forget(*id);
                }
                sent
            }
            Place::None => Err(TransportError::not_sent("the place was given back", None)),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let place = mem::replace(&mut self.place, Place::None);
        if let (Some(pool), true) = (self.pool.upgrade(), !matches!(place, Place::None)) {
            pool.left(place);
        }
    }
}

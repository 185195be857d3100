//! The daemons, and what they suffer.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;
use rustix::process::Signal;

use super::{MARGIN, MAX_ATTEMPTS, TIMEOUT};
use crate::support::program::{Process, Program};

/// Where a task's life can be cut.
const POINTS: [&str; 6] =
    ["claim.send", "claim.reply", "invoke.send", "invoke.reply", "settle.send", "settle.reply"];

pub struct Daemons {
    program: Program,
    places: Vec<Place>,
    kills: u64,
    /// Those that have ended.
    pub logs: Vec<Log>,
}

/// Where one daemon follows another.
enum Place {
    Runs(Process),
    /// It stands still until then.
    Stopped(Process, Instant),
    /// It was told to end.
    Ending(Process),
    /// It comes back then.
    Gone(Instant),
}

/// What a process printed.
pub struct Log {
    pub lines: Vec<String>,
    /// Whether it had no chance to say the last thing.
    pub was_killed: bool,
}

impl Daemons {
    pub fn start(count: usize, dynamodb: &str, lambda: &str) -> Self {
        let config = format!(
            "table = \"nemesis\"\nmax_in_flight = 40\n[shutdown]\ndrain = \"10s\"\n\
             [log]\nlevel = \"info\"\n\
             [queues.work]\nfunction = \"work\"\ntimeout = \"{}s\"\nlease_margin = \"{}s\"\n\
             max_attempts = {MAX_ATTEMPTS}\nbackoff = {{ base = \"20ms\", max = \"500ms\" }}\n",
            TIMEOUT.as_secs(),
            MARGIN.as_secs()
        );
        let program = Program::between(dynamodb, lambda, &config);
        let places = (0..count).map(|_| Place::Runs(program.start())).collect();
        Daemons { program, places, kills: 0, logs: Vec::new() }
    }

    /// Processes that were killed so far, by us or at a point of their own.
    pub fn kills(&self) -> u64 {
        self.kills
    }

    /// Does something to one of them.
    pub fn suffer(&mut self, rng: &mut StdRng) {
        let running = |index: &usize| matches!(self.places[*index], Place::Runs(_));
        let running: Vec<_> = (0..self.places.len()).filter(running).collect();
        let Some(&index) = running.get(rng.random_range(0..self.places.len())) else { return };
        let soon = Instant::now() + Duration::from_millis(rng.random_range(0..600));
        let Place::Runs(process) = &self.places[index] else { unreachable!("it runs") };
        let next = match rng.random_range(0..10) {
            0..6 => {
                process.signal(Signal::KILL);
                return;
            }
            6..8 => Place::Stopped as fn(Process, Instant) -> Place,
            8 => |process, _| Place::Ending(process),
            _ => {
                process.signal(Signal::HUP);
                return;
            }
        };
        let Place::Runs(process) = std::mem::replace(&mut self.places[index], Place::Gone(soon))
        else {
            unreachable!("it was so a moment ago")
        };
        let twice_the_lease = 2 * (TIMEOUT + MARGIN).as_millis();
        let long = rng.random_range(0..u64::try_from(twice_the_lease).expect("it is short"));
        self.places[index] = next(process, Instant::now() + Duration::from_millis(long));
        match &self.places[index] {
            Place::Stopped(process, _) => process.signal(Signal::STOP),
            Place::Ending(process) => process.signal(Signal::TERM),
            Place::Runs(_) | Place::Gone(_) => {}
        }
    }

    /// Wakes those that have slept, and starts others for those that have ended; one in four will
    /// die at some point of a task's life.
    pub fn look_after(&mut self, rng: &mut StdRng) {
        let now = Instant::now();
        for place in &mut self.places {
            let soon = Place::Gone(now + Duration::from_millis(rng.random_range(0..600)));
            *place = match std::mem::replace(place, Place::Gone(now)) {
                Place::Gone(until) if until <= now => Place::Runs(match rng.random_bool(0.25) {
                    false => self.program.start(),
                    true => {
                        let point = POINTS[rng.random_range(0..POINTS.len())];
                        self.program.start_and_die_at(point, rng.random_range(1..60))
                    }
                }),
                Place::Stopped(process, until) if until <= now => {
                    process.signal(Signal::CONT);
                    Place::Runs(process)
                }
                Place::Runs(mut process) => match process.try_ended() {
                    None => Place::Runs(process),
                    Some(status) => {
                        assert!(!status.success(), "nobody told it to end");
                        self.kills += 1;
                        self.logs.push(Log { lines: process.finish(), was_killed: true });
                        soon
                    }
                },
                Place::Ending(mut process) => match process.try_ended() {
                    None => Place::Ending(process),
                    Some(status) => {
                        let was_killed = !status.success();
                        self.kills += u64::from(was_killed);
                        self.logs.push(Log { lines: process.finish(), was_killed });
                        soon
                    }
                },
                as_it_is => as_it_is,
            };
        }
    }

    /// From now on nothing happens to them: all run, none of them to die.
    pub fn calm(&mut self) {
        for place in &mut self.places {
            match std::mem::replace(place, Place::Gone(Instant::now())) {
                Place::Stopped(process, _) => {
                    process.signal(Signal::CONT);
                    *place = Place::Runs(process);
                }
                Place::Runs(process) | Place::Ending(process) => {
                    process.signal(Signal::KILL);
                    self.logs.push(Log { lines: process.finish(), was_killed: true });
                    *place = Place::Runs(self.program.start());
                }
                Place::Gone(_) => *place = Place::Runs(self.program.start()),
            }
        }
    }

    /// Ends all of them in peace; what everyone has printed.
    pub async fn stop(mut self) -> Vec<Log> {
        for place in self.places.drain(..) {
            let Place::Runs(mut process) = place else { unreachable!("they are calm") };
            process.signal(Signal::TERM);
            let status = process.ended().await;
            // One that was made to die at a point may have done so at the very end.
            let was_killed = !status.success();
            self.logs.push(Log { lines: process.finish(), was_killed });
        }
        self.logs
    }
}

//! Tables and simulations of a function's limits.

use super::*;

const ACCOUNT: Throttle = Throttle { limit: Limit::Account, retry_after: None };
const RESERVED: Throttle = Throttle { limit: Limit::Reserved, retry_after: None };

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn free() -> State {
    State::new(Caps { ramp: 100_000, ..Caps::default() })
}

/// Starts as many as may.
fn fill(state: &mut State, now: Instant, most: usize) -> Vec<Start> {
    (0..most).map_while(|_| state.start(now).ok()).collect()
}

#[test]
fn the_first_burst_starts_at_once_as_far_as_lambda_makes_environments() {
    let now = Instant::now();
    assert_eq!(fill(&mut State::new(Caps::default()), now, 10_000).len(), 1000);
    assert_eq!(fill(&mut free(), now, 10_000).len(), 10_000);
}

#[test]
fn after_a_throttled_burst_as_many_run_as_were_accepted() {
    for throttle in [ACCOUNT, RESERVED] {
        let (mut state, now) = (free(), Instant::now());
        let starts = fill(&mut state, now, 500);
        for start in &starts[200..] {
            state.throttled(*start, throttle, now);
        }
        assert_eq!(state.running, 200);
        assert_eq!(state.start(now).err(), Some(Wait::Full));
        state.ended(starts[0], now);
        assert_eq!(fill(&mut state, now, 10).len(), 1, "an end frees one place");
    }
}

#[test]
fn those_that_have_ended_before_a_throttle_s_answer_came_were_accepted_too() {
    let (mut state, now) = (free(), Instant::now());
    let starts = fill(&mut state, now, 300);
    starts[..20].iter().for_each(|start| state.ended(*start, now + millis(100)));
    starts[20..].iter().for_each(|start| {
        state.throttled(*start, RESERVED, now + millis(150));
    });
    assert_eq!((state.window.size(), state.running), (Some(20), 0));
    assert_eq!(fill(&mut state, now + millis(150), 500).len(), 20, "and nobody is shut out");
}

#[test]
fn a_rate_slows_the_starts_and_leaves_the_window_as_it_is() {
    let (mut state, now) = (free(), Instant::now());
    let throttle = Throttle { limit: Limit::FunctionRate, retry_after: None };
    for start in fill(&mut state, now, 500).into_iter().skip(100) {
        state.throttled(start, throttle, now);
    }
    assert_eq!(state.window.size(), None);
    assert!(matches!(state.start(now), Err(Wait::Until(_))));
    let started: usize =
        (1..=100).map(|step| fill(&mut state, now + millis(10) * step, 500).len()).sum();
    assert!((85..=95).contains(&started), "{started} in the next second");
}

#[test]
fn snapshots_are_waited_for_and_nothing_else_changes() {
    let (mut state, now) = (free(), Instant::now());
    let mut starts = fill(&mut state, now, 2);
    let throttle = Throttle { limit: Limit::Snapshots, retry_after: None };
    state.throttled(starts.remove(0), throttle, now);
    assert_eq!(state.start(now).err(), Some(Wait::Until(now + PROBE_FIRST)));
    assert_eq!(fill(&mut state, now + PROBE_FIRST, 500).len(), 500);
}

#[test]
fn what_lambda_asks_to_wait_is_waited() {
    let (mut state, now) = (free(), Instant::now());
    let mut starts = fill(&mut state, now, 100);
    let wish = Throttle { retry_after: Some(millis(7000)), ..ACCOUNT };
    state.throttled(starts.remove(0), wish, now);
    assert_eq!(state.start(now).err(), Some(Wait::Until(now + millis(7000))));
}

#[test]
fn a_function_that_lets_nobody_in_is_probed_ever_more_seldom() {
    let (mut state, mut now) = (free(), Instant::now());
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let start = state.start(now).expect("it is open");
        state.throttled(start, ACCOUNT, now);
        let Err(Wait::Until(until)) = state.start(now) else { panic!("it is closed") };
        pauses.push((until - now).as_millis());
        now = until;
    }
    assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    assert!(state.is_shut_out());
    let start = state.start(now).expect("it is open");
    state.ended(start, now);
    assert!(state.start(now).is_ok(), "one that ran opens it");
}

#[test]
fn a_function_whose_own_limit_lets_nobody_in_is_switched_off() {
    let (mut state, mut now) = (free(), Instant::now());
    for _ in 0..3 {
        now += PROBE_LONGEST;
        let start = state.start(now).expect("it is open");
        state.throttled(start, RESERVED, now);
    }
    assert_eq!(state.start(now).err(), Some(Wait::Off));
    assert!(state.start(now + OFF).is_ok(), "it is tried again");
}

#[test]
fn the_operator_s_caps_are_never_exceeded() {
    let caps = Caps { max_concurrency: Some(40), start_rate: Some(50.0), ..Caps::default() };
    let (mut state, began) = (State::new(caps), Instant::now());
    let mut started: Vec<_> =
        (0..100).flat_map(|step| fill(&mut state, began + millis(10) * step, 500)).collect();
    assert_eq!(started.len(), 40);
    started.drain(..).for_each(|start| state.ended(start, began + millis(1000)));
    let (mut second, from) = (0, began + millis(1000));
    for step in 0..100 {
        let starts = fill(&mut state, from + millis(10) * step, 500);
        second += starts.len();
        starts.into_iter().for_each(|start| state.ended(start, from + millis(10) * step));
    }
    assert!((49..=51).contains(&second), "{second} in a second");
}

#[test]
fn what_lambda_tells_is_the_starting_point() {
    let (mut state, now) = (free(), Instant::now());
    let change = state.told(Concurrency::Reserved(120), now).expect("it is worth telling");
    assert_eq!((change.from, change.to, change.why), (None, 120, "reserved concurrency"));
    assert_eq!(fill(&mut state, now, 500).len(), 120);
    assert_eq!(state.told(Concurrency::Reserved(120), now), None, "it is no news");
    let change = state.told(Concurrency::Reserved(0), now).expect("it is worth telling");
    assert_eq!(change.to, 0);
    assert_eq!(state.start(now).err(), Some(Wait::Off));
    assert_eq!(state.capacity(now), Some(0));
}

#[test]
fn a_change_is_told_once_and_again_only_when_it_has_grown_old() {
    let (mut state, now) = (free(), Instant::now());
    let starts = fill(&mut state, now, 500);
    let told = starts[200..].iter().filter_map(|start| state.throttled(*start, RESERVED, now));
    let told: Vec<_> = told.map(|change| (change.from, change.to, change.why)).collect();
    assert_eq!(told, [(None, 499, "reserved concurrency")]);
    let later = now + TOLD_EVERY;
    state.ended(starts[0], later);
    let start = fill(&mut state, later, 5)[0];
    let told = state.throttled(start, RESERVED, later).expect("it is worth telling");
    assert!((199..=210).contains(&told.to), "{told:?}");
}

#[test]
fn tasks_are_claimed_for_the_places_that_are_or_soon_will_be_free() {
    let (mut state, now) = (State::new(Caps::default()), Instant::now());
    assert_eq!(state.capacity(now), Some(1108), "a burst, what comes in a second, a few more");
    fill(&mut state, now, 1000);
    assert_eq!(state.capacity(now), Some(1348));
    let (mut state, now) = (free(), Instant::now());
    for start in fill(&mut state, now, 500).into_iter().skip(200) {
        state.throttled(start, RESERVED, now);
    }
    assert_eq!(state.capacity(now), Some(250));
}

/// A Lambda in miniature, a time step after the other: a ramp, a concurrency limit, functions
/// that take a while. Answers of throttled starts come after a round trip.
struct Miniature {
    limit: usize,
    ramp: Bucket,
    warm: usize,
    running: Vec<(Instant, Start)>,
    takes: Duration,
}

/// Runs `tasks` tasks; returns how many starts there were, how many were throttled, and when the
/// last had ended.
fn simulate(state: &mut State, mut lambda: Miniature, tasks: usize) -> (usize, usize, Duration) {
    let (began, step) = (Instant::now(), millis(5));
    let (mut now, mut waiting, mut starts, mut throttled) = (began, tasks, 0, 0);
    let mut refused: Vec<(Instant, Start)> = Vec::new();
    while waiting > 0 || !lambda.running.is_empty() || !refused.is_empty() {
        let ended: Vec<_> = lambda.running.extract_if(.., |(end, _)| *end <= now).collect();
        lambda.warm += ended.len();
        ended.into_iter().for_each(|(_, start)| state.ended(start, now));
        let answered: Vec<_> = refused.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, start) in answered {
            state.throttled(start, ACCOUNT, now);
            waiting += 1;
        }
        for start in fill(state, now, waiting) {
            (waiting, starts) = (waiting - 1, starts + 1);
            let is_warm = lambda.warm > 0;
            let fits = lambda.running.len() < lambda.limit;
            if fits && (is_warm || lambda.ramp.wait(now).is_none()) {
                lambda.warm -= usize::from(is_warm);
                if !is_warm {
                    lambda.ramp.take();
                }
                lambda.running.push((now + lambda.takes, start));
            } else {
                throttled += 1;
                refused.push((now + 4 * step, start));
            }
        }
        now += step;
    }
    (starts, throttled, now - began)
}

#[test]
fn under_lambda_s_ramp_hardly_a_start_is_throttled() {
    let ramp = Bucket::new(100.0, 1000.0);
    let takes = Duration::from_secs(20);
    let lambda = Miniature { limit: 10_000, ramp, warm: 0, running: Vec::new(), takes };
    let (starts, throttled, took) = simulate(&mut State::new(Caps::default()), lambda, 5000);
    assert!(throttled * 50 < starts, "{throttled} of {starts} throttled");
    assert!(took < Duration::from_secs(62), "{took:?}");
}

#[test]
fn under_a_limit_nobody_has_told_of_the_places_are_kept_full() {
    let ramp = Bucket::unlimited();
    let takes = millis(500);
    let lambda = Miniature { limit: 200, ramp, warm: 0, running: Vec::new(), takes };
    let (starts, throttled, took) = simulate(&mut State::new(Caps::default()), lambda, 20_000);
    let first_burst = 800;
    assert!((throttled - first_burst) * 20 < starts, "{throttled} of {starts} throttled");
    // At best 200 each half second.
    assert!(took < Duration::from_secs_f64(50.0 / 0.95), "{took:?}");
}

#[test]
fn other_caps_hold_from_now_on_and_what_lambda_tells_stays() {
    let (mut state, now) = (free(), Instant::now());
    state.told(Concurrency::Reserved(120), now);
    let cap = |most| Caps { max_concurrency: Some(most), ramp: 100_000, ..Caps::default() };
    state.set_caps(cap(50), now);
    let running = fill(&mut state, now, 500);
    assert_eq!(running.len(), 50);
    state.set_caps(cap(20), now);
    running[..30].iter().for_each(|start| state.ended(*start, now));
    assert_eq!(state.start(now).err(), Some(Wait::Full), "twenty run");
    let now = now + millis(1000);
    state.set_caps(cap(500), now);
    assert_eq!(fill(&mut state, now, 500).len(), 100, "Lambda gives 120");
    state.set_caps(Caps { start_rate: Some(100.0), ..cap(500) }, now);
    running[30..].iter().for_each(|start| state.ended(*start, now));
    assert_eq!(fill(&mut state, now, 500).len(), 1, "the pace is evenly spread");
}

#[test]
fn the_limit_that_binds_is_named_and_only_while_it_does() {
    let caps = Caps { max_concurrency: Some(40), ..Caps::default() };
    let told = |caps, concurrency| {
        let (mut state, now) = (State::new(caps), Instant::now());
        if let Some(concurrency) = concurrency {
            state.told(concurrency, now);
        }
        assert!(matches!(state.bound(now), None | Some((_, Some(0)))), "nobody runs");
        fill(&mut state, now, 5000);
        state.bound(now)
    };
    let paced = Caps { start_rate: Some(50.0), ..Caps::default() };
    for (caps, concurrency, bound) in [
        (caps, None, ("max_concurrency", Some(40))),
        (caps, Some(Concurrency::Reserved(30)), ("reserved concurrency", Some(30))),
        (caps, Some(Concurrency::Shared(30)), ("account concurrency", Some(30))),
        (caps, Some(Concurrency::Reserved(0)), (Concurrency::Reserved(0).why(), Some(0))),
        (Caps::default(), None, ("ramp", None)),
        (paced, None, ("start_rate", None)),
    ] {
        assert_eq!(told(caps, concurrency), Some(bound));
    }
    let (mut state, now) = (free(), Instant::now());
    let starts = fill(&mut state, now, 100);
    starts[50..].iter().for_each(|start| {
        state.throttled(*start, ACCOUNT, now);
    });
    assert_eq!(state.bound(now).map(|(why, _)| why), Some("throttles"));
    assert_eq!(state.throttles(), 50);
}

#[test]
fn other_caps_do_not_forget_what_throttles_have_taught() {
    let (mut state, now) = (free(), Instant::now());
    let starts = fill(&mut state, now, 300);
    starts[200..].iter().for_each(|start| {
        state.throttled(*start, RESERVED, now);
    });
    state.set_caps(Caps { max_concurrency: Some(1000), ramp: 100_000, ..Caps::default() }, now);
    assert_eq!(state.start(now).err(), Some(Wait::Full), "as many run as were accepted");
}

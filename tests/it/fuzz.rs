//! What comes from outside, made up at random: nothing makes burstd panic, and what is wrong is
//! named. PROPTEST_CASES raises the number of cases.

use std::time::Duration;

use burstd::config::{Config, Problem, Timeout};
use burstd::invoker::{RESULT_LIMIT_BYTES, TaskResult};
use burstd::retry::OnUnknown;
use burstd::task::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::Config as Cases;

const REFERENCE: &str = include_str!("../../config/burstd.toml");

/// The reference file with every optional key in force.
fn reference() -> String {
    let in_force = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest.to_owned(),
        _ => line.to_owned(),
    };
    let lines = REFERENCE.lines().filter(|line| !line.starts_with("# ") && !line.is_empty());
    lines.map(|line| in_force(line) + "\n").collect()
}

/// No file is written for cases that fail.
fn cases() -> Cases {
    Cases { failure_persistence: None, ..Cases::default() }
}

/// Any value of TOML, as text.
fn toml_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        (0..2000_i64).prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:?}")),
        any::<bool>().prop_map(|flag| flag.to_string()),
        "[0-9]{1,20}(ms|s|m|h|d)?".prop_map(|text| format!("{text:?}")),
        "[0-9]{0,12} ?/ ?[a-z]?".prop_map(|text| format!("{text:?}")),
        "(https?://)?[a-z0-9.:/]{0,20}".prop_map(|text| format!("{text:?}")),
        "[ -~]{0,20}".prop_map(|text| format!("{text:?}")),
        "'[^'\\p{Cc}]{0,20}'",
        "0x[0-9a-f_]{0,20}|0o[0-7]{1,9}|0b[01]{1,40}|[+-]?inf|nan",
        "[0-9]{4}-[01][0-9]-[0-3][0-9]",
        select(vec!["\"auto\"", "\"wait\"", "\"h2\"", "\"json\"", "\"debug\"", "\"0s\""])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(|values| format!("[{}]", values.join(", "))),
            vec(("[a-z]{1,4}", inner), 0..3).prop_map(|entries| {
                let entry = |(key, value): &(String, String)| format!("{key} = {value}");
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
            }),
        ]
    })
}

/// Every problem says where it is, and something.
fn check(source: &str, problems: &[Problem]) -> Result<(), TestCaseError> {
    prop_assert!(!problems.is_empty());
    for problem in problems {
        let lines = source.bytes().filter(|byte| *byte == b'\n').count() + 1;
        prop_assert!((1..=lines).contains(&problem.line), "{problem}");
        prop_assert!(!problem.message.is_empty(), "{problem:?}");
    }
    Ok(())
}

/// A duration in whole units, and its text.
fn duration(seconds: std::ops::Range<u64>) -> impl Strategy<Value = (Duration, String)> {
    seconds.prop_map(|seconds| {
        let duration = Duration::from_secs(seconds);
        (duration, humantime::format_duration(duration).to_string())
    })
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_text_is_a_configuration_or_has_problems(source in prop_oneof![
        ".*",
        "(\\PC|\n){0,200}",
        "([a-z\\[\\]{}=\"'#., 0-9_-]|\n){0,200}",
    ]) {
        if let Err(problems) = Config::parse(&source) {
            check(&source, &problems)?;
        }
    }

    #[test]
    fn a_file_that_was_torn_and_patched_is_valid_or_has_problems(
        edits in vec((any::<Index>(), any::<Index>(), prop_oneof![
            Just(String::new()),
            "\\PC{0,10}",
            "[\\[\\]{}=\"'#.,\n-]{1,3}",
            toml_value(),
        ]), 1..4),
    ) {
        let mut source: Vec<_> = reference().chars().collect();
        for (one, other, patch) in edits {
            let (one, other) = (one.index(source.len() + 1), other.index(source.len() + 1));
            let torn = one.min(other)..one.max(other).min(one.min(other) + 20);
            source.splice(torn, patch.chars());
        }
        let source: String = source.into_iter().collect();
        if let Err(problems) = Config::parse(&source) {
            check(&source, &problems)?;
        }
    }

    #[test]
    fn of_one_wrong_value_the_problem_names_the_key(
        which in any::<Index>(),
        value in toml_value(),
    ) {
        let source = reference();
        let mut lines: Vec<_> = source.lines().map(str::to_owned).collect();
        let is_key = |line: &String| line.contains(" = ") && !line.starts_with('[');
        let keys: Vec<_> = (0..lines.len()).filter(|at| is_key(&lines[*at])).collect();
        let at = *which.get(&keys);
        let key = lines[at].split(" = ").next().unwrap_or_default().to_owned();
        lines[at] = format!("{key} = {value}");
        let source = lines.join("\n");
        if let Err(problems) = Config::parse(&source) {
            check(&source, &problems)?;
            for problem in problems {
                let last = problem.key.split('.').any(|part| part == key);
                // Two bounds, and a function and its caps, are about one another.
                let others = match key.as_str() {
                    "max" => problem.key.ends_with(".min"),
                    "function" => problem.key.starts_with("functions."),
                    _ => false,
                };
                let is_syntax = problem.key.is_empty() && problem.line == at + 1;
                prop_assert!(last || others || is_syntax, "{}: {problem}", lines[at]);
            }
        }
    }

    #[test]
    fn what_is_written_is_what_is_read(
        (table, function) in ("[a-z._-]{3,20}", "[a-zA-Z0-9_:-]{1,64}"),
        name in "[^#\\p{Cc}\"\\\\]{1,40}",
        (max_in_flight, of_queue) in (1..=100_000_u32, 1..=100_000_u32),
        (max_attempts, shards) in (1..=1000_u32, 1..=256_u32),
        (timeout, margin) in (duration(1..901), duration(1..86_400)),
        (base, max) in (duration(1..3600), duration(3600..86_400)),
        retention in duration(1..86_400_000),
        (word, on_unknown) in select(vec![
            ("wait", OnUnknown::Wait), ("retry", OnUnknown::Retry), ("fail", OnUnknown::Fail),
        ]),
    ) {
        let source = format!(
            "table = \"{table}\"\nmax_in_flight = {max_in_flight}\n[queues.\"{name}\"]\n\
             function = \"{function}\"\nmax_in_flight = {of_queue}\nmax_attempts = {max_attempts}\n\
             shards = {shards}\ntimeout = \"{}\"\nlease_margin = \"{}\"\nretention = \"{}\"\n\
             backoff = {{ base = \"{}\", max = \"{}\" }}\non_unknown = \"{word}\"\n",
            timeout.1, margin.1, retention.1, base.1, max.1
        );
        let config = Config::parse(&source);
        prop_assert!(config.is_ok(), "{source}{config:?}");
        let config = config.expect("it was checked");
        prop_assert_eq!(&config.table, &table);
        prop_assert_eq!(config.limits.max_in_flight, max_in_flight as usize);
        let queue = config.queue(&name).expect("it is there");
        prop_assert_eq!(&queue.function, &function);
        prop_assert_eq!(queue.max_in_flight, of_queue as usize);
        prop_assert_eq!(queue.timeout, Timeout::Fixed(timeout.0));
        prop_assert_eq!((queue.lease_margin, queue.shards), (margin.0, shards));
        let policy = &queue.policy;
        prop_assert_eq!((policy.max_attempts, policy.on_unknown), (max_attempts, on_unknown));
        prop_assert_eq!((policy.backoff.base, policy.backoff.max), (base.0, max.0));
        prop_assert_eq!(policy.retention, Some(retention.0));
    }

    #[test]
    fn a_moment_is_read_back_from_the_digits_it_is_written_in(millis in any::<u64>()) {
        let at = Timestamp::from_millis(millis);
        let seconds: f64 = at.to_string().parse().expect("it is a number");
        let back = Timestamp::from_seconds(seconds);
        let until_the_year_9999 = 253_402_300_800_000;
        if millis < until_the_year_9999 {
            prop_assert_eq!(back, at);
        }
        // A double has 53 bits.
        prop_assert!(back.as_millis().abs_diff(millis) <= millis >> 51);
    }

    #[test]
    fn a_moment_never_overflows(
        (seconds, millis) in (any::<f64>(), any::<u64>()),
        length in any::<Duration>(),
    ) {
        let (at, other) = (Timestamp::from_seconds(seconds), Timestamp::from_millis(millis));
        prop_assert!(other + length >= other);
        prop_assert!(at.since(other) == Duration::ZERO || other.since(at) == Duration::ZERO);
    }

    #[test]
    fn a_result_is_kept_if_it_is_json_and_its_size_is_known_in_any_case(
        body in prop_oneof![
            any::<Vec<u8>>(),
            "\\PC*".prop_map(String::into_bytes),
            any::<f64>().prop_map(|number| number.to_string().into_bytes()),
            ".*".prop_map(|text| serde_json::Value::from(text).to_string().into_bytes()),
            (1..100_000_usize).prop_map(|deep| [vec![b'['; deep], vec![b']'; deep]].concat()),
            (RESULT_LIMIT_BYTES - 3..RESULT_LIMIT_BYTES + 3).prop_map(|size| vec![b'1'; size]),
        ],
    ) {
        let result = TaskResult::of(body.clone());
        prop_assert_eq!(result.bytes(), body.len());
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
        match result {
            TaskResult::Json(text) => {
                prop_assert!(is_json && text.len() <= RESULT_LIMIT_BYTES);
                prop_assert_eq!(text.into_bytes(), body);
            }
            TaskResult::Empty => prop_assert!(body.is_empty()),
            TaskResult::Omitted { .. } => {
                let is_text = std::str::from_utf8(&body).is_ok();
                prop_assert!(!is_json || !is_text || body.len() > RESULT_LIMIT_BYTES);
            }
        }
    }
}

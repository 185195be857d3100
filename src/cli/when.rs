//! Moments as people write them.

use std::time::Duration;

use crate::task::Timestamp;

/// Reads `now`, epoch seconds (`1763800000`), RFC 3339 (`2026-11-22T10:00:00+09:00`), a time from
/// now (`+10m`), or a time ago (`-1h`).
pub(super) fn parse(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if text == "now" {
        return Ok(now);
    }
    if let Some(later) = text.strip_prefix('+') {
        let later: Duration = humantime::parse_duration(later)
            .map_err(|error| format!("{text:?} is not a time from now such as +10m ({error})"))?;
        return Ok(now + later);
    }
    if let Some(ago) = text.strip_prefix('-') {
        let ago: Duration = humantime::parse_duration(ago)
            .map_err(|error| format!("{text:?} is not a time ago such as -1h ({error})"))?;
        return Ok(now - ago);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return from_seconds(seconds);
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(at) => match at.as_millisecond().try_into() {
            Ok(millis) => Ok(Timestamp::from_millis(millis)),
            Err(_) => Err(format!("{text:?} is before 1970")),
        },
        Err(_) => Err(format!(
            "{text:?} is not a time: write now, +10m, -1h, epoch seconds, or 2026-11-22T10:00:00Z"
        )),
    }
}

/// Reads epoch seconds; what can only be milliseconds is refused, because such a task would wait
/// for thousands of years.
pub(super) fn from_seconds(seconds: f64) -> Result<Timestamp, String> {
    if !seconds.is_finite() || seconds < 0.0 {
        return Err(format!("{seconds} is not a time in epoch seconds"));
    }
    match Timestamp::from_seconds(seconds) {
        at if at.is_surely_millis() => {
            Err(format!("{seconds} is not a time in epoch seconds; is it in milliseconds?"))
        }
        at => Ok(at),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::cases;

    const NOW: Timestamp = Timestamp::from_millis(1_763_800_000_000);

    #[test]
    fn a_moment_is_read_in_each_form() {
        for (text, millis) in [
            ("now", 1_763_800_000_000),
            ("0", 0),
            ("1763800000.5", 1_763_800_000_500),
            ("+10m", 1_763_800_600_000),
            ("-1h", 1_763_796_400_000),
            ("-1000y", 0),
            ("1970-01-01T00:00:01Z", 1_000),
            ("1970-01-01T09:00:01+09:00", 1_000),
        ] {
            assert_eq!(parse(text, NOW), Ok(Timestamp::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused_and_milliseconds_are_named() {
        for text in [
            "",
            "soon",
            "+",
            "+10",
            "-",
            "-5",
            "-1.5",
            "NaN",
            "2026-13-01T00:00:00Z",
            "1026-11-22T10:00:00Z",
        ] {
            assert!(parse(text, NOW).is_err(), "{text}");
        }
        let error = parse("1763800000000", NOW).expect_err("it is in milliseconds");
        assert!(error.contains("milliseconds"), "{error}");
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn whatever_is_written_is_a_moment_or_the_error_says_what_was_written(
            text in prop_oneof![
                ".*",
                "[+-]?[0-9]{0,20}[a-z ]{0,6}",
                "[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]?[0-9:.]{0,12}[Z+-]?[0-9:]{0,6}",
                any::<f64>().prop_map(|number| number.to_string()),
            ],
        ) {
            match parse(&text, NOW) {
                Ok(at) => prop_assert!(at.as_millis() < u64::MAX || text.starts_with('+')),
                Err(error) => prop_assert!(!error.is_empty()),
            }
        }

        #[test]
        fn a_moment_is_read_back_from_seconds_and_from_rfc_3339(
            millis in 0..100_000_000_000_000_u64,
        ) {
            let at = Timestamp::from_millis(millis);
            prop_assert_eq!(parse(&at.to_string(), NOW), Ok(at));
            let rfc = jiff::Timestamp::from_millisecond(millis.try_into().expect("it is small"));
            prop_assert_eq!(parse(&rfc.expect("it is a time").to_string(), NOW), Ok(at));
            let seconds = millis / 1000;
            let later = parse(&format!("+{seconds}s"), NOW);
            prop_assert_eq!(later, Ok(NOW + Duration::from_secs(seconds)));
            let ago = parse(&format!("-{seconds}s"), NOW);
            let millis = NOW.as_millis().saturating_sub(seconds * 1000);
            prop_assert_eq!(ago, Ok(Timestamp::from_millis(millis)));
        }
    }
}

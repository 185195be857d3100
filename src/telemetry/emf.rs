//! Numbers of a line as metrics for CloudWatch, in its embedded metric format
//! (docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/
//! CloudWatch_Embedded_Metric_Format_Specification.html). CloudWatch Logs reads them from the line
//! itself; nothing is sent for them.

use jiff::Timestamp;
use serde_json::{Value, json};

/// The event whose numbers these are. One for each task would cost more than the tasks.
pub(super) const EVENT: &str = "stats.summary";

/// CloudWatch takes no more from one line.
const MOST_METRICS: usize = 100;

/// The value of `_aws` for a line with these numbers. `dimension` names the field that tells one
/// burstd's metrics from another's.
pub(super) fn metadata<'a>(
    time: Timestamp,
    dimension: &str,
    numbers: impl Iterator<Item = &'a str>,
) -> Value {
    let metric = |name| json!({ "Name": name, "Unit": unit(name) });
    let metrics: Vec<_> = numbers.take(MOST_METRICS).map(metric).collect();
    json!({
        "Timestamp": time.as_millisecond(),
        "CloudWatchMetrics": [{
            "Namespace": "burstd",
            "Dimensions": [[dimension]],
            "Metrics": metrics,
        }],
    })
}

/// A field's name says what it counts: `lag_s`, `invoke_ms_p99`, `bytes_in_flight`.
fn unit(name: &str) -> &'static str {
    let units = [("ms", "Milliseconds"), ("s", "Seconds"), ("bytes", "Bytes")];
    let unit = units.into_iter().find(|(part, _)| name.split('_').any(|word| word == *part));
    unit.map_or("Count", |(_, unit)| unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_its_unit() {
        for (name, expected) in [
            ("claimed", "Count"),
            ("slots_free", "Count"),
            ("read_units_total", "Count"),
            ("lag_s", "Seconds"),
            ("invoke_ms", "Milliseconds"),
            ("invoke_ms_p99", "Milliseconds"),
            ("rss_bytes", "Bytes"),
            ("bytes_in_flight", "Bytes"),
        ] {
            assert_eq!(unit(name), expected, "{name}");
        }
    }

    #[test]
    fn there_are_never_more_than_cloudwatch_takes() {
        let names: Vec<_> = (0..120).map(|number| format!("metric_{number}")).collect();
        let value = metadata(Timestamp::UNIX_EPOCH, "table", names.iter().map(String::as_str));
        let metrics = &value["CloudWatchMetrics"][0]["Metrics"];
        assert_eq!(metrics.as_array().map(Vec::len), Some(100));
    }
}

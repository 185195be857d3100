//! One event, one line: JSON for programs, text for people.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::{Metrics, emf, events, journal};

/// The version of the events' names and fields.
const VERSION: u32 = 1;

/// No value is longer; a log line is no place for a document.
const VALUE_LIMIT_BYTES: usize = 1024;

/// No line is longer, its end included and metrics aside: `journalctl -o json` shows none that is.
const LINE_LIMIT_BYTES: usize = 4096;

/// Writes events as lines.
#[derive(Debug)]
pub(super) struct Form {
    look: Look,
    is_for_the_journal: bool,
}

#[derive(Debug)]
enum Look {
    Text,
    Json { worker: String, metrics: Metrics },
}

impl Form {
    pub(super) fn text() -> Self {
        Form { look: Look::Text, is_for_the_journal: false }
    }

    pub(super) fn json(worker: &str, metrics: Metrics) -> Self {
        let worker = worker.to_owned();
        Form { look: Look::Json { worker, metrics }, is_for_the_journal: false }
    }

    /// Each line says its priority first.
    #[must_use]
    pub(super) fn for_the_journal(self) -> Self {
        Form { is_for_the_journal: true, ..self }
    }
}

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut record = Record::new(*metadata.level());
        event.record(&mut record);
        if cfg!(debug_assertions) && metadata.target().starts_with("burstd") {
            events::check(&record.name, record.level, record.fields.iter().map(|(name, _)| *name));
        }
        if record.name.is_empty() {
            metadata.target().clone_into(&mut record.name);
        }
        writer.write_str(&self.line(&record))
    }
}

impl Form {
    /// The line of an event. Where it would be too long, its longest texts are cut.
    fn line(&self, record: &Record) -> String {
        let mut limit = VALUE_LIMIT_BYTES;
        loop {
            let mut line = self.start_of_line(record, limit);
            if line.len() + "}\n".len() <= LINE_LIMIT_BYTES || limit == 0 {
                self.end(&mut line, record);
                return line;
            }
            limit /= 2;
        }
    }

    /// The line but for its end, with no text longer than this.
    fn start_of_line(&self, record: &Record, limit: usize) -> String {
        let Record { time, level, name, message, fields } = record;
        let mut line = String::with_capacity(512);
        if self.is_for_the_journal {
            line.push_str(journal::priority(*level));
        }
        let (message, mut is_cut) = cut(message, limit);
        let written = match &self.look {
            Look::Text => write!(line, "{time:.3} {level:>5} {name}: {}", Escaped(&message)),
            Look::Json { worker, .. } => write!(
                line,
                "{{\"ts\":\"{time:.6}\",\"level\":\"{level}\",\"event\":{},\"v\":{VERSION},\
                 \"msg\":{},\"worker\":{}",
                Quoted(name),
                Quoted(&message),
                Quoted(worker),
            ),
        };
        written.expect(WRITES);
        for (name, value) in fields {
            match value {
                Value::Number(value) | Value::Truth(value) => self.push(&mut line, name, value),
                Value::Text(text) => {
                    let (text, was_cut) = cut(text, limit);
                    is_cut |= was_cut;
                    match self.look {
                        Look::Text => self.push(&mut line, name, Plain(&text)),
                        Look::Json { .. } => self.push(&mut line, name, Quoted(&text)),
                    }
                }
            }
        }
        if is_cut {
            self.push(&mut line, "cut", true);
        }
        line
    }

    /// Metrics, where they are wanted, and the end. They do not count in the length of the line:
    /// there are a hundred at most.
    fn end(&self, line: &mut String, record: &Record) {
        let Look::Json { metrics, .. } = &self.look else { return line.push('\n') };
        if *metrics == Metrics::Embedded && record.name == emf::EVENT {
            let dimension = match record.fields.iter().any(|(name, _)| *name == "table") {
                true => "table",
                false => "worker",
            };
            let numbers = record.fields.iter().filter_map(|(name, value)| match value {
                Value::Number(_) => Some(*name),
                Value::Truth(_) | Value::Text(_) => None,
            });
            self.push(line, "_aws", emf::metadata(record.time, dimension, numbers));
        }
        line.push_str("}\n");
    }

    fn push(&self, line: &mut String, name: &str, value: impl fmt::Display) {
        let written = match self.look {
            Look::Text => write!(line, " {name}={value}"),
            Look::Json { .. } => write!(line, ",\"{name}\":{value}"),
        };
        written.expect(WRITES);
    }
}

/// The text, and whether some of it is left out.
fn cut(text: &str, limit: usize) -> (Cow<'_, str>, bool) {
    match text.len() > limit {
        true => (format!("{}…", &text[..text.floor_char_boundary(limit)]).into(), true),
        false => (text.into(), false),
    }
}

const WRITES: &str = "writing to a string cannot fail";

/// What a line says.
#[derive(Debug)]
struct Record {
    time: Timestamp,
    level: Level,
    name: String,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

#[derive(Debug)]
enum Value {
    Number(String),
    /// `true` or `false`.
    Truth(String),
    Text(String),
}

impl Record {
    fn new(level: Level) -> Self {
        let (name, message, fields) = Default::default();
        Record { time: Timestamp::now(), level, name, message, fields }
    }

    fn text(&mut self, field: &Field, value: String) {
        match field.name() {
            "event" => self.name = value,
            "message" => self.message = value,
            name => self.fields.push((name, Value::Text(value))),
        }
    }

    fn number(&mut self, field: &Field, value: impl fmt::Display) {
        self.fields.push((field.name(), Value::Number(value.to_string())));
    }
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format!("{value:?}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), Value::Truth(value.to_string())));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match digits(value) {
            Some(digits) => self.number(field, digits),
            None => self.text(field, value.to_string()),
        }
    }
}

/// A number's digits. JSON has no infinities, and very large and small ones have an exponent.
fn digits(value: f64) -> Option<String> {
    let size = value.abs();
    match () {
        () if !value.is_finite() => None,
        () if size == 0.0 || (1e-5..1e15).contains(&size) => Some(value.to_string()),
        () => Some(format!("{value:e}")),
    }
}

/// Text in quotes, as in JSON, that can steer nothing.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        escape(f, self.0, |c| steers(c) || matches!(c, '"' | '\\'))?;
        f.write_char('"')
    }
}

/// A value in a line of text: as it is where that cannot be mistaken, in quotes otherwise.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_alphanumeric() || "-_.:/$#@+%~*,;()[]…".contains(c);
        match !self.0.is_empty() && self.0.chars().all(plain) {
            true => f.write_str(self.0),
            false => Quoted(self.0).fmt(f),
        }
    }
}

/// Text that can neither end its line nor steer a terminal.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(f, self.0, steers)
    }
}

fn escape(f: &mut fmt::Formatter<'_>, text: &str, escapes: impl Fn(char) -> bool) -> fmt::Result {
    let mut rest = text;
    while let Some(at) = rest.find(&escapes) {
        let (before, after) = rest.split_at(at);
        let c = after.chars().next().expect("one was found");
        f.write_str(before)?;
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(f, "\\u{unit:04x}")?;
                }
            }
        }
        rest = &after[c.len_utf8()..];
    }
    f.write_str(rest)
}

/// Whether a character does more than stand there: the control characters (C0, DEL, C1), what ends
/// a line, what turns the direction of writing, and what is not to be seen.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2066}'..='\u{2069}' | '\u{feff}')
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    use crate::testing::cases;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no test panics with it").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(lines: Form, log: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(lines)
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let bytes = captured.0.lock().expect("no test panics with it").clone();
        String::from_utf8(bytes).expect("lines are UTF-8")
    }

    #[test]
    fn a_json_line_has_its_common_fields_first_and_numbers_as_numbers() {
        let line = lines(Form::json("w-1", Metrics::None), || {
            tracing::info!(
                target: "tests",
                event = "task.succeeded",
                queue = "a",
                attempt = 1_u32,
                invoke_ms = 2.5,
                queue_ms = None::<f64>,
                request_id = Some("r-1"),
                "task succeeded"
            );
        });
        let (time, rest) = line.split_at("{\"ts\":\"2026-11-22T16:00:00.000000Z\"".len());
        assert!(time.ends_with("Z\""), "{line}");
        assert_eq!(
            rest,
            ",\"level\":\"INFO\",\"event\":\"task.succeeded\",\"v\":1,\"msg\":\"task succeeded\",\
             \"worker\":\"w-1\",\"queue\":\"a\",\"attempt\":1,\"invoke_ms\":2.5,\
             \"request_id\":\"r-1\"}\n"
        );
    }

    fn record(message: &str, fields: Vec<(&'static str, Value)>) -> Record {
        let message = message.to_owned();
        Record { name: "e".to_owned(), message, fields, ..Record::new(Level::WARN) }
    }

    fn json() -> Form {
        Form::json("w", Metrics::None)
    }

    fn forms() -> [Form; 4] {
        [json(), Form::text(), json().for_the_journal(), Form::text().for_the_journal()]
    }

    #[test]
    fn the_journal_is_told_what_matters_and_nobody_else() {
        for (level, priority) in [
            (Level::ERROR, "<3>"),
            (Level::WARN, "<4>"),
            (Level::INFO, "<6>"),
            (Level::DEBUG, "<7>"),
            (Level::TRACE, "<7>"),
        ] {
            let record = Record { level, ..record("m", Vec::new()) };
            let [json, text, json_there, text_there] = forms();
            for (form, there) in [(json, json_there), (text, text_there)] {
                assert_eq!(there.line(&record), format!("{priority}{}", form.line(&record)));
                assert!(!form.line(&record).starts_with('<'));
            }
        }
    }

    /// What the specification of the embedded metric format asks of a line; the metrics' names
    /// and units.
    fn metrics(line: &str) -> Vec<(String, String)> {
        assert!(line.starts_with('{') && line.ends_with("}\n"), "a JSON object and nothing else");
        assert!(line.len() < 16_384, "{}", line.len());
        let root: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
        let members = |value: &serde_json::Value| {
            value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(members(&root["_aws"]), ["CloudWatchMetrics", "Timestamp"]);
        assert!(root["_aws"]["Timestamp"].as_u64().is_some_and(|at| at > 1_700_000_000_000));
        let directives = root["_aws"]["CloudWatchMetrics"].as_array().expect("an array");
        let [directive] = &directives[..] else { panic!("one is enough: {directives:?}") };
        assert_eq!(members(directive), ["Dimensions", "Metrics", "Namespace"]);
        assert_eq!(directive["Namespace"], "burstd");
        let sets = directive["Dimensions"].as_array().expect("an array");
        assert!(!sets.is_empty(), "at least one set");
        for set in sets {
            let keys = set.as_array().expect("an array");
            assert!(keys.len() <= 9);
            for key in keys {
                let value = root[key.as_str().expect("a name")].as_str().expect("it is text");
                assert!((1..=1024).contains(&value.len()));
            }
        }
        let metrics = directive["Metrics"].as_array().expect("an array");
        assert!(metrics.len() <= 100);
        let metric = |metric: &serde_json::Value| {
            assert_eq!(members(metric), ["Name", "Unit"]);
            let (name, unit) = (metric["Name"].as_str(), metric["Unit"].as_str());
            let (name, unit) = (name.expect("a name"), unit.expect("a unit"));
            assert!((1..=255).contains(&name.len()) && root[name].is_number(), "{name}");
            assert!(["Count", "Milliseconds", "Bytes", "Seconds", "None"].contains(&unit));
            (name.to_owned(), unit.to_owned())
        };
        metrics.iter().map(metric).collect()
    }

    #[test]
    fn a_summary_is_metrics_for_cloudwatch_where_that_is_wanted_and_no_other_line_is() {
        let number = |text: &str| Value::Number(text.to_owned());
        let fields = || {
            vec![
                ("table", Value::Text("tasks".to_owned())),
                ("claimed", number("5")),
                ("lag_s", number("0.5")),
                ("unknown_ms", Value::Text("NaN".to_owned())),
                ("is_late", Value::Truth("true".to_owned())),
            ]
        };
        let summary = |fields| Record { name: "stats.summary".to_owned(), ..record("m", fields) };
        let form = Form::json("w", Metrics::Embedded);
        let line = form.line(&summary(fields()));
        let expected = [("claimed", "Count"), ("lag_s", "Seconds")];
        assert_eq!(metrics(&line), expected.map(|(name, unit)| (name.into(), unit.into())));
        assert!(line.contains("\"Dimensions\":[[\"table\"]]"), "{line}");
        metrics(&form.line(&summary(fields().split_off(1))));

        assert!(!json().line(&summary(fields())).contains("_aws"), "nobody wants them");
        assert!(!form.line(&record("m", fields())).contains("_aws"), "it is another event");
    }

    #[test]
    fn metrics_of_the_longest_summary_there_can_be_are_whole() {
        let numbers = (0..100).map(|number| {
            let name: &'static str = format!("a_rather_long_name_{number}_ms").leak();
            (name, Value::Number("1.2345678901234567e300".to_owned()))
        });
        let table = Value::Text("x".repeat(2000));
        let fields = std::iter::once(("table", table)).chain(numbers.take(60)).collect();
        let record = Record { name: "stats.summary".to_owned(), ..record("m", fields) };
        assert_eq!(metrics(&Form::json("w", Metrics::Embedded).line(&record)).len(), 60);
    }

    #[test]
    fn a_control_character_a_direction_mark_and_a_quote_are_escaped() {
        let value = "a\n\t\r\u{1b}\u{7f}\u{9b}\u{61c}\u{2028}\u{202e}\u{2066}\u{feff}\\\" é";
        let escaped = r#""a\n\t\u000d\u001b\u007f\u009b\u061c\u2028\u202e\u2066\ufeff\\\" é""#;
        for form in forms() {
            let line = form.line(&record("m", vec![("error", Value::Text(value.to_owned()))]));
            assert!(line.contains(escaped), "{line}");
        }
        let message = Form::text().line(&record("a\n\u{9b}2J", Vec::new()));
        assert!(message.ends_with("WARN e: a\\n\\u009b2J\n"), "{message}");
    }

    #[test]
    fn a_long_text_is_cut_and_the_line_says_so() {
        let long = || Value::Text("é".repeat(10_000));
        let line = json().line(&record("m", vec![("error", long())]));
        assert!(line.ends_with("éé…\",\"cut\":true}\n"), "{line}");
        assert!((1000..1300).contains(&line.len()), "{}", line.len());
        let line = Form::text().line(&record("m", vec![("error", long())]));
        assert!(line.ends_with("éé… cut=true\n"), "{line}");
    }

    #[test]
    fn a_number_stays_a_number_however_large_or_small() {
        for value in [0.0, -0.0, 2.5, 1e-7, f64::MIN_POSITIVE, f64::MAX, -1e300, 1e15, 5e-324] {
            let digits = digits(value).expect("it is one");
            assert!(digits.len() < 30, "{digits}");
            assert_eq!(serde_json::from_str::<f64>(&digits).ok(), Some(value), "{digits}");
        }
        assert_eq!((digits(f64::NAN), digits(f64::INFINITY)), (None, None));
    }

    /// Text of any characters, and more than usual of those that are escaped.
    fn text() -> impl Strategy<Value = String> {
        let special = prop::sample::select(
            "\n\r\u{0}\u{1b}\u{7f}\u{85}\u{9b}\u{200e}\u{2029}\u{202e}\u{2069}\u{feff}\u{e0067}\
             \"\\ =…é"
                .chars()
                .collect::<Vec<_>>(),
        );
        let characters = prop_oneof![any::<char>(), special, prop::char::range('a', 'z')];
        let times = prop_oneof![Just(1_usize), 0..300_usize];
        (prop::collection::vec(characters, 0..12), times)
            .prop_map(|(characters, times)| String::from_iter(characters).repeat(times))
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            text().prop_map(Value::Text),
            any::<f64>().prop_filter_map("finite", |value| digits(value).map(Value::Number)),
            any::<i64>().prop_map(|value| Value::Number(value.to_string())),
        ]
    }

    /// As many fields as an event can have.
    fn fields() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
        const NAMES: [&str; 32] = [
            "f00",
            "f01",
            "f02",
            "f03",
            "f04",
            "f05",
            "f06",
            "f07",
            "f08",
            "f09",
            "f10",
            "f11",
            "f12",
            "f13",
            "f14",
            "f15",
            "f16",
            "f17",
            "f18",
            "f19",
            "f20",
            "f21",
            "f22",
            "f23",
            "f24",
            "f25",
            "f26",
            "f27",
            "f28",
            "f29",
            "f30",
            "a_name_as_long_as_any_name_is",
        ];
        prop::collection::vec(value(), 0..=NAMES.len())
            .prop_map(|values| NAMES.into_iter().zip(values).collect())
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn whatever_is_logged_is_one_line_that_is_short_and_steers_nothing(
            message in text(),
            fields in fields(),
        ) {
            let record = record(&message, fields);
            for form in forms() {
                let line = form.line(&record);
                prop_assert!(line.len() <= LINE_LIMIT_BYTES, "{}", line.len());
                prop_assert_eq!(line.find(steers), Some(line.len() - 1), "{:?}", line);
            }
        }

        #[test]
        fn json_says_what_was_logged_in_its_order_and_a_cut_text_how_it_began(
            message in text(),
            fields in fields(),
        ) {
            let record = record(&message, fields);
            let line = json().line(&record);
            let is_cut = line.ends_with(",\"cut\":true}\n");
            let said: serde_json::Value = serde_json::from_str(&line).expect("it is JSON");
            let mut from = 0;
            let whole = (vec![("msg", Value::Text(message))], record.fields);
            for (name, value) in whole.0.into_iter().chain(whole.1) {
                from += line[from..].find(&format!("\"{name}\":")).expect("they are in order");
                match value {
                    Value::Number(digits) | Value::Truth(digits) => prop_assert_eq!(
                        &said[name],
                        &serde_json::from_str::<serde_json::Value>(&digits).expect("a number")
                    ),
                    Value::Text(text) => {
                        let said = said[name].as_str().expect("it is text");
                        let begins =
                            said.strip_suffix('…').is_some_and(|part| text.starts_with(part));
                        prop_assert!(said == text || (is_cut && begins), "{said:?}");
                    }
                }
            }
        }
    }
}

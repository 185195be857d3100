//! One event, one line: JSON for programs, text for people.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::events;

/// The version of the events' names and fields.
const VERSION: u32 = 1;

/// No value is longer; a log line is no place for a document.
const VALUE_LIMIT_BYTES: usize = 1024;

/// Writes events as lines.
#[derive(Debug)]
pub(super) enum Form {
    Text,
    Json { worker: String },
}

impl Form {
    pub(super) fn text() -> Self {
        Form::Text
    }

    pub(super) fn json(worker: &str) -> Self {
        Form::Json { worker: worker.to_owned() }
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
    fn line(&self, record: &Record) -> String {
        let Record { time, level, name, message, fields } = record;
        let mut line = String::with_capacity(512);
        let written = match self {
            Form::Text => {
                let message = Escaped(shortened(message));
                write!(line, "{time:.3} {level:>5} {name}: {message}")
            }
            Form::Json { worker } => write!(
                line,
                "{{\"ts\":\"{time:.6}\",\"level\":\"{level}\",\"event\":{},\"v\":{VERSION},\
                 \"msg\":{},\"worker\":{}",
                quoted(name),
                quoted(shortened(message)),
                quoted(worker),
            ),
        };
        written.expect(WRITES);
        for (name, value) in fields {
            let written = match (self, value) {
                (Form::Text, Value::Plain(value)) => write!(line, " {name}={value}"),
                (Form::Text, Value::Text(text)) => {
                    write!(line, " {name}={}", Plain(shortened(text)))
                }
                (Form::Json { .. }, Value::Plain(value)) => write!(line, ",\"{name}\":{value}"),
                (Form::Json { .. }, Value::Text(text)) => {
                    write!(line, ",\"{name}\":{}", quoted(shortened(text)))
                }
            };
            written.expect(WRITES);
        }
        line.push_str(match self {
            Form::Text => "\n",
            Form::Json { .. } => "}\n",
        });
        line
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
    /// A number, true or false: it stands as it is.
    Plain(String),
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

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.fields.push((field.name(), Value::Plain(value.to_string())));
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
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.plain(field, value),
            false => self.text(field, value.to_string()),
        }
    }
}

fn shortened(value: &str) -> &str {
    &value[..value.floor_char_boundary(VALUE_LIMIT_BYTES)]
}

/// JSON text; control characters are escaped by its rules.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("any string has a JSON form")
}

/// A value in a line of text: as it is where that cannot be mistaken, in quotes otherwise.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_alphanumeric() || "-_.:/$#@+%~*,;()[]…".contains(c);
        if !self.0.is_empty() && self.0.chars().all(plain) {
            f.write_str(self.0)
        } else {
            write!(f, "\"{}\"", Escaped(&self.0.replace('"', "\\\"")))
        }
    }
}

/// Text that can neither end its line nor steer a terminal.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            let steers = c.is_control()
                || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
                || matches!(c, '\u{2066}'..='\u{2069}' | '\u{feff}');
            if steers {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::SubscriberExt as _;

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
        let line = lines(Form::json("w-1"), || {
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

    #[test]
    fn nothing_that_is_logged_can_end_a_line_or_steer_a_terminal() {
        let forged = "x\n<3>{\"event\":\"daemon.stopped\"}\u{1b}[2J\u{202e}";
        for format in [Form::json("w"), Form::text()] {
            let line = lines(
                format,
                || tracing::warn!(target: "tests", event = "e", task_id = forged, "m"),
            );
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert!(!line.contains('\u{1b}'), "{line:?}");
        }
        let text = lines(
            Form::text(),
            || tracing::warn!(target: "tests", event = "e", task_id = forged, "m"),
        );
        assert!(!text.contains('\u{202e}'), "{text:?}");
    }

    #[test]
    fn a_long_value_is_cut() {
        let long = "é".repeat(10_000);
        let line = lines(
            Form::json("w"),
            || tracing::warn!(target: "tests", event = "e", error = long, "m"),
        );
        assert!(line.len() < 1_300, "{}", line.len());
    }
}

//! One event, one line: JSON for programs, text for people.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

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
        let mut fields = Fields { json: matches!(self, Form::Json { .. }), ..Fields::default() };
        event.record(&mut fields);
        let name = match fields.event.as_str() {
            "" => metadata.target(),
            name => name,
        };
        let (level, message) = (metadata.level().as_str(), fields.message.as_str());
        let time = jiff::Timestamp::now();
        match self {
            Form::Text => writeln!(
                writer,
                "{time:.3} {level:>5} {name}: {}{}",
                Escaped(message),
                fields.others
            ),
            Form::Json { worker } => writeln!(
                writer,
                "{{\"ts\":\"{time:.6}\",\"level\":\"{level}\",\"event\":{},\"v\":{VERSION},\
                 \"msg\":{},\"worker\":{}{}}}",
                quoted(name),
                quoted(message),
                quoted(worker),
                fields.others
            ),
        }
    }
}

/// The fields of an event: its name and words by themselves, the others as they will stand.
#[derive(Debug, Default)]
struct Fields {
    json: bool,
    event: String,
    message: String,
    others: String,
}

impl Fields {
    fn text(&mut self, field: &Field, value: &str) {
        let value = shortened(value);
        match (field.name(), self.json) {
            ("event", _) => value.clone_into(&mut self.event),
            ("message", _) => value.clone_into(&mut self.message),
            (name, true) => self.push(format_args!(",\"{name}\":{}", quoted(value))),
            (name, false) => self.push(format_args!(" {name}={}", Plain(value))),
        }
    }

    fn number(&mut self, field: &Field, value: impl fmt::Display) {
        match self.json {
            true => self.push(format_args!(",\"{}\":{value}", field.name())),
            false => self.push(format_args!(" {}={value}", field.name())),
        }
    }

    fn push(&mut self, arguments: fmt::Arguments<'_>) {
        self.others.write_fmt(arguments).expect("writing to a string cannot fail");
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.number(field, value),
            false => self.text(field, &value.to_string()),
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
            let line = lines(format, || tracing::warn!(event = "e", task_id = forged, "m"));
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert!(!line.contains('\u{1b}'), "{line:?}");
        }
        let text = lines(Form::text(), || tracing::warn!(event = "e", task_id = forged, "m"));
        assert!(!text.contains('\u{202e}'), "{text:?}");
    }

    #[test]
    fn a_long_value_is_cut() {
        let long = "é".repeat(10_000);
        let line = lines(Form::json("w"), || tracing::warn!(event = "e", error = long, "m"));
        assert!(line.len() < 1_300, "{}", line.len());
    }
}

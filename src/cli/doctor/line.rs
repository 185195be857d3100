//! What is said of one check.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::aws::Cause;
use crate::cli::plain;
use crate::store::Fault;

/// Text is wrapped to so many columns; ...
const COLUMNS: usize = 80;

/// ... the first of them are the verdict's.
const VERDICT_COLUMNS: usize = 6;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// Worth a look; or it could not be tried.
    Warn,
    /// The daemon cannot work like this.
    Fail(Blame),
}

/// What has to change before the daemon can work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// The configuration, or what it names.
    Configuration,
    /// A right.
    Right,
    /// The way to AWS, or the credentials.
    Way,
}

impl Blame {
    fn of(fault: &Fault) -> Self {
        match Cause::of(fault) {
            Cause::Denied => Blame::Right,
            Cause::Missing | Cause::Wrong => Blame::Configuration,
            Cause::Credentials | Cause::Busy | Cause::Away => Blame::Way,
        }
    }
}

impl Verdict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail(_) => "fail",
        }
    }
}

/// Why something that was to be found out is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Untold {
    /// It was tried in vain.
    Fault(Fault),
    /// Something before it is missing.
    NotTried(&'static str),
}

impl From<Fault> for Untold {
    fn from(fault: Fault) -> Self {
        Untold::Fault(fault)
    }
}

/// What was found out, or why not.
pub(super) type Tried<T> = Result<T, Untold>;

/// A check before it is judged.
#[derive(Clone, Debug)]
pub(super) struct Check {
    name: &'static str,
    subject: Option<String>,
    facts: Map<String, Value>,
}

/// A check that was judged.
#[derive(Clone, Debug)]
pub(super) struct Line {
    check: Check,
    pub(super) verdict: Verdict,
    message: String,
    advice: Option<String>,
    /// What it would have needed, if it was not tried.
    pub(super) lacks: Option<String>,
}

/// What is printed for people: a check, or several that lacked the same.
#[derive(Debug)]
pub(super) struct Paragraph {
    words: String,
    advice: Option<String>,
}

impl Check {
    /// A check of what there is one of.
    pub(super) fn of(name: &'static str) -> Self {
        Check { name, subject: None, facts: Map::new() }
    }

    /// The same of something that has a name.
    pub(super) fn about(self, subject: impl Into<String>) -> Self {
        Check { subject: Some(subject.into()), ..self }
    }

    /// With something that a script may want to compare.
    pub(super) fn fact(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    pub(super) fn ok(self, message: impl Into<String>) -> Line {
        let message = message.into();
        Line { check: self, verdict: Verdict::Ok, message, advice: None, lacks: None }
    }

    pub(super) fn warn(self, message: impl Into<String>, advice: impl Into<String>) -> Line {
        let (message, advice) = (message.into(), Some(advice.into()));
        Line { check: self, verdict: Verdict::Warn, message, advice, lacks: None }
    }

    pub(super) fn fail(
        self,
        blame: Blame,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Line {
        Line { verdict: Verdict::Fail(blame), ..self.warn(message, advice) }
    }

    /// It could not be tried, and so nobody knows.
    pub(super) fn not_tried(self, why: &str) -> Line {
        let (message, lacks) = (format!("not tried: {why}"), Some(why.to_owned()));
        Line { check: self, verdict: Verdict::Warn, message, advice: None, lacks }
    }

    /// A call of AWS that the daemon cannot do without has failed.
    pub(super) fn untold(self, untold: &Untold) -> Line {
        match untold {
            Untold::NotTried(why) => self.not_tried(why),
            Untold::Fault(fault) => self.fail(Blame::of(fault), said(fault), remedy(fault)),
        }
    }
}

/// What a failed call says.
pub(super) fn said(fault: &Fault) -> String {
    format!("{}: {}", fault.code, fault.message)
}

/// What to do about a failed call.
pub(super) fn remedy(fault: &Fault) -> String {
    match Cause::of(fault) {
        Cause::Denied => format!("allow {}; `burstd iam-policy` prints a policy", fault.operation),
        Cause::Missing => "correct its name or the region, or make it".to_owned(),
        Cause::Credentials => "renew the credentials, or use others".to_owned(),
        Cause::Wrong => "correct what AWS objects to".to_owned(),
        Cause::Busy => "ask again in a while: AWS answers, and has no capacity left".to_owned(),
        Cause::Away => {
            "see whether it can be reached from here: endpoint, network, proxy".to_owned()
        }
    }
}

impl Check {
    /// What is looked at, in words.
    fn title(&self) -> String {
        let Check { name, subject, facts } = self;
        let name = name.replace('_', " ");
        match (facts.get("action").and_then(Value::as_str), subject) {
            (Some(action), Some(subject)) => format!("{action} of {subject}"),
            (Some(action), None) => action.to_owned(),
            (None, Some(subject)) => format!("{name} {subject}"),
            (None, None) => name,
        }
    }
}

/// The lines as people read them. All that could not be tried for the same reason is one of them.
pub(super) fn paragraphs(lines: &[Line]) -> Vec<Paragraph> {
    let mut paragraphs: Vec<Paragraph> = Vec::new();
    let mut lacking: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines {
        let title = line.check.title();
        let Some(lacks) = line.lacks.as_deref() else {
            let words = format!("{:<4}  {title}: {}", line.verdict.word(), line.message);
            paragraphs.push(Paragraph { words, advice: line.advice.clone() });
            continue;
        };
        match lacking.get(lacks) {
            Some(index) => paragraphs[*index].words += &format!(", {title}"),
            None => {
                lacking.insert(lacks, paragraphs.len());
                let words = format!("warn  not tried, as {lacks}: {title}");
                paragraphs.push(Paragraph { words, advice: None });
            }
        }
    }
    paragraphs
}

impl Paragraph {
    /// All of it on one line.
    pub(super) fn text(&self) -> String {
        let words = self.words.split_at(VERDICT_COLUMNS);
        let words = format!("{}{}", words.0, plain::words(words.1));
        match &self.advice {
            None => words,
            Some(advice) => format!("{words} -> {}", plain::words(advice)),
        }
    }

    /// The same for people at a terminal.
    pub(super) fn wrapped(&self) -> String {
        let (verdict, words) = self.words.split_at(VERDICT_COLUMNS);
        let indent = " ".repeat(VERDICT_COLUMNS);
        let mut text = wrap(verdict, &plain::words(words));
        if let Some(advice) = &self.advice {
            text.push('\n');
            text += &wrap(&indent, &format!("-> {}", plain::words(advice)));
        }
        text
    }
}

impl Line {
    pub(super) fn json(&self) -> Value {
        let Check { name, subject, facts } = &self.check;
        let mut line = json!({
            "check": name,
            "subject": subject,
            "verdict": self.verdict.word(),
            "message": self.message,
            "advice": self.advice,
        });
        line.as_object_mut().expect("it is one").extend(facts.clone());
        line
    }
}

/// Breaks a text between two words where it is too long, and goes on below its beginning.
fn wrap(margin: &str, text: &str) -> String {
    let mut wrapped = margin.to_owned();
    let mut column = VERDICT_COLUMNS;
    for (number, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if number > 0 && column + 1 + width > COLUMNS {
            wrapped += "\n";
            wrapped += &" ".repeat(VERDICT_COLUMNS);
            column = VERDICT_COLUMNS;
        } else if number > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped += word;
        column += width;
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: &str) -> Fault {
        let (code, message) = (code.to_owned(), "no".to_owned());
        Fault { operation: "dynamodb:GetItem", code, message }
    }

    #[test]
    fn what_failed_and_who_is_to_blame_is_told_by_the_error_s_code() {
        for (code, blame) in [
            ("AccessDeniedException", Blame::Right),
            ("ResourceNotFoundException", Blame::Configuration),
            ("ValidationException", Blame::Configuration),
            ("ExpiredTokenException", Blame::Way),
            ("Burstd.NotConnected", Blame::Way),
            ("Burstd.NoAnswer", Blame::Way),
            ("SomethingNew", Blame::Way),
        ] {
            let line = Check::of("table").untold(&Untold::Fault(fault(code)));
            assert_eq!(line.verdict, Verdict::Fail(blame), "{code}");
            assert!(line.message.contains(code), "{}", line.message);
            assert!(line.advice.is_some(), "{code}");
        }
    }

    fn text(lines: &[Line]) -> Vec<String> {
        paragraphs(lines).iter().map(Paragraph::text).collect()
    }

    #[test]
    fn what_was_not_tried_for_the_same_reason_is_told_at_once_and_is_not_ok() {
        let lines = [
            Check::of("ttl").untold(&Untold::NotTried("there is no table")),
            Check::of("clock").ok("right"),
            Check::of("index").about("due-index").not_tried("there is no table"),
        ];
        let expected =
            ["warn  not tried, as there is no table: ttl, index due-index", "ok    clock: right"];
        assert_eq!(text(&lines), expected);
        let json = lines[2].json();
        assert_eq!((&json["verdict"], &json["advice"]), (&json!("warn"), &Value::Null));
        assert_eq!(json["message"], "not tried: there is no table");
    }

    #[test]
    fn a_line_for_people_is_no_wider_than_their_terminal() {
        let words = "word ".repeat(40);
        let line = Check::of("lease").about("a").warn(words.trim(), words.trim());
        let paragraph = &paragraphs(&[line])[0];
        let wrapped = paragraph.wrapped();
        assert!(wrapped.starts_with("warn  lease a: word"), "{wrapped}");
        assert!(wrapped.contains("\n      -> word"), "{wrapped}");
        let lines: Vec<_> = wrapped.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS), "{wrapped}");
        assert!(lines[1..].iter().all(|line| line.starts_with("      ")), "{wrapped}");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&wrapped), words(&paragraph.text()));
        assert_eq!(paragraph.text().lines().count(), 1);
    }

    #[test]
    fn nothing_that_steers_a_terminal_is_printed() {
        assert_eq!(text(&[Check::of("table").ok("a\u{1b}[2J\nb")]), ["ok    table: a [2J b"]);
    }
}

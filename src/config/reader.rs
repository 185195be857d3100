//! Reads TOML key by key, and collects everything that is wrong instead of stopping at the
//! first problem.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use bytesize::ByteSize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// The key, with the tables it is in; empty for a syntax error.
    pub key: String,
    /// The value as written, if there is one.
    pub value: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.value {
            Some(value) => write!(f, "{} = {value}: ", self.key)?,
            None if self.key.is_empty() => {}
            None => write!(f, "{}: ", self.key)?,
        }
        f.write_str(&self.message)
    }
}

/// A file being read.
pub(super) struct Reader<'a> {
    source: &'a str,
    problems: RefCell<Vec<Problem>>,
    asked: RefCell<Vec<String>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        Reader { source, problems: RefCell::default(), asked: RefCell::default() }
    }

    /// The file's top level; syntax errors are noted, and what could be read in spite of them
    /// is there.
    pub(super) fn root(&self) -> Section<'_, 'a> {
        let (table, errors) = DeTable::parse_recoverable(self.source);
        for error in errors {
            self.note(error.span(), String::new(), None, error.message().to_owned());
        }
        Section::new(self, String::new(), 0..0, table.into_inner())
    }

    /// All that is wrong, in the order of the file. Where its syntax is, the rest was not read as
    /// it was meant.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        let is_syntax = |problem: &Problem| problem.key.is_empty();
        if problems.iter().any(is_syntax) {
            problems.retain(is_syntax);
        }
        problems.sort_by_key(|problem| problem.line);
        problems
    }

    /// Every key that was asked for, with `*` for the names that users choose.
    #[cfg(test)]
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.borrow().clone()
    }

    fn note(&self, at: Option<Range<usize>>, key: String, value: Option<String>, message: String) {
        let start = at.map_or(0, |span| span.start).min(self.source.len());
        let line = self.source.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count();
        self.problems.borrow_mut().push(Problem { line: line + 1, key, value, message });
    }
}

/// A table of the file. Keys are taken out of it one by one; [`Section::finish`] complains of
/// those nobody asked for.
pub(super) struct Section<'r, 'a> {
    reader: &'r Reader<'a>,
    path: String,
    span: Range<usize>,
    entries: BTreeMap<String, (Range<usize>, Spanned<DeValue<'a>>)>,
    known: Vec<&'static str>,
}

/// A value that was read, and where.
pub(super) struct Entry<T> {
    pub(super) value: T,
    key: String,
    span: Range<usize>,
}

impl<'r, 'a> Section<'r, 'a> {
    fn new(reader: &'r Reader<'a>, path: String, span: Range<usize>, table: DeTable<'a>) -> Self {
        let entries = table
            .into_iter()
            .map(|(key, value)| (key.get_ref().to_string(), (key.span(), value)))
            .collect();
        Section { reader, path, span, entries, known: Vec::new() }
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<Entry<String>> {
        self.take(key, "a string in quotes", |value| value.as_str().map(str::to_owned))
    }

    /// A string that must be there; `advice` is said when it is not.
    pub(super) fn required_string(
        &mut self,
        key: &'static str,
        advice: &str,
    ) -> Option<Entry<String>> {
        if !self.entries.contains_key(key) {
            let message = format!("missing: {advice}");
            self.reader.note(Some(self.span.clone()), self.join(key), None, message);
        }
        self.string(key)
    }

    /// Strings in a list, which must be there; `advice` is said when it is not.
    pub(super) fn required_strings(
        &mut self,
        key: &'static str,
        advice: &str,
    ) -> Option<Entry<Vec<String>>> {
        if !self.entries.contains_key(key) {
            let message = format!("missing: {advice}");
            self.reader.note(Some(self.span.clone()), self.join(key), None, message);
        }
        self.take(key, "a list of strings: [\"…\", \"…\"]", |value| {
            let texts = value.as_array()?.iter();
            texts.map(|text| text.get_ref().as_str().map(str::to_owned)).collect()
        })
    }

    /// All strings of this table, under the names their author chose.
    pub(super) fn texts(&mut self) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        for (name, (_, value)) in std::mem::take(&mut self.entries) {
            match value.get_ref().as_str() {
                Some(text) => drop(texts.insert(name, text.to_owned())),
                None => {
                    let entry = Entry { value: (), key: self.join(&name), span: value.span() };
                    self.complain(&entry, "must be a string in quotes".to_owned());
                }
            }
        }
        texts
    }

    /// A whole number within `range`.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u32>,
    ) -> Option<Entry<u32>> {
        let entry = self.take(key, "a whole number", |value| {
            let integer = value.as_integer()?;
            Some(i64::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i64::MAX))
        })?;
        match u32::try_from(entry.value) {
            Ok(value) if range.contains(&value) => {
                Some(Entry { value, key: entry.key, span: entry.span })
            }
            _ => {
                let (least, most) = range.into_inner();
                self.complain(&entry, format!("must be between {least} and {most}"));
                None
            }
        }
    }

    /// A duration such as `"250ms"`, `"30s"` or `"14d"`, within `range`.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<Entry<Duration>> {
        let expected = "a duration in quotes, such as \"30s\"";
        let entry = self.take(key, expected, |value| value.as_str().map(str::to_owned))?;
        match humantime::parse_duration(&entry.value) {
            Ok(value) if range.contains(&value) => {
                Some(Entry { value, key: entry.key, span: entry.span })
            }
            Ok(_) => {
                let (least, most) = range.into_inner();
                let (least, most) =
                    (humantime::format_duration(least), humantime::format_duration(most));
                self.complain(&entry, format!("must be between {least} and {most}"));
                None
            }
            Err(error) => {
                self.complain(&entry, format!("must be {expected} ({error})"));
                None
            }
        }
    }

    /// A number of bytes such as `"64MB"` or `"64MiB"`, within `range`.
    pub(super) fn size(
        &mut self,
        key: &'static str,
        range: RangeInclusive<ByteSize>,
    ) -> Option<Entry<ByteSize>> {
        let expected = "a size in quotes, such as \"64MB\"";
        let entry = self.take(key, expected, |value| value.as_str().map(str::to_owned))?;
        match entry.value.parse() {
            Ok(value) if range.contains(&value) => {
                Some(Entry { value, key: entry.key, span: entry.span })
            }
            Ok(_) => {
                let (least, most) = range.into_inner();
                let (least, most) = (least.display().si(), most.display().si());
                self.complain(&entry, format!("must be between {least} and {most}"));
                None
            }
            Err(error) => {
                self.complain(&entry, format!("must be {expected} ({error})"));
                None
            }
        }
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&str, T)],
    ) -> Option<Entry<T>> {
        let entry = self.string(key)?;
        match words.iter().find(|(word, _)| *word == entry.value) {
            Some((_, value)) => Some(Entry { value: *value, key: entry.key, span: entry.span }),
            None => {
                let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                self.complain(&entry, format!("must be one of {}", words.join(", ")));
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn truth(&mut self, key: &'static str) -> Option<Entry<bool>> {
        self.take(key, "true or false", DeValue::as_bool)
    }

    /// A table in this one; an empty one where there is none.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'r, 'a> {
        self.known.push(key);
        let path = self.join(key);
        match self.entries.remove(key) {
            None => Section::new(self.reader, path, self.span.clone(), DeTable::new()),
            Some((span, value)) => self.table(path, span, value),
        }
    }

    /// All tables in this one, under the names their author chose.
    pub(super) fn sections(&mut self) -> Vec<(String, Section<'r, 'a>)> {
        std::mem::take(&mut self.entries)
            .into_iter()
            .map(|(name, (span, value))| (name.clone(), self.table(self.join(&name), span, value)))
            .collect()
    }

    /// Complains of this table as a whole.
    pub(super) fn complain_of_all(&self, message: &str) {
        self.reader.note(Some(self.span.clone()), self.path.clone(), None, message.to_owned());
    }

    /// Complains of a value.
    pub(super) fn complain<T>(&self, entry: &Entry<T>, message: String) {
        let written = self.reader.source.get(entry.span.clone()).map(str::to_owned);
        self.reader.note(Some(entry.span.clone()), entry.key.clone(), written, message);
    }

    /// Complains of the keys that nobody asked for.
    pub(super) fn finish(self) {
        for (key, (span, _)) in &self.entries {
            let message = format!("unknown key; known here: {}", self.known.join(", "));
            self.reader.note(Some(span.clone()), self.join(key), None, message);
        }
    }

    fn table(
        &self,
        path: String,
        span: Range<usize>,
        value: Spanned<DeValue<'a>>,
    ) -> Section<'r, 'a> {
        let written = self.reader.source.get(value.span()).map(str::to_owned);
        let table = match value.into_inner() {
            DeValue::Table(table) => table,
            _ => {
                let message = format!("must be a table: write [{path}]");
                self.reader.note(Some(span.clone()), path.clone(), written, message);
                DeTable::new()
            }
        };
        Section::new(self.reader, path, span, table)
    }

    fn take<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&DeValue<'a>) -> Option<T>,
    ) -> Option<Entry<T>> {
        self.known.push(key);
        self.reader.asked.borrow_mut().push(self.join(key));
        let (_, value) = self.entries.remove(key)?;
        let (key, span) = (self.join(key), value.span());
        match read(value.get_ref()) {
            Some(value) => Some(Entry { value, key, span }),
            None => {
                let message = format!("must be {expected}");
                self.complain(&Entry { value: (), key, span }, message);
                None
            }
        }
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

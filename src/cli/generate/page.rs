//! A manual page as it is written.

use clap_mangen::roff::{Inline, Roff, bold, roman};

/// Text in the language of man(7).
pub(super) struct Page {
    roff: Roff,
    /// What is in that language already.
    parts: Vec<String>,
    /// Nothing stands below the last title yet.
    begins: bool,
}

impl Page {
    pub(super) fn new(name: &str, section: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        // Without a date. The roff crate leaves out what is empty.
        let title = format!(".TH {name} {section} \"\" \"burstd {version}\" burstd\n");
        Page { roff: Roff::new(), parts: vec![title], begins: true }
    }

    pub(super) fn section(&mut self, title: &str) {
        self.roff.control("SH", [title]);
        self.begins = true;
    }

    pub(super) fn subsection(&mut self, title: &str) {
        self.roff.control("SS", [title]);
        self.begins = true;
    }

    /// What stands between `backticks` is bold.
    pub(super) fn paragraph(&mut self, text: &str) {
        self.separate();
        self.text(text, "PP");
    }

    /// Tags, one below the other, and what they mean.
    pub(super) fn item(&mut self, tags: &[&str], text: &str) {
        self.begins = false;
        for (number, tag) in tags.iter().enumerate() {
            self.roff.control(if number == 0 { "TP" } else { "TQ" }, []);
            self.roff.text([bold(*tag)]);
        }
        self.text(text, "IP");
    }

    /// Text whose lines stay as they are.
    pub(super) fn lines(&mut self, text: &str) {
        self.separate();
        self.roff.control("nf", []);
        for line in text.lines() {
            self.roff.text([roman(line)]);
        }
        self.roff.control("fi", []);
    }

    /// Text in the language of man(7).
    pub(super) fn raw(&mut self, text: &str) {
        self.close();
        // The name of the apostrophe that is defined in none of the parts.
        self.parts.push(text.replace("\\*(Aq", "\\(aq"));
    }

    pub(super) fn finish(mut self) -> String {
        self.close();
        self.parts.concat()
    }

    fn separate(&mut self) {
        if !std::mem::take(&mut self.begins) {
            self.roff.control("PP", []);
        }
    }

    fn close(&mut self) {
        self.parts.push(std::mem::take(&mut self.roff).to_roff());
    }

    fn text(&mut self, text: &str, between: &str) {
        let mut paragraphs = text.split("\n\n").map(str::trim).filter(|text| !text.is_empty());
        if let Some(first) = paragraphs.next() {
            self.roff.text(inlines(first));
        }
        for paragraph in paragraphs {
            self.roff.control(between, []);
            self.roff.text(inlines(paragraph));
        }
    }
}

fn inlines(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate();
    parts.map(|(number, part)| if number % 2 == 0 { roman(part) } else { bold(part) }).collect()
}

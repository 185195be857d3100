//! Rules of this code that a machine can check.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use burstd::telemetry::events::EVENTS;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below these folders, with its text.
fn files(folders: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut found);
    }
    assert!(found.len() > 5, "the files are there");
    found
}

fn collect(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).expect("it is below").display().to_string();
            found.push((name, fs::read_to_string(&path).expect("it can be read")));
        }
    }
}

/// Fails with every file and line that breaks a rule.
fn forbid(folders: &[&str], rule: &str, breaks: impl Fn(&str, &str) -> bool) {
    let mut broken = Vec::new();
    for (name, text) in files(folders) {
        for (number, line) in text.lines().enumerate() {
            if breaks(&name, line) {
                broken.push(format!("{name}:{}: {line}", number + 1));
            }
        }
    }
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

#[test]
fn the_sdk_is_named_by_its_adapters_alone() {
    forbid(&["src"], "only src/aws names the SDK", |name, line| {
        !name.starts_with("src/aws/")
            && ["aws_sdk", "aws_smithy", "aws_config", "aws_credential"]
                .iter()
                .any(|sdk| line.contains(sdk))
    });
}

#[test]
fn imports_point_one_way() {
    let engine = ["src/dispatcher", "src/worker.rs"];
    let words = ["src/task.rs", "src/claim.rs", "src/queue.rs", "src/retry.rs", "src/counts.rs"];
    let is_in = |name: &str, rooms: &[&str]| rooms.iter().any(|room| name.starts_with(room));
    forbid(&["src"], "the engine knows neither AWS nor the configuration", |name, line| {
        is_in(name, &engine) && (line.contains("crate::aws") || line.contains("crate::config"))
    });
    forbid(&["src"], "the adapters know neither engine nor configuration", |name, line| {
        name.starts_with("src/aws/")
            && ["crate::dispatcher", "crate::worker", "crate::config", "crate::daemon"]
                .iter()
                .any(|room| line.contains(room))
    });
    forbid(
        &["src"],
        "the words know nothing but one another and what they speak of",
        |name, line| {
            is_in(name, &words)
                && [
                    "crate::aws",
                    "crate::config",
                    "crate::daemon",
                    "crate::dispatcher",
                    "crate::worker",
                ]
                .iter()
                .any(|room| line.contains(room))
        },
    );
}

#[test]
fn every_select_tries_its_branches_in_order() {
    for (name, text) in files(&["src"]) {
        let lines: Vec<_> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            if line.contains("select! {") {
                let next = lines.get(number + 1).map(|line| line.trim());
                assert_eq!(next, Some("biased;"), "{name}:{}", number + 1);
            }
        }
    }
}

#[test]
fn files_and_lines_are_short_and_each_file_says_what_it_is() {
    for (name, text) in files(&["src", "tests"]) {
        let code = text.split("#[cfg(test)]").next().expect("there is a first part");
        let count = code.lines().count();
        let limit = if name.starts_with("tests/") { 600 } else { 400 };
        assert!(count <= limit, "{name} has {count} lines: split it by meaning");
        assert!(text.starts_with("//!"), "{name} does not begin with what it is");
        let long = text.lines().position(|line| line.chars().count() > 100);
        assert_eq!(long, None, "{name} has a line of more than 100 characters");
    }
}

/// clap breaks what is longer, in the middle of a paragraph.
#[test]
fn help_fits_into_eighty_columns() {
    let mut texts = 0;
    for (name, text) in files(&["src/cli"]) {
        for help in text.split("HELP: &str = \"\\\n").skip(1) {
            texts += 1;
            let help = help.split("\";\n").next().expect("it has an end").replace('\\', "");
            let long = help.lines().find(|line| line.chars().count() > 80);
            assert_eq!(long, None, "{name}");
        }
    }
    assert!(texts >= 8, "they are found: {texts}");
}

/// The names of events in the code, with or without `event = ` before them.
fn events_in_the_code() -> BTreeSet<String> {
    let areas: BTreeSet<_> =
        EVENTS.iter().filter_map(|event| Some(event.name.split_once('.')?.0)).collect();
    let mut events = BTreeSet::new();
    for (name, text) in files(&["src"]) {
        if name == "src/telemetry/events.rs" {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().expect("there is a first part");
        // Fail points have names of the same form.
        let lines = code.lines().filter(|line| !line.contains("reach("));
        for part in lines.flat_map(|line| line.split([',', '('])).map(str::trim) {
            let said = part.strip_prefix("event = \"");
            let literal = said.or(part.strip_prefix('"'));
            let Some((event, _)) = literal.and_then(|rest| rest.split_once('"')) else { continue };
            let is_event = said.is_some()
                || event.split_once('.').is_some_and(|(area, name)| {
                    areas.contains(area) && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                });
            if is_event {
                events.insert(event.to_owned());
            }
        }
    }
    events
}

#[test]
fn the_catalogue_has_every_event_of_the_code_and_no_other() {
    let promised: BTreeSet<_> = EVENTS.iter().map(|event| event.name.to_owned()).collect();
    let told = events_in_the_code();
    let unknown: Vec<_> = told.difference(&promised).collect();
    assert!(unknown.is_empty(), "src/telemetry/events.rs does not know {unknown:?}");
    let silent: Vec<_> = promised.difference(&told).collect();
    assert!(silent.is_empty(), "nobody tells {silent:?}, which src/telemetry/events.rs promises");
}

/// The catalogue of events as README.md has it.
fn table_of_events() -> String {
    let mut table = "| event | level | fields | meaning |\n|---|---|---|---|\n".to_owned();
    for event in EVENTS {
        let fields = match event.fields {
            "" => "none".to_owned(),
            fields => format!("`{fields}`"),
        };
        writeln!(table, "| `{}` | {} | {fields} | {} |", event.name, event.level, event.meaning)
            .expect("writing to a string cannot fail");
    }
    table
}

/// A name, a level or a field that changes is an interface that breaks: README.md shows it.
#[test]
fn readme_has_the_catalogue_of_events() {
    let readme = fs::read_to_string(root().join("README.md")).expect("it can be read");
    let (_, rest) = readme.split_once("<!-- events -->\n").expect("its beginning is marked");
    let (table, _) = rest.split_once("<!-- end of events -->\n").expect("and so is its end");
    let right = table_of_events();
    assert!(table == right, "README.md must have between the marks of its events:\n{right}");
}

#[test]
fn nothing_is_left_to_be_done() {
    forbid(&["src", "tests"], "finish it", |name, line| {
        name != "tests/it/tidy.rs" && (line.contains("TODO") || line.contains("FIXME"))
    });
}

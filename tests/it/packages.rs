//! What a package brings beside the program: manual pages, completions, unit files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::support::program::{command, success};

fn repository(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(path).expect("it can be read")
}

/// What `burstd generate` writes, by the files' names.
fn generated() -> BTreeMap<String, String> {
    let directory = tempfile::TempDir::new().expect("a directory");
    let output = command(&["generate"]).arg(directory.path().join("new")).output();
    success(&output.expect("the program runs"));
    let files = fs::read_dir(directory.path().join("new")).expect("it was made");
    let read = |file: fs::DirEntry| {
        let text = fs::read_to_string(file.path()).expect("it is text");
        (file.file_name().into_string().expect("its name is text"), text)
    };
    files.map(|file| read(file.expect("it can be read"))).collect()
}

/// As a reader sees it, but for the lines' ends.
fn plain(page: &str) -> String {
    page.replace("\\fB", "").replace("\\fR", "").replace("\\-", "-").replace("\\(aq", "'")
}

/// The commands that the help shows.
fn commands() -> Vec<String> {
    let help = success(&command(&["--help"]).output().expect("the program runs"));
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        // What a longer explanation goes on with stands further to the right.
        line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?.split_whitespace().next()
    });
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn the_manual_names_every_command_and_every_exit_code() {
    let page = plain(&generated()["burstd.8"]);
    assert!(commands().len() >= 7, "they are found");
    for command in commands() {
        assert!(page.contains(&format!("burstd {command}")), "{command}: {page}");
    }
    let readme = repository("README.md");
    let codes = readme.split("| exit code |").nth(1).expect("they are there");
    let codes = codes.lines().skip(2).take_while(|line| line.starts_with('|'));
    let codes: Vec<_> = codes.filter_map(|line| line.split('|').nth(1)).collect();
    assert!(codes.len() >= 6, "they are found: {codes:?}");
    for code in codes.iter().flat_map(|codes| codes.split(',')).map(str::trim) {
        assert!(page.contains(&format!("\n.TP\n{code}\n")), "{code}: {page}");
    }
    assert!(!page.contains("bench-endpoint"), "nor what is nobody's business");
}

#[test]
fn the_manual_of_the_configuration_has_every_line_of_the_reference() {
    let page = plain(&generated()["burstd.toml.5"]);
    let reference = repository("config/burstd.toml");
    let mut keys = 0;
    for line in reference.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("# ") {
            Some(text) => assert!(page.contains(&text.replace('`', "")), "{text}: {page}"),
            None if line == "#" => {}
            None => {
                assert!(page.lines().any(|found| found.ends_with(line)), "{line}: {page}");
                keys += 1;
            }
        }
    }
    assert!(keys > 25, "they are found: {keys}");
}

#[test]
fn every_shell_completes_every_command() {
    let files = generated();
    for shell in ["burstd.bash", "_burstd", "burstd.fish"] {
        for command in commands() {
            assert!(files[shell].contains(&command), "{shell} knows no {command}");
        }
        assert!(!files[shell].contains("bench-endpoint"), "{shell} knows too much");
    }
}

#[test]
fn the_two_units_differ_in_the_name_of_the_configuration_alone() {
    let of_a_name = repository("systemd/burstd@.service");
    assert_eq!(of_a_name.replace("%i", "burstd"), repository("systemd/burstd.service"));
}

#[test]
fn both_packages_bring_the_same_files() {
    let manifest = repository("Cargo.toml");
    let manifest = DeTable::parse(&manifest).expect("it is TOML");
    let metadata = manifest.get_ref()["package"].get_ref().get("metadata").expect("it is there");
    let assets = |package: &str| {
        let package = metadata.get_ref().get(package).expect("it is there");
        package.get_ref().get("assets").and_then(|it| it.get_ref().as_array()).expect("a list")
    };
    let text = |value: Option<&Spanned<DeValue<'_>>>| {
        value.and_then(|value| value.get_ref().as_str()).expect("it is text").to_owned()
    };
    let deb = assets("deb").iter().map(Spanned::get_ref);
    let deb = deb.map(|asset| (text(asset.get(0)), text(asset.get(1))));
    let rpm = assets("generate-rpm").iter().map(Spanned::get_ref);
    let rpm = rpm.map(|asset| (text(asset.get("source")), text(asset.get("dest"))));
    // Debian has functions of zsh, and licences, in places of its own.
    let rpm: BTreeMap<_, _> = rpm
        .filter(|(source, _)| source != "LICENSE")
        .map(|(source, place)| (source, place.replace("site-functions", "vendor-completions")))
        .collect();
    let deb: BTreeMap<_, _> = deb.map(|(source, place)| (source, format!("/{place}"))).collect();
    assert_eq!(deb, rpm);
    let generated = generated();
    for source in deb.keys() {
        match source.strip_prefix("target/package/") {
            Some(name) => assert!(generated.contains_key(name), "{name} is not generated"),
            None if source == "target/release/burstd" => {}
            None => assert!(!repository(source).is_empty(), "{source} is empty"),
        }
    }
}

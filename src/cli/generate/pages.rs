//! burstd(8), from the commands themselves, and burstd.toml(5), from the reference configuration.

use std::io;

use clap::Command;
use clap_mangen::Man;

use super::page::Page;
use crate::cli::exit;

const REFERENCE: &str = include_str!("../../../config/burstd.toml");

const DESCRIPTION: &str = "\
burstd claims the due items of a DynamoDB table, each with a conditional write, runs each as one
Lambda invocation, hundreds at the same moment, and writes status and result back onto the item.
Kill it, restart it, run three of it: no task is lost. A task runs at least once.";

const SIGNALS: [(&str, &str); 3] = [
    (
        "SIGTERM, SIGINT",
        "Nothing more is claimed; what runs is awaited for `[shutdown] drain`; what was claimed \
         and not started is given back without costing an attempt. The exit code is 0.",
    ),
    (
        "a second of these",
        "Stops at once. What is left behind runs on in Lambda and is claimed again when its lease \
         has ended.",
    ),
    (
        "SIGHUP",
        "Reads the configuration again. A wrong file changes nothing; the log says what is wrong.",
    ),
];

const FILES: [(&str, &str); 5] = [
    ("/etc/burstd/burstd.toml", "The configuration of `burstd.service`: see burstd.toml(5)."),
    ("/etc/burstd/NAME.toml", "The configuration of `burstd@NAME.service`."),
    ("/etc/burstd/burstd.toml.example", "Every key with its default."),
    (
        "/etc/default/burstd",
        "Environment of all instances, as `NAME=value`; need not be there. /etc/burstd/NAME.env is \
         one instance's (`burstd` for `burstd.service`).",
    ),
    (
        "/etc/burstd/NAME.aws-credentials",
        "Static credentials, in the form of ~/.aws/credentials and readable by root alone, for \
         `LoadCredential=`, which the unit explains. A machine with a role needs none.",
    ),
];

const ENVIRONMENT: [(&str, &str); 4] = [
    (
        "AWS_REGION, AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
        "Region, credentials and profiles are found as every AWS program finds them.",
    ),
    (
        "AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_DYNAMODB, AWS_ENDPOINT_URL_LAMBDA",
        "Other endpoints, where the configuration names none.",
    ),
    (
        "AWS_CA_BUNDLE, HTTPS_PROXY, HTTP_PROXY, NO_PROXY",
        "Certificates that are trusted beside the system's, and proxies, for all calls.",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC",
        "The service manager is told when burstd is ready, what it does, that it works, and when \
         it stops.",
    ),
];

/// burstd(8).
pub(super) fn burstd(command: &Command) -> io::Result<String> {
    let mut page = Page::new("burstd", "8");
    page.section("NAME");
    page.paragraph("burstd - runs a DynamoDB table as a task queue for AWS Lambda");
    page.section("SYNOPSIS");
    for command in leaves(command) {
        page.paragraph(&format!("`{}`", usage(command)));
    }
    page.section("DESCRIPTION");
    page.paragraph(DESCRIPTION);
    page.section("COMMANDS");
    for command in leaves(command) {
        describe(&mut page, command)?;
    }
    let items = |page: &mut Page, title, items: &[(&str, &str)]| {
        page.section(title);
        for (tag, text) in items {
            page.item(&[tag], text);
        }
    };
    items(&mut page, "SIGNALS", &SIGNALS);
    page.section("EXIT STATUS");
    for (code, meaning) in exit::MEANINGS {
        page.item(&[&code.to_string()], meaning);
    }
    items(&mut page, "FILES", &FILES);
    items(&mut page, "ENVIRONMENT", &ENVIRONMENT);
    page.section("SEE ALSO");
    page.paragraph("burstd.toml(5), systemctl(1), journalctl(1), systemd.exec(5)");
    Ok(page.finish())
}

/// The commands that do something, in the order of the help.
fn leaves(command: &Command) -> Vec<&Command> {
    match command.has_subcommands() {
        false => vec![command],
        true => command.get_subcommands().flat_map(leaves).collect(),
    }
}

fn usage(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    usage.trim_start_matches("Usage:").trim().to_owned()
}

fn describe(page: &mut Page, command: &Command) -> io::Result<()> {
    page.subsection(command.get_bin_name().unwrap_or(command.get_name()));
    let about = command.get_long_about().or(command.get_about());
    page.paragraph(&about.map(ToString::to_string).unwrap_or_default());
    let mut options = Vec::new();
    Man::new(command.clone()).render_options_section(&mut options)?;
    let options = String::from_utf8_lossy(&options);
    if let Some((_, options)) = options.split_once(".SH OPTIONS\n") {
        page.raw(options);
    }
    if let Some(more) = command.get_after_help() {
        page.lines(&more.to_string());
    }
    Ok(())
}

/// burstd.toml(5).
pub(super) fn configuration() -> String {
    let mut page = Page::new("burstd.toml", "5");
    page.section("NAME");
    page.paragraph("burstd.toml - configuration of burstd");
    page.section("SYNOPSIS");
    page.paragraph("`/etc/burstd/burstd.toml`");
    page.paragraph("`/etc/burstd/NAME.toml`");
    page.section("DESCRIPTION");
    for (number, block) in REFERENCE.split("\n\n").enumerate() {
        let block = Block::read(block);
        match block.table {
            Some(table) => {
                page.subsection(table);
                if !block.text.is_empty() {
                    page.paragraph(&block.text);
                }
                if !block.keys.is_empty() {
                    page.item(&block.keys, "");
                }
            }
            None if block.keys.is_empty() => page.paragraph(&block.text),
            None => page.item(&block.keys, &block.text),
        }
        if number == 0 {
            page.section("KEYS");
        }
    }
    page.section("SEE ALSO");
    page.paragraph("burstd(8)");
    page.finish()
}

/// What stands between two empty lines of the reference: a comment, and what it is about.
#[derive(Default)]
struct Block<'a> {
    text: String,
    table: Option<&'a str>,
    keys: Vec<&'a str>,
}

impl<'a> Block<'a> {
    fn read(block: &'a str) -> Self {
        let mut read = Block::default();
        for line in block.lines() {
            match line.strip_prefix('#') {
                Some(text) if text.is_empty() || text.starts_with(' ') => {
                    read.text.push_str(text.trim());
                    read.text.push('\n');
                }
                None if line.starts_with('[') => read.table = Some(line),
                _ => read.keys.push(line),
            }
        }
        read
    }
}

//! What a command costs: said before much is read, and asked; told afterwards.

use std::io::{IsTerminal as _, Write as _, stderr, stdin};

use super::exit::Exit;
use crate::store::Consumed;

/// More than this is not read without a word.
const MUCH_BYTES: u64 = 10_000_000;

/// An eventually consistent read of so many bytes is a read unit
/// (docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html).
const BYTES_OF_A_UNIT: u64 = 8192;

/// Whether somebody has agreed before the question was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consent {
    /// `--yes` was given.
    Given,
    /// Somebody has to be asked.
    Wanted,
}

impl Consent {
    /// What the option `--yes` says.
    pub(super) fn from_option(yes: bool) -> Self {
        if yes { Consent::Given } else { Consent::Wanted }
    }
}

/// Says what a reading costs, if it is much, and asks whether to do it. Where nobody can be
/// asked it is not done, and `advice` says how it can be.
pub(super) fn before_reading(
    bytes: u64,
    of: &str,
    consent: Consent,
    advice: &str,
) -> Result<(), Exit> {
    if bytes <= MUCH_BYTES {
        return Ok(());
    }
    let units = thousands(read_units(bytes));
    let cost = format!("reads up to {} of {of}: about {units} read units", megabytes(bytes));
    match consent {
        Consent::Given => {
            eprintln!("This {cost}.");
            Ok(())
        }
        Consent::Wanted if is_somebody_there() => match ask(&format!("This {cost}. Go on?"))? {
            true => Ok(()),
            false => Err(Exit::stopped()),
        },
        Consent::Wanted => {
            Err(Exit::usage(format!("this {cost}, and there is nobody here to be asked: {advice}")))
        }
    }
}

/// What it takes to read so much.
pub(super) fn read_units(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_OF_A_UNIT)
}

/// Whether there is a terminal to ask on, and to answer at.
pub(super) fn is_somebody_there() -> bool {
    stdin().is_terminal() && stderr().is_terminal()
}

/// Asks on the terminal. Whoever says nothing says no.
pub(super) fn ask(question: &str) -> Result<bool, Exit> {
    let failed = |error| Exit::io(format!("the terminal: {error}"));
    eprint!("{question} [y/N] ");
    stderr().flush().map_err(failed)?;
    let mut answer = String::new();
    stdin().read_line(&mut answer).map_err(failed)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

/// Tells on standard error what was consumed.
pub(super) fn tell(consumed: Consumed) {
    let units = |milli: u64| milli as f64 / 1e3;
    let (read, write) = (units(consumed.read_milli), units(consumed.write_milli));
    eprintln!("{read} read units, {write} write units");
}

/// A size as DynamoDB's price list has it.
fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{} MB", bytes.div_ceil(1_000_000)),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// A number with a comma before each three digits.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().collect();
    let groups: Vec<_> = groups.into_iter().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_threes() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (15_000, "15,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn little_is_read_without_a_word_and_much_names_its_price() {
        assert!(before_reading(MUCH_BYTES, "the table", Consent::Wanted, "").is_ok());
        assert!(before_reading(u64::MAX, "the table", Consent::Given, "").is_ok());
        assert_eq!(megabytes(120_000_000), "120 MB");
        assert_eq!(megabytes(5_400_000_000), "5.4 GB");
    }
}

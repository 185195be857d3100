//! What a command costs: said before much is read, and asked; told afterwards.

use std::io::{IsTerminal as _, Write as _, stderr, stdin};

use super::exit::Exit;
use crate::aws::Extent;
use crate::store::Consumed;

/// More than this is not read without a word: some ten megabytes.
const MUCH_UNITS: u64 = 1250;

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

/// What a command may read.
#[derive(Debug)]
pub(super) struct Price {
    consent: Consent,
    /// How it is allowed where nobody can be asked.
    advice: &'static str,
    /// Whether there is a terminal to ask on, and to answer at.
    is_somebody_there: bool,
    /// Up to so many read units there is nothing more to be said.
    settled: u64,
}

impl Price {
    /// As much as is read without a word.
    pub(super) fn new(consent: Consent, advice: &'static str) -> Self {
        let is_somebody_there = is_somebody_there();
        Price { consent, advice, is_somebody_there, settled: MUCH_UNITS }
    }

    /// Says what a reading costs, if it is much, and asks whether to do it. Where nobody can be
    /// asked it is not done.
    pub(super) fn before(&mut self, extent: &Extent) -> Result<(), Exit> {
        let units = extent.read_units();
        if units <= self.settled {
            return Ok(());
        }
        let items = match extent.items {
            0 => String::new(),
            items => format!(", and up to {} items", thousands(items)),
        };
        let (size, of) = (megabytes(extent.bytes), extent.of);
        let told = thousands(units);
        self.agree(&format!("reads up to {size} of {of}{items}: about {told} read units"))?;
        self.settled = units.saturating_mul(2);
        Ok(())
    }

    /// The same while it reads: how much there is DynamoDB tells every six hours only.
    pub(super) fn so_far(&mut self, consumed: Consumed) -> Result<(), Exit> {
        let units = consumed.read_milli / 1000;
        if units <= self.settled {
            return Ok(());
        }
        let told = thousands(units);
        self.agree(&format!("has taken {told} read units, more than it looked like, and goes on"))?;
        self.settled = units.saturating_mul(10);
        Ok(())
    }

    fn agree(&self, cost: &str) -> Result<(), Exit> {
        match self.consent {
            Consent::Given => {
                eprintln!("This {cost}.");
                Ok(())
            }
            Consent::Wanted if self.is_somebody_there => {
                match ask(&format!("This {cost}. Go on?"))? {
                    true => Ok(()),
                    false => Err(Exit::stopped()),
                }
            }
            Consent::Wanted => {
                let advice = self.advice;
                let why = "there is nobody here to be asked";
                Err(Exit::usage(format!("this {cost}, and {why}: {advice}")))
            }
        }
    }
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
    use crate::aws::Sizes;

    #[test]
    fn numbers_are_read_in_threes() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (15_000, "15,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(thousands(number), text);
        }
    }

    /// Where nobody can be asked, wherever the tests run.
    fn unasked() -> Price {
        Price { is_somebody_there: false, ..Price::new(Consent::Wanted, "--yes does") }
    }

    #[test]
    fn little_is_read_without_a_word_and_much_is_not_read_unasked() {
        let extent = |bytes| Sizes { table_bytes: bytes, ..Sizes::default() }.table();
        let mut price = unasked();
        assert!(price.before(&extent(MUCH_UNITS * 8192)).is_ok());
        assert!(price.before(&extent(MUCH_UNITS * 8192 + 1)).is_err());
        assert!(Price::new(Consent::Given, "").before(&extent(u64::MAX)).is_ok());
    }

    #[test]
    fn what_turns_out_to_be_much_is_said_once_and_again_when_it_is_ten_times_that() {
        let consumed = |units: u64| Consumed { read_milli: units * 1000, write_milli: 0 };
        let mut price = unasked();
        assert!(price.so_far(consumed(MUCH_UNITS)).is_ok());
        let refused = price.so_far(consumed(MUCH_UNITS + 1)).expect_err("nobody is there");
        assert!(
            refused.message().ends_with("nobody here to be asked: --yes does"),
            "{}",
            refused.message()
        );
        let mut price = Price::new(Consent::Given, "");
        assert!(price.so_far(consumed(2000)).is_ok());
        assert_eq!(price.settled, 20_000);
    }

    #[test]
    fn a_size_is_said_as_the_price_list_has_it() {
        assert_eq!(megabytes(120_000_000), "120 MB");
        assert_eq!(megabytes(5_400_000_000), "5.4 GB");
    }
}

//! What unit tests share.

use proptest::test_runner::Config;

/// As many cases as PROPTEST_CASES says, 256 otherwise; no file is written for those that fail.
pub(crate) fn cases() -> Config {
    Config { failure_persistence: None, ..Config::default() }
}

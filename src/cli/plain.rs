//! What others wrote, as a terminal can show it without being steered by it.

/// On one line, with a mark for what would steer.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// On as many lines as it has; a tab is a space.
pub(super) fn lines(text: &str) -> String {
    let shown = |c: char| match c {
        '\t' => ' ',
        '\n' => c,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(shown).collect()
}

/// Its words, a space apart.
pub(super) fn words(text: &str) -> String {
    let words = text.split(|c: char| c.is_control() || c == ' ').filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_steer_a_terminal_does_not() {
        let text = "a\tb\n\u{1b}[2J c";
        assert_eq!(one_line(text), "a\u{fffd}b\u{fffd}\u{fffd}[2J c");
        assert_eq!(lines(text), "a b\n\u{fffd}[2J c");
        assert_eq!(words(text), "a b [2J c");
    }
}

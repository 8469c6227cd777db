//! The one shape of a complaint about a text.

use serde::{Deserialize, Serialize};

/// The longest part of a line that [`Diagnostic::render`] shows.
const SHOWN_CHARS_MAX: usize = 160;

/// What is wrong with a text, where, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} (line {line}, column {column})")]
pub struct Diagnostic {
    /// What is wrong, for a person.
    pub message: String,
    /// The line, from 1.
    pub line: u32,
    /// The character within the line, from 1; one past the last where something is missing at the end.
    pub column: u32,
    /// What to do about it.
    #[serde(default)]
    pub help: Option<String>,
}

impl Diagnostic {
    /// A complaint about one place.
    pub fn new(line: u32, column: u32, message: impl Into<String>) -> Self {
        Self { message: message.into(), line: line.max(1), column: column.max(1), help: None }
    }

    /// The same complaint with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The message, the line with a caret under the place, and the advice; several lines without an ending newline.
    ///
    /// Bounds: of a long line only the 160 characters around the place are shown.
    pub fn render(&self, text: &str) -> String {
        let wanted = usize::try_from(self.line).unwrap_or(usize::MAX).saturating_sub(1);
        let line: Vec<char> = text.lines().nth(wanted).unwrap_or_default().chars().collect();
        let at = (usize::try_from(self.column).unwrap_or(usize::MAX) - 1).min(line.len());
        let from = if line.len() <= SHOWN_CHARS_MAX { 0 } else { at.saturating_sub(SHOWN_CHARS_MAX / 2) };
        let shown: String = line[from..].iter().take(SHOWN_CHARS_MAX).map(|c| plain(*c)).collect();
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let mut out = format!("error: {}\n{margin} |\n{number} | {shown}\n{margin} | ", self.message);
        out.push_str(&" ".repeat(at - from));
        out.push('^');
        if let Some(help) = &self.help {
            out.push_str(&format!("\n{margin} = help: {help}"));
        }
        out
    }
}

/// A tab or control character would move the caret away from its place.
fn plain(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

/// The candidate that the word most likely meant, where one is near enough to be worth naming.
///
/// Near is at most a third of the word's characters changed; a difference in letter case alone is always near.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded: Vec<char> = word.to_lowercase().chars().take(128).collect();
    let limit = folded.len() / 3;
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let other: Vec<char> = candidate.to_lowercase().chars().take(128).collect();
            let distance = changes(&folded, &other);
            (distance <= limit && candidate != word).then_some((distance, candidate))
        })
        .min_by_key(|(distance, candidate)| (*distance, candidate.len()))
        .map(|(_, candidate)| candidate)
}

/// Edit distance where a swap of neighbours is one change (optimal string alignment).
fn changes(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_place() {
        let found = Diagnostic::new(2, 3, "unknown word").help("write b");
        assert_eq!(
            found.render("SELECT *\nä\tx FROM shop"),
            "error: unknown word\n  |\n2 | ä x FROM shop\n  |   ^\n  = help: write b"
        );
        let at_end = Diagnostic::new(1, 99, "something is missing").render("abc");
        assert!(at_end.ends_with("1 | abc\n  |    ^"), "{at_end}");
        assert!(Diagnostic::new(7, 1, "nothing there").render("abc").ends_with("7 | \n  | ^"));
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}X{}", "a".repeat(1000), "b".repeat(1000));
        let shown = Diagnostic::new(1, 1001, "here").render(&text);
        let lines: Vec<&str> = shown.lines().collect();
        let caret = lines[3].chars().count() - 1;
        assert_eq!(lines[2].chars().nth(caret), Some('X'));
        assert!(lines[2].chars().count() < 200);
    }

    #[test]
    fn suggestions_are_near_or_absent() {
        let words = ["severity", "service", "userId", "_time"];
        for (word, expected) in [
            ("severty", Some("severity")),
            ("sevreity", Some("severity")),
            ("userid", Some("userId")),
            ("time", Some("_time")),
            ("latency", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, words), expected, "{word}");
        }
    }
}

//! Bodies of newline-delimited JSON, as the HTTP door takes them.
//!
//! Texts within a line may hold bytes that are not UTF-8: they are kept as [`raw`] writes them.
//!
//! ```
//! let body = b"{\"a\":1}\n\n[2]\n{\"a\":3}";
//! let (taken, refused): (Vec<_>, Vec<_>) = ingest::lines::split(body, 1 << 20).partition(|(_, line)| line.is_ok());
//! assert_eq!(taken.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 4]);
//! assert_eq!(refused[0].1.as_ref().unwrap_err().line, 3);
//! ```

use std::fmt;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};

use crate::raw;

/// Says why a line was not taken; the other lines of the body stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct Rejected {
    /// The line's number, from 1.
    pub line: usize,
    /// What is wrong, with the column where it is known.
    pub reason: String,
}

/// Splits a body into lines that are each one JSON object, with their numbers from 1; blank lines are skipped.
///
/// Lazy: one line is looked at per step. Bounds: lines longer than `max_event` bytes are rejected unread.
pub fn split(body: &[u8], max_event: usize) -> impl Iterator<Item = (usize, Result<&[u8], Rejected>)> {
    let mut rest = Some(body);
    let lines = std::iter::from_fn(move || {
        let body = rest?;
        let line = match memchr::memchr(b'\n', body) {
            Some(end) => {
                rest = Some(&body[end + 1..]);
                &body[..end]
            }
            None => {
                rest = None;
                body
            }
        };
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    });
    lines.zip(1..).filter(|(line, _)| !line.iter().all(u8::is_ascii_whitespace)).map(move |(line, number)| {
        let checked = check(line, max_event).map_err(|reason| Rejected { line: number, reason });
        (number, checked.map(|()| line))
    })
}

fn check(line: &[u8], max_event: usize) -> Result<(), String> {
    if line.len() > max_event {
        return Err(format!("{} bytes are more than the {max_event} bytes of the largest event", line.len()));
    }
    let text = raw::escape(line);
    let mut reader = serde_json::Deserializer::from_str(&text);
    reader.deserialize_map(AnyObject).and_then(|()| reader.end()).map_err(|error| {
        let said = error.to_string();
        let said = said.rfind(" at line ").map_or(said.as_str(), |end| &said[..end]);
        // Counted in the bytes that came, not in those that stand for them.
        let column = text.get(..error.column()).map_or(error.column(), |before| raw::unescape(before).len());
        format!("{said} at column {column}")
    })
}

struct AnyObject;

impl<'de> Visitor<'de> for AnyObject {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one JSON object per line")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, reason: &str) {
        let body = format!("{{\"ok\":1}}\r\n  \n{line}\n{{\"ok\":2}}");
        let found: Vec<_> = split(body.as_bytes(), 64).collect();
        assert_eq!(found[0], (1, Ok(&b"{\"ok\":1}"[..])));
        assert_eq!(found[2], (4, Ok(&b"{\"ok\":2}"[..])));
        let (number, Err(rejected)) = &found[1] else { panic!("{line:?} was taken") };
        assert_eq!((*number, rejected.line), (3, 3));
        assert_eq!(rejected.reason, reason, "{line:?}");
    }

    #[test]
    fn a_bad_line_says_where_and_the_others_stand() {
        check("{\"a\":}", "expected value at column 6");
        check("{\"a\":1", "EOF while parsing an object at column 6");
        check("{\"a\":1} x", "trailing characters at column 9");
        check("[1,2]", "invalid type: sequence, expected one JSON object per line at column 0");
        check("hello", "expected value at column 1");
        check(&format!("{{\"a\":\"{}\"}}", "x".repeat(60)), "68 bytes are more than the 64 bytes of the largest event");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_taken_within_texts_alone() {
        let body = b"{\"a\":\"caf\xe9\"}\n{\"\xff\":\"\xff\",}\n{\"a\":\xff}";
        let found: Vec<_> = split(body, 64).collect();
        assert_eq!(found[0], (1, Ok(&body[..12])));
        let reasons: Vec<_> = found[1..].iter().map(|(_, line)| line.as_ref().unwrap_err().to_string()).collect();
        assert_eq!(reasons, ["line 2: trailing comma at column 10", "line 3: expected value at column 6"]);
    }

    #[test]
    fn empty_bodies_and_missing_last_newlines() {
        assert_eq!(split(b"", 64).count(), 0);
        assert_eq!(split(b"\n\n", 64).count(), 0);
        assert_eq!(split(b"{}\n{}", 64).count(), 2);
        assert_eq!(split(b"{}\n{}\n", 64).count(), 2);
    }
}

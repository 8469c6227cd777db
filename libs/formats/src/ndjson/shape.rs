//! The shape of lines: the bytes between their values, and which values are columns.

use super::scan;
use crate::{
    Layout,
    columns::{Columns, Values},
};

/// Members that a shape has at most; a line with more is left to the full parser.
const MEMBERS_MAX: usize = 256;

/// What lines have in common that one program writes.
#[derive(Debug, PartialEq)]
pub(super) struct Shape {
    members: Vec<Member>,
    /// From the last value to the end of the object.
    tail: Literal,
    /// Columns that these lines do not have.
    absent: Vec<usize>,
}

#[derive(Debug, PartialEq)]
struct Member {
    /// From the value before, or the begin of the line, to this value: a comma, the name, a colon, white space.
    before: Literal,
    column: Option<usize>,
}

/// Bytes to compare with, eight at once.
#[derive(Debug, PartialEq)]
struct Literal {
    words: Vec<(u64, u64)>,
    length: usize,
}

impl Literal {
    fn of(bytes: &[u8]) -> Self {
        let word = |piece: &[u8]| {
            let fold = |word: u64, byte: &u8| (word << 8) | u64::from(*byte);
            let value = piece.iter().rev().fold(0, fold);
            (value, u64::MAX >> (64 - 8 * piece.len()))
        };
        Self { words: bytes.chunks(8).map(word).collect(), length: bytes.len() }
    }

    /// Behind the literal, if it stands at `at`.
    fn behind(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let mut place = at;
        for (value, mask) in &self.words {
            if scan::word(bytes, place)? & mask != *value {
                return None;
            }
            place += 8;
        }
        Some(at + self.length)
    }
}

impl Shape {
    /// The shape of a line that the full parser read; nothing if its values are not plain, a name is escaped or there twice, or it
    /// has no event time.
    pub(super) fn of(line: &[u8], layout: &Layout) -> Option<Self> {
        // Values are looked at with something behind them.
        let mut padded = line.trim_ascii_end().to_vec();
        let length = padded.len();
        padded.extend_from_slice(&[b' '; 8]);
        let space = |mut at: usize| {
            while padded.get(at).is_some_and(u8::is_ascii_whitespace) {
                at += 1;
            }
            at
        };
        let (mut members, mut seen): (Vec<Member>, Vec<&[u8]>) = (Vec::new(), Vec::new());
        let mut from = 0;
        let mut at = space(0);
        loop {
            // A brace at first, a comma then.
            if padded[at] != if members.is_empty() { b'{' } else { b',' } || members.len() == MEMBERS_MAX {
                return None;
            }
            at = space(at + 1);
            let end = scan::text(&padded, at)?;
            let name = &padded[at + 1..end];
            if seen.contains(&name) {
                return None;
            }
            seen.push(name);
            at = space(end + 1);
            if padded[at] != b':' {
                return None;
            }
            at = space(at + 1);
            let column = layout.columns.iter().position(|column| column.name.as_bytes() == name);
            members.push(Member { before: Literal::of(&padded[from..at]), column });
            from = scan::end(&padded, at)?;
            at = space(from);
            if padded[at] == b'}' {
                break;
            }
        }
        let absent =
            (0..layout.columns.len()).filter(|c| !members.iter().any(|m| m.column == Some(*c))).collect::<Vec<_>>();
        if at + 1 != length || (layout.timed && absent.first() == Some(&0)) {
            return None;
        }
        Some(Self { tail: Literal::of(&padded[from..=at]), members, absent })
    }

    /// Pushes the values of the line at `at` and answers where the next line begins; nothing if the line differs, and then what
    /// was pushed has to be taken back.
    pub(super) fn read(&self, bytes: &[u8], at: usize, columns: &mut Columns) -> Option<usize> {
        let mut at = at;
        for Member { before, column } in &self.members {
            at = before.behind(bytes, at)?;
            at = match column {
                Some(column) => push(bytes, at, *column, columns)?,
                None => scan::end(bytes, at)?,
            };
        }
        at = self.tail.behind(bytes, at)?;
        let end = match bytes.get(at)? {
            b'\n' => at + 1,
            b'\r' if bytes.get(at + 1) == Some(&b'\n') => at + 2,
            _ => return None,
        };
        let rows = columns.rows;
        self.absent.iter().for_each(|column| columns.filled[*column].null(rows));
        Some(end)
    }
}

/// Pushes a plain value and answers where it ends.
fn push(bytes: &[u8], at: usize, column: usize, columns: &mut Columns) -> Option<usize> {
    if bytes.get(at) == Some(&b'n') {
        if columns.is_time(column) {
            return None;
        }
        let rows = columns.rows;
        columns.filled[column].null(rows);
        return scan::null(bytes, at);
    }
    let unit = columns.layout.unit;
    let filling = &mut columns.filled[column];
    let end = match &mut filling.values {
        Values::Integer(values) => {
            let (value, end) = scan::integer(bytes, at)?;
            values.push(value);
            end
        }
        Values::Float(values) => {
            // Whole numbers of that size are themselves.
            let (value, end) = match scan::integer(bytes, at) {
                Some((value, end)) if value != 0 && value.unsigned_abs() < 1 << 53 => (value as f64, end),
                _ => scan::float(bytes, at)?,
            };
            values.push(value);
            end
        }
        Values::Boolean(values) => {
            let (value, end) = scan::flag(bytes, at)?;
            values.push(value);
            end
        }
        Values::Time(values) => {
            if bytes.get(at) == Some(&b'"') {
                let end = scan::text(bytes, at)?;
                values.push(columns.day.instant(&bytes[at + 1..end])?);
                end + 1
            } else {
                let (count, end) = scan::integer(bytes, at)?;
                values.push(unit.nanos(count)?);
                end
            }
        }
        Values::Text { .. } => {
            let end = scan::end(bytes, at)?;
            let quoted = usize::from(bytes[at] == b'"');
            filling.text(&bytes[at + quoted..end - quoted]);
            return Some(end);
        }
    };
    filling.there();
    Some(end)
}

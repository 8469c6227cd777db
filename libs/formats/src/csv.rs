//! Separated values, as RFC 4180 has them: records of lines, values in quotes where they hold a separator, a quote or a line feed.
//!
//! A value without quotes that is empty is null; in a text column an empty value in quotes is an empty text. Space belongs to values.
//! A record with more or fewer values than there are names is corrupt, and so is one whose quotes do not close within
//! [`LINE_BYTES_MAX`]. Empty lines are no records.

use std::borrow::Cow;

use crate::{
    Error, Fault, FaultKind, LINE_BYTES_MAX, Layout, Taken,
    columns::{Columns, Raw},
};

/// Names that a file may have.
const NAMES_MAX: usize = 4_096;

/// Reads separated values.
#[derive(Debug)]
pub struct Csv {
    columns: Columns,
    delimiter: u8,
    /// For each value of a record the columns that it is for; empty before the names are known.
    places: Vec<Option<usize>>,
    offset: u64,
    /// Where a record began that is too long, while the end of its line is looked for.
    too_long: Option<(u64, Vec<u8>)>,
}

/// A record: its values, where they lie in it and whether they stood in quotes, and the length with the end of the line.
struct Record {
    values: Vec<(std::ops::Range<usize>, bool)>,
    length: usize,
    problem: Option<&'static str>,
}

impl Csv {
    /// A reader of a file from its begin.
    ///
    /// `header` says that the first record has the names; else the layout's columns are the values in their order, the event time
    /// first if it is not among the declared ones.
    /// Errors: `Schema` if the delimiter is no sign of ASCII that can separate.
    pub fn new(layout: Layout, delimiter: char, header: bool) -> Result<Self, Error> {
        let delimiter = separator(delimiter)?;
        let declared = layout.columns.iter().enumerate().map(|(place, _)| Some(place)).collect();
        let places = if header { Vec::new() } else { declared };
        Ok(Self { columns: Columns::new(layout), delimiter, places, offset: 0, too_long: None })
    }

    /// Where a reader must begin to read what this one has not given out.
    pub fn position(&self) -> u64 {
        self.too_long.as_ref().map_or(self.offset, |(begin, _)| *begin)
    }

    /// Goes on at that byte of the file, the begin of a record, after the names were read.
    pub fn seek(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Whether the names are known, so that rows can come.
    pub fn has_names(&self) -> bool {
        !self.places.is_empty()
    }

    /// As [`Ndjson::read`](crate::Ndjson::read).
    ///
    /// Errors: besides, `Schema` if the first record is to have the names and lacks a declared column.
    pub fn read(&mut self, input: &[u8], ended: bool, rows_max: usize) -> Result<Taken, Error> {
        let mut at = 0;
        if self.too_long.is_some() {
            at = self.skip(input, ended);
        }
        if self.offset == 0 && input.starts_with(b"\xef\xbb\xbf") {
            at = 3;
        }
        while at < input.len() && self.columns.len() < rows_max {
            let window = &input[at..input.len().min(at + LINE_BYTES_MAX + 1)];
            let whole = ended && at + window.len() == input.len();
            let record = match split(window, self.delimiter, whole) {
                Some(record) if record.length <= LINE_BYTES_MAX => record,
                // However the file is cut: what has no end within the limit ends with its first line.
                _ if window.len() > LINE_BYTES_MAX => {
                    let begin = self.offset + u64::try_from(at).unwrap_or(0);
                    self.too_long = Some((begin, window[..crate::FAULT_TEXT_BYTES_MAX].to_vec()));
                    at += self.skip(&input[at..], ended);
                    continue;
                }
                _ => break,
            };
            let row = &input[at..at + record.length];
            let offset = self.offset + u64::try_from(at).unwrap_or(0);
            at += record.length;
            if row.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
                continue;
            }
            if self.has_names() { self.row(&record, row, offset) } else { self.names(&record, row)? }
        }
        self.offset += u64::try_from(at).unwrap_or(u64::MAX);
        Ok(Taken { bytes: at, rows: self.columns.finish()? })
    }

    /// Goes over the rest of a line.
    fn skip(&mut self, input: &[u8], ended: bool) -> usize {
        let end = memchr::memchr(b'\n', input);
        if (end.is_some() || ended)
            && let Some((offset, shown)) = self.too_long.take()
        {
            let problem = format!("it has no end within {LINE_BYTES_MAX} bytes");
            self.columns.faults.push(Fault::new(offset, FaultKind::TooLong, problem, &shown));
        }
        end.map_or(input.len(), |end| end + 1)
    }

    fn names(&mut self, record: &Record, row: &[u8]) -> Result<(), Error> {
        let declared = &self.columns.layout.columns;
        let place = |(range, _): &(std::ops::Range<usize>, bool)| {
            declared.iter().position(|column| column.name.as_bytes() == unquoted(&row[range.clone()]).as_ref())
        };
        let places: Vec<Option<usize>> = record.values.iter().take(NAMES_MAX).map(place).collect();
        if let Some(lost) = (0..declared.len()).find(|column| !places.contains(&Some(*column))) {
            let names = String::from_utf8_lossy(&row[..row.len().min(1_024)]).trim_end().to_owned();
            return Err(Error::Schema(format!("{:?} is not among the names {names}", declared[lost].name)));
        }
        self.places = places;
        Ok(())
    }

    fn row(&mut self, record: &Record, row: &[u8], offset: u64) {
        let found = self.values(record, row);
        match found {
            Ok(()) => self.columns.row(offset),
            Err((kind, problem)) => {
                self.columns.undo();
                self.columns.faults.push(Fault::new(offset, kind, problem, row));
            }
        }
    }

    fn values(&mut self, record: &Record, row: &[u8]) -> Result<(), (FaultKind, String)> {
        if let Some(problem) = record.problem {
            return Err((FaultKind::Corrupt, problem.to_owned()));
        }
        if record.values.len() != self.places.len() {
            let problem = format!("it has {} values, not {}", record.values.len(), self.places.len());
            return Err((FaultKind::Corrupt, problem));
        }
        for ((range, quoted), column) in record.values.iter().zip(&self.places) {
            let Some(column) = *column else { continue };
            let bytes = &row[range.clone()];
            let bytes = if *quoted { unquoted(bytes) } else { Cow::Borrowed(bytes) };
            let text =
                std::str::from_utf8(&bytes).map_err(|_| (FaultKind::Corrupt, "it is not text in UTF-8".to_owned()))?;
            let raw = if text.is_empty() && !*quoted { Raw::Null } else { Raw::Written(text) };
            let kind = if self.columns.is_time(column) { FaultKind::Undated } else { FaultKind::Corrupt };
            self.columns.push(column, &raw).map_err(|problem| (kind, problem))?;
        }
        Ok(())
    }
}

/// A sign that can stand between values.
pub(crate) fn separator(delimiter: char) -> Result<u8, Error> {
    let separates = delimiter.is_ascii() && !matches!(delimiter, '"' | '\n' | '\r');
    u8::try_from(delimiter)
        .ok()
        .filter(|_| separates)
        .ok_or_else(|| Error::Schema("the delimiter is one sign of ASCII that is no quote and no line end".to_owned()))
}

/// A value without its quotes.
fn unquoted(value: &[u8]) -> Cow<'_, [u8]> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else { return value.into() };
    if !inner.contains(&b'"') {
        return inner.into();
    }
    let (mut out, mut rest) = (Vec::with_capacity(inner.len()), inner);
    while let Some((&byte, after)) = rest.split_first() {
        out.push(byte);
        // Two quotes are one.
        rest = if byte == b'"' { after.get(1..).unwrap_or_default() } else { after };
    }
    out.into()
}

/// The record at the front of the input; nothing if its end is not there.
fn split(input: &[u8], delimiter: u8, ended: bool) -> Option<Record> {
    let (mut values, mut begin, mut problem) = (Vec::new(), 0, None);
    loop {
        let quoted = input.get(begin) == Some(&b'"');
        let mut at = begin;
        if quoted {
            at += 1;
            // To the quote that no other one follows.
            loop {
                match memchr::memchr(b'"', &input[at..]) {
                    Some(length) if input.get(at + length + 1) == Some(&b'"') => at += length + 2,
                    Some(length) if at + length + 1 < input.len() || ended => {
                        at += length + 1;
                        break;
                    }
                    None if ended => {
                        values.push((begin..input.len(), false));
                        return Some(Record { values, length: input.len(), problem: Some("its quotes do not close") });
                    }
                    _ => return None,
                }
            }
        }
        let stop = input[at..].iter().position(|byte| *byte == delimiter || *byte == b'\n');
        let stop = stop.map(|length| at + length).or(ended.then_some(input.len()))?;
        let line_end = input.get(stop) != Some(&delimiter);
        let value_end = stop - usize::from(line_end && stop > at && input[stop - 1] == b'\r');
        if quoted && value_end != at {
            problem = Some("a quote closes inside a value");
        }
        values.push((begin..value_end, quoted));
        if line_end {
            return Some(Record { values, length: (stop + 1).min(input.len()), problem });
        }
        begin = stop + 1;
    }
}

#[cfg(test)]
#[path = "csv_tests.rs"]
mod tests;

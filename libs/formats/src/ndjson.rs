//! A JSON object per line.
//!
//! Most files are written by one program, so that their lines have the same keys in the same order and differ in their values
//! only. The reader learns such shapes from lines that it read with a full parser, and compares the next lines with them: where
//! every byte between two values is as expected and the values are plain, a line costs tens of nanoseconds. **Whatever differs in
//! any way is read by the full parser**, which alone decides what a line means and whether it is one. So the shapes change how
//! fast a file is read and nothing else.
//!
//! What a line means: members that are not declared are left out, whatever they hold; of several with one name the last counts;
//! one that is missing is null. A value of another type makes the row corrupt, except that a text column takes numbers, truth
//! values, arrays and objects as they were written. Lines of white space are no rows.

mod full;
mod scan;
mod shape;

use memchr::memchr;

use crate::{Error, Fault, FaultKind, LINE_BYTES_MAX, Layout, Taken, columns::Columns};
use shape::Shape;

/// Shapes that are remembered. More kinds of lines in one file take the full parser's time for some of them.
const SHAPES_MAX: usize = 4;
/// Lines that fit no shape before the next one is learnt, so that a file without any shape is not slowed down by learning.
const LEARN_EVERY: u32 = 16;
/// Bytes that are looked at in one call: offsets in text columns are of 32 bits.
const READ_BYTES_MAX: usize = 1 << 30;

/// Reads lines of JSON.
#[derive(Debug)]
pub struct Ndjson {
    columns: Columns,
    shapes: Vec<Shape>,
    /// The shape that fitted last.
    last: usize,
    /// Whose turn it is to be forgotten.
    oldest: usize,
    /// Lines that fitted none since the last one was learnt.
    misses: u32,
    learns: bool,
    /// Where the next byte is, from the begin of the file.
    offset: u64,
    /// Where a line began that is too long, while its end is looked for.
    too_long: Option<(u64, Vec<u8>)>,
}

impl Ndjson {
    /// A reader whose input begins at that byte of its file, which is the begin of a line.
    pub fn new(layout: Layout, offset: u64) -> Self {
        let (shapes, too_long) = (Vec::new(), None);
        let (last, oldest, misses, learns) = (0, 0, LEARN_EVERY, true);
        Self { columns: Columns::new(layout), shapes, last, oldest, misses, learns, offset, too_long }
    }

    /// The same without shapes: every line is read by the full parser. What others are compared with.
    pub fn without_shapes(self) -> Self {
        Self { learns: false, ..self }
    }

    /// Where a reader must begin to read what this one has not given out.
    pub fn position(&self) -> u64 {
        self.too_long.as_ref().map_or(self.offset, |(begin, _)| *begin)
    }

    /// Reads lines from the front of `input` until that many rows and faults are found or no whole line is left; `ended` says that
    /// nothing comes behind the input, so that its last line needs no line feed.
    ///
    /// Bounds: an input of more than [`LINE_BYTES_MAX`] without a line feed is a line that is too long; it is consumed, and one
    /// fault is given when its end is found.
    /// Errors: `Arrow` only; what is wrong with a row is a fault among the rows.
    pub fn read(&mut self, input: &[u8], ended: bool, rows_max: usize) -> Result<Taken, Error> {
        let input = &input[..input.len().min(READ_BYTES_MAX)];
        let mut at = 0;
        if self.too_long.is_some() {
            at = self.skip(input, ended);
        }
        if self.offset == 0 && input.starts_with(b"\xef\xbb\xbf") {
            at = 3;
        }
        while at < input.len() && self.columns.len() < rows_max {
            match self.next(input, at, ended) {
                Some(next) => at = next,
                None => break,
            }
        }
        // What is left has no end.
        if at == 0 && !ended && input.len() > LINE_BYTES_MAX && memchr(b'\n', input).is_none() {
            self.too_long = Some((self.offset, input[..crate::FAULT_TEXT_BYTES_MAX].to_vec()));
            at = input.len();
        }
        self.offset += u64::try_from(at).unwrap_or(u64::MAX);
        Ok(Taken { bytes: at, rows: self.columns.finish()? })
    }

    /// Reads the line that begins at `at`; where the next one does, or nothing if its end is not there.
    fn next(&mut self, input: &[u8], at: usize, ended: bool) -> Option<usize> {
        if let Some(next) = self.fits(input, at) {
            self.columns.row(self.offset + u64::try_from(at).unwrap_or(0));
            return Some(next);
        }
        let (line, next) = match memchr(b'\n', &input[at..]) {
            Some(length) => (&input[at..at + length], at + length + 1),
            None if ended => (&input[at..], input.len()),
            None => return None,
        };
        self.line(line, self.offset + u64::try_from(at).unwrap_or(0));
        Some(next)
    }

    /// The line by the shapes.
    fn fits(&mut self, input: &[u8], at: usize) -> Option<usize> {
        for place in std::iter::once(self.last).chain((0..self.shapes.len()).filter(|place| *place != self.last)) {
            let shape = self.shapes.get(place)?;
            if let Some(next) = shape.read(input, at, &mut self.columns) {
                self.last = place;
                return (next - at <= LINE_BYTES_MAX).then_some(next).or_else(|| {
                    self.columns.undo();
                    None
                });
            }
            self.columns.undo();
        }
        None
    }

    /// The line by the full parser, which may learn from it.
    fn line(&mut self, line: &[u8], offset: u64) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        if line.len() > LINE_BYTES_MAX {
            let fault = too_long(offset, line);
            return self.columns.faults.push(fault);
        }
        match full::read(line, &mut self.columns) {
            Ok(()) => {
                self.columns.row(offset);
                self.misses += 1;
                if self.learns && self.misses >= LEARN_EVERY {
                    self.learn(line);
                }
            }
            Err((kind, problem)) => {
                self.columns.undo();
                self.columns.faults.push(Fault::new(offset, kind, problem, line));
            }
        }
    }

    fn learn(&mut self, line: &[u8]) {
        self.misses = 0;
        let Some(shape) = Shape::of(line, &self.columns.layout) else { return };
        // The last line of an input is too near to its end for any shape.
        if self.shapes.contains(&shape) {
            return;
        }
        if self.shapes.len() < SHAPES_MAX {
            self.shapes.push(shape);
        } else {
            self.shapes[self.oldest] = shape;
            self.oldest = (self.oldest + 1) % SHAPES_MAX;
        }
    }

    /// Goes over the rest of a line that is too long.
    fn skip(&mut self, input: &[u8], ended: bool) -> usize {
        let end = memchr(b'\n', input);
        if (end.is_some() || ended)
            && let Some((offset, shown)) = self.too_long.take()
        {
            self.columns.faults.push(too_long(offset, &shown));
        }
        end.map_or(input.len(), |end| end + 1)
    }
}

fn too_long(offset: u64, shown: &[u8]) -> Fault {
    Fault::new(offset, FaultKind::TooLong, format!("it is longer than {LINE_BYTES_MAX} bytes"), shown)
}

#[cfg(test)]
#[path = "ndjson_tests.rs"]
mod tests;

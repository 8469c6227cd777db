//! The exact text around the variables of a line.

use super::signature::{Span, hash, mix};

/// A line with the places of its variables: what all lines of the pattern have in common, byte for byte.
///
/// Shape: [`holes`](Self::holes) variables stand between one piece more of text; the pieces may be empty. Blanks beyond
/// the first beside a variable belong to it, so that columns of numbers aligned by blanks are one pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    line: Box<str>,
    holes: Box<[Span]>,
}

impl Pattern {
    /// The pattern of any line that is a variable from end to end.
    pub(super) fn whole() -> Self {
        Self { line: "".into(), holes: Box::new([Span { start: 0, end: 0 }]) }
    }

    pub(super) fn new(line: &str, holes: &[Span]) -> Self {
        Self { line: line.into(), holes: holes.into() }
    }

    /// The first line of the pattern that was met.
    pub fn example(&self) -> &str {
        &self.line
    }

    /// How many variables a line has.
    pub fn holes(&self) -> usize {
        self.holes.len()
    }

    /// The texts before, between and behind the variables: one more than there are variables.
    pub fn pieces(&self) -> impl Iterator<Item = &str> {
        pieces(&self.line, &self.holes)
    }

    /// The line with these variables; nothing if they are not as many as the holes.
    pub fn rebuild<'v>(&self, variables: impl IntoIterator<Item = &'v str>) -> Option<String> {
        let mut line = String::with_capacity(self.line.len());
        let (mut pieces, mut variables) = (self.pieces(), variables.into_iter());
        line.push_str(pieces.next()?);
        for piece in pieces {
            line.push_str(variables.next()?);
            line.push_str(piece);
        }
        variables.next().is_none().then_some(line)
    }

    pub(super) fn fits(&self, line: &str, holes: &[Span]) -> bool {
        self.holes.len() == holes.len() && self.pieces().eq(pieces(line, holes))
    }
}

/// A hash of the text around the holes, and of the signature, since a pattern has one.
pub(super) fn hash_of(signature: u64, line: &str, holes: &[Span]) -> u64 {
    pieces(line, holes).fold(signature, |h, piece| mix(h, hash(piece.as_bytes())))
}

fn pieces<'l>(line: &'l str, holes: &[Span]) -> impl Iterator<Item = &'l str> {
    let starts = std::iter::once(0).chain(holes.iter().map(|hole| hole.end));
    let ends = holes.iter().map(|hole| hole.start).chain(std::iter::once(line.len()));
    starts.zip(ends).map(move |(start, end)| &line[start..end])
}

/// Lets holes take the blanks beside them, all but one on each side.
pub(super) fn widen(line: &str, holes: &mut [Span]) {
    let bytes = line.as_bytes();
    let mut from = 0;
    for hole in holes {
        let before = bytes[from..hole.start].iter().rev().take_while(|b| **b == b' ').count();
        hole.start -= before.saturating_sub(1);
        let after = bytes[hole.end..].iter().take_while(|b| **b == b' ').count();
        hole.end += after.saturating_sub(1);
        from = hole.end;
    }
}

//! The patterns and signatures of an index.

use std::collections::HashMap;

use super::{
    Pattern,
    pattern::{hash_of, widen},
    signature::{Scan, Span, Token},
    split::{self, Template},
};

/// The most patterns of a dictionary, [`WHOLE`] included.
pub const PATTERNS_MAX: usize = 1 << 16;

/// The most memory that a dictionary takes for what lines are made of: examples, places of variables, tokens.
pub const DICTIONARY_BYTES_MAX: usize = 16 << 20;

/// The longest line that is mined.
pub const LINE_BYTES_MAX: usize = 16 << 10;

/// A pattern within one dictionary; counts up from 1, so that it stays small.
pub type PatternId = u32;

/// The pattern of lines that are one variable from end to end: those too long, and those that found no room.
pub const WHOLE: PatternId = 0;

/// The signature that lines of [`WHOLE`] count for.
const NO_SIGNATURE: usize = 0;

/// How many patterns may share a hash before a further one finds no room; more than one is an attack or a wonder.
const PROBES_MAX: u64 = 8;

/// The patterns of an index, their signatures, and how many lines each has.
///
/// Order: ids are given in the order of first lines and never change. To keep a dictionary, keep for each pattern the
/// example and the count; [`learn_times`](Self::learn_times) in that order builds an equal one.
/// Bounds: [`PATTERNS_MAX`] patterns and [`DICTIONARY_BYTES_MAX`] bytes; with tables and small allocations less than
/// three times that. A line that would open another pattern then, like one longer than [`LINE_BYTES_MAX`], is one
/// variable of the pattern [`WHOLE`]: nothing is lost but compression, and [`unmined`](Self::unmined) tells how often.
#[derive(Debug)]
pub struct Dictionary {
    scan: Scan,
    holes: Vec<Span>,
    patterns: Vec<Entry>,
    /// Hash of a pattern to its id.
    ids: HashMap<u64, PatternId>,
    signatures: Vec<SignatureEntry>,
    /// Signature to its place.
    places: HashMap<u64, usize>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    pattern: Pattern,
    signature: usize,
    count: u64,
}

/// A signature and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureEntry {
    /// The signature.
    pub signature: u64,
    /// Its tokens.
    pub tokens: Box<[Token]>,
    /// The first pattern that has it.
    pub pattern: PatternId,
    /// How many lines have it.
    pub count: u64,
}

/// A line told apart.
#[derive(Debug)]
pub struct Mined<'d, 'l> {
    /// Its pattern.
    pub pattern: PatternId,
    /// Its signature; 0 if the pattern is [`WHOLE`].
    pub signature: u64,
    line: &'l str,
    holes: &'d [Span],
}

impl<'l> Mined<'_, 'l> {
    /// Its variables, in order.
    pub fn variables(&self) -> impl Iterator<Item = &'l str> {
        self.holes.iter().map(|hole| &self.line[hole.start..hole.end])
    }
}

impl Default for Dictionary {
    fn default() -> Self {
        let nothing = SignatureEntry { signature: 0, tokens: [].into(), pattern: WHOLE, count: 0 };
        Self {
            scan: Scan::default(),
            holes: Vec::new(),
            patterns: vec![Entry { pattern: Pattern::whole(), signature: NO_SIGNATURE, count: 0 }],
            ids: HashMap::new(),
            signatures: vec![nothing],
            places: HashMap::new(),
            bytes: 0,
        }
    }
}

impl Dictionary {
    /// Finds or opens the pattern of a line and counts it.
    pub fn learn<'l>(&mut self, line: &'l str) -> Mined<'_, 'l> {
        self.learn_times(line, 1)
    }

    /// The same for so many lines of one pattern.
    pub fn learn_times<'l>(&mut self, line: &'l str, count: u64) -> Mined<'_, 'l> {
        let pattern = if line.len() > LINE_BYTES_MAX { WHOLE } else { self.place(line) };
        let entry = &mut self.patterns[pattern as usize];
        entry.count = entry.count.saturating_add(count);
        let signature = &mut self.signatures[entry.signature];
        signature.count = signature.count.saturating_add(count);
        if pattern == WHOLE {
            self.holes.clear();
            self.holes.push(Span { start: 0, end: line.len() });
        }
        Mined { pattern, signature: signature.signature, line, holes: &self.holes }
    }

    /// The id of a line's pattern, opened if need be and there is room; leaves its holes behind.
    fn place(&mut self, line: &str) -> PatternId {
        let signature = self.scan.read(line);
        self.holes.clear();
        self.holes.extend_from_slice(self.scan.holes());
        widen(line, &mut self.holes);
        let hash = hash_of(signature, line, &self.holes);
        for probe in 0..PROBES_MAX {
            let key = hash.wrapping_add(probe);
            let Some(&id) = self.ids.get(&key) else { return self.open(key, signature, line) };
            let entry = &self.patterns[id as usize];
            if self.signatures[entry.signature].signature == signature && entry.pattern.fits(line, &self.holes) {
                return id;
            }
        }
        WHOLE
    }

    fn open(&mut self, key: u64, signature: u64, line: &str) -> PatternId {
        let known = self.places.get(&signature).copied();
        let mut bytes = line.len() + size_of_val(self.holes.as_slice());
        if known.is_none() {
            // The words of the tokens are of the line.
            bytes += line.len() + self.scan.len() * size_of::<Token>();
        }
        let id = PatternId::try_from(self.patterns.len()).unwrap_or(PatternId::MAX);
        if self.patterns.len() >= PATTERNS_MAX || self.bytes + bytes > DICTIONARY_BYTES_MAX {
            return WHOLE;
        }
        self.bytes += bytes;
        let place = known.unwrap_or_else(|| {
            let tokens = self.scan.tokens(line);
            self.signatures.push(SignatureEntry { signature, tokens, pattern: id, count: 0 });
            self.places.insert(signature, self.signatures.len() - 1);
            self.signatures.len() - 1
        });
        self.patterns.push(Entry { pattern: Pattern::new(line, &self.holes), signature: place, count: 0 });
        self.ids.insert(key, id);
        id
    }

    /// A pattern.
    pub fn pattern(&self, id: PatternId) -> Option<&Pattern> {
        Some(&self.patterns.get(id as usize)?.pattern)
    }

    /// Every pattern in the order of ids, from [`WHOLE`] on, with its signature and its count.
    pub fn patterns(&self) -> impl Iterator<Item = (&Pattern, u64, u64)> {
        self.patterns.iter().map(|entry| (&entry.pattern, self.signatures[entry.signature].signature, entry.count))
    }

    /// The signatures in the order in which they were met.
    pub fn signatures(&self) -> &[SignatureEntry] {
        &self.signatures[NO_SIGNATURE + 1..]
    }

    /// How many lines are of the pattern [`WHOLE`].
    pub fn unmined(&self) -> u64 {
        self.signatures[NO_SIGNATURE].count
    }

    /// Counts lines of which nothing but their number is known.
    pub fn count_unmined(&mut self, lines: u64) {
        let whole = &mut self.patterns[WHOLE as usize];
        whole.count = whole.count.saturating_add(lines);
        let none = &mut self.signatures[NO_SIGNATURE];
        none.count = none.count.saturating_add(lines);
    }

    /// The memory that is held, about: what counts towards [`DICTIONARY_BYTES_MAX`], and the tables.
    pub fn bytes(&self) -> usize {
        let pattern = size_of::<Entry>() + size_of::<(u64, PatternId)>();
        let signature = size_of::<SignatureEntry>() + size_of::<(u64, usize)>();
        size_of::<Self>() + self.bytes + self.patterns.capacity() * pattern + self.signatures.capacity() * signature
    }

    /// Takes in another dictionary; for each of its patterns, in the order of its ids, the id here.
    ///
    /// A pattern that finds no room becomes [`WHOLE`]: its rows must be rebuilt and kept whole.
    pub fn merge(&mut self, other: &Self) -> Vec<PatternId> {
        self.count_unmined(other.unmined());
        let known = other.patterns.iter().skip(1);
        let ids = known.map(|entry| self.learn_times(entry.pattern.example(), entry.count).pattern);
        std::iter::once(WHOLE).chain(ids).collect()
    }

    /// Derives the templates of all signatures known, most lines first; see [`BRANCHES`](super::BRANCHES).
    pub fn templates(&self, branches: usize) -> Vec<Template> {
        split::templates(self.signatures(), branches)
    }
}

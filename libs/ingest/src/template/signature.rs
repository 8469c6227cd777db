//! Stage 1: one pass over a line that tells words from variables and folds what is left to a signature.
//!
//! White space separates and is no token; a delimiter is a token of its own; a word runs to the next of either, and one
//! that begins with `/` goes on through `= : ,`. Then, whatever program wrote the line:
//! - A word is a variable if it holds a digit, is a path (begins with `/`, or holds two), holds two dots followed by
//!   something, or is a weekday, a month or a time zone of three letters.
//! - A unit right after a variable belongs to it, and so does `host.tld:` right before one.
//! - Variables side by side, or with one of `, : | ;` between them, are one.
//! - Asides come and go between lines that say the same: `(1234)`, and the brackets of `()`, are no tokens.
//! - `<` before a digit, and dots at the end of a word, are no part of what the line says.
//!
//! These rules and the hashes decide what is equal for ever: a change here makes every known pattern a new one.

use std::fmt;

/// The most tokens of a line; what follows is one variable.
pub(super) const TOKENS_MAX: usize = 1_024;

/// The longest word; a longer one is a variable.
pub(super) const WORD_BYTES_MAX: usize = 128;

/// A part of a masked line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Token {
    /// A word, without dots at its end.
    Word(Box<str>),
    /// One or more variables in a row.
    Variable,
    /// One of `= , ( ) [ ] { } " ' ; | < > :`.
    Delimiter(u8),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word),
            Self::Variable => f.write_str("<*>"),
            Self::Delimiter(byte) => write!(f, "{}", char::from(*byte)),
        }
    }
}

/// The signature of a line: equal for lines that differ in variables and white space alone.
pub fn signature(line: &str) -> u64 {
    Scan::default().read(line)
}

/// A range of bytes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word {
        /// Whether it holds a dot, as hosts do.
        dotted: bool,
    },
    /// With the place of its span in [`Scan::holes`].
    Variable(usize),
    Delimiter(u8),
}

#[derive(Debug, Clone, Copy)]
struct Part {
    kind: Kind,
    span: Span,
    hash: u64,
}

/// The tokens of one line; kept from line to line for its memory.
#[derive(Debug, Default)]
pub(super) struct Scan {
    parts: Vec<Part>,
    holes: Vec<Span>,
}

const DIGIT: u8 = 1;
const SLASH: u8 = 2;
const DOT: u8 = 4;
const BLANK: u8 = 8;
const DELIMITER: u8 = 16;
/// Delimiters that a word which begins with `/` swallows.
const IN_PATH: u8 = 32;

const CLASSES: [u8; 256] = {
    let mut classes = [0u8; 256];
    let mut byte = b'0';
    while byte <= b'9' {
        classes[byte as usize] = DIGIT;
        byte += 1;
    }
    let mut at = 0;
    while at < BLANKS.len() {
        classes[BLANKS[at] as usize] = BLANK;
        at += 1;
    }
    at = 0;
    while at < DELIMITERS.len() {
        classes[DELIMITERS[at] as usize] = DELIMITER;
        at += 1;
    }
    classes[b'=' as usize] |= IN_PATH;
    classes[b':' as usize] |= IN_PATH;
    classes[b',' as usize] |= IN_PATH;
    classes[b'/' as usize] = SLASH;
    classes[b'.' as usize] = DOT;
    classes
};
const BLANKS: &[u8] = b" \t\r\n";
const DELIMITERS: &[u8] = b"=,()[]{}\"';|<>:";

/// Weekdays, months and time zones.
const CALENDAR: [&[u8]; 25] = [
    b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun", b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul",
    b"Aug", b"Sep", b"Oct", b"Nov", b"Dec", b"GMT", b"UTC", b"EST", b"EDT", b"PST", b"PDT",
];

/// What may follow a number.
const UNITS: [&[u8]; 18] = [
    b"B", b"KB", b"kB", b"MB", b"GB", b"TB", b"KiB", b"MiB", b"GiB", b"ms", b"s", b"us", b"ns", b"sec", b"secs",
    b"min", b"AM", b"PM",
];

/// The longest of them.
const UNIT_BYTES_MAX: usize = 4;

/// The hash of every variable.
const VARIABLE_HASH: u64 = 0x51ed_270b_9f1a_3c47;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

impl Scan {
    /// Reads a line and returns its signature.
    pub(super) fn read(&mut self, line: &str) -> u64 {
        self.parts.clear();
        self.holes.clear();
        let bytes = line.as_bytes();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let class = CLASSES[usize::from(byte)];
            if class & BLANK != 0 {
                at += 1;
            } else if self.parts.len() >= TOKENS_MAX {
                self.variable(Span { start: at, end: bytes.len() });
                break;
            } else if class & DELIMITER != 0 {
                let digit_follows = bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
                if byte != b'<' || !digit_follows {
                    self.delimiter(byte, at);
                }
                at += 1;
            } else {
                at = self.word(bytes, at);
            }
        }
        self.fold()
    }

    /// The spans of the variables, those that no token stands for included; in order, none touching another.
    pub(super) fn holes(&self) -> &[Span] {
        &self.holes
    }

    /// How many tokens the line has.
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// The tokens with their texts.
    pub(super) fn tokens(&self, line: &str) -> Box<[Token]> {
        let token = |part: &Part| match part.kind {
            Kind::Word { .. } => Token::Word(line[part.span.start..part.span.end].trim_end_matches('.').into()),
            Kind::Variable(_) => Token::Variable,
            Kind::Delimiter(byte) => Token::Delimiter(byte),
        };
        self.parts.iter().map(token).collect()
    }

    /// Reads the word at `start`; where it ends.
    fn word(&mut self, bytes: &[u8], start: usize) -> usize {
        let path = bytes[start] == b'/';
        let (mut seen, mut slashes, mut inner_dots, mut at) = (0, 0u32, 0u32, start);
        while let Some(&byte) = bytes.get(at) {
            let class = CLASSES[usize::from(byte)];
            if class & (BLANK | DELIMITER) != 0 && !(path && class & IN_PATH != 0) {
                break;
            }
            seen |= class;
            slashes += u32::from(class == SLASH);
            if class == DOT {
                inner_dots += u32::from(bytes.get(at + 1).is_some_and(|next| CLASSES[usize::from(*next)] & BLANK == 0));
            }
            at += 1;
        }
        let (word, span) = (&bytes[start..at], Span { start, end: at });
        if let [.., Part { kind: Kind::Variable(hole), span: before, .. }] = &mut *self.parts
            && word.len() <= UNIT_BYTES_MAX
            && UNITS.contains(&word)
        {
            // Nothing stands between the two but blanks and what was dropped.
            before.end = at;
            let hole = *hole;
            self.widen(hole, at);
            return at;
        }
        let digit = seen & DIGIT != 0;
        if digit && let Some(host_start) = self.take_host(span) {
            self.variable(Span { start: host_start, end: at });
        } else if digit
            || (path && word.len() > 1)
            || slashes >= 2
            || inner_dots >= 2
            || word.len() > WORD_BYTES_MAX
            || (word.len() == 3 && CALENDAR.contains(&word))
        {
            self.variable(span);
        } else {
            let dots = word.iter().rev().take_while(|b| **b == b'.').count();
            let hash = hash(&word[..word.len() - dots]);
            self.parts.push(Part { kind: Kind::Word { dotted: seen & DOT != 0 }, span, hash });
        }
        at
    }

    /// Takes away `host.tld:` right before a word with digits; where it begins.
    fn take_host(&mut self, next: Span) -> Option<usize> {
        let [.., host, colon] = &*self.parts else { return None };
        let closed = host.kind == (Kind::Word { dotted: true })
            && colon.kind == Kind::Delimiter(b':')
            && host.span.end == colon.span.start
            && colon.span.end == next.start;
        let start = host.span.start;
        if !closed {
            return None;
        }
        self.parts.truncate(self.parts.len() - 2);
        Some(start)
    }

    fn variable(&mut self, span: Span) {
        if let [
            ..,
            Part { kind: Kind::Variable(_), .. },
            Part { kind: Kind::Delimiter(b',' | b':' | b'|' | b';'), .. },
        ] = &*self.parts
        {
            self.parts.pop();
        }
        if let Some(Part { kind: Kind::Variable(hole), span: before, .. }) = self.parts.last_mut() {
            before.end = span.end;
            let hole = *hole;
            self.widen(hole, span.end);
            return;
        }
        self.parts.push(Part { kind: Kind::Variable(self.holes.len()), span, hash: VARIABLE_HASH });
        self.holes.push(span);
    }

    /// Lets a hole reach to `end`, swallowing those behind it.
    fn widen(&mut self, hole: usize, end: usize) {
        self.holes.truncate(hole + 1);
        self.holes[hole].end = end;
    }

    fn delimiter(&mut self, byte: u8, at: usize) {
        if byte == b')' {
            match &*self.parts {
                // An aside like "(1234)": no token, though its variable must be kept.
                [.., Part { kind: Kind::Delimiter(b'('), .. }, Part { kind: Kind::Variable(_), .. }] => {
                    self.parts.truncate(self.parts.len() - 2);
                    return;
                }
                [.., Part { kind: Kind::Delimiter(b'('), .. }] => {
                    self.parts.pop();
                    return;
                }
                _ => {}
            }
        }
        let span = Span { start: at, end: at + 1 };
        self.parts.push(Part { kind: Kind::Delimiter(byte), span, hash: mix(SEED, u64::from(byte) + 1) });
    }

    fn fold(&self) -> u64 {
        let count = u64::try_from(self.parts.len()).unwrap_or(u64::MAX);
        let folded = self.parts.iter().fold(mix(SEED, count), |h, part| mix(h, part.hash));
        mix(folded, SEED)
    }
}

/// A stable hash of a word: eight bytes at a time, its length first.
pub(super) fn hash(word: &[u8]) -> u64 {
    let (chunks, tail) = word.as_chunks::<8>();
    let length = u64::try_from(word.len()).unwrap_or(u64::MAX);
    let h = chunks.iter().fold(mix(SEED, length), |h, chunk| mix(h, u64::from_le_bytes(*chunk)));
    mix(h, tail.iter().rev().fold(0, |rest, byte| rest << 8 | u64::from(*byte)))
}

/// Takes one more value into a hash.
pub(super) fn mix(h: u64, value: u64) -> u64 {
    let h = (h ^ value).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h ^ (h >> 31)
}

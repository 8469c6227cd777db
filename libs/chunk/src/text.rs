//! What a text is made of, as far as filters look: whole tokens, and runs of three characters.
//!
//! Letters count in one case, and the two characters outside ASCII that match an ASCII letter in any case (the Kelvin sign
//! and the long s) count as it; all others outside ASCII part tokens and runs. So a text that contains another one, in any
//! case or not, has every token that is whole in the other, and every run: what is built of them knows no false "no".

use types::hash64;

/// How many different runs there are: three characters of 32 classes.
pub(crate) const GRAMS: usize = GRAM_LAST as usize + 1;

/// The greatest number of a run: five bits for each character.
const GRAM_LAST: u16 = 0x7fff;

/// The longest token of digits that is passed over, since nearly every row group has all of them. Four of them with dots
/// between them are an address, and a token together.
const OCTET_BYTES: usize = 3;

/// The class of characters outside ASCII: none.
const OUTSIDE: u8 = u8::MAX;
const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [OUTSIDE; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = match byte {
            b'a'..=b'z' => byte - b'a',
            b'A'..=b'Z' => byte - b'A',
            // Which digits a line has says little of it.
            b'0'..=b'9' => 26,
            b' ' | b'\t' | b'\n' | b'\r' => 27,
            b'.' | b',' | b':' | b';' | b'!' | b'?' => 28,
            b'/' | b'\\' | b'-' | b'_' => 29,
            b'"' | b'\'' | b'=' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'<' | b'>' => 30,
            _ => 31,
        };
        byte += 1;
    }
    table
}

/// What a byte is to [`scan`]: its class, and whether it is a letter or digit, a digit, or outside ASCII.
const KINDS: [u8; 256] = kinds();
const CLASS: u8 = 0x1f;
const WORD: u8 = 0x20;
const DIGIT: u8 = 0x40;
const NONE: u8 = 0x80;

const fn kinds() -> [u8; 256] {
    let mut table = [NONE; 256];
    let mut byte = 0u8;
    while byte < 128 {
        let word = if byte.is_ascii_alphanumeric() { WORD } else { 0 };
        let digit = if byte.is_ascii_digit() { DIGIT } else { 0 };
        table[byte as usize] = CLASSES[byte as usize] | word | digit;
        byte += 1;
    }
    table
}

/// A text in small letters.
#[derive(Debug, Default)]
pub(crate) struct Lower(Vec<u8>);

impl Lower {
    pub(crate) fn of(text: &str) -> Self {
        let mut lower = Self::default();
        lower.set(text);
        lower
    }

    /// Takes another text; keeps its memory.
    pub(crate) fn set(&mut self, text: &str) {
        self.0.clear();
        if text.is_ascii() || !text.contains(['\u{212a}', '\u{17f}']) {
            self.0.extend_from_slice(text.as_bytes());
        } else {
            self.0.extend_from_slice(text.replace('\u{212a}', "k").replace('\u{17f}', "s").as_bytes());
        }
        self.0.make_ascii_lowercase();
    }

    /// The text in small letters.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text without a token at either end that may go on there.
    pub(crate) fn inner(&self) -> &[u8] {
        let start = self.0.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(self.0.len());
        let end = self.0.iter().rposition(|byte| !byte.is_ascii_alphanumeric()).map_or(start, |last| last + 1);
        &self.0[start..end]
    }
}

/// Hands over the hash of every token that tells something: letters and digits without anything between them.
pub(crate) fn tokens(lower: &[u8], mut each: impl FnMut(u64)) {
    let (mut at, mut octets, mut starts, mut last) = (0, 0usize, [0usize; 4], 0);
    while at < lower.len() {
        if !lower[at].is_ascii_alphanumeric() {
            at += 1;
            continue;
        }
        let start = at;
        while at < lower.len() && lower[at].is_ascii_alphanumeric() {
            at += 1;
        }
        let token = &lower[start..at];
        if token.len() <= OCTET_BYTES && token.iter().all(u8::is_ascii_digit) {
            let joined = octets > 0 && start == last + 1 && lower[last] == b'.';
            octets = if joined { octets + 1 } else { 1 };
            starts.rotate_left(1);
            (starts[3], last) = (start, at);
            if octets >= starts.len() {
                each(hash64(&lower[starts[0]..at]));
            }
        } else {
            octets = 0;
            if token.len() > 1 {
                each(hash64(token));
            }
        }
    }
}

/// Hands over every run of three characters, as a number below [`GRAMS`].
pub(crate) fn grams(lower: &[u8], mut each: impl FnMut(u16)) {
    let (mut run, mut length) = (0u16, 0);
    for byte in lower {
        let class = CLASSES[usize::from(*byte)];
        if class == OUTSIDE {
            length = 0;
            continue;
        }
        run = (run << 5 | u16::from(class)) & GRAM_LAST;
        length += 1;
        if length >= 3 {
            each(run);
        }
    }
}

/// A set of runs of three characters.
#[derive(Debug)]
pub(crate) struct Runs(Vec<u64>);

impl Default for Runs {
    fn default() -> Self {
        Self(vec![0; GRAMS / 64])
    }
}

impl Runs {
    fn add(&mut self, run: u16) {
        self.0[usize::from(run) / 64] |= 1 << (run % 64);
    }

    /// The runs in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..=GRAM_LAST).filter(|run| self.0[usize::from(*run) / 64] & 1 << (run % 64) != 0)
    }
}

/// Adds every run of a text, and hands over the hash of every token: [`grams`] and [`tokens`] of its [`Lower`] form, in one
/// pass over the text as it is.
pub(crate) fn scan(text: &str, runs: &mut Runs, each: impl FnMut(u64)) {
    if !text.is_ascii() && text.contains(['\u{212a}', '\u{17f}']) {
        scan_bytes(Lower::of(text).bytes(), runs, each);
    } else {
        scan_bytes(text.as_bytes(), runs, each);
    }
}

fn scan_bytes(text: &[u8], runs: &mut Runs, mut each: impl FnMut(u64)) {
    let (mut run, mut length) = (0u16, 0);
    // As in `tokens`: short tokens of digits with dots between them.
    let (mut octets, mut starts, mut last) = (0, [0usize; 4], 0);
    let mut at = 0;
    while at < text.len() {
        let (start, mut hash, mut digits) = (at, Hash::default(), DIGIT);
        // One token, and the byte behind it.
        while let Some(byte) = text.get(at) {
            let kind = KINDS[usize::from(*byte)];
            at += 1;
            if kind == NONE {
                length = 0;
            } else {
                run = (run << 5 | u16::from(kind & CLASS)) & GRAM_LAST;
                length += 1;
                if length >= 3 {
                    runs.add(run);
                }
            }
            if kind & WORD == 0 {
                break;
            }
            digits &= kind;
            // Makes letters small, and leaves digits as they are.
            hash.add(byte | 0x20);
        }
        let end = if text.get(at - 1).is_some_and(u8::is_ascii_alphanumeric) { at } else { at - 1 };
        match end - start {
            0 => {}
            1..=OCTET_BYTES if digits == DIGIT => {
                let joined = octets > 0 && start == last + 1 && text[last] == b'.';
                octets = if joined { octets + 1 } else { 1 };
                starts.rotate_left(1);
                (starts[3], last) = (start, end);
                if octets >= starts.len() {
                    each(hash64(&text[starts[0]..end]));
                }
            }
            length => {
                octets = 0;
                if length > 1 {
                    each(hash.end());
                }
            }
        }
    }
}

/// [`hash64`], byte by byte.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn add(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn end(self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn tokens_of(lower: &[u8]) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        tokens(lower, |token| {
            found.insert(token);
        });
        found
    }

    fn grams_of(text: &str) -> BTreeSet<u16> {
        let mut found = BTreeSet::new();
        grams(Lower::of(text).bytes(), |run| {
            found.insert(run);
        });
        found
    }

    #[test]
    fn tokens_are_what_one_looks_for() {
        for (text, expected) in [
            (
                "Received block blk_-1608999687919862906 of size 91178",
                &["received", "block", "blk", "1608999687919862906", "of", "size", "91178"][..],
            ),
            ("from /10.250.73.220:54106 x 7", &["from", "10.250.73.220", "54106"]),
            ("1.2.3.4.5 and 1.2.3", &["1.2.3.4", "2.3.4.5", "and"]),
            ("gr\u{fc}\u{df}e \u{212a}ey", &["gr", "key"]),
            ("", &[]),
        ] {
            let expected: BTreeSet<u64> = expected.iter().map(|token| hash64(token.as_bytes())).collect();
            assert_eq!(tokens_of(Lower::of(text).bytes()), expected, "{text}");
        }
        assert_eq!(Lower::of("nection Broken pi").inner(), b" broken ");
        assert_eq!(Lower::of("whole").inner(), b"");
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_two_do(text in "([a-cKZ0-9._ -]|10\\.1|\u{212a}|\u{17f}|\u{e9}|[ -~]){0,30}") {
            let (mut runs, mut found) = (Runs::default(), BTreeSet::new());
            scan(&text, &mut runs, |token| {
                found.insert(token);
            });
            prop_assert_eq!(found, tokens_of(Lower::of(&text).bytes()));
            prop_assert_eq!(runs.iter().collect::<BTreeSet<_>>(), grams_of(&text));
        }

        #[test]
        fn a_text_has_what_its_parts_have(
            before in "[a-cK0-9._ \u{212a}\u{e9}-]{0,6}",
            part in "[a-cKs0-9._ \u{17f}\u{e9}-]{0,12}",
            after in "[a-cK0-9._ \u{e9}-]{0,6}",
        ) {
            let whole = format!("{before}{part}{after}");
            let all = tokens_of(Lower::of(&whole).bytes());
            prop_assert!(tokens_of(Lower::of(&part).inner()).is_subset(&all), "{part} in {whole}");
            prop_assert!(tokens_of(Lower::of(&part.to_uppercase()).inner()).is_subset(&all) || !part.is_ascii());
            prop_assert!(grams_of(&part).is_subset(&grams_of(&whole)));
            // With separators around it the part is whole.
            let parted = format!("{before}-{part}\u{e9}{after}");
            prop_assert!(tokens_of(Lower::of(&part).bytes()).is_subset(&tokens_of(Lower::of(&parted).bytes())));
        }
    }
}

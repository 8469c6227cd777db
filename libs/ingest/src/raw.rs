//! Bytes that are not UTF-8, kept losslessly in text columns.
//!
//! Every byte that is no part of valid UTF-8 becomes one character of U+F780 to U+F7FF, a corner of the private use
//! area: byte `b` becomes U+F700 + `b`. A payload that really holds such a character has its three bytes written that
//! way too, so that no two payloads share a text and [`unescape`] gives back the bytes of any.
//!
//! ```
//! use ingest::raw::{escape, unescape};
//!
//! assert_eq!(escape(b"caf\xe9"), "caf\u{f7e9}");
//! assert_eq!(unescape("caf\u{f7e9}").as_ref(), b"caf\xe9");
//! ```

use std::borrow::Cow;

/// A byte stands at this code point plus its value; bytes above 0x7f alone are ever escaped.
const BASE: u32 = 0xf700;

/// Bytes as a text that [`unescape`] turns back; borrowed where they are UTF-8 already.
///
/// Bounds: at most three times as long as the bytes.
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !holds_mark(bytes) => Cow::Borrowed(text),
        _ => Cow::Owned(escaped(bytes)),
    }
}

/// The bytes of a text made by [`escape`]; borrowed where nothing was escaped.
pub fn unescape(text: &str) -> Cow<'_, [u8]> {
    if !holds_mark(text.as_bytes()) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match byte_of(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 16);
    let mark = |byte: &u8| char::from_u32(BASE + u32::from(*byte)).unwrap_or(char::REPLACEMENT_CHARACTER);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match byte_of(c) {
                Some(_) => text.extend(c.encode_utf8(&mut [0; 4]).as_bytes().iter().map(mark)),
                None => text.push(c),
            }
        }
        text.extend(chunk.invalid().iter().map(mark));
    }
    text
}

/// The byte that a character stands for.
fn byte_of(c: char) -> Option<u8> {
    let byte = u32::from(c).checked_sub(BASE)?;
    u8::try_from(byte).ok().filter(|byte| *byte >= 0x80)
}

/// Whether UTF-8 holds a character of U+F780 to U+F7FF: 0xef, then 0x9e or 0x9f.
fn holds_mark(bytes: &[u8]) -> bool {
    memchr::memchr_iter(0xef, bytes).any(|at| matches!(bytes.get(at + 1), Some(0x9e | 0x9f)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(bytes: &[u8], text: &str) {
        assert_eq!(escape(bytes), text, "{bytes:x?}");
        assert_eq!(unescape(text), bytes, "{text:?}");
    }

    #[test]
    fn what_is_utf8_stays_and_what_is_not_comes_back() {
        check(b"plain", "plain");
        check("h\u{e9} \u{1f600}\0".as_bytes(), "h\u{e9} \u{1f600}\0");
        check(b"caf\xe9", "caf\u{f7e9}");
        check(b"\xff\xfe\x80", "\u{f7ff}\u{f7fe}\u{f780}");
        // A character cut in two, and the characters that escapes are made of.
        check(b"\xe2\x82", "\u{f7e2}\u{f782}");
        check("\u{f780}".as_bytes(), "\u{f7ef}\u{f79e}\u{f780}");
        check("\u{f7ff}x".as_bytes(), "\u{f7ef}\u{f79f}\u{f7bf}x");
        // Their neighbours need none.
        check("\u{f77f}\u{f800}".as_bytes(), "\u{f77f}\u{f800}");
        assert!(matches!(escape("\u{f77f}".as_bytes()), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = escape(&bytes);
            let back = unescape(&text);
            prop_assert_eq!(back.as_ref(), bytes.as_slice());
        }

        #[test]
        fn bytes_near_the_escapes_come_back(
            bytes in proptest::collection::vec(prop_oneof![Just(0xefu8), Just(0x9e), Just(0x9f), Just(0x80), Just(0xbf), Just(b'a')], 0..24)
        ) {
            let text = escape(&bytes);
            prop_assert!(text.len() <= bytes.len() * 3);
            let back = unescape(&text);
            prop_assert_eq!(back.as_ref(), bytes.as_slice());
        }
    }
}

//! Named keys as settings give them: one a line, the first being the one in use.

use std::fmt;

use data_encoding::BASE64;

/// Keys that are known at once: one in use, and those of earlier times.
const KEYS_MAX: usize = 16;
/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Characters of a key's id.
const KEY_ID_MAX: usize = 32;

/// A key, and the name by which what it has sealed is known.
#[derive(Clone, PartialEq, Eq)]
pub struct NamedKey {
    /// Its name.
    pub id: String,
    /// The key.
    pub bytes: [u8; KEY_BYTES],
}

impl fmt::Debug for NamedKey {
    /// Shows the name only: secrets never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NamedKey").field(&self.id).finish()
    }
}

/// Why a text gives no keys; nothing of it is repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {rule}")]
pub struct KeyringError {
    /// Which line.
    pub line: usize,
    /// What would be right.
    pub rule: &'static str,
}

/// Reads keys, one a line as `ID:BASE64` of 32 bytes; empty lines and lines that begin with # count for nothing.
///
/// Bounds: 16 keys; ids of 32 letters, digits, - and _.
pub fn named_keys(text: &str) -> Result<Vec<NamedKey>, KeyringError> {
    let mut keys: Vec<NamedKey> = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#')) {
        let refuse = |rule| KeyringError { line: number + 1, rule };
        let (id, key) = line.trim().split_once(':').ok_or_else(|| refuse("a key is written as ID:BASE64"))?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if id.is_empty() || id.len() > KEY_ID_MAX || !id.bytes().all(fits) {
            return Err(refuse("an id has 1 to 32 letters, digits, - and _"));
        }
        if keys.iter().any(|known| known.id == id) {
            return Err(refuse("an id stands once"));
        }
        if keys.len() >= KEYS_MAX {
            return Err(refuse("at most 16 keys are possible: drop those that seal nothing any more"));
        }
        let bytes = BASE64.decode(key.trim().as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        let bytes = bytes.ok_or_else(|| refuse("a key is the base64 of 32 bytes"))?;
        keys.push(NamedKey { id: id.to_owned(), bytes });
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, byte: u8) -> String {
        format!("{id}:{}\n", BASE64.encode(&[byte; KEY_BYTES]))
    }

    #[test]
    fn keys_are_read_in_their_order_and_not_shown() {
        let keys = named_keys(&format!("# of 2026\n\r\n{} {}", line("new", 2), line("old", 1))).unwrap();
        assert_eq!(keys, [("new", 2), ("old", 1)].map(|(id, byte)| NamedKey { id: id.to_owned(), bytes: [byte; 32] }));
        assert_eq!(format!("{keys:?}"), r#"[NamedKey("new"), NamedKey("old")]"#);
        assert_eq!(named_keys("").unwrap(), []);
    }

    #[test]
    fn keys_that_are_none_are_refused_without_being_repeated() {
        for (text, words) in [
            ("k1".to_owned(), "line 1: a key is written as ID:BASE64"),
            (format!("\n{}", line("k 1", 1)), "line 2: an id has 1 to 32"),
            (line(&"k".repeat(33), 1), "line 1: an id has 1 to 32"),
            ("k1:c2VjcmV0".to_owned(), "line 1: a key is the base64 of 32 bytes"),
            ("k1:not base64".to_owned(), "line 1: a key is the base64 of 32 bytes"),
            (format!("{}{}", line("k1", 1), line("k1", 2)), "line 2: an id stands once"),
            ((0..17).map(|n| line(&format!("k{n}"), n)).collect(), "line 17: at most 16 keys"),
        ] {
            let refused = named_keys(&text).unwrap_err().to_string();
            assert!(refused.starts_with(words) && !refused.contains("c2VjcmV0"), "{refused}");
        }
    }
}

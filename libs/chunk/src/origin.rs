//! Where a segment belongs: what its stream cannot be rebuilt without, kept in the footer of each of its chunks.

use parquet::file::metadata::KeyValue;
use types::{IndexName, KeyRange, ScopeName};

use crate::{
    Error,
    info::{parsed, text},
};

const KEY_INDEX: &str = "logboom.index";
const KEY_SCOPE: &str = "logboom.scope";
const KEY_RANGE: &str = "logboom.range";

/// Where a segment belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The index.
    pub index: IndexName,
    /// Its scope.
    pub scope: ScopeName,
    /// The segment's part of the key space.
    pub range: KeyRange,
}

impl Origin {
    pub(crate) fn pairs(&self) -> [(&'static str, String); 3] {
        let KeyRange { first, last } = self.range;
        let range = format!("{first:016x}-{last:016x}");
        [(KEY_INDEX, self.index.to_string()), (KEY_SCOPE, self.scope.to_string()), (KEY_RANGE, range)]
    }
}

/// What the footer says of it; a footer has all of it or nothing.
pub(crate) fn read(pairs: &[KeyValue]) -> Result<Option<Origin>, Error> {
    if pairs.iter().all(|pair| pair.key != KEY_RANGE) {
        return Ok(None);
    }
    let range = text(pairs, KEY_RANGE)?;
    let hash = |text: &str| u64::from_str_radix(text, 16).ok();
    let ends = range.split_once('-').and_then(|(first, last)| hash(first).zip(hash(last)));
    let (first, last) = ends
        .filter(|(first, last)| first <= last)
        .ok_or_else(|| Error::Summary { key: KEY_RANGE, reason: format!("{range:?} is no range of hashes") })?;
    let range = KeyRange { first, last };
    Ok(Some(Origin { index: parsed(pairs, KEY_INDEX)?, scope: parsed(pairs, KEY_SCOPE)?, range }))
}

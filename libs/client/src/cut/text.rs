//! Cuts and pointers as short texts, for URLs, files and people.
//!
//! Layout, base64url without padding: `version 1 | kind | body | crc32c, 4 bytes little endian`. Numbers are LEB128. The
//! segments of a cut are ascending; of each only what differs from the one before is written.

use std::{fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use types::{IndexName, Offset, Position, SegmentId, StreamCut};

use super::CutError;

const VERSION: u8 = 1;
const CUT: u8 = b'c';
const POINTER: u8 = b'p';
/// Longest text that is looked at: a cut of 100,000 segments.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// One event of a stream; [`crate::Client::fetch_event`] gives it. As text: `Display` and `FromStr`.
///
/// ```
/// use client::EventPointer;
/// use types::{Position, SegmentId};
///
/// let position = Position { segment: SegmentId { stream: 7, epoch: 1, number: 3 }, offset: 1_000_000 };
/// let pointer = EventPointer { index: "shop".parse()?, position };
/// let text = pointer.to_string();
/// assert!(text.len() < 30);
/// assert_eq!(text.parse::<EventPointer>()?, pointer);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPointer {
    /// The index.
    pub index: IndexName,
    /// The segment and the event's offset in it.
    pub position: Position,
}

impl fmt::Display for EventPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut body = vec![VERSION, POINTER];
        let name = self.index.as_str().as_bytes();
        number(&mut body, u64::try_from(name.len()).unwrap_or(u64::MAX));
        body.extend_from_slice(name);
        let Position { segment, offset } = self.position;
        for part in [u64::from(segment.stream), u64::from(segment.epoch), u64::from(segment.number), offset] {
            number(&mut body, part);
        }
        f.write_str(&sealed(body))
    }
}

impl FromStr for EventPointer {
    type Err = CutError;

    fn from_str(text: &str) -> Result<Self, CutError> {
        let (what, body) = ("event pointer", opened("event pointer", POINTER, text)?);
        let mut parts = Parts { what, rest: &body };
        let length = usize::try_from(parts.number()?).map_err(|_| parts.broken())?;
        let name = parts.rest.get(..length).ok_or_else(|| parts.broken())?;
        let name = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
        let index = name.ok_or_else(|| parts.broken())?;
        parts.rest = &parts.rest[length..];
        let segment = SegmentId { stream: parts.short()?, epoch: parts.short()?, number: parts.short()? };
        let position = Position { segment, offset: parts.number()? };
        parts.end()?;
        Ok(Self { index, position })
    }
}

/// A cut as a short text.
///
/// ```
/// use types::{SegmentId, StreamCut};
///
/// let cut = StreamCut([(SegmentId { stream: 7, epoch: 0, number: 0 }, 1_000)].into());
/// let text = client::cut_to_text(&cut);
/// assert_eq!(client::cut_from_text(&text)?, cut);
/// assert!(client::cut_from_text(&text[1..]).is_err());
/// # Ok::<(), client::CutError>(())
/// ```
pub fn cut_to_text(cut: &StreamCut) -> String {
    let mut body = vec![VERSION, CUT];
    number(&mut body, u64::try_from(cut.0.len()).unwrap_or(u64::MAX));
    let mut last = SegmentId { stream: 0, epoch: 0, number: 0 };
    for (segment, offset) in &cut.0 {
        number(&mut body, u64::from(segment.stream - last.stream));
        let epoch = if segment.stream == last.stream { last.epoch } else { 0 };
        number(&mut body, u64::from(segment.epoch - epoch));
        let same = (segment.stream, segment.epoch) == (last.stream, last.epoch);
        number(&mut body, u64::from(segment.number - if same { last.number } else { 0 }));
        number(&mut body, *offset);
        last = *segment;
    }
    sealed(body)
}

/// The cut of a text of [`cut_to_text`].
///
/// Errors: `Text`.
pub fn cut_from_text(text: &str) -> Result<StreamCut, CutError> {
    let (what, body) = ("stream cut", opened("stream cut", CUT, text)?);
    let mut parts = Parts { what, rest: &body };
    let mut cut = StreamCut::default();
    let mut last = SegmentId { stream: 0, epoch: 0, number: 0 };
    for _ in 0..parts.number()? {
        let broken = parts.broken();
        let plus = |base: u32, more: u32| base.checked_add(more).ok_or(broken.clone());
        let stream = plus(last.stream, parts.short()?)?;
        let epoch = plus(if stream == last.stream { last.epoch } else { 0 }, parts.short()?)?;
        let same = (stream, epoch) == (last.stream, last.epoch);
        let segment = SegmentId { stream, epoch, number: plus(if same { last.number } else { 0 }, parts.short()?)? };
        let offset: Offset = parts.number()?;
        if cut.0.insert(segment, offset).is_some() {
            return Err(broken);
        }
        last = segment;
    }
    parts.end()?;
    Ok(cut)
}

fn number(to: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            return to.push(low);
        }
        to.push(low | 0x80);
    }
}

fn sealed(mut body: Vec<u8>) -> String {
    let crc = crc32c::crc32c(&body);
    body.extend_from_slice(&crc.to_le_bytes());
    BASE64URL_NOPAD.encode(&body)
}

/// The body of a text, with its seal and head checked and taken off.
fn opened(what: &'static str, kind: u8, text: &str) -> Result<Vec<u8>, CutError> {
    let wrong = |reason| CutError::Text { what, reason };
    if text.len() > TEXT_BYTES_MAX {
        return Err(wrong("it is longer than 4 MiB"));
    }
    let mut body = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| wrong("it is not base64url"))?;
    let seal = body.len().checked_sub(4).filter(|at| *at >= 2).ok_or(wrong("it is too short"))?;
    if body.split_off(seal) != crc32c::crc32c(&body).to_le_bytes() {
        return Err(wrong("its checksum differs: it was cut off or changed"));
    }
    match body[..2] {
        [VERSION, found] if found == kind => Ok(body.split_off(2)),
        [VERSION, _] => Err(wrong("it is of another kind")),
        _ => Err(wrong("its version is not known here: use a newer client")),
    }
}

struct Parts<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl Parts<'_> {
    fn broken(&self) -> CutError {
        CutError::Text { what: self.what, reason: "its body is malformed" }
    }

    fn number(&mut self) -> Result<u64, CutError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or_else(|| self.broken())?;
            self.rest = rest;
            let low = u64::from(byte & 0x7f);
            if low.leading_zeros() < shift {
                return Err(self.broken());
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.broken())
    }

    fn short(&mut self) -> Result<u32, CutError> {
        u32::try_from(self.number()?).map_err(|_| self.broken())
    }

    fn end(&self) -> Result<(), CutError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.broken()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment() -> impl Strategy<Value = SegmentId> {
        let number = || prop_oneof![0..4u32, any::<u32>()];
        (number(), number(), number()).prop_map(|(stream, epoch, number)| SegmentId { stream, epoch, number })
    }

    proptest! {
        #[test]
        fn a_text_reads_back_and_no_damage_goes_unseen(
            cut in proptest::collection::btree_map(segment(), any::<u64>(), 0..20),
            place in any::<proptest::sample::Index>(),
            other in proptest::char::range('A', 'z'),
        ) {
            let cut = StreamCut(cut);
            let text = cut_to_text(&cut);
            prop_assert_eq!(cut_from_text(&text), Ok(cut));
            prop_assert!(text.parse::<EventPointer>().is_err());
            let mut damaged: Vec<char> = text.chars().collect();
            let at = place.index(damaged.len());
            if damaged[at] != other {
                damaged[at] = other;
                prop_assert!(cut_from_text(&damaged.into_iter().collect::<String>()).is_err());
            }
            prop_assert!(cut_from_text(&text[..place.index(text.len())]).is_err());
        }

        #[test]
        fn a_pointer_reads_back(segment in segment(), offset in any::<u64>(), name in "[a-z0-9][a-z0-9_-]{0,62}") {
            let pointer = EventPointer { index: name.parse().unwrap(), position: Position { segment, offset } };
            prop_assert_eq!(pointer.to_string().parse(), Ok(pointer));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[A-Za-z0-9_-]{0,80}", body in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(cut_from_text(&text).is_err() || !text.is_empty());
            // Also what carries a right checksum may be malformed inside.
            let framed = |kind| sealed([&[VERSION, kind][..], &body].concat());
            if let Ok(cut) = cut_from_text(&framed(CUT)) {
                prop_assert_eq!(cut_from_text(&cut_to_text(&cut)), Ok(cut));
            }
            if let Ok(pointer) = framed(POINTER).parse::<EventPointer>() {
                prop_assert_eq!(pointer.to_string().parse(), Ok(pointer));
            }
        }
    }

    #[test]
    fn an_old_text_reads_for_ever() {
        let segment = |epoch, number| SegmentId { stream: 7, epoch, number };
        let cut = StreamCut([(segment(0, 1), 300), (segment(2, 5), 0)].into());
        assert_eq!(cut_to_text(&cut), GOLDEN);
        assert_eq!(cut_from_text(GOLDEN), Ok(cut));
    }

    const GOLDEN: &str = "AWMCBwABrAIAAgUA_G-pew";
}

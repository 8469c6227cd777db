//! Frames of the websocket protocol, as a server writes and reads them. Pure.
//!
//! Only what a tail needs: texts, pings and closes are written; of what comes in, pings are answered and closes heard.
//!
//! Source: RFC 6455.

use data_encoding::BASE64;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// What makes the answer to a key.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The largest frame that a client of a tail may send: it has nothing to say but pings.
pub(super) const FRAME_BYTES_MAX: usize = 64 << 10;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const LAST: u8 = 0x80;
const MASKED: u8 = 0x80;

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// To be answered with the same bytes.
    Ping(Vec<u8>),
    /// The client goes.
    Close,
    /// Nothing that a tail listens to.
    Other,
}

/// Bytes that are no frames of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client does not keep to the websocket protocol")]
pub(super) struct Malformed;

/// The header that accepts a key.
pub(super) fn accept(key: &str) -> String {
    BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{MAGIC}").as_bytes()).as_ref())
}

/// A text.
pub(super) fn text(text: &[u8]) -> Vec<u8> {
    frame(TEXT, text)
}

/// A sign of life.
pub(super) fn ping() -> Vec<u8> {
    frame(PING, b"")
}

/// The answer to a ping.
pub(super) fn pong(ping: &[u8]) -> Vec<u8> {
    frame(PONG, ping)
}

/// The end, and why; a reason has at most 123 bytes.
pub(super) fn close(code: u16, reason: &str) -> Vec<u8> {
    let end = (0..=reason.len().min(123)).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    frame(CLOSE, &[&code.to_be_bytes(), &reason.as_bytes()[..end]].concat())
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 10);
    out.push(LAST | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => out.push(length),
        (_, Ok(length)) => {
            out.push(126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&u64::try_from(payload.len()).unwrap_or(u64::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

/// Takes the first frame out of what came in; `None` while it is not whole.
///
/// Bounds: [`FRAME_BYTES_MAX`], then an error.
pub(super) fn take(bytes: &mut Vec<u8>) -> Result<Option<Said>, Malformed> {
    let [first, second, ..] = bytes[..] else { return Ok(None) };
    if second & MASKED == 0 {
        return Err(Malformed);
    }
    let (length, begin) = match (second & !MASKED, &bytes[2..]) {
        (126, [a, b, ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 4),
        // So long a frame is too long in any case.
        (127, _) => return Err(Malformed),
        (126, _) => return Ok(None),
        (length, _) => (usize::from(length), 2),
    };
    if length > FRAME_BYTES_MAX {
        return Err(Malformed);
    }
    let end = begin + 4 + length;
    if bytes.len() < end {
        return Ok(None);
    }
    let mask: Vec<u8> = bytes[begin..begin + 4].to_vec();
    let payload = bytes[begin + 4..end].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    bytes.drain(..end);
    Ok(Some(match first & 0x0f {
        PING => Said::Ping(payload),
        CLOSE => Said::Close,
        _ => Said::Other,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = frame(opcode, payload);
        out[1] |= MASKED;
        let begin = out.len() - payload.len();
        let mask = [1, 2, 3, 4];
        out.iter_mut().skip(begin).zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        out.splice(begin..begin, mask);
        out
    }

    #[test]
    fn the_key_is_answered_as_the_standard_says() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn lengths_have_three_forms() {
        for (length, head) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let framed = text(&vec![b'x'; length]);
            assert!(framed.starts_with(&head) && framed.len() == head.len() + length, "{length}");
        }
        assert_eq!(close(1_008, "no"), [0x88, 4, 3, 240, b'n', b'o']);
        assert_eq!(close(1_000, &"é".repeat(100)).len(), 2 + 2 + 122);
    }

    #[test]
    fn clients_are_heard_or_refused() {
        let mut bytes = [masked(PING, b"hi"), masked(TEXT, &[b'x'; 300]), masked(CLOSE, b"")].concat();
        for expected in [Some(Said::Ping(b"hi".to_vec())), Some(Said::Other), Some(Said::Close), None] {
            assert_eq!(take(&mut bytes).unwrap(), expected);
        }
        assert!(take(&mut frame(PING, b"")).is_err(), "a client masks what it says");
        assert!(take(&mut masked(TEXT, &vec![0; FRAME_BYTES_MAX + 1])).is_err());
    }

    proptest! {
        #[test]
        fn frames_are_the_same_in_any_pieces(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..5), cut in 1_usize..50) {
            let all: Vec<u8> = payloads.iter().flat_map(|payload| masked(PING, payload)).collect();
            let (mut bytes, mut found) = (Vec::new(), Vec::new());
            for piece in all.chunks(cut) {
                bytes.extend_from_slice(piece);
                while let Some(said) = take(&mut bytes).unwrap() {
                    found.push(said);
                }
            }
            prop_assert_eq!(found, payloads.into_iter().map(Said::Ping).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_break_it(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            while let Ok(Some(_)) = take(&mut bytes) {}
        }
    }
}

//! JSON read piece by piece, so that no body becomes many times its size.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Deserializer, value::RawValue};
use types::Timestamp;

use super::event::BodyError;

const NANOS: i128 = 1_000_000_000;
/// The last whole second that a timestamp holds.
const SECONDS_MAX: i128 = 9_223_372_036;

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Calls for each member of an object, in order.
pub(crate) fn members<'a>(
    object: &'a str,
    take: impl FnMut(Cow<'a, str>, &'a RawValue) -> Result<(), BodyError>,
) -> Result<(), BodyError> {
    let mut stopped = None;
    let mut reader = Deserializer::from_str(object);
    let read = reader.deserialize_map(Members { take, stopped: &mut stopped }).and_then(|()| reader.end());
    ended(stopped, read)
}

/// Calls for each element of an array, in order; `null` has none.
pub(crate) fn each<'a>(
    array: &'a str,
    take: impl FnMut(&'a RawValue) -> Result<(), BodyError>,
) -> Result<(), BodyError> {
    if array == "null" {
        return Ok(());
    }
    let mut stopped = None;
    let mut reader = Deserializer::from_str(array);
    let read = reader.deserialize_seq(Each { take, stopped: &mut stopped }).and_then(|()| reader.end());
    ended(stopped, read)
}

fn ended(stopped: Option<BodyError>, read: serde_json::Result<()>) -> Result<(), BodyError> {
    match stopped {
        Some(stopped) => Err(stopped),
        None => read.map_err(BodyError::malformed),
    }
}

struct Members<'s, F> {
    take: F,
    stopped: &'s mut Option<BodyError>,
}

impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue) -> Result<(), BodyError>> Visitor<'de> for Members<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some((Text(name), value)) = members.next_entry()? {
            if let Err(stop) = (self.take)(name, value) {
                *self.stopped = Some(stop);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

struct Each<'s, F> {
    take: F,
    stopped: &'s mut Option<BodyError>,
}

impl<'de, F: FnMut(&'de RawValue) -> Result<(), BodyError>> Visitor<'de> for Each<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element()? {
            if let Err(stop) = (self.take)(item) {
                *self.stopped = Some(stop);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// Whether the value is a string.
pub(crate) fn is_text(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

/// The content of a string, the JSON of anything else; also of a string that says no text, as a lone surrogate does.
pub(crate) fn shown(value: &RawValue) -> Cow<'_, str> {
    let text = if is_text(value) { serde_json::from_str(value.get()).ok() } else { None };
    text.map_or(Cow::Borrowed(value.get()), |Text(text)| text)
}

/// Writes a string.
pub(crate) fn quote(out: &mut Vec<u8>, text: &str) {
    quote_bytes(out, text.as_bytes());
}

/// Writes bytes as a string; those that are not UTF-8 stay what they are, as everywhere on the platform.
pub(crate) fn quote_bytes(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut done = 0;
    for (at, byte) in text.iter().enumerate().filter(|(_, byte)| **byte < 0x20 || matches!(byte, b'"' | b'\\')) {
        out.extend_from_slice(&text[done..at]);
        done = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(&text[done..]);
    out.push(b'"');
}

/// Reads seconds since 1970 with a fraction, exactly; larger numbers are milliseconds, microseconds or nanoseconds.
pub(crate) fn seconds(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 19 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let whole: i128 = whole.parse().ok()?;
    let mut unit = NANOS;
    while unit > 1 && whole > SECONDS_MAX * (NANOS / unit) {
        unit /= 1_000;
    }
    let nine = format!("{fraction:0<9}");
    let fraction: i128 = nine[..9].parse().ok()?;
    let nanos = whole * unit + fraction * unit / NANOS;
    i64::try_from(if negative { -nanos } else { nanos }).ok().map(Timestamp::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_in_order_and_errors_stop() {
        let mut seen = Vec::new();
        members(r#"{"a":1,"b\n":[2,3],"c":"x\ty"}"#, |name, value| {
            seen.push(format!("{name}={}", shown(value)));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, ["a=1", "b\n=[2,3]", "c=x\ty"]);
        let mut count = 0;
        let stop = each("[1,2,3]", |_| {
            count += 1;
            if count == 2 { Err(BodyError::TooMuch("two".into())) } else { Ok(()) }
        });
        assert_eq!((count, stop), (2, Err(BodyError::TooMuch("two".into()))));
        for wrong in ["[1,", "[1] x", "{}", "3"] {
            assert!(matches!(each(wrong, |_| Ok(())), Err(BodyError::Malformed(_))), "{wrong}");
        }
        each("null", |_| panic!("nothing")).unwrap();
        let lone: &RawValue = serde_json::from_str(r#""\ud800""#).unwrap();
        assert_eq!(shown(lone), r#""\ud800""#);
    }

    #[test]
    fn strings_are_quoted_as_serde_does() {
        let text: String = (0..=0x7f_u8).map(char::from).chain("äöü\u{2028}😀".chars()).collect();
        let mut out = Vec::new();
        quote(&mut out, &text);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    #[test]
    fn seconds_keep_every_digit() {
        for (text, nanos) in [
            ("1795325538.229", Some(1_795_325_538_229_000_000)),
            ("1795325538.123456789", Some(1_795_325_538_123_456_789)),
            ("1795325538", Some(1_795_325_538_000_000_000)),
            ("1795325538229", Some(1_795_325_538_229_000_000)),
            ("1795325538229.5", Some(1_795_325_538_229_500_000)),
            ("1795325538229000", Some(1_795_325_538_229_000_000)),
            ("1795325538229000001", Some(1_795_325_538_229_000_001)),
            ("0", Some(0)),
            ("-1.5", Some(-1_500_000_000)),
            ("", None),
            ("now", None),
            ("1e9", None),
            ("1.2.3", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(seconds(text).map(Timestamp::nanos), nanos, "{text}");
        }
    }
}

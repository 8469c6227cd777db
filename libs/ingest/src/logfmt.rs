//! logfmt: `key=value key="quoted value"`.

use std::borrow::Cow;

use crate::{
    Record, Value,
    fields::{Fallback, Fields},
    source::Context,
    time::Stamp,
};

/// Reads one line that is at least two pairs and mostly pairs; nothing if it is anything else.
///
/// `stamp` is the timestamp near its beginning, if there is one.
pub(crate) fn parse<'a>(text: &'a str, stamp: Option<Stamp>, context: &mut Context) -> Option<Record<'a>> {
    let bytes = text.as_bytes();
    memchr::memchr(b'=', bytes)?;
    let (mut fields, mut pairs, mut bare, mut at) = (Fields::default(), 0usize, 0usize, 0usize);
    // A leading timestamp is not a stray word.
    let stamp = stamp.filter(|stamp| stamp.start <= 1);
    if let Some(stamp) = stamp {
        at = (stamp.end + usize::from(stamp.start == 1)).min(bytes.len());
    }
    while let Some(step) = bytes[at..].iter().position(|b| !matches!(b, b' ' | b'\t')) {
        at += step;
        if matches!(bytes[at], b'\n' | b'\r') {
            return None;
        }
        match pair(text, at) {
            Some((key, value, end)) => {
                fields.insert(Cow::Borrowed(key), value);
                pairs += 1;
                at = end;
            }
            None => {
                bare += 1;
                at += memchr::memchr2(b' ', b'\t', &bytes[at..]).unwrap_or(bytes.len() - at);
                // Prose with an equals sign somewhere: give up before the whole line is read.
                if bare > pairs + 4 {
                    return None;
                }
            }
        }
    }
    if pairs < 2 || bare * 2 > pairs {
        return None;
    }
    let time = stamp.and_then(|stamp| context.admit(stamp.time));
    let mut record = fields.finish(&Fallback { time, message: text }, context);
    // With stray words, or a time that is not believed, the message key alone would lose them.
    if (bare > 0 || stamp.is_some() && time.is_none()) && record.message != text {
        let said = std::mem::replace(&mut record.message, Cow::Borrowed(text));
        if record.field("msg").is_none() {
            record.fields.push((Cow::Borrowed("msg"), Value::Text(said)));
        }
    }
    Some(record)
}

/// One pair at `at`: its key, its value and where it ends.
pub(crate) fn pair(text: &str, at: usize) -> Option<(&str, Value<'_>, usize)> {
    let bytes = text.as_bytes();
    let length = bytes[at..].iter().position(|b| !is_key(*b))?;
    let equals = at + length;
    if length == 0 || bytes[equals] != b'=' || bytes[at].is_ascii_digit() {
        return None;
    }
    let key = &text[at..equals];
    let start = equals + 1;
    if bytes.get(start) == Some(&b'"') {
        let (value, end) = quoted(text, start)?;
        return Some((key, Value::Text(value), end));
    }
    let end = bytes[start..].iter().position(|b| b.is_ascii_whitespace()).map_or(bytes.len(), |n| start + n);
    Some((key, typed(&text[start..end]), end))
}

fn is_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'@' | b'/')
}

/// The text between the quote at `start` and the next unescaped one, which a blank or the end must follow.
pub(crate) fn quoted(text: &str, start: usize) -> Option<(Cow<'_, str>, usize)> {
    let bytes = text.as_bytes();
    let mut at = start + 1;
    let mut escaped = false;
    loop {
        at += memchr::memchr2(b'"', b'\\', &bytes[at..])?;
        if bytes[at] == b'"' {
            break;
        }
        escaped = true;
        at = (at + 2).min(bytes.len());
    }
    if bytes.get(at + 1).is_some_and(|b| !b.is_ascii_whitespace()) {
        return None;
    }
    let inner = &text[start + 1..at];
    Some((if escaped { unescape(inner).into() } else { inner.into() }, at + 1))
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('t')) => out.push('\t'),
            ('\\', Some('r')) => out.push('\r'),
            ('\\', Some(other @ ('"' | '\\'))) => out.push(other),
            ('\\', Some(other)) => out.extend(['\\', other]),
            (other, _) => out.push(other),
        }
    }
    out
}

/// A bare value: a whole number, a decimal number, `true`, `false`, else text; leading zeros make an id, not a number.
pub(crate) fn typed(text: &str) -> Value<'_> {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    match digits {
        [b'0'] => {}
        [b'0', b'.', ..] => {}
        [b'1'..=b'9', ..] => {}
        _ => {
            return match text {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                _ => text.into(),
            };
        }
    }
    let whole = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    let number = if whole == digits.len() {
        text.parse().ok().map(Value::Int)
    } else if digits[whole] == b'.' && digits.get(whole + 1).is_some_and(u8::is_ascii_digit) {
        text.parse().ok().map(Value::Float)
    } else {
        None
    };
    number.unwrap_or_else(|| text.into())
}

#[cfg(test)]
mod tests {
    use types::Timestamp;

    use super::*;

    fn bare() -> Context {
        Context::bare(Timestamp::default())
    }

    #[test]
    fn bare_values_are_typed() {
        for (text, value) in [
            ("0", Value::Int(0)),
            ("-12", Value::Int(-12)),
            ("1.5", Value::Float(1.5)),
            ("0.25", Value::Float(0.25)),
            ("1.5e3", Value::Float(1500.0)),
            ("true", Value::Bool(true)),
        ] {
            assert_eq!(typed(text), value, "{text}");
        }
        for text in ["", "007", "1.2.3", "12ms", "1e5", "-", "NaN", "inf", "9223372036854775808", "1.", "TRUE", "0x1f"]
        {
            assert_eq!(typed(text), Value::from(text), "{text}");
        }
    }

    #[test]
    fn prose_is_not_logfmt() {
        for text in [
            "the value a=1 is fine",
            "a=1",
            "GET /x?a=1&b=2 done c=3",
            "a=1 b=\"unterminated",
            "x == y and z == w",
            "a=1 b=2\nc=3",
            "=",
        ] {
            assert!(parse(text, None, &mut bare()).is_none(), "{text:?}");
        }
    }

    #[test]
    fn stray_words_stay_in_the_message() {
        let record = parse("a=1 b=2 stray c=3 msg=hi", None, &mut bare()).unwrap();
        assert_eq!(record.message, "a=1 b=2 stray c=3 msg=hi");
        assert_eq!(record.field("msg"), Some(&Value::from("hi")));
        let record = parse(r#"msg="a \"b\"\n\\d" n=1"#, None, &mut bare()).unwrap();
        assert_eq!(record.message, "a \"b\"\n\\d");
    }
}

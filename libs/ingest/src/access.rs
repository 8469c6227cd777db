//! Access lines: common and combined log format.

use std::borrow::Cow;

use crate::{Record, Value, source::Context, time};

/// How far into the line the bracket before the time may stand: an IPv6 address, an identity and a user.
const HEAD_BYTES_MAX: usize = 256;

/// Reads `addr ident user [time] "METHOD path PROTO" status bytes` and, if present, `"referer" "agent"`.
///
/// The message is the whole line; what a server appends after the known part stays in it. A `-` is no value.
pub(crate) fn parse<'a>(text: &'a str, context: &Context) -> Option<Record<'a>> {
    let bytes = text.as_bytes();
    let open = memchr::memchr(b'[', &bytes[..bytes.len().min(HEAD_BYTES_MAX)])?;
    let head = text.get(..open)?;
    let close = open + memchr::memchr(b']', &bytes[open..])?;
    if bytes.get(close..close + 3)? != b"] \"" {
        return None;
    }
    let time = time::whole(&text[open + 1..close], context.received)?;
    let mut words = head.split(' ');
    let (address, _identity, user) = (words.next()?, words.next()?, words.next()?);
    let (request, rest) = quoted(&text[close + 2..])?;
    let mut numbers = rest.strip_prefix(' ')?.splitn(3, ' ');
    let status = numbers.next()?;
    let status: i64 = status.parse().ok().filter(|_| status.len() == 3)?;
    let size = numbers.next()?;
    let mut fields = Vec::new();
    let mut text_field = |name, value| {
        if !matches!(value, "" | "-") {
            fields.push((Cow::Borrowed(name), Value::from(value)));
        }
    };
    text_field("remote_addr", address);
    text_field("remote_user", user);
    let mut parts = request.splitn(3, ' ');
    if let (Some(method), Some(path)) = (parts.next(), parts.next()) {
        text_field("method", method);
        text_field("path", path);
        text_field("protocol", parts.next().unwrap_or("-"));
    }
    if let Some((referer, rest)) = numbers.next().and_then(quoted) {
        text_field("referer", referer);
        if let Some((agent, _)) = rest.strip_prefix(' ').and_then(quoted) {
            text_field("user_agent", agent);
        }
    }
    fields.push(("status".into(), Value::Int(status)));
    if let Ok(size) = size.parse() {
        fields.push(("bytes".into(), Value::Int(size)));
    } else if size != "-" {
        return None;
    }
    let time = context.admit(time).unwrap_or(context.received);
    Some(Record { time, message: text.into(), severity: None, fields })
}

/// The text within the quotes at the beginning, escapes kept as they are, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('"')?;
    let bytes = inner.as_bytes();
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some((&inner[..at], &inner[at + 1..]));
        }
        at += 2;
    }
}

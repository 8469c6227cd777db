//! What container runtimes write around a line: the CRI format, and Docker's `json-file`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value as Json};
use types::Timestamp;

use crate::{Record, Value, fields::to_field, source::Context, time, understand_bare};

/// The field with the envelope's time in nanoseconds, where the line states another one.
const TIME_FIELD: &str = "envelope_time";

/// The most attributes of a Docker line, and the longest name of one; an object with more is none of Docker's.
const ATTRS_MAX: usize = 32;
const ATTR_BYTES_MAX: usize = 128;

/// How far into a CRI line the blank after its time may stand: nanoseconds and a zone are 35 bytes.
const CRI_TIME_BYTES_MAX: usize = 40;

/// Understands the line inside an envelope; nothing if there is no envelope.
///
/// The message is the line's alone; the stream becomes a field, and so does the envelope's time where the line states
/// another one near it.
pub(crate) fn parse<'a>(text: &'a str, context: &mut Context) -> Option<Record<'a>> {
    let parts = split(text.as_bytes())?;
    if parts.docker {
        return docker(text, context);
    }
    let time = whole(text.split(' ').next()?, context)?;
    let body = &text[text.len() - parts.body.len()..];
    let mut record = context.within(time, |inner| understand_bare(body, inner));
    if parts.partial {
        put(&mut record, "partial".into(), Value::Bool(true));
    }
    put(&mut record, "stream".into(), parts.stream.name().into());
    note_time(&mut record, time);
    Some(record)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Docker<'a> {
    log: String,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    attrs: Option<Map<String, Json>>,
}

fn docker<'a>(text: &'a str, context: &mut Context) -> Option<Record<'a>> {
    let Docker { log, stream, time, attrs } = serde_json::from_str(text).ok()?;
    let attrs = attrs.unwrap_or_default();
    if attrs.len() > ATTRS_MAX || attrs.keys().any(|name| name.len() > ATTR_BYTES_MAX) {
        return None;
    }
    let time = whole(&time, context)?;
    let line = log.trim_end_matches(['\n', '\r']);
    let mut record = context.within(time, |inner| understand_bare(line, inner).into_owned());
    put(&mut record, "stream".into(), Value::Text(stream.into_owned().into()));
    note_time(&mut record, time);
    for (name, value) in attrs {
        put(&mut record, format!("attrs.{name}").into(), to_field(value));
    }
    Some(record)
}

/// The envelope's time; one that is not believed leaves the whole line as it is.
fn whole(text: &str, context: &Context) -> Option<Timestamp> {
    time::whole(text, context.received).and_then(|time| context.admit(time))
}

fn note_time(record: &mut Record<'_>, time: Timestamp) {
    if record.time != time {
        put(record, TIME_FIELD.into(), Value::Int(time.nanos()));
    }
}

/// Adds a field unless the line itself has one of that name.
fn put<'a>(record: &mut Record<'a>, name: Cow<'a, str>, value: Value<'a>) {
    if record.field(&name).is_none() {
        record.fields.push((name, value));
    }
}

/// Where a program wrote a line to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

impl Stream {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Out => "stdout",
            Self::Err => "stderr",
        }
    }
}

/// A line and its envelope: `head`, `body`, `tail` follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub(crate) head: &'a [u8],
    /// The line, or a piece of it; within JSON quotes if the envelope is Docker's.
    pub(crate) body: &'a [u8],
    pub(crate) tail: &'a [u8],
    pub(crate) stream: Stream,
    /// Whether the line goes on in the next envelope.
    pub(crate) partial: bool,
    pub(crate) docker: bool,
}

/// Takes a line out of its envelope; nothing if there is none.
pub(crate) fn split(line: &[u8]) -> Option<Parts<'_>> {
    match line.first()? {
        b'0'..=b'9' => split_cri(line),
        b'{' => split_docker(line),
        _ => None,
    }
}

/// `2026-01-02T03:04:05.123456789Z stdout F line`; the tag may have further parts after colons.
fn split_cri(line: &[u8]) -> Option<Parts<'_>> {
    if line.get(4) != Some(&b'-') || line.get(10) != Some(&b'T') {
        return None;
    }
    let blank = memchr::memchr(b' ', &line[..line.len().min(CRI_TIME_BYTES_MAX)])?;
    let rest = &line[blank + 1..];
    let (stream, rest) = match (rest.strip_prefix(b"stdout "), rest.strip_prefix(b"stderr ")) {
        (Some(rest), _) => (Stream::Out, rest),
        (_, Some(rest)) => (Stream::Err, rest),
        _ => return None,
    };
    let tag = &rest[..memchr::memchr(b' ', rest).unwrap_or(rest.len())];
    let partial = match tag {
        [b'P'] | [b'P', b':', ..] => true,
        [b'F'] | [b'F', b':', ..] => false,
        _ => return None,
    };
    let body = rest.get(tag.len() + 1..).unwrap_or_default();
    let head = &line[..line.len() - body.len()];
    Some(Parts { head, body, tail: b"", stream, partial, docker: false })
}

/// `{"log":"line\n","stream":"stdout","time":"2026-01-02T03:04:05.123456789Z"}`, members in Docker's order.
fn split_docker(line: &[u8]) -> Option<Parts<'_>> {
    const HEAD: &[u8] = b"{\"log\":\"";
    let rest = line.strip_prefix(HEAD)?;
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', rest.get(at..)?)?;
        if rest[at] == b'"' {
            break;
        }
        at += 2;
    }
    let (body, tail) = rest.split_at(at);
    let stream = match tail.strip_prefix(b"\",\"stream\":\"std") {
        Some(tail) if tail.starts_with(b"out\"") => Stream::Out,
        Some(tail) if tail.starts_with(b"err\"") => Stream::Err,
        _ => return None,
    };
    Some(Parts { head: &line[..HEAD.len()], body, tail, stream, partial: !body.ends_with(b"\\n"), docker: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_and_what_is_none() {
        let cri = split(b"2026-01-02T03:04:05.123456789Z stderr P half a li").unwrap();
        assert_eq!((cri.stream, cri.partial, cri.body), (Stream::Err, true, &b"half a li"[..]));
        assert_eq!(cri.head, b"2026-01-02T03:04:05.123456789Z stderr P ");
        assert_eq!(split(b"2026-01-02T03:04:05Z stdout F").unwrap().body, b"");
        assert_eq!(split(b"2026-01-02T03:04:05Z stdout F:x y").unwrap().body, b"y");
        let docker = split(br#"{"log":"a \"b\"\n","stream":"stdout","time":"t"}"#).unwrap();
        assert_eq!((docker.stream, docker.partial, docker.body), (Stream::Out, false, &br#"a \"b\"\n"#[..]));
        assert!(split(br#"{"log":"a","stream":"stdout","time":"t"}"#).unwrap().partial);
        for line in [
            &b""[..],
            b"2026-01-02T03:04:05Z stdout X y",
            b"2026-01-02T03:04:05Z stdin F y",
            b"2026-01-02T03:04:05Z stdout Fine",
            b"2026-01-02 03:04:05 stdout F y",
            br#"{"log":"a\"#,
            br#"{"log":"a"}"#,
            br#"{"msg":"a","stream":"stdout"}"#,
        ] {
            assert_eq!(split(line), None, "{}", String::from_utf8_lossy(line));
        }
    }
}

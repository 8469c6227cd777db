//! Syslog: the priority, and what stands between the timestamp and the text in RFC 3164 and RFC 5424.

use std::borrow::Cow;

use types::Timestamp;

use crate::{
    Value,
    fields::Fields,
    logfmt::typed,
    source::Context,
    time::{self, Kind, Stamp},
};

/// Named values in the order of the line.
type Named<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// What the head of an RFC 5424 line says.
pub(crate) struct Head<'a> {
    pub(crate) time: Option<Timestamp>,
    pub(crate) fields: Named<'a>,
    /// Where the text begins, counted from the beginning of the body.
    pub(crate) end: usize,
}

/// Takes a priority, `<0>` to `<191>`, off the beginning.
pub(crate) fn priority(text: &str) -> (Option<i64>, &str) {
    let inner = text.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    let parsed = inner.filter(|(digits, _)| digits.len() <= 3 && digits.bytes().all(|b| b.is_ascii_digit()));
    match parsed.and_then(|(digits, rest)| Some((digits.parse::<i64>().ok().filter(|n| *n < 192)?, rest))) {
        Some((number, rest)) => (Some(number), rest),
        None => (None, text),
    }
}

/// Reads ` host app[pid]: text` after the stamp of an RFC 3164 line, or of any dated line with a priority.
pub(crate) fn rfc3164<'a>(body: &'a str, stamp: Stamp, has_priority: bool) -> Option<Named<'a>> {
    if stamp.start != 0 || !(stamp.kind == Kind::Syslog || has_priority) {
        return None;
    }
    let rest = &body[stamp.end..];
    let line = rest.split('\n').next().unwrap_or(rest);
    let (host, tail) = line.strip_prefix(' ')?.split_once(' ')?;
    let tag = tail.split(' ').next()?.strip_suffix(':')?;
    let (app, pid) = match tag.strip_suffix(']').and_then(|tag| tag.rsplit_once('[')) {
        Some((app, pid)) => (app, pid),
        None => (tag, ""),
    };
    if app.is_empty() || host.is_empty() {
        return None;
    }
    let mut fields = vec![("host".into(), host.into()), ("app".into(), app.into())];
    if !matches!(pid, "" | "-") {
        fields.push(("pid".into(), typed(pid)));
    }
    Some(fields)
}

/// Reads `1 time host app pid msgid [id name="value" …] text`; a `-` is no value.
///
/// Structured data becomes fields named `id.name`. What is malformed, or more than an event may have fields, stands in the
/// text alone.
pub(crate) fn rfc5424<'a>(body: &'a str, context: &Context) -> Option<Head<'a>> {
    let line = body.split('\n').next().unwrap_or(body);
    let mut words = line.strip_prefix("1 ")?.splitn(6, ' ');
    let stamp = words.next()?;
    let time = time::whole(stamp, context.received);
    if time.is_none() && stamp != "-" {
        return None;
    }
    let mut fields = Fields::default();
    for name in ["host", "app", "pid", "msgid"] {
        match words.next()? {
            "" => return None,
            "-" => {}
            word => fields.keep(name.into(), if name == "pid" { typed(word) } else { word.into() }),
        }
    }
    let rest = words.next()?;
    let length = match rest.strip_prefix('-') {
        Some("") => 1,
        Some(tail) if tail.starts_with(' ') => 1,
        _ => structured(rest, &mut fields).unwrap_or(0),
    };
    Some(Head { time, fields: fields.close(), end: line.len() - rest.len() + length })
}

/// Reads elements of structured data as long as they follow one another; the bytes that they take.
fn structured<'a>(text: &'a str, fields: &mut Fields<'a>) -> Option<usize> {
    let mut at = 0;
    while let Some(element) = text[at..].strip_prefix('[') {
        let name_end = element.find([' ', ']'])?;
        let id = &element[..name_end];
        at += 1 + name_end;
        while let Some(param) = text[at..].strip_prefix(' ') {
            let (name, rest) = param.split_once("=\"").filter(|(name, _)| !name.contains([' ', ']', '"']))?;
            let value = &rest[..value_length(rest)?];
            if fields.flattens(id) {
                fields.keep(Cow::Owned(format!("{id}.{name}")), Value::Text(unescape(value)));
            }
            at += 1 + name.len() + 2 + value.len() + 1;
        }
        if !text[at..].starts_with(']') {
            return None;
        }
        at += 1;
    }
    (at > 0 && matches!(text.as_bytes().get(at), None | Some(b' '))).then_some(at)
}

/// The length of a value up to the quote that ends it.
fn value_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// Within values `"`, `\` and `]` stand after a backslash; any other backslash is itself.
fn unescape(value: &str) -> Cow<'_, str> {
    if memchr::memchr(b'\\', value.as_bytes()).is_none() {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.peek() {
            Some(next @ ('"' | '\\' | ']')) if c == '\\' => {
                out.push(*next);
                chars.next();
            }
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}

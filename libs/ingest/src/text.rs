//! Plain text: a timestamp, a severity word, and the envelope of a syslog line.

use std::borrow::Cow;

use types::{Severity, Timestamp};

use crate::{
    Record, Value, severity,
    time::{self, Stamp},
};

/// Understands any text; the message is the whole of it.
pub(crate) fn parse(text: &str, received: Timestamp) -> Record<'_> {
    let (priority, body) = priority(text);
    let stamp = time::find(body.as_bytes(), received);
    let mut fields = Vec::new();
    if let Some(stamp) = stamp {
        envelope(body, stamp, priority.is_some(), &mut fields);
    }
    Record {
        time: stamp.map_or(received, |stamp| stamp.time),
        message: Cow::Borrowed(text),
        severity: klog(body, stamp)
            .or_else(|| severity::in_text(&body[stamp.map_or(0, |s| s.end)..], stamp.is_some()))
            .or_else(|| severity::of_syslog(priority? & 7)),
        fields,
    }
}

/// Takes a syslog priority `<0>` to `<191>` off the beginning.
fn priority(text: &str) -> (Option<i64>, &str) {
    let inner = text.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    let parsed = inner.filter(|(digits, _)| digits.len() <= 3 && digits.bytes().all(|b| b.is_ascii_digit()));
    match parsed.and_then(|(digits, rest)| Some((digits.parse::<i64>().ok().filter(|n| *n < 192)?, rest))) {
        Some((number, rest)) => (Some(number), rest),
        None => (None, text),
    }
}

fn klog(body: &str, stamp: Option<Stamp>) -> Option<Severity> {
    let stamp = stamp?;
    let first = *body.as_bytes().get(stamp.start)?;
    // Of the layouts only klog's begins with one letter and a digit.
    let digit = body.as_bytes().get(stamp.start + 1).is_some_and(u8::is_ascii_digit);
    if first.is_ascii_alphabetic() && digit { severity::of_klog(first) } else { None }
}

/// Reads host, application and process id of ` host app[pid]: …` (RFC 3164) or ` host app pid msgid …` (RFC 5424).
fn envelope<'a>(body: &'a str, stamp: Stamp, has_priority: bool, fields: &mut Vec<(Cow<'a, str>, Value<'a>)>) {
    let rest = &body[stamp.end..];
    let line = rest.split('\n').next().unwrap_or(rest);
    let mut put = |name, value: &'a str| {
        if !value.is_empty() && value != "-" {
            fields.push((Cow::Borrowed(name), crate::logfmt::typed(value)));
        }
    };
    if stamp.syslog && stamp.start == 0 {
        let Some((host, tail)) = line.strip_prefix(' ').and_then(|line| line.split_once(' ')) else { return };
        let Some(tag) = tail.split(' ').next().and_then(|tag| tag.strip_suffix(':')) else { return };
        let (app, pid) = match tag.strip_suffix(']').and_then(|tag| tag.rsplit_once('[')) {
            Some((app, pid)) => (app, pid),
            None => (tag, ""),
        };
        if app.is_empty() {
            return;
        }
        put("pid", pid);
        fields.extend([("host".into(), host.into()), ("app".into(), app.into())]);
    } else if has_priority && body.starts_with("1 ") && stamp.start == 2 {
        let mut words = line.strip_prefix(' ').unwrap_or("").splitn(4, ' ');
        for name in ["host", "app", "pid"] {
            put(name, words.next().unwrap_or(""));
        }
    }
}

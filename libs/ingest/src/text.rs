//! Plain text: a timestamp, a severity word, and the heads that syslog and klog put before a text.

use std::borrow::Cow;

use types::Timestamp;

use crate::{Record, klog, severity, source::Context, syslog, time::Stamp};

/// Understands any text; the message is the whole of it.
///
/// `body` is what follows a syslog priority, and `stamp` the timestamp near its beginning.
pub(crate) fn parse<'a>(
    text: &'a str,
    priority: Option<i64>,
    body: &'a str,
    stamp: Option<Stamp>,
    context: &Context,
) -> Record<'a> {
    let by_priority = priority.and_then(|number| severity::of_syslog(number & 7));
    let record = |time: Option<Timestamp>, severity, fields| Record {
        time: time.and_then(|time| context.admit(time)).unwrap_or(context.received),
        message: Cow::Borrowed(text),
        severity,
        fields,
    };
    if priority.is_some()
        && let Some(head) = syslog::rfc5424(body, context)
    {
        // The text begins with prose, not with a level, so that a word there needs a mark.
        let severity = severity::in_text(&body[head.end..], false).or(by_priority);
        return record(head.time, severity, head.fields);
    }
    let Some(stamp) = stamp else {
        return record(None, severity::in_text(body, false).or(by_priority), Vec::new());
    };
    if let Some(head) = klog::parse(body, stamp) {
        return record(Some(stamp.time), head.severity, head.fields);
    }
    let severity = severity::in_text(&body[stamp.end..], true).or(by_priority);
    let fields = syslog::rfc3164(body, stamp, priority.is_some()).unwrap_or_default();
    record(Some(stamp.time), severity, fields)
}

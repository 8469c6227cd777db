//! klog, the format of Kubernetes' own components: `E0102 03:04:05.123456   17 file.go:114] "said" key="value"`.

use std::borrow::Cow;

use types::Severity;

use crate::{
    Value,
    fields::Fields,
    logfmt,
    severity::of_letter,
    time::{Kind, Stamp},
};

/// What a head says, with the pairs of a structured text.
pub(crate) struct Head<'a> {
    pub(crate) severity: Option<Severity>,
    pub(crate) fields: Vec<(Cow<'a, str>, Value<'a>)>,
}

/// Reads the head of a line whose stamp is klog's.
pub(crate) fn parse<'a>(body: &'a str, stamp: Stamp) -> Option<Head<'a>> {
    if stamp.kind != Kind::Klog {
        return None;
    }
    let severity = of_letter(body.as_bytes()[stamp.start]);
    let mut fields = Fields::default();
    let rest = &body[stamp.end..];
    let line = rest.split('\n').next().unwrap_or(rest);
    if let Some((head, said)) = line.split_once("] ")
        && let Some((thread, caller)) = head.trim_start().split_once(' ')
        && let Value::Int(thread) = logfmt::typed(thread)
        && !caller.contains(' ')
    {
        fields.keep("thread".into(), Value::Int(thread));
        fields.keep("caller".into(), caller.into());
        pairs(said, &mut fields);
    }
    Some(Head { severity, fields: fields.close() })
}

/// The pairs that follow a quoted message; what is no pair ends them.
fn pairs<'a>(said: &'a str, fields: &mut Fields<'a>) {
    let Some((_, mut at)) = said.starts_with('"').then(|| logfmt::quoted(said, 0)).flatten() else { return };
    while said.as_bytes().get(at) == Some(&b' ')
        && let Some((key, value, end)) = logfmt::pair(said, at + 1)
    {
        fields.keep(Cow::Borrowed(key), value);
        at = end;
    }
}

//! Records as JSON.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::super::{
    event::{BodyError, Events, Key, Labels},
    json::{each, is_text, members, quote, shown},
};
use super::{Body, DEPTH_MAX, Origin, Record};

/// `{"resourceLogs": [{"resource": {"attributes"}, "scopeLogs": [{"scope": {"name", "version"}, "logRecords": []}]}]}`.
pub(super) fn request(events: &mut Events, body: &str) -> Result<(), BodyError> {
    members(body, |name, value| match name.as_ref() {
        "resourceLogs" | "resource_logs" => each(value.get(), |of_resource| resource(events, of_resource.get())),
        _ => Ok(()),
    })
}

fn resource(events: &mut Events, of_resource: &str) -> Result<(), BodyError> {
    let (mut shared, mut scopes) = (Labels::default(), None);
    members(of_resource, |name, value| {
        match name.as_ref() {
            "resource" => attributes_of(&mut shared, value)?,
            "scopeLogs" | "scope_logs" => scopes = Some(value),
            _ => {}
        }
        Ok(())
    })?;
    let key = shared.key();
    match scopes {
        Some(scopes) => each(scopes.get(), |of_scope| scope(events, (&shared, key.as_ref()), of_scope.get())),
        None => Ok(()),
    }
}

/// The attributes of an object that has such a member.
fn attributes_of(labels: &mut Labels<'_>, object: &RawValue) -> Result<(), BodyError> {
    if object.get() == "null" {
        return Ok(());
    }
    members(object.get(), |name, value| if name == "attributes" { attributes(labels, value) } else { Ok(()) })
}

fn scope(events: &mut Events, resource: (&Labels<'_>, Option<&Key>), of_scope: &str) -> Result<(), BodyError> {
    let (mut scope_name, mut version, mut records) = (String::new(), String::new(), None);
    members(of_scope, |name, value| {
        match name.as_ref() {
            "scope" if value.get() != "null" => members(value.get(), |name, value| {
                match name.as_ref() {
                    "name" => scope_name = shown(value).into_owned(),
                    "version" => version = shown(value).into_owned(),
                    _ => {}
                }
                Ok(())
            })?,
            "logRecords" | "log_records" => records = Some(value),
            _ => {}
        }
        Ok(())
    })?;
    let origin = Origin::new(resource, &scope_name, &version);
    match records {
        Some(records) => each(records.get(), |one| record(events, &origin, one)),
        None => Ok(()),
    }
}

fn record(events: &mut Events, origin: &Origin<'_>, value: &RawValue) -> Result<(), BodyError> {
    let (mut record, mut of_record) = (Record::default(), None);
    members(value.get(), |name, value| {
        let text = || if value.get() == "null" { String::new() } else { shown(value).into_owned() };
        match name.as_ref() {
            "timeUnixNano" | "time_unix_nano" => record.time = number(value),
            "observedTimeUnixNano" | "observed_time_unix_nano" => record.observed = number(value),
            "severityNumber" | "severity_number" => record.severity = severity_number(value),
            "severityText" | "severity_text" => record.severity_text = text(),
            "body" => record.body = body(value)?,
            "attributes" => of_record = Some(value),
            "flags" => record.flags = number(value),
            "traceId" | "trace_id" => record.trace = id(&text()),
            "spanId" | "span_id" => record.span = id(&text()),
            "eventName" | "event_name" => record.event_name = text(),
            _ => {}
        }
        Ok(())
    })?;
    record.add(events, origin, |own| of_record.map_or(Ok(()), |all| attributes(own, all)))
}

/// In JSON ids are hexadecimal; those of zeroes mean none.
fn id(text: &str) -> String {
    if text.bytes().all(|byte| byte == b'0') { String::new() } else { text.to_ascii_lowercase() }
}

/// A number, or one as a string; 0 of anything else.
fn number(value: &RawValue) -> u64 {
    shown(value).parse().unwrap_or(0)
}

/// A number, or a name like `SEVERITY_NUMBER_WARN2`.
fn severity_number(value: &RawValue) -> u64 {
    let text = shown(value);
    let Some(name) = text.strip_prefix("SEVERITY_NUMBER_") else { return number(value) };
    let word = name.trim_end_matches(|char: char| char.is_ascii_digit());
    let step = name[word.len()..].parse().unwrap_or(1_u64);
    let first = match word {
        "TRACE" => 1,
        "DEBUG" => 5,
        "INFO" => 9,
        "WARN" => 13,
        "ERROR" => 17,
        "FATAL" => 21,
        _ => return 0,
    };
    if (1..=4).contains(&step) { first + step - 1 } else { 0 }
}

fn body(value: &RawValue) -> Result<Body, BodyError> {
    Ok(match kind(value)? {
        None => Body::Line(Vec::new()),
        Some((name, inner)) if matches!(name.as_ref(), "stringValue" | "string_value") => {
            Body::Line(shown(inner).into_owned().into_bytes())
        }
        Some(_) => Body::Json(json(value)?),
    })
}

/// What a value is, and its content: the first member counts.
fn kind(value: &RawValue) -> Result<Option<(Cow<'_, str>, &RawValue)>, BodyError> {
    let mut kind = None;
    if value.get() != "null" {
        members(value.get(), |name, inner| {
            kind = kind.take().or(Some((name, inner)));
            Ok(())
        })?;
    }
    Ok(kind)
}

/// `[{"key", "value"}]`.
fn attributes(labels: &mut Labels<'_>, list: &RawValue) -> Result<(), BodyError> {
    pairs(list, &mut |name, value| {
        labels.json(name, &value.map_or_else(|| Ok("null".to_owned()), json)?);
        Ok(())
    })
}

/// Takes a pair.
type Take<'t> = dyn FnMut(&str, Option<&RawValue>) -> Result<(), BodyError> + 't;

fn pairs(list: &RawValue, take: &mut Take<'_>) -> Result<(), BodyError> {
    each(list.get(), |pair| {
        let (mut key, mut inner) = (String::new(), None);
        members(pair.get(), |name, value| {
            match name.as_ref() {
                "key" => key = shown(value).into_owned(),
                "value" => inner = Some(value),
                _ => {}
            }
            Ok(())
        })?;
        take(&key, inner)
    })
}

fn json(value: &RawValue) -> Result<String, BodyError> {
    let mut out = Vec::new();
    any(&mut out, value, 0)?;
    String::from_utf8(out).map_err(BodyError::malformed)
}

/// `{"stringValue" | "boolValue" | "intValue" | "doubleValue" | "arrayValue" | "kvlistValue" | "bytesValue": …}` as plain JSON.
fn any(out: &mut Vec<u8>, value: &RawValue, depth: usize) -> Result<(), BodyError> {
    let kind = if depth <= DEPTH_MAX { kind(value)? } else { None };
    let Some((name, inner)) = kind else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    match name.as_ref() {
        "stringValue" | "string_value" => quote(out, &shown(inner)),
        "intValue" | "int_value" if is_text(inner) => match shown(inner).parse::<i64>() {
            Ok(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Err(_) => out.extend_from_slice(inner.get().as_bytes()),
        },
        "arrayValue" | "array_value" => list(out, inner, depth)?,
        "kvlistValue" | "kvlist_value" => object(out, inner, depth)?,
        _ => out.extend_from_slice(inner.get().as_bytes()),
    }
    Ok(())
}

fn list(out: &mut Vec<u8>, inner: &RawValue, depth: usize) -> Result<(), BodyError> {
    out.push(b'[');
    let mut comma = "";
    values_of(inner, |values| {
        each(values.get(), |item| {
            out.extend_from_slice(comma.as_bytes());
            comma = ",";
            any(out, item, depth + 1)
        })
    })?;
    out.push(b']');
    Ok(())
}

fn object(out: &mut Vec<u8>, inner: &RawValue, depth: usize) -> Result<(), BodyError> {
    out.push(b'{');
    let mut comma = "";
    values_of(inner, |values| {
        pairs(values, &mut |name, value| {
            out.extend_from_slice(comma.as_bytes());
            comma = ",";
            quote(out, name);
            out.push(b':');
            match value {
                Some(value) => any(out, value, depth + 1),
                None => {
                    out.extend_from_slice(b"null");
                    Ok(())
                }
            }
        })
    })?;
    out.push(b'}');
    Ok(())
}

fn values_of(inner: &RawValue, mut take: impl FnMut(&RawValue) -> Result<(), BodyError>) -> Result<(), BodyError> {
    members(inner.get(), |name, value| if name == "values" { take(value) } else { Ok(()) })
}

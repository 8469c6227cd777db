//! Records as protocol buffers.

use std::borrow::Cow;

use data_encoding::BASE64;

use super::super::{
    event::{BodyError, Events, Key, Labels},
    json::quote,
    protobuf::{Value, fields},
};
use super::{Body, DEPTH_MAX, Origin, Record, hex};

/// `ExportLogsServiceRequest {1: resource_logs}`.
pub(super) fn request(events: &mut Events, body: &[u8]) -> Result<(), BodyError> {
    for field in fields(body) {
        if let (1, Value::Bytes(of_resource)) = field? {
            resource(events, of_resource)?;
        }
    }
    Ok(())
}

/// `ResourceLogs {1: resource {1: attributes}, 2: scope_logs}`.
fn resource(events: &mut Events, of_resource: &[u8]) -> Result<(), BodyError> {
    let mut shared = Labels::default();
    for field in fields(of_resource) {
        if let (1, Value::Bytes(resource)) = field? {
            for part in fields(resource) {
                if let (1, Value::Bytes(pair)) = part? {
                    attribute(&mut shared, pair)?;
                }
            }
        }
    }
    let key = shared.key();
    for field in fields(of_resource) {
        if let (2, Value::Bytes(of_scope)) = field? {
            scope(events, (&shared, key.as_ref()), of_scope)?;
        }
    }
    Ok(())
}

/// `ScopeLogs {1: scope {1: name, 2: version}, 2: log_records}`.
fn scope(events: &mut Events, resource: (&Labels<'_>, Option<&Key>), of_scope: &[u8]) -> Result<(), BodyError> {
    let (mut name, mut version) = (Cow::Borrowed(""), Cow::Borrowed(""));
    for field in fields(of_scope) {
        if let (1, Value::Bytes(scope)) = field? {
            for part in fields(scope) {
                match part? {
                    (1, Value::Bytes(text)) => name = String::from_utf8_lossy(text),
                    (2, Value::Bytes(text)) => version = String::from_utf8_lossy(text),
                    _ => {}
                }
            }
        }
    }
    let origin = Origin::new(resource, &name, &version);
    for field in fields(of_scope) {
        if let (2, Value::Bytes(bytes)) = field? {
            record(events, &origin, bytes)?;
        }
    }
    Ok(())
}

/// `LogRecord`; the numbers are those of its fields.
fn record(events: &mut Events, origin: &Origin<'_>, bytes: &[u8]) -> Result<(), BodyError> {
    let mut record = Record::default();
    for field in fields(bytes) {
        match field? {
            (1, Value::Fixed64(nanos)) => record.time = nanos,
            (2, Value::Number(number)) => record.severity = number,
            (3, Value::Bytes(text)) => record.severity_text = String::from_utf8_lossy(text).into_owned(),
            (5, Value::Bytes(value)) => record.body = body(value)?,
            (8, Value::Fixed32(flags)) => record.flags = flags.into(),
            (9, Value::Bytes(id)) => record.trace = hex(id),
            (10, Value::Bytes(id)) => record.span = hex(id),
            (11, Value::Fixed64(nanos)) => record.observed = nanos,
            (12, Value::Bytes(text)) => record.event_name = String::from_utf8_lossy(text).into_owned(),
            _ => {}
        }
    }
    record.add(events, origin, |own| {
        for field in fields(bytes) {
            if let (6, Value::Bytes(pair)) = field? {
                attribute(own, pair)?;
            }
        }
        Ok(())
    })
}

fn body(value: &[u8]) -> Result<Body, BodyError> {
    for field in fields(value) {
        if let (1, Value::Bytes(text)) = field? {
            return Ok(Body::Line(text.to_vec()));
        }
    }
    if value.is_empty() { Ok(Body::Line(Vec::new())) } else { json(value).map(Body::Json) }
}

fn attribute(labels: &mut Labels<'_>, pair: &[u8]) -> Result<(), BodyError> {
    let (name, value) = pair_of(pair)?;
    labels.json(&name, &json(value)?);
    Ok(())
}

/// `KeyValue {1: key, 2: value}`.
fn pair_of(pair: &[u8]) -> Result<(Cow<'_, str>, &[u8]), BodyError> {
    let (mut name, mut value) = (Cow::Borrowed(""), &[][..]);
    for field in fields(pair) {
        match field? {
            (1, Value::Bytes(text)) => name = String::from_utf8_lossy(text),
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Ok((name, value))
}

fn json(value: &[u8]) -> Result<String, BodyError> {
    let mut out = Vec::new();
    any(&mut out, value, 0)?;
    String::from_utf8(out).map_err(BodyError::malformed)
}

/// `AnyValue {1: string, 2: bool, 3: int, 4: double, 5: array, 6: list of pairs, 7: bytes}` as JSON; of several the first counts.
fn any(out: &mut Vec<u8>, value: &[u8], depth: usize) -> Result<(), BodyError> {
    let Some(first) = fields(value).next().filter(|_| depth <= DEPTH_MAX) else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    match first? {
        (1, Value::Bytes(text)) => quote(out, &String::from_utf8_lossy(text)),
        (2, Value::Number(flag)) => out.extend_from_slice(if flag == 0 { b"false" } else { b"true" }),
        (3, Value::Number(number)) => out.extend_from_slice(number.cast_signed().to_string().as_bytes()),
        (4, Value::Fixed64(bits)) => {
            let number = f64::from_bits(bits);
            let text = format!("{number:?}");
            if number.is_finite() { out.extend_from_slice(text.as_bytes()) } else { quote(out, &text) }
        }
        (5, Value::Bytes(list)) => {
            out.push(b'[');
            let mut is_first = true;
            for item in fields(list) {
                if let (1, Value::Bytes(item)) = item? {
                    comma(out, &mut is_first);
                    any(out, item, depth + 1)?;
                }
            }
            out.push(b']');
        }
        (6, Value::Bytes(pairs)) => {
            out.push(b'{');
            let mut is_first = true;
            for pair in fields(pairs) {
                if let (1, Value::Bytes(pair)) = pair? {
                    let (name, value) = pair_of(pair)?;
                    comma(out, &mut is_first);
                    quote(out, &name);
                    out.push(b':');
                    any(out, value, depth + 1)?;
                }
            }
            out.push(b'}');
        }
        (7, Value::Bytes(bytes)) => quote(out, &BASE64.encode(bytes)),
        _ => out.extend_from_slice(b"null"),
    }
    Ok(())
}

fn comma(out: &mut Vec<u8>, is_first: &mut bool) {
    if !std::mem::take(is_first) {
        out.push(b',');
    }
}

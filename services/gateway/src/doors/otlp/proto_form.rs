//! Records as protocol buffers.

use bytes::Bytes;
use data_encoding::BASE64;
use types::EVENT_BYTES_MAX;

use super::super::{
    event::{BodyError, Events, Key, Labels},
    json::quote,
    protobuf::decode,
};
use super::{
    Body, DEPTH_MAX, Origin, Record, hex,
    messages::{
        AnyValue, ArrayValue, KeyValue, KeyValueList, Kind, LogRecord, Request, Resource, ResourceLogs, ScopeLogs,
    },
};

pub(super) fn request(events: &mut Events, body: Bytes) -> Result<(), BodyError> {
    let request: Request = decode(body)?;
    request.resource_logs.into_iter().try_for_each(|of_resource| resource(events, of_resource))
}

fn resource(events: &mut Events, of_resource: Bytes) -> Result<(), BodyError> {
    let ResourceLogs { resource, scope_logs } = decode(of_resource)?;
    let mut shared = Labels::default();
    // What fits no event is not read: its events are refused one by one.
    let fits = resource.len() <= EVENT_BYTES_MAX;
    if fits {
        let resource: Resource = decode(resource)?;
        resource.attributes.into_iter().try_for_each(|pair| attribute(&mut shared, pair))?;
    }
    let key = shared.key();
    scope_logs.into_iter().try_for_each(|of_scope| scope(events, (&shared, key.as_ref()), of_scope, fits))
}

fn scope(
    events: &mut Events,
    resource: (&Labels<'_>, Option<&Key>),
    of_scope: Bytes,
    fits: bool,
) -> Result<(), BodyError> {
    let ScopeLogs { scope, log_records } = decode(of_scope)?;
    let scope = scope.unwrap_or_default();
    let origin = Origin::new(resource, &String::from_utf8_lossy(&scope.name), &String::from_utf8_lossy(&scope.version));
    log_records.into_iter().try_for_each(|bytes| match fits && bytes.len() <= EVENT_BYTES_MAX {
        true => record(events, &origin, bytes),
        false => events.refuse(format_args!("it is larger than the {EVENT_BYTES_MAX} bytes of the largest event")),
    })
}

fn record(events: &mut Events, origin: &Origin<'_>, bytes: Bytes) -> Result<(), BodyError> {
    let said: LogRecord = decode(bytes)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let record = Record {
        time: said.time_unix_nano,
        observed: said.observed_time_unix_nano,
        severity: u64::try_from(said.severity_number).unwrap_or(0),
        severity_text: text(&said.severity_text),
        body: body(said.body)?,
        trace: hex(&said.trace_id),
        span: hex(&said.span_id),
        flags: said.flags.into(),
        event_name: text(&said.event_name),
    };
    record.add(events, origin, |own| said.attributes.into_iter().try_for_each(|pair| attribute(own, pair)))
}

fn body(value: Option<AnyValue>) -> Result<Body, BodyError> {
    Ok(match kind(value) {
        None => Body::Line(Vec::new()),
        Some(Kind::Text(text)) => Body::Line(text.to_vec()),
        kind => Body::Json(json(kind)?),
    })
}

fn attribute(labels: &mut Labels<'_>, pair: KeyValue) -> Result<(), BodyError> {
    labels.json(&String::from_utf8_lossy(&pair.key), &json(kind(pair.value))?);
    Ok(())
}

fn kind(value: Option<AnyValue>) -> Option<Kind> {
    value.and_then(|value| value.kind)
}

fn json(kind: Option<Kind>) -> Result<String, BodyError> {
    let mut out = Vec::new();
    any(&mut out, kind, 0)?;
    String::from_utf8(out).map_err(BodyError::malformed)
}

/// A value as JSON; nothing is read of what lies too deep.
fn any(out: &mut Vec<u8>, kind: Option<Kind>, depth: usize) -> Result<(), BodyError> {
    match kind.filter(|_| depth <= DEPTH_MAX) {
        None => out.extend_from_slice(b"null"),
        Some(Kind::Text(text)) => quote(out, &String::from_utf8_lossy(&text)),
        Some(Kind::Flag(flag)) => out.extend_from_slice(flag.to_string().as_bytes()),
        Some(Kind::Integer(number)) => out.extend_from_slice(number.to_string().as_bytes()),
        Some(Kind::Number(number)) => {
            let text = format!("{number:?}");
            if number.is_finite() { out.extend_from_slice(text.as_bytes()) } else { quote(out, &text) }
        }
        Some(Kind::Bytes(bytes)) => quote(out, &BASE64.encode(&bytes)),
        Some(Kind::List(list)) => {
            out.push(b'[');
            for (place, item) in decode::<ArrayValue>(list)?.values.into_iter().enumerate() {
                comma(out, place);
                any(out, item.kind, depth + 1)?;
            }
            out.push(b']');
        }
        Some(Kind::Pairs(pairs)) => {
            out.push(b'{');
            for (place, pair) in decode::<KeyValueList>(pairs)?.values.into_iter().enumerate() {
                comma(out, place);
                quote(out, &String::from_utf8_lossy(&pair.key));
                out.push(b':');
                any(out, self::kind(pair.value), depth + 1)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn comma(out: &mut Vec<u8>, place: usize) {
    if place > 0 {
        out.push(b',');
    }
}

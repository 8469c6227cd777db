//! OpenTelemetry's logs, translated: records of scopes of resources, as protocol buffers or as JSON.

mod json_form;
mod messages;
mod proto_form;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use prost::Message as _;
use types::Timestamp;

use super::{
    event::{Batch, BodyError, Bounds, Draft, Events, Key, Labels, Message},
    protobuf::rpc_status,
};

/// How deep a value may be; what lies deeper is left out.
const DEPTH_MAX: usize = 32;

/// How a body, and its answer, is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Protobuf,
}

/// The records of an `ExportLogsServiceRequest`.
///
/// The attributes of the resource, the scope's name and version, and the record's own become fields; `severity_number` decides
/// the severity. Order: that of each resource.
pub(crate) fn events(body: &Bytes, form: Form, bounds: Bounds) -> Result<Batch, BodyError> {
    match form {
        Form::Json => {
            let text = ingest::raw::escape(body);
            let mut events = Events::of_text(&text, body, bounds);
            json_form::request(&mut events, &text)?;
            Ok(events.finish())
        }
        Form::Protobuf => {
            let mut events = Events::new(bounds);
            proto_form::request(&mut events, body.clone())?;
            Ok(events.finish())
        }
    }
}

/// Where records come from: the attributes of the resource and, of the scope, its name and version.
#[derive(Debug)]
struct Origin<'a> {
    labels: Labels<'a>,
    key: Option<&'a Key>,
}

impl<'a> Origin<'a> {
    fn new((resource, key): (&'a Labels<'a>, Option<&'a Key>), name: &str, version: &str) -> Self {
        let mut labels = Labels::beside(resource);
        for (label, value) in [("scope.name", name), ("scope.version", version)] {
            if !value.is_empty() {
                labels.text(label, value);
            }
        }
        Self { labels, key }
    }
}

/// The text of a record.
#[derive(Debug, PartialEq)]
enum Body {
    Line(Vec<u8>),
    Json(String),
}

/// One record, attributes apart.
#[derive(Debug)]
struct Record {
    time: u64,
    observed: u64,
    severity: u64,
    severity_text: String,
    body: Body,
    /// Lower-case hexadecimal.
    trace: String,
    span: String,
    flags: u64,
    event_name: String,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            time: 0,
            observed: 0,
            severity: 0,
            severity_text: String::new(),
            body: Body::Line(Vec::new()),
            trace: String::new(),
            span: String::new(),
            flags: 0,
            event_name: String::new(),
        }
    }
}

impl Record {
    /// Adds the record; its attributes come behind what it says of itself.
    fn add(
        &self,
        events: &mut Events,
        origin: &Origin<'_>,
        attributes: impl FnOnce(&mut Labels<'_>) -> Result<(), BodyError>,
    ) -> Result<(), BodyError> {
        let mut own = Labels::beside(&origin.labels);
        if let Some(severity) = i64::try_from(self.severity).ok().and_then(ingest::severity::of_otel) {
            own.text("severity", severity.as_str());
            own.json("severity_number", &self.severity.to_string());
        }
        let texts = [
            ("severity_text", &self.severity_text),
            ("trace_id", &self.trace),
            ("span_id", &self.span),
            ("event_name", &self.event_name),
        ];
        for (name, value) in texts.into_iter().filter(|(_, value)| !value.is_empty()) {
            own.text(name, value);
        }
        if self.flags != 0 {
            own.json("trace_flags", &self.flags.to_string());
        }
        attributes(&mut own)?;
        let time = [self.time, self.observed].into_iter().find(|nanos| *nanos != 0);
        let time = time.and_then(|nanos| i64::try_from(nanos).ok()).map(Timestamp::from_nanos);
        let message = match &self.body {
            Body::Line(line) => Message::Line(line),
            Body::Json(value) => Message::Json(value),
        };
        events.push(&Draft { time, labels: &own, message, key: origin.key }, None).map(|_| ())
    }
}

fn hex(bytes: &[u8]) -> String {
    if bytes.iter().all(|byte| *byte == 0) { String::new() } else { HEXLOWER.encode(bytes) }
}

/// The body of an `ExportLogsServiceResponse`: nothing, or how many records were refused and why.
pub(crate) fn response(form: Form, batch: &Batch) -> Vec<u8> {
    let why = batch.refused.first().map_or("", |refused| refused.why.as_str());
    match form {
        Form::Json if batch.refused_count == 0 => b"{}".to_vec(),
        Form::Json => {
            // 64-bit numbers are strings in the JSON of protocol buffers.
            let rejected = batch.refused_count.to_string();
            let partial = serde_json::json!({ "rejectedLogRecords": rejected, "errorMessage": why });
            serde_json::json!({ "partialSuccess": partial }).to_string().into_bytes()
        }
        Form::Protobuf => {
            let partial = messages::PartialSuccess {
                rejected_log_records: i64::try_from(batch.refused_count).unwrap_or(i64::MAX),
                error_message: why.to_owned(),
            };
            messages::Response { partial_success: (batch.refused_count > 0).then_some(partial) }.encode_to_vec()
        }
    }
}

/// The body of a refusal: `google.rpc.Status`.
pub(crate) fn status(form: Form, code: i32, message: &str) -> Vec<u8> {
    match form {
        Form::Json => serde_json::json!({ "code": code, "message": message }).to_string().into_bytes(),
        Form::Protobuf => rpc_status(code, message, None),
    }
}

#[cfg(test)]
mod tests;

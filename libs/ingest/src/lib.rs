//! Bytes to typed records: what a log line says, found without being told its format.
//!
//! Owns how lines become events ([`Partials`], [`Joiner`], and [`lines`] for bodies of newline-delimited JSON), format,
//! timestamp and severity inference ([`parse`], [`Source`]), the names and limits of inferred columns
//! ([`BatchBuilder`]), how batches of different inferred schemas become one table ([`merge_schemas`], [`conform`]),
//! and what their messages have in common: [`template`]s. [`sample`] makes realistic input for benches.
//! Deliberately does not know: where bytes come from, files, clocks, the chunk format, or any query.
//!
//! What is recognised, tried in this order: the envelope of a container runtime (CRI, Docker), and within it or without
//! one a JSON object; an access line (common or combined log format); logfmt; syslog (RFC 5424, RFC 3164); klog; plain
//! text with a timestamp and a severity word somewhere near its beginning. Whatever is not understood is plain text, so
//! parsing never fails and no text is lost, nor any byte ([`raw`]).
//!
//! ```
//! use ingest::{RawEvent, Value, parse};
//! use types::{Severity, Timestamp};
//!
//! let received = Timestamp::from_millis(1_767_322_800_000);
//! let payload = br#"{"ts":"2026-01-02T03:04:05Z","level":"warn","msg":"slow","http":{"status":200}}"#;
//! let record = parse(RawEvent { payload, received });
//! assert_eq!(record.message, "slow");
//! assert_eq!(record.severity, Some(Severity::Warn));
//! assert_eq!(record.time, Timestamp::from_millis(1_767_323_045_000));
//! assert_eq!(record.field("http.status"), Some(&Value::Int(200)));
//! ```

mod access;
mod batch;
mod envelope;
mod fields;
mod json;
mod klog;
pub mod lines;
mod logfmt;
mod multiline;
mod partials;
pub mod raw;
mod record;
pub mod sample;
mod schema;
pub mod severity;
mod source;
mod syslog;
pub mod template;
mod text;
mod time;

use types::Timestamp;

pub use batch::{BATCH_BYTES_MAX, BATCH_CELLS_MAX, BATCH_ROWS_MAX, BatchBuilder, to_batch};
pub use fields::{FIELD_NAME_BYTES_MAX, FIELDS_MAX, REST_COLUMN};
pub use multiline::{JOIN_BYTES_MAX, JOIN_LINES_MAX, JOIN_WAIT, Joiner};
pub use partials::{PARTIAL_WAIT, Partials};
pub use record::{Record, Value};
pub use schema::{BASE_COLUMNS, COLUMNS_MAX, Error, base_schema, conform, merge_schemas};
pub use source::{Source, Window};

use self::source::Context;

/// One event as it arrived.
#[derive(Debug, Clone, Copy)]
pub struct RawEvent<'a> {
    /// The bytes of the event; one record, however many lines.
    pub payload: &'a [u8],
    /// When the platform took it: the event time of a line that holds none, and the year of one without a year.
    pub received: Timestamp,
}

/// Understands one event; never fails, at worst the whole payload is the message.
///
/// Nothing is remembered from one event to the next and every time is believed; [`Source`] does otherwise.
/// Bytes that are not UTF-8 are kept as [`raw::escape`] writes them. Times without a zone are UTC. The message of a JSON
/// object is its message key, else the whole text; the message of anything else is the whole text, except logfmt made of
/// pairs only. Within an envelope that holds for its line; the envelope's time is the time of receipt for it, and the
/// line may state another one within [`Window::SANE`] of that.
/// Keys that hold the time, the message or `severity` are consumed when understood; `level` and its kin stay fields.
/// Where no key holds the time, a date and time of day at the beginning of the message does.
/// Bounds: [`FIELDS_MAX`] fields with names of at most [`FIELD_NAME_BYTES_MAX`] bytes, the rest as a JSON object in the
/// field [`REST_COLUMN`], where objects stay whole: a record is never much larger than its event.
pub fn parse(event: RawEvent<'_>) -> Record<'_> {
    Source::new(Window::ANY).parse(event)
}

fn understand<'a>(text: &'a str, context: &mut Context) -> Record<'a> {
    let text = text.trim_start_matches('\u{feff}').trim_end_matches(['\n', '\r']);
    envelope::parse(text, context).unwrap_or_else(|| understand_bare(text, context))
}

/// Understands a line without an envelope.
fn understand_bare<'a>(text: &'a str, context: &mut Context) -> Record<'a> {
    if text.trim_start().starts_with('{')
        && let Some(record) = json::parse(text, context)
    {
        return record;
    }
    if let Some(record) = access::parse(text, context) {
        return record;
    }
    let (priority, body) = syslog::priority(text);
    let stamp = context.find(body.as_bytes());
    if priority.is_none()
        && let Some(record) = logfmt::parse(text, stamp, context)
    {
        return record;
    }
    text::parse(text, priority, body, stamp, context)
}

#[cfg(test)]
mod source_tests;
#[cfg(test)]
mod tests;

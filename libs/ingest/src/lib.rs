//! Bytes to typed records: what a log line says, found without being told its format.
//!
//! Owns format, timestamp and severity inference ([`parse`]), the names and limits of inferred columns
//! ([`BatchBuilder`]), how batches of different inferred schemas become one table ([`merge_schemas`], [`conform`]),
//! and the splitter for bodies of newline-delimited JSON ([`lines`]). [`sample`] makes realistic input for benches.
//! Deliberately does not know: where bytes come from, files, clocks, the chunk format, or any query.
//!
//! What is recognised, tried in this order: a JSON object; an access line (common or combined log format); logfmt;
//! plain text with a timestamp and a severity word somewhere near its beginning. Whatever is not understood is plain
//! text, so parsing never fails and no text is lost.
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
mod fields;
mod json;
pub mod lines;
mod logfmt;
mod record;
pub mod sample;
mod schema;
mod severity;
mod text;
mod time;

use types::Timestamp;

pub use batch::{BATCH_BYTES_MAX, BATCH_CELLS_MAX, BATCH_ROWS_MAX, BatchBuilder, to_batch};
pub use fields::{FIELD_NAME_BYTES_MAX, FIELDS_MAX, REST_COLUMN};
pub use record::{Record, Value};
pub use schema::{BASE_COLUMNS, COLUMNS_MAX, Error, base_schema, conform, merge_schemas};

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
/// Bytes that are not UTF-8 become U+FFFD. Times without a zone are UTC. The message of a JSON object is its message
/// key, else the whole text; the message of anything else is the whole text, except logfmt made of pairs only.
/// Keys that hold the time, the message or `severity` are consumed when understood; `level` and its kin stay fields.
/// Bounds: [`FIELDS_MAX`] fields with names of at most [`FIELD_NAME_BYTES_MAX`] bytes, the rest as a JSON object in the
/// field [`REST_COLUMN`], where objects stay whole: a record is never much larger than its event.
pub fn parse(event: RawEvent<'_>) -> Record<'_> {
    match std::str::from_utf8(event.payload) {
        Ok(text) => understand(text, event.received),
        Err(_) => understand(&String::from_utf8_lossy(event.payload), event.received).into_owned(),
    }
}

fn understand(text: &str, received: Timestamp) -> Record<'_> {
    let text = text.trim_start_matches('\u{feff}').trim_end_matches(['\n', '\r']);
    if text.trim_start().starts_with('{')
        && let Some(record) = json::parse(text, received)
    {
        return record;
    }
    access::parse(text, received)
        .or_else(|| logfmt::parse(text, received))
        .unwrap_or_else(|| text::parse(text, received))
}

#[cfg(test)]
mod tests;

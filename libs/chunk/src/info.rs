//! The summary of a chunk, kept in its footer.

use std::{str::FromStr, sync::Arc};

use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
    file::metadata::KeyValue,
};
use types::{Offset, SegmentId, Timestamp};

use crate::{Counters, Error, Origin, origin, seal};

/// The version that [`write`](crate::write()) writes.
///
/// It grows with a layout that older programs would misread. A further pair in the footer that they may pass over, such as
/// those of [`Origin`], leaves it as it is.
pub const VERSION: u32 = 1;

pub(crate) const KEY_VERSION: &str = "logboom.version";
const KEY_SEGMENT: &str = "logboom.segment";
const KEY_FIRST: &str = "logboom.first";
const KEY_LAST: &str = "logboom.last";
const KEY_TIME_MIN: &str = "logboom.time_min";
const KEY_TIME_MAX: &str = "logboom.time_max";
const KEY_COUNTERS: &str = "logboom.counters";

/// What a chunk says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkInfo {
    /// The version of the layout.
    pub version: u32,
    /// The segment of all its events.
    pub segment: SegmentId,
    /// The offset of the first event.
    pub first: Offset,
    /// The offset of the last event, itself in the chunk.
    pub last: Offset,
    /// The number of events: `last - first + 1`.
    pub rows: u64,
    /// The earliest event time.
    pub time_min: Timestamp,
    /// The latest event time.
    pub time_max: Timestamp,
    /// The columns; without metadata of its own.
    pub schema: SchemaRef,
    /// Events per minute and severity.
    pub counters: Counters,
    /// Where its segment belongs; `None` in chunks that were written before there was such a thing.
    pub origin: Option<Origin>,
}

/// Reads the summary of a chunk after checking its seal.
///
/// Errors: `Foreign`, `Length`, `Checksum` for bytes that are not a whole chunk; `Version` for one of a later program.
pub fn info(bytes: &Bytes) -> Result<ChunkInfo, Error> {
    open(bytes).map(|(info, _)| info)
}

/// Checks the seal and reads footer and summary.
pub(crate) fn open(bytes: &Bytes) -> Result<(ChunkInfo, ArrowReaderMetadata), Error> {
    seal::check(bytes)?;
    let footer = ArrowReaderMetadata::load(bytes, ArrowReaderOptions::new())?;
    let file = footer.metadata().file_metadata();
    let pairs = file.key_value_metadata().map_or(&[][..], Vec::as_slice);
    let version = text(pairs, KEY_VERSION)?;
    let version = version.parse().ok().filter(|v| (1..=VERSION).contains(v));
    let version = version.ok_or_else(|| Error::Version { found: text(pairs, KEY_VERSION).unwrap_or("").to_owned() })?;
    let (first, last) = (parsed(pairs, KEY_FIRST)?, parsed(pairs, KEY_LAST)?);
    let rows = u64::try_from(file.num_rows()).unwrap_or(0);
    if rows == 0 || last != Offset::saturating_add(first, rows - 1) {
        let reason = format!("{rows} rows from offset {first} do not end at {last}");
        return Err(Error::Summary { key: KEY_LAST, reason });
    }
    let counters = serde_json::from_str(text(pairs, KEY_COUNTERS)?)
        .map_err(|error| Error::Summary { key: KEY_COUNTERS, reason: error.to_string() })?;
    let info = ChunkInfo {
        version,
        segment: parsed(pairs, KEY_SEGMENT)?,
        first,
        last,
        rows,
        time_min: Timestamp::from_nanos(parsed(pairs, KEY_TIME_MIN)?),
        time_max: Timestamp::from_nanos(parsed(pairs, KEY_TIME_MAX)?),
        schema: plain(footer.schema()),
        counters,
        origin: origin::read(pairs)?,
    };
    Ok((info, footer))
}

/// The schema without metadata, so that chunks of equal columns have equal schemas.
pub(crate) fn plain(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().clone()))
}

impl ChunkInfo {
    /// The footer's pairs.
    pub(crate) fn pairs(&self) -> Result<Vec<KeyValue>, Error> {
        let counters = serde_json::to_string(&self.counters)
            .map_err(|error| Error::Summary { key: KEY_COUNTERS, reason: error.to_string() })?;
        let pairs = [
            (KEY_VERSION, self.version.to_string()),
            (KEY_SEGMENT, self.segment.to_string()),
            (KEY_FIRST, self.first.to_string()),
            (KEY_LAST, self.last.to_string()),
            (KEY_TIME_MIN, self.time_min.nanos().to_string()),
            (KEY_TIME_MAX, self.time_max.nanos().to_string()),
            (KEY_COUNTERS, counters),
        ];
        let origin = self.origin.iter().flat_map(Origin::pairs);
        Ok(pairs.into_iter().chain(origin).map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect())
    }
}

pub(crate) fn text<'a>(pairs: &'a [KeyValue], key: &'static str) -> Result<&'a str, Error> {
    let pair = pairs.iter().find(|pair| pair.key == key);
    pair.and_then(|pair| pair.value.as_deref()).ok_or_else(|| Error::Summary { key, reason: "it is absent".to_owned() })
}

pub(crate) fn parsed<T: FromStr<Err: std::fmt::Display>>(pairs: &[KeyValue], key: &'static str) -> Result<T, Error> {
    text(pairs, key)?.parse().map_err(|error: T::Err| Error::Summary { key, reason: error.to_string() })
}

//! The summary of a chunk, kept in its footer.

use std::{ops::Range, str::FromStr, sync::Arc};

use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use parquet::file::metadata::KeyValue;
use serde::de::DeserializeOwned;
use types::{Offset, SegmentId, Timestamp};

use crate::{Counters, Error, Opened, Origin, Tail, ids::Forms, layout, origin, seal};

/// The version that [`write`](crate::write()) writes.
///
/// It grows with a layout that older programs would misread. A further pair in the footer that they may pass over, such as
/// those of [`Origin`], leaves it as it is.
pub const VERSION: u32 = 3;

pub(crate) const KEY_VERSION: &str = "logboom.version";
const KEY_SEGMENT: &str = "logboom.segment";
const KEY_FIRST: &str = "logboom.first";
const KEY_LAST: &str = "logboom.last";
const KEY_TIME_MIN: &str = "logboom.time_min";
const KEY_TIME_MAX: &str = "logboom.time_max";
/// In version 1; since then counters are in the region.
const KEY_COUNTERS: &str = "logboom.counters";
const KEY_ORDER: &str = "logboom.order";
const KEY_IDS: &str = "logboom.ids";
const KEY_REGION: &str = "logboom.region";

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
    /// The column by which rows lie first, then by `_time` and `_offset`; `None` if they lie in the order of offsets.
    pub order: Option<String>,
    /// The columns that lie as ids of sixteen bytes.
    pub(crate) forms: Forms,
}

/// Reads the summary of a chunk after checking its seal.
///
/// Errors: `Foreign`, `Length`, `Checksum` for bytes that are not a whole chunk; `Version` for one of a later program.
pub fn info(bytes: &Bytes) -> Result<ChunkInfo, Error> {
    open(bytes).map(|tail| tail.info().clone())
}

/// Checks the seal and opens the chunk.
pub(crate) fn open(bytes: &Bytes) -> Result<Tail, Error> {
    seal::check(bytes)?;
    match Tail::open(bytes.clone(), bytes.len() as u64)? {
        Opened::Tail(tail) => Ok(*tail),
        Opened::Needs(_) => Err(Error::Foreign("it has the mark LBCHUNK1 and no footer")),
    }
}

fn version(pairs: &[KeyValue]) -> Result<u32, Error> {
    let found = text(pairs, KEY_VERSION)?;
    let version = found.parse().ok().filter(|v| (1..=VERSION).contains(v));
    version.ok_or_else(|| Error::Version { found: found.to_owned() })
}

/// What a footer's pairs say of a chunk of so many rows and these columns.
///
/// Counters are those of version 1, and empty since.
pub(crate) fn summary(pairs: &[KeyValue], rows: i64, stored: &Schema) -> Result<ChunkInfo, Error> {
    let version = version(pairs)?;
    let (first, last) = (parsed(pairs, KEY_FIRST)?, parsed(pairs, KEY_LAST)?);
    let rows = u64::try_from(rows).unwrap_or(0);
    if rows == 0 || last != Offset::saturating_add(first, rows - 1) {
        let reason = format!("{rows} rows from offset {first} do not end at {last}");
        return Err(Error::Summary { key: KEY_LAST, reason });
    }
    let counters = if version == 1 { json(pairs, KEY_COUNTERS)? } else { Counters::default() };
    let has = |key: &str| pairs.iter().any(|pair| pair.key == key);
    let forms: Forms = if has(KEY_IDS) { json(pairs, KEY_IDS)? } else { Forms::new() };
    Ok(ChunkInfo {
        version,
        segment: parsed(pairs, KEY_SEGMENT)?,
        first,
        last,
        rows,
        time_min: Timestamp::from_nanos(parsed(pairs, KEY_TIME_MIN)?),
        time_max: Timestamp::from_nanos(parsed(pairs, KEY_TIME_MAX)?),
        schema: layout::shown_schema(stored, &forms),
        counters,
        origin: origin::read(pairs)?,
        order: has(KEY_ORDER).then(|| text(pairs, KEY_ORDER).map(str::to_owned)).transpose()?,
        forms,
    })
}

/// Where the index region is; nowhere in version 1.
pub(crate) fn region(pairs: &[KeyValue]) -> Result<Option<Range<u64>>, Error> {
    if version(pairs)? == 1 {
        return Ok(None);
    }
    let place = text(pairs, KEY_REGION)?;
    let ends = place.split_once('-').and_then(|(start, end)| start.parse().ok().zip(end.parse().ok()));
    let ends = ends.filter(|(start, end): &(u64, u64)| start < end);
    let (start, end) =
        ends.ok_or_else(|| Error::Summary { key: KEY_REGION, reason: format!("{place:?} is no range of bytes") })?;
    Ok(Some(start..end))
}

/// The pair that says where the region is.
pub(crate) fn region_pair(place: &Range<usize>) -> KeyValue {
    KeyValue::new(KEY_REGION.to_owned(), format!("{}-{}", place.start, place.end))
}

/// The schema without metadata, so that chunks of equal columns have equal schemas.
pub(crate) fn plain(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().clone()))
}

impl ChunkInfo {
    /// The footer's pairs but the one of the region.
    pub(crate) fn pairs(&self) -> Result<Vec<KeyValue>, Error> {
        let mut pairs = vec![
            (KEY_VERSION, self.version.to_string()),
            (KEY_SEGMENT, self.segment.to_string()),
            (KEY_FIRST, self.first.to_string()),
            (KEY_LAST, self.last.to_string()),
            (KEY_TIME_MIN, self.time_min.nanos().to_string()),
            (KEY_TIME_MAX, self.time_max.nanos().to_string()),
        ];
        pairs.extend(self.origin.iter().flat_map(Origin::pairs));
        pairs.extend(self.order.iter().map(|order| (KEY_ORDER, order.clone())));
        if !self.forms.is_empty() {
            let forms = serde_json::to_string(&self.forms)
                .map_err(|error| Error::Summary { key: KEY_IDS, reason: error.to_string() })?;
            pairs.push((KEY_IDS, forms));
        }
        Ok(pairs.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect())
    }
}

fn json<T: DeserializeOwned>(pairs: &[KeyValue], key: &'static str) -> Result<T, Error> {
    serde_json::from_str(text(pairs, key)?).map_err(|error| Error::Summary { key, reason: error.to_string() })
}

pub(crate) fn text<'a>(pairs: &'a [KeyValue], key: &'static str) -> Result<&'a str, Error> {
    let pair = pairs.iter().find(|pair| pair.key == key);
    pair.and_then(|pair| pair.value.as_deref()).ok_or_else(|| Error::Summary { key, reason: "it is absent".to_owned() })
}

pub(crate) fn parsed<T: FromStr<Err: std::fmt::Display>>(pairs: &[KeyValue], key: &'static str) -> Result<T, Error> {
    text(pairs, key)?.parse().map_err(|error: T::Err| Error::Summary { key, reason: error.to_string() })
}

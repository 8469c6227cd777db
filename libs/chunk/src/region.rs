//! The index region: what a chunk knows of its row groups, in one run of bytes before the footer.
//!
//! Layout: the mark `LBINDEX2`, the length of the body, its CRC-32C, the CRC-32C of all bytes behind the region (each 4 bytes,
//! little endian), then the body. A reader has region and footer with one read of the file's end, and proves both.

use std::ops::Range;

use arrow::datatypes::{DataType, Schema};

use crate::{
    Counters, Error, counters,
    cursor::{Cursor, put_bytes, put_signed, put_u32, put_u64, put_varint},
    filter::Filter,
    text::GRAMS,
};

/// The largest region; facts that would make it larger are left out, and those row groups are read.
pub const REGION_BYTES_MAX: usize = 32 << 20;

/// The most row groups and columns of a region that is read.
const GROUPS_MAX: usize = 1 << 16;
const COLUMNS_MAX: usize = 1 << 14;

const MARK: &[u8; 8] = b"LBINDEX2";
/// Mark, length, two checksums.
pub(crate) const HEAD_BYTES: usize = 8 + 4 + 4 + 4;

/// What is known of a column in a row group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Facts {
    /// Nothing.
    Nothing,
    /// The least and the greatest value: whole numbers, times in nanoseconds, false as 0 and true as 1.
    Whole { min: i64, max: i64 },
    /// The least and the greatest number; no value is NaN.
    Decimal { min: f64, max: f64 },
    /// Every value, in order.
    Values(Vec<String>),
    /// Runs of three characters, in order, and tokens of all values.
    Text { grams: Vec<u16>, tokens: Filter },
    /// Hashes of all ids.
    Ids(Filter),
}

/// A column of a row group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    /// CRC-32C of its bytes in the file.
    pub(crate) checksum: u32,
    /// Rows without a value.
    pub(crate) nulls: u64,
    pub(crate) facts: Facts,
}

/// A row group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Group {
    pub(crate) rows: u64,
    /// In the order of the chunk.
    pub(crate) columns: Vec<Column>,
}

/// What a chunk knows of its row groups.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Region {
    pub(crate) groups: Vec<Group>,
    pub(crate) counters: Counters,
}

impl Facts {
    /// Bytes that they take in a file, about.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Nothing => 1,
            Self::Whole { .. } | Self::Decimal { .. } => 17,
            Self::Values(values) => values.iter().map(|value| value.len() + 2).sum(),
            Self::Text { grams, tokens } => 2 * grams.len() + tokens.bytes(),
            Self::Ids(filter) => filter.bytes(),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nothing => out.push(0),
            Self::Whole { min, max } => {
                out.push(1);
                put_signed(out, *min);
                put_varint(out, min.abs_diff(*max));
            }
            Self::Decimal { min, max } => {
                out.push(2);
                put_u64(out, min.to_bits());
                put_u64(out, max.to_bits());
            }
            Self::Values(values) => {
                out.push(3);
                put_varint(out, values.len() as u64);
                values.iter().for_each(|value| put_bytes(out, value.as_bytes()));
            }
            Self::Text { grams, tokens } => {
                out.push(4);
                put_varint(out, grams.len() as u64);
                let mut last = 0;
                for gram in grams {
                    put_varint(out, u64::from(gram - last));
                    last = *gram;
                }
                tokens.write(out);
            }
            Self::Ids(filter) => {
                out.push(5);
                filter.write(out);
            }
        }
    }

    fn read(from: &mut Cursor<'_>) -> Result<Self, String> {
        Ok(match from.u8()? {
            0 => Self::Nothing,
            1 => {
                let (min, span) = (from.signed()?, from.varint()?);
                let max = min.checked_add_unsigned(span).ok_or("a greatest value has more than 64 bits")?;
                Self::Whole { min, max }
            }
            2 => Self::Decimal { min: f64::from_bits(from.u64()?), max: f64::from_bits(from.u64()?) },
            3 => {
                let count = from.count(usize::MAX)?;
                Self::Values((0..count).map(|_| from.text().map(str::to_owned)).collect::<Result<_, _>>()?)
            }
            4 => {
                let count = from.count(GRAMS)?;
                let mut grams = Vec::with_capacity(count);
                let mut last = 0u64;
                for _ in 0..count {
                    last = last.saturating_add(from.varint()?);
                    let gram = u16::try_from(last).ok().filter(|gram| usize::from(*gram) < GRAMS);
                    grams.push(gram.ok_or("a run of characters has a number that none has")?);
                }
                Self::Text { grams, tokens: Filter::read(from)? }
            }
            5 => Self::Ids(Filter::read(from)?),
            other => return Err(format!("facts of the unknown kind {other}")),
        })
    }

    /// Whether a column of this type may have such facts.
    fn fits(&self, of: &DataType) -> bool {
        match self {
            Self::Nothing => true,
            Self::Whole { .. } => matches!(of, DataType::Int64 | DataType::Timestamp(..) | DataType::Boolean),
            Self::Decimal { .. } => *of == DataType::Float64,
            Self::Values(_) | Self::Text { .. } | Self::Ids(_) => *of == DataType::Utf8,
        }
    }
}

impl Region {
    /// The region of a file that is not complete yet.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_varint(&mut body, self.groups.len() as u64);
        for group in &self.groups {
            put_varint(&mut body, group.rows);
            put_varint(&mut body, group.columns.len() as u64);
            for column in &group.columns {
                put_u32(&mut body, column.checksum);
                put_varint(&mut body, column.nulls);
                column.facts.write(&mut body);
            }
        }
        counters::write(&self.counters, &mut body);
        let mut out = MARK.to_vec();
        // A body is held below 4 GiB by the limit of facts and by that of columns.
        put_u32(&mut out, u32::try_from(body.len()).unwrap_or(u32::MAX));
        put_u32(&mut out, crc32c::crc32c(&body));
        put_u32(&mut out, 0);
        out.extend_from_slice(&body);
        out
    }

    /// Reads the body of a region.
    pub(crate) fn read(body: &[u8], schema: &Schema) -> Result<Self, Error> {
        Self::decode(body, schema).map_err(damaged)
    }

    fn decode(body: &[u8], schema: &Schema) -> Result<Self, String> {
        let mut from = Cursor::new(body);
        let groups =
            (0..from.count(GROUPS_MAX)?).map(|_| Group::decode(&mut from, schema)).collect::<Result<_, _>>()?;
        let counters = counters::read(&mut from)?;
        if !from.is_empty() {
            return Err("it goes on behind its end".to_owned());
        }
        Ok(Self { groups, counters })
    }
}

impl Group {
    fn decode(from: &mut Cursor<'_>, schema: &Schema) -> Result<Self, String> {
        let rows = from.varint()?;
        let count = from.count(COLUMNS_MAX)?;
        if count != schema.fields().len() {
            return Err(format!("it tells of {count} columns where the chunk has {}", schema.fields().len()));
        }
        let mut columns = Vec::with_capacity(count);
        for field in schema.fields() {
            let (checksum, nulls, facts) = (from.u32()?, from.varint()?, Facts::read(from)?);
            if !facts.fits(field.data_type()) || nulls > rows {
                return Err(format!(
                    "what it tells of the column {:?} does not fit {}",
                    field.name(),
                    field.data_type()
                ));
            }
            columns.push(Column { checksum, nulls, facts });
        }
        Ok(Self { rows, columns })
    }
}

fn damaged(why: String) -> Error {
    Error::Damaged { part: "index region".to_owned(), why }
}

/// The body of the region with which the end of a file begins, after a proof of it and of all behind it.
pub(crate) fn proved(end: &[u8], length: usize) -> Result<&[u8], Error> {
    let head = end.get(..HEAD_BYTES).filter(|head| head.starts_with(MARK) && length >= HEAD_BYTES);
    let head = head.ok_or_else(|| damaged("it does not begin with the mark LBINDEX2".to_owned()))?;
    let mut numbers = Cursor::new(&head[MARK.len()..]);
    let mut number = || numbers.u32().map_err(damaged);
    let (stated, body_sum, rest_sum) = (number()?, number()?, number()?);
    let body = end.get(HEAD_BYTES..length).filter(|body| body.len() == stated as usize);
    let body = body.ok_or_else(|| damaged(format!("it is {length} bytes long and was written with {stated}")))?;
    check("index region", body, body_sum)?;
    check("footer", &end[length..], rest_sum)?;
    Ok(body)
}

/// Proves a part of the file.
pub(crate) fn check(part: &str, bytes: &[u8], expected: u32) -> Result<(), Error> {
    let found = crc32c::crc32c(bytes);
    if found == expected {
        return Ok(());
    }
    let why = format!("its checksum is {found:08x} and was written as {expected:08x}");
    Err(Error::Damaged { part: part.to_owned(), why })
}

/// Fills in the checksum of what lies behind a region, once the file is complete.
pub(crate) fn close(file: &mut [u8], place: Range<usize>) {
    let sum = crc32c::crc32c(&file[place.end..]);
    file[place.start + HEAD_BYTES - 4..place.start + HEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, TimeUnit};
    use proptest::prelude::*;
    use types::{Severity, Timestamp};

    use super::*;

    fn schema() -> Schema {
        let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let types = [time, DataType::Float64, DataType::Utf8, DataType::Utf8, DataType::Utf8, DataType::Boolean];
        let fields = types.into_iter().enumerate().map(|(place, of)| Field::new(format!("c{place}"), of, true));
        Schema::new(fields.collect::<Vec<_>>())
    }

    fn region() -> Region {
        let keys: Vec<u64> = (0..300u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let filter = Filter::of(&keys).unwrap();
        let facts = [
            Facts::Whole { min: i64::MIN, max: i64::MAX },
            Facts::Decimal { min: -0.5, max: f64::INFINITY },
            Facts::Values(vec![String::new(), "cart".to_owned()]),
            Facts::Text { grams: vec![0, 7, 32_767], tokens: filter.clone() },
            Facts::Ids(filter),
            Facts::Nothing,
        ];
        let column = |(place, facts)| Column { checksum: place, nulls: 3, facts };
        let columns: Vec<Column> = (0..).zip(facts).map(column).collect();
        let mut tally = counters::Tally::default();
        tally.add(Timestamp::from_nanos(-1), Some(Severity::Warn));
        let counters = tally.finish();
        Region { groups: vec![Group { rows: 70, columns: columns.clone() }, Group { rows: 3, columns }], counters }
    }

    #[test]
    fn what_was_written_is_read() {
        let mut file = region().write();
        let length = file.len();
        file.extend_from_slice(b"a footer");
        close(&mut file, 0..length);
        assert_eq!(Region::read(proved(&file, length).unwrap(), &schema()).unwrap(), region());
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            let part = if at < length { "index region" } else { "footer" };
            // The checksum of the footer lies in the head of the region.
            let part = if (HEAD_BYTES - 4..HEAD_BYTES).contains(&at) { "footer" } else { part };
            let error = proved(&damaged, length).unwrap_err().to_string();
            assert!(error.contains(&format!("the {part} of the chunk is damaged")), "byte {at}: {error}");
        }
        assert!(proved(&file, length - 1).is_err() && proved(&file[..7], length).is_err());
    }

    proptest! {
        /// A body with the right checksum that none wrote: it is refused, or read as something that can be asked.
        #[test]
        fn any_body_is_read_or_refused(cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
            let mut body = region().write()[HEAD_BYTES..].to_vec();
            for (at, byte) in cuts {
                let at = at.index(body.len());
                body[at] = byte;
            }
            let Ok(read) = Region::read(&body, &schema()) else { return Ok(()) };
            for column in read.groups.iter().flat_map(|group| &group.columns) {
                if let Facts::Ids(filter) | Facts::Text { tokens: filter, .. } = &column.facts {
                    assert!((0..100).filter(|key| filter.may_hold(key * 0x9e37_79b9)).count() <= 100);
                }
            }
        }
    }
}

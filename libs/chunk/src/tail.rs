//! A chunk opened by its end: what is in which row group, which bytes hold it, and its rows out of those bytes.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    buffer::BooleanBuffer,
    datatypes::{DataType, Int64Type, Schema},
    error::ArrowError,
};
use bytes::Bytes;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowPredicate, ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
            RowFilter, RowSelection,
        },
    },
    errors::ParquetError,
    file::{
        metadata::{PageIndexPolicy, ParquetMetaDataReader, RowGroupMetaData},
        reader::ChunkReader,
        statistics::Statistics,
    },
};
use types::{Offset, Timestamp};

use crate::{
    ChunkInfo, Error, Predicate, READ_BATCH_ROWS, Scalar, info,
    layout::show,
    parts::{Parts, gather},
    predicate::Found,
    region::{self, Column, Facts, Group, Region},
};

/// What a first read of a chunk's end takes besides a share of the chunk: the footer of a chunk with some hundred columns.
const FOOTER_GUESS: u64 = 64 << 10;

/// The share of a chunk that its region is at most, as a rule: it is a twentieth of lines of programs.
const REGION_SHARE: u64 = 16;

/// Bytes between two columns that are fetched with them rather than apart: what a round trip to an object storage costs.
const GAP_BYTES_MAX: u64 = 64 << 10;

/// Parquet's length of the footer and its magic.
const MAGIC_BYTES: u64 = 8;

/// How many bytes of a chunk's end to ask for first; at most all of it.
pub fn tail_bytes(chunk_bytes: u64) -> u64 {
    (chunk_bytes / REGION_SHARE + FOOTER_GUESS).min(chunk_bytes)
}

/// What came of opening a chunk.
#[derive(Debug)]
pub enum Opened {
    /// It is open.
    Tail(Box<Tail>),
    /// So many bytes of its end are needed, more than were given.
    Needs(u64),
}

/// An open chunk.
#[derive(Debug, Clone)]
pub struct Tail {
    info: ChunkInfo,
    footer: ArrowReaderMetadata,
    /// The same, where texts that lie as codes of a dictionary come as these.
    coded: ArrowReaderMetadata,
    region: Region,
    bytes: u64,
}

/// The least and the greatest value of a column in a row group, and its rows without a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// The least value.
    pub min: Scalar,
    /// The greatest value.
    pub max: Scalar,
    /// Rows without a value.
    pub nulls: u64,
}

/// What to read of a chunk.
pub struct Read<'a> {
    /// The row groups, in ascending order.
    pub groups: &'a [usize],
    /// The offsets; rows with others are left out.
    pub run: Range<Offset>,
    /// Those of their rows that are looked at, as they lie, one row group after the other; all for `None`.
    pub rows: Option<BooleanBuffer>,
    /// The columns; all for `None`. Names that the chunk does not have are skipped.
    pub columns: Option<&'a [String]>,
    /// Which of the rows: those that every filter keeps. They are asked in order, each about the rows that are left.
    pub filters: Vec<Filter<'a>>,
}

/// Tells of rows which of them are wanted; the other columns are decoded for those alone.
pub struct Filter<'a> {
    /// The columns it needs to tell; names that the chunk does not have are skipped.
    pub columns: &'a [String],
    /// Tells it of a batch of these columns.
    pub keep: Keep,
}

/// True for each row that is wanted.
pub type Keep = Box<dyn FnMut(RecordBatch) -> Result<BooleanArray, ArrowError> + Send>;

impl std::fmt::Debug for Filter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Read<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Read").field("groups", &self.groups).field("run", &self.run).finish_non_exhaustive()
    }
}

impl Tail {
    /// Opens a chunk of so many bytes by its last ones; [`tail_bytes`] says how many to begin with.
    ///
    /// Errors: `Damaged` for a region or footer that is not as it was written (since version 2), `Version` for a chunk of a
    /// later program, `Summary` for a Parquet file of others.
    pub fn open(end: Bytes, chunk_bytes: u64) -> Result<Opened, Error> {
        let damaged = |why: String| Error::Damaged { part: "footer".to_owned(), why };
        let have = end.len() as u64;
        if have > chunk_bytes {
            return Err(Error::Length { expected: chunk_bytes, found: have });
        }
        let needs = |bytes: u64| match bytes {
            more if more > chunk_bytes || more <= have => {
                Err(damaged(format!("it is of {more} bytes of {chunk_bytes}")))
            }
            more => Ok(Opened::Needs(more)),
        };
        let mut reader = ParquetMetaDataReader::new().with_offset_index_policy(PageIndexPolicy::Optional);
        match reader.try_parse_sized(&end, chunk_bytes) {
            Ok(()) => {}
            Err(ParquetError::NeedMoreData(more)) => return needs(more as u64),
            Err(error) => return Err(damaged(error.to_string())),
        }
        let metadata = reader.finish().map_err(|error| damaged(error.to_string()))?;
        let pairs = metadata.file_metadata().key_value_metadata().map_or(&[][..], Vec::as_slice);
        let body = match info::region(pairs)? {
            None => None,
            Some(place) if place.end > chunk_bytes.saturating_sub(MAGIC_BYTES) => {
                return Err(damaged(format!("its region ends at {} of {chunk_bytes}", place.end)));
            }
            Some(place) if chunk_bytes - place.start > have => return needs(chunk_bytes - place.start),
            Some(place) => {
                let start = usize::try_from(have - (chunk_bytes - place.start)).unwrap_or(usize::MAX);
                let length = usize::try_from(place.end - place.start).unwrap_or(usize::MAX);
                // What it says is not looked at before it is proved.
                Some(region::proved(end.get(start..).unwrap_or(&[]), length)?)
            }
        };
        let rows = metadata.file_metadata().num_rows();
        let footer = ArrowReaderMetadata::try_new(Arc::new(metadata.clone()), reading())
            .map_err(|error| damaged(error.to_string()))?;
        let coded = coded(&footer).map_err(|error| damaged(error.to_string()))?;
        let mut info = info::summary(pairs, rows, footer.schema())?;
        let region = match body {
            None => Region { groups: of_statistics(&footer, &info), counters: info.counters.clone() },
            Some(body) => Region::read(body, &info.schema)?,
        };
        let rows = |group: &RowGroupMetaData| u64::try_from(group.num_rows()).unwrap_or(0);
        let stated = footer.metadata().row_groups().iter().map(rows);
        if !stated.eq(region.groups.iter().map(|group| group.rows)) {
            return Err(damaged("its row groups are not those of the index region".to_owned()));
        }
        for column in footer.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns) {
            let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
            let end = u64::try_from(start).ok().zip(u64::try_from(column.compressed_size()).ok());
            if end.and_then(|(start, length)| start.checked_add(length)).is_none_or(|end| end > chunk_bytes) {
                return Err(damaged(format!("column {} lies outside of the chunk", column.column_path())));
            }
        }
        info.counters = region.counters.clone();
        Ok(Opened::Tail(Box::new(Self { info, footer, coded, region, bytes: chunk_bytes })))
    }

    /// The chunk's summary.
    pub fn info(&self) -> &ChunkInfo {
        &self.info
    }

    /// How many row groups it has.
    pub fn row_groups(&self) -> usize {
        self.region.groups.len()
    }

    /// Rows of a row group.
    pub fn rows(&self, group: usize) -> u64 {
        self.region.groups.get(group).map_or(0, |group| group.rows)
    }

    /// Whether rows lie in the order of offsets.
    pub fn is_ordered(&self) -> bool {
        self.info.order.is_none()
    }

    /// The least and the greatest value of a column of numbers, times or truths; `None` where they are not known.
    pub fn zone(&self, group: usize, column: &str) -> Option<Zone> {
        let found = self.column(group, column)?;
        let of = |value: i64| match found.of {
            DataType::Timestamp(..) => Scalar::Time(Timestamp::from_nanos(value)),
            DataType::Boolean => Scalar::Bool(value != 0),
            _ => Scalar::Int(value),
        };
        let (min, max) = match found.column.facts {
            Facts::Whole { min, max } => (of(min), of(max)),
            Facts::Decimal { min, max } => (Scalar::Float(min), Scalar::Float(max)),
            _ => return None,
        };
        Some(Zone { min, max, nulls: found.column.nulls })
    }

    /// Whether a row of the row group may meet the predicate; where it says no, none does.
    pub fn may_match(&self, group: usize, predicate: &Predicate) -> bool {
        predicate.may_match(&|column| self.column(group, column))
    }

    fn column(&self, group: usize, name: &str) -> Option<Found<'_>> {
        let place = self.info.schema.index_of(name).ok()?;
        let group = self.region.groups.get(group)?;
        let of = self.info.schema.field(place).data_type();
        let form = self.info.forms.get(name).copied();
        Some(Found { column: group.columns.get(place)?, rows: group.rows, of, form })
    }

    /// The bytes that hold columns of row groups, all columns for `None`; in ascending order, with `_offset` always.
    ///
    /// Small gaps are part of a range.
    pub fn ranges(&self, groups: &[usize], columns: Option<&[String]>) -> Vec<Range<u64>> {
        let mut all: Vec<Range<u64>> = self.wanted(groups, columns).map(|(_, _, range)| range).collect();
        all.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in all {
            match merged.last_mut() {
                Some(last) if range.start <= last.end.saturating_add(GAP_BYTES_MAX) => {
                    last.end = last.end.max(range.end)
                }
                _ => merged.push(range),
            }
        }
        merged
    }

    /// Row group, column and bytes.
    fn wanted<'a>(
        &'a self,
        groups: &'a [usize],
        columns: Option<&'a [String]>,
    ) -> impl Iterator<Item = (usize, usize, Range<u64>)> + 'a {
        let places = (0..self.info.schema.fields().len()).filter(move |place| {
            let name = self.info.schema.field(*place).name();
            columns.is_none_or(|names| name == "_offset" || names.contains(name))
        });
        let places: Vec<usize> = places.collect();
        groups.iter().filter(|group| **group < self.row_groups()).flat_map(move |group| {
            let found = self.footer.metadata().row_group(*group);
            let ranges = places.clone().into_iter().map(move |place| {
                let (start, length) = found.column(place).byte_range();
                (*group, place, start..start.saturating_add(length))
            });
            ranges.collect::<Vec<_>>()
        })
    }

    /// Reads rows, in the order in which they lie; of the filters' columns only those that are asked for.
    ///
    /// `parts` are bytes of the chunk, each with its place in it, cut anywhere; together they hold all
    /// [`ranges`](Self::ranges) of the row groups, of the columns and of those of the filters. Bounds: batches of at most [`READ_BATCH_ROWS`].
    /// Errors: `Missing` for bytes not handed in; `Damaged` for a column that is not as it was written (since version 2).
    pub fn read(&self, parts: &[(u64, Bytes)], what: Read<'_>) -> Result<Vec<RecordBatch>, Error> {
        let mut names = what.columns.map(<[String]>::to_vec);
        if let Some(names) = &mut names {
            names.extend(what.filters.iter().flat_map(|filter| filter.columns.iter().cloned()));
        }
        let mut columns = Vec::new();
        for (group, place, range) in self.wanted(what.groups, names.as_deref()) {
            let bytes = gather(parts, &range)?;
            if self.info.version > 1 {
                let part = format!("column {:?} in row group {group}", self.info.schema.field(place).name());
                region::check(&part, &bytes, self.region.groups[group].columns[place].checksum)?;
            }
            columns.push((range.start, bytes));
        }
        self.decode(Parts { columns: columns.into(), bytes: self.bytes }, what)
    }

    /// The rows out of a whole chunk, which has been proved by its seal.
    pub(crate) fn decode<R: ChunkReader + 'static>(&self, input: R, what: Read<'_>) -> Result<Vec<RecordBatch>, Error> {
        let all = self.info.first..self.info.last.saturating_add(1);
        let mut filters: Vec<Box<dyn ArrowPredicate>> = Vec::new();
        if what.run.start > all.start || what.run.end < all.end {
            let run = what.run.clone();
            let within = move |batch: RecordBatch| {
                let offsets = batch.column(0).as_primitive::<Int64Type>().values().iter();
                Ok(offsets
                    .map(|offset| u64::try_from(*offset).is_ok_and(|offset| run.contains(&offset)))
                    .map(Some)
                    .collect())
            };
            filters.push(Box::new(ArrowPredicateFn::new(self.mask(Some(&["_offset".to_owned()])), within)));
        }
        for Filter { columns, mut keep } in what.filters {
            let forms = self.info.forms.clone();
            let shown = move |batch: RecordBatch| keep(show(&batch, &forms)?);
            filters.push(Box::new(ArrowPredicateFn::new(self.mask(Some(columns)), shown)));
        }
        // Of texts that are left out later no more than their codes need be copied.
        let footer = if filters.is_empty() && what.rows.is_none() { &self.footer } else { &self.coded };
        let mut builder = self.builder_of(footer, input, what.columns).with_row_groups(what.groups.to_vec());
        if let Some(rows) = what.rows {
            builder = builder.with_row_selection(RowSelection::from_boolean_buffer(rows));
        }
        if !filters.is_empty() {
            builder = builder.with_row_filter(RowFilter::new(filters));
        }
        builder.build()?.map(|batch| Ok(show(&batch?, &self.info.forms)?)).collect()
    }

    /// A reader of the named columns, all for `None`.
    pub(crate) fn builder<R: ChunkReader + 'static>(
        &self,
        input: R,
        columns: Option<&[String]>,
    ) -> ParquetRecordBatchReaderBuilder<R> {
        self.builder_of(&self.footer, input, columns)
    }

    fn builder_of<R: ChunkReader + 'static>(
        &self,
        footer: &ArrowReaderMetadata,
        input: R,
        columns: Option<&[String]>,
    ) -> ParquetRecordBatchReaderBuilder<R> {
        ParquetRecordBatchReaderBuilder::new_with_metadata(input, footer.clone())
            .with_batch_size(READ_BATCH_ROWS)
            .with_projection(self.mask(columns))
    }

    fn mask(&self, columns: Option<&[String]>) -> ProjectionMask {
        let schema = &self.info.schema;
        let wanted = |place: &usize| columns.is_none_or(|names| names.contains(schema.field(*place).name()));
        ProjectionMask::roots(self.footer.parquet_schema(), (0..schema.fields().len()).filter(wanted))
    }
}

/// Columns are what Parquet says of them: what Arrow's writers add about them can be had from none of our types.
fn reading() -> ArrowReaderOptions {
    ArrowReaderOptions::new().with_skip_arrow_metadata(true)
}

/// A footer that gives texts as codes where all row groups have a dictionary of them.
fn coded(footer: &ArrowReaderMetadata) -> Result<ArrowReaderMetadata, ParquetError> {
    let groups = footer.metadata().row_groups();
    let is_coded = |place: usize| {
        groups.iter().all(|group| group.columns().get(place).is_some_and(|of| of.dictionary_page_offset().is_some()))
    };
    let fields = footer.schema().fields().iter().enumerate().map(|(place, field)| match field.data_type() {
        DataType::Utf8 if is_coded(place) => {
            let of = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
            Arc::new(field.as_ref().clone().with_data_type(of))
        }
        _ => Arc::clone(field),
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    ArrowReaderMetadata::try_new(Arc::clone(footer.metadata()), reading().with_schema(schema))
}

/// What Parquet's statistics say of the row groups of a chunk without a region.
fn of_statistics(footer: &ArrowReaderMetadata, info: &ChunkInfo) -> Vec<Group> {
    let column = |group: &RowGroupMetaData, place: usize| {
        let of = info.schema.field(place).data_type();
        let known = group.columns().get(place).and_then(|column| column.statistics());
        let facts = match known {
            Some(Statistics::Int64(values)) if matches!(of, DataType::Int64 | DataType::Timestamp(..)) => {
                match (values.min_opt(), values.max_opt()) {
                    (Some(min), Some(max)) => Facts::Whole { min: *min, max: *max },
                    _ => Facts::Nothing,
                }
            }
            _ => Facts::Nothing,
        };
        // Unknown nulls: at least one, and not all.
        let nulls = known.and_then(Statistics::null_count_opt).unwrap_or(1);
        Column { checksum: 0, nulls, facts }
    };
    let groups = footer.metadata().row_groups().iter();
    groups
        .map(|group| Group {
            rows: u64::try_from(group.num_rows()).unwrap_or(0),
            columns: (0..info.schema.fields().len()).map(|place| column(group, place)).collect(),
        })
        .collect()
}

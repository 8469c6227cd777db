//! Rows by rank, one by one: encoded once, and compared as bytes.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Int8Array, Int64Array, RecordBatch, TimestampNanosecondArray, UInt64Array},
    compute::{SortOptions, cast},
    datatypes::{DataType, Field, Int8Type, Int64Type, Schema, SchemaRef, UInt64Type},
    row::{RowConverter, Rows, SortField},
};

use crate::{
    CHANGE_COLUMN, Change, Error, HASH_COLUMN, OFFSET_COLUMN, SPLIT_COLUMN, SortKey, TIME_COLUMN, column,
    ordered::{RowForm, converter},
};

/// Bytes of an entry beside its row.
const ENTRY_BYTES: usize = 96;

/// One row.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// By which it is compared: what it is ranked by, its place, and a number that no other has.
    pub(crate) sort: Arc<[u8]>,
    /// What it shows, but for its time.
    pub(crate) row: Arc<[u8]>,
    pub(crate) time: i64,
    split: u64,
    offset: i64,
}

impl Entry {
    pub(crate) fn bytes(&self) -> usize {
        self.sort.len() + self.row.len() + ENTRY_BYTES
    }
}

/// How rows become entries, and entries rows.
#[derive(Debug)]
pub(crate) struct Encoding {
    /// Columns that the entries hold, by their names.
    content: Vec<String>,
    content_rows: RowConverter,
    order: Vec<SortKey>,
    order_rows: Option<RowConverter>,
    place_rows: RowConverter,
    placed: bool,
    changes: bool,
    /// What is stored: time, place, content, hash.
    stored: SchemaRef,
    /// What is given on, but for rank and change.
    shown: SchemaRef,
}

/// One batch, encoded.
pub(crate) struct Encoded {
    order: Option<Rows>,
    place: Rows,
    content: Rows,
    pub(crate) times: arrow::buffer::ScalarBuffer<i64>,
    places: Option<(UInt64Array, Int64Array)>,
    changes: Option<Int8Array>,
}

fn value(rows: &RecordBatch, name: &str) -> Result<ArrayRef, Error> {
    // Times and places are compared as they are, and everything else as keys are: equal numbers are equal.
    column::key(column::column(rows, name)?, name)
}

impl Encoding {
    /// For rows of that form; `last` ranks the later place first.
    pub(crate) fn learn(form: &RowForm, order: &[SortKey], last: bool) -> Result<Self, Error> {
        let empty = RecordBatch::new_empty(Arc::clone(form.kept()));
        let has = |name: &str| form.shown().field_with_name(name).is_ok();
        let (placed, changes) = (has(SPLIT_COLUMN) && has(OFFSET_COLUMN), has(CHANGE_COLUMN));
        let hidden = [SPLIT_COLUMN, OFFSET_COLUMN, CHANGE_COLUMN];
        let shown = form.shown().fields().iter().filter(|field| !hidden.contains(&field.name().as_str()));
        let shown: Vec<Field> = shown.map(|field| field.as_ref().clone()).collect();
        let content: Vec<&Field> = shown.iter().filter(|field| field.name() != TIME_COLUMN).collect();
        let content: Vec<Field> = content.into_iter().cloned().collect();
        if content.is_empty() {
            return Err(super::wrong("rows have nothing but their time: there is nothing to rank".into()));
        }
        let place = SortOptions { descending: last, nulls_first: true };
        let mut order_fields = Vec::new();
        for key in order {
            let options = SortOptions { descending: key.descending, nulls_first: key.nulls_first };
            order_fields.push(SortField::new_with_options(value(&empty, &key.column)?.data_type().clone(), options));
        }
        let by_place: Vec<DataType> = match placed {
            true => vec![DataType::Int64, DataType::UInt64, DataType::Int64],
            false => {
                let content = content.iter().map(|field| field.data_type().clone());
                std::iter::once(DataType::Int64).chain(content).collect()
            }
        };
        let place_fields = by_place.into_iter().map(|kind| SortField::new_with_options(kind, place)).collect();
        let kept = form.kept().fields().iter().filter(|field| field.name() != CHANGE_COLUMN);
        Ok(Self {
            content: content.iter().map(|field| field.name().clone()).collect(),
            content_rows: converter(&content, SortOptions::default())?,
            order: order.to_vec(),
            order_rows: if order.is_empty() { None } else { Some(RowConverter::new(order_fields)?) },
            place_rows: RowConverter::new(place_fields)?,
            placed,
            changes,
            stored: Arc::new(Schema::new(kept.map(|field| field.as_ref().clone()).collect::<Vec<_>>())),
            shown: Arc::new(Schema::new(shown)),
        })
    }

    /// What is stored of entries.
    pub(crate) fn stored(&self) -> &SchemaRef {
        &self.stored
    }

    /// Whether rows can go again.
    pub(crate) fn changes(&self) -> bool {
        self.changes
    }

    /// Encodes kept rows, or stored ones.
    pub(crate) fn read(&self, rows: &RecordBatch) -> Result<Encoded, Error> {
        let of = |name: &String| column::column(rows, name).cloned();
        let content = self.content.iter().map(of).collect::<Result<Vec<_>, Error>>()?;
        let times = column::times(rows, TIME_COLUMN)?;
        let order = self.order.iter().map(|key| value(rows, &key.column)).collect::<Result<Vec<_>, Error>>()?;
        let mut place: Vec<ArrayRef> = vec![Arc::new(Int64Array::new(times.clone(), None))];
        let mut places = None;
        if self.placed {
            let splits = column::column(rows, SPLIT_COLUMN)?.as_primitive::<UInt64Type>().clone();
            let offsets = column::column(rows, OFFSET_COLUMN)?.as_primitive::<Int64Type>().clone();
            place.extend([Arc::new(splits.clone()) as ArrayRef, Arc::new(offsets.clone())]);
            places = Some((splits, offsets));
        } else {
            place.extend(content.iter().cloned());
        }
        let changes = match rows.column_by_name(CHANGE_COLUMN).map(|array| array.as_primitive_opt::<Int8Type>()) {
            None => None,
            Some(Some(codes)) if codes.values().iter().all(|code| Change::of(*code).is_some()) => Some(codes.clone()),
            Some(_) => {
                return Err(Error::ColumnType {
                    column: CHANGE_COLUMN.to_owned(),
                    found: "something else".to_owned(),
                    wanted: "codes of changes, never null".to_owned(),
                });
            }
        };
        let order = self.order_rows.as_ref().map(|converter| converter.convert_columns(&order)).transpose()?;
        let (place, content) = (self.place_rows.convert_columns(&place)?, self.content_rows.convert_columns(&content)?);
        Ok(Encoded { order, place, content, times, places, changes })
    }

    /// What entries show: their content, and the later of their time and `from`.
    pub(crate) fn show(&self, entries: &[&Entry], from: i64) -> Result<RecordBatch, Error> {
        let mut content = self.decoded(entries)?.into_iter();
        let times: ArrayRef =
            Arc::new(TimestampNanosecondArray::from_iter_values(entries.iter().map(|entry| entry.time.max(from))));
        let mut columns = Vec::with_capacity(self.shown.fields().len());
        for field in self.shown.fields() {
            if field.name() == TIME_COLUMN {
                columns.push(cast(&times, field.data_type())?);
            } else {
                columns.extend(content.next());
            }
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.shown), columns)?)
    }

    /// Entries to be stored, each beside the hash of its key.
    pub(crate) fn store(&self, entries: &[&Entry], hashes: Vec<u64>, schema: &SchemaRef) -> Result<RecordBatch, Error> {
        let mut content = self.decoded(entries)?.into_iter();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        let times: ArrayRef =
            Arc::new(TimestampNanosecondArray::from_iter_values(entries.iter().map(|entry| entry.time)));
        for field in schema.fields() {
            match field.name().as_str() {
                TIME_COLUMN => columns.push(cast(&times, field.data_type())?),
                HASH_COLUMN => columns.push(Arc::new(UInt64Array::from(hashes.clone()))),
                SPLIT_COLUMN if self.placed => {
                    columns.push(Arc::new(entries.iter().map(|entry| entry.split).collect::<UInt64Array>()));
                }
                OFFSET_COLUMN if self.placed => {
                    columns.push(Arc::new(entries.iter().map(|entry| entry.offset).collect::<Int64Array>()));
                }
                _ => columns.extend(content.next()),
            }
        }
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }

    fn decoded(&self, entries: &[&Entry]) -> Result<Vec<ArrayRef>, Error> {
        if self.content.is_empty() {
            return Ok(Vec::new());
        }
        let parser = self.content_rows.parser();
        Ok(self.content_rows.convert_rows(entries.iter().map(|entry| parser.parse(&entry.row)))?)
    }
}

impl Encoded {
    /// What a row is ranked by: where the bytes begin by which it is compared.
    pub(crate) fn order(&self, row: usize) -> &[u8] {
        self.order.as_ref().map_or(&[], |order| order.row(row).data())
    }

    /// By which a row is compared, into `sort`; `number` tells it from rows that are equal.
    pub(crate) fn sort(&self, row: usize, number: u64, sort: &mut Vec<u8>) {
        sort.clear();
        sort.extend_from_slice(self.order(row));
        sort.extend_from_slice(self.place.row(row).data());
        sort.extend_from_slice(&number.to_be_bytes());
    }

    /// What a row shows, but for its time.
    pub(crate) fn content(&self, row: usize) -> &[u8] {
        self.content.row(row).data()
    }

    /// Whether a row takes another away.
    pub(crate) fn takes(&self, row: usize) -> bool {
        let change = self.changes.as_ref().and_then(|codes| Change::of(codes.value(row)));
        change.is_some_and(|change| !change.adds())
    }

    pub(crate) fn entry(&self, row: usize, sort: &[u8]) -> Entry {
        let (split, offset) =
            self.places.as_ref().map_or((0, 0), |(splits, offsets)| (splits.value(row), offsets.value(row)));
        let (sort, content) = (sort.into(), self.content(row).into());
        Entry { sort, row: content, time: self.times[row], split, offset }
    }
}

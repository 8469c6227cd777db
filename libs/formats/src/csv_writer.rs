//! Separated values out of batches, as [`Csv`](crate::Csv) reads them.

use arrow::{
    array::{Array, RecordBatch},
    datatypes::{DataType, Schema},
    util::display::{ArrayFormatter, FormatOptions},
};

use crate::{Error, csv::separator};

/// How instants are written: as RFC 3339, with as many digits as they need.
const INSTANT: &str = "%Y-%m-%dT%H:%M:%S%.fZ";
const INSTANT_OF_ZONE: &str = "%Y-%m-%dT%H:%M:%S%.f%:z";

/// Writes separated values.
///
/// Null is an empty value, and an empty text one in quotes. A row of nothing but one null has quotes too, since an empty line is no record:
/// it is read as an empty text. A value of a nested type is written as its text, in quotes where it needs them.
#[derive(Debug, Clone)]
pub struct CsvWriter {
    delimiter: u8,
}

impl CsvWriter {
    /// A writer. Errors: `Schema` as of [`Csv::new`](crate::Csv::new).
    pub fn new(delimiter: char) -> Result<Self, Error> {
        Ok(Self { delimiter: separator(delimiter)? })
    }

    /// Appends the names of the columns as a record.
    pub fn names(&self, schema: &Schema, out: &mut Vec<u8>) {
        for (place, field) in schema.fields().iter().enumerate() {
            self.value(place, field.name(), out);
        }
        out.push(b'\n');
    }

    /// Appends the rows, a line each unless a text holds line feeds.
    pub fn rows(&self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), Error> {
        let options =
            FormatOptions::new().with_timestamp_format(Some(INSTANT)).with_timestamp_tz_format(Some(INSTANT_OF_ZONE));
        let columns = batch.columns().iter();
        let columns = columns.map(|c| Ok((c.as_ref(), ArrayFormatter::try_new(c.as_ref(), &options)?)));
        let columns: Vec<(&dyn Array, ArrayFormatter<'_>)> = columns.collect::<Result<_, Error>>()?;
        let mut text = String::new();
        for row in 0..batch.num_rows() {
            for (place, (array, formatter)) in columns.iter().enumerate() {
                if array.is_null(row) || *array.data_type() == DataType::Null {
                    if place > 0 {
                        out.push(self.delimiter);
                    }
                    continue;
                }
                text.clear();
                formatter.value(row).write(&mut text).map_err(|_| unwritten(array.data_type()))?;
                self.value(place, &text, out);
            }
            if let [(array, _)] = columns[..]
                && array.is_null(row)
            {
                out.extend_from_slice(b"\"\"");
            }
            out.push(b'\n');
        }
        Ok(())
    }

    fn value(&self, place: usize, text: &str, out: &mut Vec<u8>) {
        if place > 0 {
            out.push(self.delimiter);
        }
        let plain = |byte: &u8| *byte != self.delimiter && !matches!(byte, b'"' | b'\n' | b'\r');
        // The first sign of a file could be taken for a byte order mark.
        if !text.is_empty() && text.as_bytes().iter().all(plain) && !text.starts_with('\u{feff}') {
            return out.extend_from_slice(text.as_bytes());
        }
        out.push(b'"');
        out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
        out.push(b'"');
    }
}

fn unwritten(kind: &DataType) -> Error {
    Error::Schema(format!("a value of type {kind} has no text"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampNanosecondArray};
    use proptest::prelude::*;

    use super::*;
    use crate::{Column, Csv, Kind, Layout, Unit};

    type Row = (i64, Option<i64>, Option<String>, Option<bool>, Option<f64>);

    fn batch(rows: &[Row]) -> RecordBatch {
        let columns: [(&str, ArrayRef); 5] = [
            ("_time", Arc::new(rows.iter().map(|r| Some(r.0)).collect::<TimestampNanosecondArray>())),
            ("n", Arc::new(rows.iter().map(|r| r.1).collect::<Int64Array>())),
            ("a text", Arc::new(rows.iter().map(|r| r.2.clone()).collect::<StringArray>())),
            ("b", Arc::new(rows.iter().map(|r| r.3).collect::<BooleanArray>())),
            ("x", Arc::new(rows.iter().map(|r| r.4).collect::<Float64Array>())),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, name != "_time"))).unwrap()
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![".{0,6}", "[a\",;\n\r \u{feff}]{0,6}"]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            rows in prop::collection::vec(
                (0i64..4_000_000_000_000_000_000, any::<Option<i64>>(), prop::option::of(text()), any::<Option<bool>>(), prop::option::of(-1e300f64..1e300)),
                0..20,
            ),
            delimiter in prop::sample::select(vec![',', ';', '\t', '|']),
            header in any::<bool>(),
        ) {
            let columns = [("n", Kind::Integer), ("a text", Kind::Text), ("b", Kind::Boolean), ("x", Kind::Float)];
            let columns = columns.map(|(name, kind)| Column::new(name, kind)).to_vec();
            let layout = Layout::new(columns, Some("_time"), Unit::Millis).unwrap();
            let (written, writer) = (batch(&rows), CsvWriter::new(delimiter).unwrap());
            let mut out = Vec::new();
            if header {
                writer.names(&written.schema(), &mut out);
            }
            writer.rows(&written, &mut out).unwrap();
            let read = Csv::new(layout, delimiter, header).unwrap().read(&out, true, 100).unwrap();
            prop_assert!(read.rows.faults.is_empty(), "{:?}", read.rows.faults);
            prop_assert_eq!(read.rows.batch, written);
        }
    }

    #[test]
    fn a_null_alone_is_no_empty_line() {
        let one = Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef;
        let batch = RecordBatch::try_from_iter_with_nullable([("n", one, true)]).unwrap();
        let mut out = Vec::new();
        CsvWriter::new(',').unwrap().rows(&batch, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "1\n\"\"\n");
        assert!(CsvWriter::new('"').is_err() && CsvWriter::new('ä').is_err());
    }
}

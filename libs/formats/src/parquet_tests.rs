use std::sync::Mutex;

use arrow::{
    array::{
        DictionaryArray, Float64Array, Int32Array, Int64Array, StringArray, TimestampMillisecondArray,
        TimestampSecondArray, UInt64Array,
    },
    compute::concat_batches,
    datatypes::{Int32Type, TimestampNanosecondType},
};
use bytes::Bytes;
use parquet::file::reader::Length;
use proptest::prelude::*;

use super::*;
use crate::Column;

fn layout(columns: &[(&str, Kind)], time: Option<&str>) -> Layout {
    Layout::new(columns.iter().map(|(name, kind)| Column::new(name, *kind)).collect(), time, Unit::Millis).unwrap()
}

/// A file with a row group for each batch.
fn file(batches: &[RecordBatch]) -> Bytes {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(7)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batches[0].schema(), Some(properties)).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
        writer.flush().unwrap();
    }
    writer.into_inner().unwrap().into()
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn all(reader: &mut Parquet) -> (RecordBatch, Vec<i64>, Vec<Fault>) {
    let (mut batches, mut offsets, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(rows) = reader.read().unwrap() {
        offsets.extend(rows.offsets.iter());
        batches.push(rows.batch);
        faults.extend(rows.faults);
    }
    (concat_batches(reader.layout.schema(), &batches).unwrap(), offsets, faults)
}

proptest! {
    /// Row by row against the values that were written, whatever the row groups, the batches and the begin.
    #[test]
    fn every_row_is_read_once_from_anywhere(
        rows in prop::collection::vec((any::<Option<u64>>(), prop::option::of(-10i64..10), prop::option::of("[a-c]{0,3}")), 1..60),
        cut in 0usize..60,
        from in 0usize..60,
        rows_max in 1usize..20,
    ) {
        let (cut, from) = (cut.min(rows.len()), from.min(rows.len()));
        let part = |rows: &[(Option<u64>, Option<i64>, Option<String>)]| batch(vec![
            ("unused", Arc::new(Int64Array::from(vec![1; rows.len()]))),
            ("n", Arc::new(rows.iter().map(|row| row.0).collect::<UInt64Array>())),
            ("text", Arc::new(rows.iter().map(|row| row.2.clone()).collect::<StringArray>())),
            ("at", Arc::new(rows.iter().map(|row| row.1).collect::<TimestampSecondArray>().with_timezone("+01:00"))),
        ]);
        let (left, right) = rows.split_at(cut);
        let bytes = file(&[part(left), part(right)]);
        let layout = layout(&[("text", Kind::Text), ("n", Kind::Integer)], Some("at"));
        let mut reader = Parquet::open(bytes, layout, u64::try_from(from).unwrap(), rows_max).unwrap();
        let (found, offsets, faults) = all(&mut reader);
        prop_assert_eq!(reader.position(), u64::try_from(rows.len()).unwrap());
        let (mut wanted, mut wrong) = (Vec::new(), Vec::new());
        for (number, (n, at, text)) in rows.iter().enumerate().skip(from) {
            match (at, n.map(i64::try_from).transpose()) {
                (Some(at), Ok(n)) => wanted.push((i64::try_from(number).unwrap(), at * 1_000_000_000, n, text.clone())),
                (None, _) => wrong.push((u64::try_from(number).unwrap(), FaultKind::Undated)),
                (_, Err(_)) => wrong.push((u64::try_from(number).unwrap(), FaultKind::Corrupt)),
            }
        }
        let faults: Vec<_> = faults.iter().map(|fault| (fault.offset, fault.kind)).collect();
        prop_assert_eq!(faults, wrong);
        let times = found.column(0).as_primitive::<TimestampNanosecondType>();
        let (texts, numbers) = (found.column(1).as_string::<i32>(), found.column(2).as_primitive::<Int64Type>());
        let found: Vec<_> = (0..found.num_rows())
            .map(|row| {
                let text = texts.is_valid(row).then(|| texts.value(row).to_owned());
                (offsets[row], times.value(row), numbers.is_valid(row).then(|| numbers.value(row)), text)
            })
            .collect();
        prop_assert_eq!(found, wanted);
    }
}

#[test]
fn kinds_are_taken_from_what_can_become_them() {
    let rows = batch(vec![
        ("small", Arc::new(Int32Array::from(vec![1, -2]))),
        ("x", Arc::new(Float64Array::from(vec![0.5, 2.0]))),
        ("ms", Arc::new(TimestampMillisecondArray::from(vec![1, i64::MAX]))),
        ("count", Arc::new(Int64Array::from(vec![1, 2]))),
        ("text", Arc::new(StringArray::from(vec!["1970-01-01T00:00:01Z", "soon"]))),
        ("coded", Arc::new(vec!["a", "b"].into_iter().collect::<DictionaryArray<Int32Type>>())),
    ]);
    let bytes = file(&[rows]);
    let read = |columns: &[(&str, Kind)]| {
        Parquet::open(bytes.clone(), layout(columns, None), 0, 10).map(|mut reader| all(&mut reader))
    };
    let (found, ..) = read(&[("small", Kind::Integer), ("x", Kind::Float)]).unwrap();
    assert_eq!(found.column(0).as_primitive::<Int64Type>().values().to_vec(), [1, -2]);
    let (found, ..) = read(&[("coded", Kind::Text)]).unwrap();
    assert_eq!(found.column(0).as_string::<i32>().value(1), "b");
    let (found, ..) = read(&[("small", Kind::Text), ("count", Kind::Time)]).unwrap();
    assert_eq!(found.column(0).as_string::<i32>().value(1), "-2");
    assert_eq!(found.column(1).as_primitive::<TimestampNanosecondType>().values().to_vec(), [1_000_000, 2_000_000]);
    let (found, offsets, faults) = read(&[("ms", Kind::Time), ("text", Kind::Time)]).unwrap();
    assert_eq!((found.num_rows(), offsets), (1, vec![0]));
    assert_eq!(faults.len(), 1, "a row is faulty once");
    assert!(faults[0].problem.contains("\"ms\"") && faults[0].text.contains("text=soon"), "{faults:?}");
    for (name, kind, why) in [
        ("x", Kind::Integer, "never is"),
        ("text", Kind::Integer, "never is"),
        ("small", Kind::Boolean, "never is"),
        ("gone", Kind::Text, "not among the columns small, x"),
    ] {
        let found = read(&[(name, kind)]).unwrap_err().to_string();
        assert!(found.contains(why), "{name}: {found}");
    }
}

#[test]
fn what_is_written_is_read_and_what_is_none_is_named() {
    let rows = batch(vec![
        ("n", Arc::new((0..5_000).map(Some).collect::<Int64Array>())),
        ("text", Arc::new((0..5_000).map(|n| Some(format!("text {n}"))).collect::<StringArray>())),
    ]);
    let mut writer = ParquetWriter::new(Vec::new(), rows.schema()).unwrap();
    assert!(writer.write(&rows).is_ok() && writer.bytes() > 1_000);
    let bytes: Bytes = writer.finish().unwrap().into();
    let columns = layout(&[("n", Kind::Integer), ("text", Kind::Text)], None);
    let open = |bytes: Bytes, from| Parquet::open(bytes, columns.clone(), from, 1_000);
    let (found, ..) = all(&mut open(bytes.clone(), 0).unwrap());
    assert_eq!(found, rows);
    assert!(all(&mut open(bytes.clone(), 5_000).unwrap()).0.num_rows() == 0);
    let reason = |found: Result<Parquet, Error>| format!("{:?}", found.unwrap_err());
    assert!(reason(open(bytes.clone(), 5_001)).contains("has 5000"));
    assert!(reason(open(Bytes::from_static(b"PAR1"), 0)).contains("4 bytes"));
    assert!(reason(open(bytes.slice(..bytes.len() - 1), 0)).contains("Parquet"));
    let endless = Bytes::from([&[0u8; 100][..], &u32::MAX.to_le_bytes(), b"PAR1"].concat());
    assert!(reason(open(endless, 0)).contains("footer"));
}

/// Bytes that tell what was asked of them.
struct Watched(Bytes, Arc<Mutex<u64>>);

impl Length for Watched {
    fn len(&self) -> u64 {
        Length::len(&self.0)
    }
}

impl ChunkReader for Watched {
    type T = <Bytes as ChunkReader>::T;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        self.0.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        *self.1.lock().unwrap() += u64::try_from(length).unwrap();
        self.0.get_bytes(start, length)
    }
}

#[test]
fn columns_that_nobody_asks_for_and_row_groups_before_the_begin_are_not_read() {
    let wide: StringArray = (0..1_000).map(|n| Some(format!("{n:0500}").repeat(1 + n % 3))).collect();
    let part = batch(vec![("wide", Arc::new(wide)), ("n", Arc::new((0..1_000).map(Some).collect::<Int64Array>()))]);
    let bytes = file(&[part.clone(), part]);
    let asked = |columns: &[(&str, Kind)], from| {
        let count = Arc::new(Mutex::new(0));
        let input = Watched(bytes.clone(), Arc::clone(&count));
        all(&mut Parquet::open(input, layout(columns, None), from, 100).unwrap());
        *count.lock().unwrap()
    };
    let (narrow, both) = (asked(&[("n", Kind::Integer)], 0), asked(&[("n", Kind::Integer), ("wide", Kind::Text)], 0));
    let half = asked(&[("n", Kind::Integer), ("wide", Kind::Text)], 1_000);
    assert!(narrow * 2 < both && half < both, "{narrow}, {half} and {both} bytes");
}

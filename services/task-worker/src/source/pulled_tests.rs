use std::{fs, path::Path};

use arrow::datatypes::Int64Type;
use flow::{Connector, EventTime, FileFormat, NexmarkTable, SourceSpec, TaskId, Uid};
use formats::{Column, CsvWriter, Kind, Layout, ParquetWriter, Unit};
use proptest::prelude::*;
use types::DurationText;

use super::*;
use crate::source::{files, generated, nexmark, open::places};

const HIDDEN: Hidden = Hidden { watermark: true, place: true };

proptest! {
    /// The rule of `flow` for one row after the other, however they are cut.
    #[test]
    fn watermarks_are_those_of_the_split(times in prop::collection::vec(-50i64..50, 0..40), cut in 0usize..40, delay in 0i64..20) {
        let mut split = flow::SplitWatermark::new(std::time::Duration::from_nanos(delay.unsigned_abs()));
        let wanted: Vec<i64> = times
            .iter()
            .map(|time| {
                let before = split.watermark().nanos();
                split.observe(Timestamp::from_nanos(*time), Timestamp::MAX);
                before
            })
            .collect();
        let mut place = Place::default();
        let (left, right) = times.split_at(cut.min(times.len()));
        let mut found = latest(&mut place, left, delay, true).unwrap();
        place = wire::decode(&wire::encode(&place)).unwrap();
        found.extend(latest(&mut place, right, delay, true).unwrap());
        prop_assert_eq!(found, wanted);
        prop_assert_eq!(place.watermark(delay), split.watermark().nanos());
    }
}

fn manner(corrupt: Corrupt) -> Manner {
    Manner { delay: 0, hidden: HIDDEN, corrupt, idle_after: None }
}

fn layout() -> Layout {
    Layout::new(vec![Column::new("k", Kind::Integer)], Some("_time"), Unit::Nanos).unwrap()
}

/// A row as a job sees it: split, offset, the watermark before it, time and value.
type Seen = (u64, i64, i64, i64, i64);

fn seen(batch: &RecordBatch) -> Vec<Seen> {
    let integers = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec();
    let times =
        |name: &str| batch.column_by_name(name).unwrap().as_primitive::<TimestampNanosecondType>().values().to_vec();
    let splits = batch.column_by_name(SPLIT_COLUMN).unwrap();
    let splits = splits.as_primitive::<arrow::datatypes::UInt64Type>().values().to_vec();
    let key = batch.schema().fields().iter().position(|f| matches!(f.name().as_str(), "k" | "price")).unwrap();
    let keys = batch.column(key).as_primitive::<Int64Type>().values().to_vec();
    let (offsets, before, at) = (integers(OFFSET_COLUMN), times(ROW_WATERMARK_COLUMN), times(flow::TIME_COLUMN));
    (0..batch.num_rows()).map(|row| (splits[row], offsets[row], before[row], at[row], keys[row])).collect()
}

/// Reads so many pieces, or all; says how many letters came besides, and leaves a part.
async fn read(mut source: Pulled, subtask: u32, pieces: usize, out: &mut Vec<Seen>) -> (usize, Part) {
    let (mut dead, mut count) = (0, 0);
    while count < pieces {
        match source.next().await.unwrap() {
            Fed::Rows(rows) => {
                out.extend(seen(&rows.batch));
                dead += rows.dead.len();
                count += 1;
            }
            Fed::End => break,
            Fed::Watermark(_) | Fed::Idle => {}
        }
    }
    let mut part = Part::new(TaskId { vertex: 0, subtask }, Uid::default(), 1);
    source.note(&mut part);
    (dead, part)
}

/// Any source, opened for a subtask behind parts.
#[derive(Debug, Clone)]
enum Kinds {
    Files(std::path::PathBuf, FileFormat),
    Datagen,
    Nexmark,
}

impl Kinds {
    async fn open(&self, share: Share, parts: &[Part]) -> Pulled {
        let known = places(parts).unwrap();
        let splits = match self {
            Self::Files(root, format) => files::splits(share, (root, "in"), format, &layout(), known).await.unwrap(),
            Self::Datagen => {
                let pace = generated::Pace { seed: 5, rows: Some(60_000), per_second: None, splits: 5 };
                generated::splits(share, pace, &layout(), &known)
            }
            Self::Nexmark => {
                let table = NexmarkTable::Bid;
                let events = nexmark::Events { table, seed: 5, events: Some(70_000), rate: 1_000, splits: 3 };
                nexmark::splits(share, &nexmark_spec(None), events, &known).unwrap()
            }
        };
        Pulled::new(splits, manner(Corrupt::DeadLetter))
    }
}

fn nexmark_spec(time: Option<&str>) -> SourceSpec {
    let nothing = None;
    SourceSpec {
        from: Connector::Datagen { seed: 0, rows: nothing, per_second: nothing, splits: 1 },
        time: EventTime {
            column: time.map(str::to_owned),
            unit: flow::EpochUnit::Millis,
            delay: DurationText(Duration::ZERO),
            max_future_skew: None,
            idle_after: None,
            max_drift: None,
        },
        schema: Vec::new(),
        columns: Some(vec!["price".to_owned()]),
        hidden: HIDDEN,
        corrupt: Corrupt::Fail,
    }
}

/// Files of different lengths, some shorter than a piece; each line of text formats that is divisible by 1000 is none.
fn write(root: &Path, format: &FileFormat) {
    fs::create_dir_all(root.join("in")).unwrap();
    for (file, count) in [(0u8, 20_000i64), (1, 9_000), (2, 3), (3, 0), (4, 12_345)] {
        let times: TimestampNanosecondArray = (0..count).map(|n| Some(n * 100 - n % 7 * 1_000)).collect();
        let keys: Int64Array = (0..count).map(|n| Some(n + i64::from(file) * 1_000_000)).collect();
        let columns: [(&str, ArrayRef); 2] = [("_time", Arc::new(times)), ("k", Arc::new(keys))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let (bytes, ending) = match format {
            FileFormat::Parquet => {
                let mut writer = ParquetWriter::new(Vec::new(), batch.schema()).unwrap();
                writer.write(&batch).unwrap();
                (writer.finish().unwrap(), "parquet")
            }
            FileFormat::Csv { .. } => {
                let (writer, mut text) = (CsvWriter::new(',').unwrap(), Vec::new());
                writer.names(&batch.schema(), &mut text);
                for row in 0..batch.num_rows() {
                    match row % 1_000 {
                        0 => text.extend_from_slice(b"soon,1\n"),
                        _ => writer.rows(&batch.slice(row, 1), &mut text).unwrap(),
                    }
                }
                (text, "csv")
            }
            FileFormat::Ndjson => {
                let mut text = Vec::new();
                for (row, line) in engine::json_rows(&batch).unwrap().into_iter().enumerate() {
                    match row % 1_000 {
                        0 => text.extend_from_slice(b"{\"k\": 1"),
                        _ => text.extend_from_slice(&line),
                    }
                    text.push(b'\n');
                }
                (text, "ndjson")
            }
        };
        fs::write(root.join("in").join(format!("{file}.{ending}")), bytes).unwrap();
    }
}

async fn whole(kind: &Kinds) -> (Vec<Seen>, usize) {
    let mut all = Vec::new();
    let (dead, _) = read(kind.open(Share { subtask: 0, parallelism: 1 }, &[]).await, 0, usize::MAX, &mut all).await;
    all.sort_unstable();
    (all, dead)
}

#[tokio::test]
async fn every_row_comes_once_whatever_the_checkpoints_and_the_number_of_subtasks() {
    let csv = FileFormat::Csv { delimiter: ',', header: true };
    let (mut kinds, mut dirs) = (vec![(Kinds::Datagen, 60_000, 0), (Kinds::Nexmark, 64_400, 0)], Vec::new());
    for (format, faults) in [(FileFormat::Ndjson, 43), (csv, 43), (FileFormat::Parquet, 0)] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &format);
        kinds.push((Kinds::Files(dir.path().to_owned(), format), 41_348 - faults, faults));
        dirs.push(dir);
    }
    for (kind, count, faults) in kinds {
        let (wanted, dead) = whole(&kind).await;
        assert_eq!((wanted.len(), dead), (count, faults), "{kind:?}");
        for (widths, pieces) in [([1, 1], 2), ([1, 3], 3), ([3, 2], 1), ([7, 1], 0), ([2, 5], 4)] {
            let (mut found, mut dead, mut parts) = (Vec::new(), 0, Vec::new());
            for (attempt, parallelism) in widths.into_iter().enumerate() {
                let mut left = Vec::new();
                for subtask in 0..parallelism {
                    let source = kind.open(Share { subtask, parallelism }, &parts).await;
                    let pieces = if attempt == 0 { pieces + usize::try_from(subtask).unwrap() } else { usize::MAX };
                    let (letters, part) = read(source, subtask, pieces, &mut found).await;
                    dead += letters;
                    left.push(part);
                }
                parts = left;
            }
            found.sort_unstable();
            assert!(found == wanted, "{kind:?} {widths:?} {pieces}: {} of {}", found.len(), wanted.len());
            assert_eq!(dead, faults, "{kind:?} {widths:?} {pieces}");
            let ended = places(&parts).unwrap().into_iter().all(|(_, place)| place.ended);
            assert!(ended, "each split came to its end");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_read_fails_is_left_out_or_is_a_letter_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("in")).unwrap();
    let text =
        "{\"_time\": 1, \"k\": 1}\n{\"_time\": 2, \"k\": \"x\"}\n{\"k\": 3}\nnothing\n{\"_time\": 5, \"k\": 5}\n";
    fs::write(dir.path().join("in/a.ndjson"), text).unwrap();
    let open = async |corrupt| {
        let share = Share { subtask: 0, parallelism: 1 };
        let splits =
            files::splits(share, (dir.path(), "in"), &FileFormat::Ndjson, &layout(), Vec::new()).await.unwrap();
        Pulled::new(splits, manner(corrupt))
    };
    let failed = open(Corrupt::Fail).await.next().await.unwrap_err().to_string();
    assert!(
        failed.contains("corrupt row") && failed.contains("in/a.ndjson at 21") && failed.contains("\"k\""),
        "{failed}"
    );
    for corrupt in [Corrupt::Drop, Corrupt::DeadLetter] {
        let mut source = open(corrupt).await;
        let Fed::Rows(rows) = source.next().await.unwrap() else { panic!("rows come first") };
        assert_eq!((rows.batch.num_rows(), rows.read), (2, 5));
        let counts = source.counts();
        assert_eq!(counts.faults, 3);
        assert!(counts.fault.unwrap().contains("in/a.ndjson at 21"));
        let letters: Vec<_> = rows.dead.iter().map(|letter| (letter.kind, letter.row.as_str())).collect();
        let wanted = [
            (FaultKind::Corrupt, "{\"_time\": 2, \"k\": \"x\"}"),
            (FaultKind::Undated, "{\"k\": 3}"),
            (FaultKind::Corrupt, "nothing"),
        ];
        assert_eq!(letters, if corrupt == Corrupt::Drop { &wanted[..0] } else { &wanted[..] });
    }
}

#[tokio::test]
async fn a_file_that_shrank_and_one_without_its_columns_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for format in [FileFormat::Ndjson, FileFormat::Csv { delimiter: ',', header: true }, FileFormat::Parquet] {
        let at = dir.path().join(ending(&format));
        write(&at, &format);
        let kind = Kinds::Files(at.clone(), format.clone());
        let source = kind.open(Share { subtask: 0, parallelism: 1 }, &[]).await;
        let (_, part) = read(source, 0, 4, &mut Vec::new()).await;
        let file = at.join(format!("in/0.{}", ending(&format)));
        let bytes = fs::read(&file).unwrap();
        let shorter = match format {
            FileFormat::Parquet => fs::read(at.join("in/2.parquet")).unwrap(),
            _ => bytes[..40].to_vec(),
        };
        fs::write(&file, shorter).unwrap();
        let share = Share { subtask: 0, parallelism: 1 };
        let known = places(&[part]).unwrap();
        let found = files::splits(share, (&at, "in"), &format, &layout(), known).await.unwrap_err().to_string();
        assert!(found.contains("in/0.") && found.contains("it was read up to"), "{found}");
    }
}

fn ending(format: &FileFormat) -> &'static str {
    match format {
        FileFormat::Ndjson => "ndjson",
        FileFormat::Csv { .. } => "csv",
        FileFormat::Parquet => "parquet",
    }
}

#[test]
fn nexmark_has_one_event_time() {
    let share = Share { subtask: 0, parallelism: 1 };
    let events = nexmark::Events { table: NexmarkTable::Person, seed: 1, events: None, rate: 1, splits: 1 };
    let refused = nexmark::splits(share, &nexmark_spec(Some("expires")), events, &[]).unwrap_err().to_string();
    assert!(refused.contains("dateTime"), "{refused}");
}

/// Gives a row each time it is told to.
#[derive(Debug)]
struct Told(tokio::sync::mpsc::Receiver<i64>, u64);

impl Reader for Told {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<(Read, u64)>, TaskError>> {
        Box::pin(async {
            let Some(time) = self.0.recv().await else { return Ok(None) };
            self.1 += 1;
            let columns: [(&str, ArrayRef); 2] = [
                ("_time", Arc::new(TimestampNanosecondArray::from(vec![time]))),
                ("k", Arc::new(Int64Array::from(vec![time]))),
            ];
            let batch = RecordBatch::try_from_iter(columns).unwrap();
            Ok(Some((Read { batch, offsets: vec![0].into(), faults: Vec::new() }, 1)))
        })
    }

    fn position(&self) -> u64 {
        self.1
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_falls_silent_is_idle_once_until_it_speaks_again() {
    let (tell, told) = tokio::sync::mpsc::channel(4);
    let split =
        Split { name: "s".to_owned(), number: 1, place: Place::default(), reader: Some(Box::new(Told(told, 0))) };
    let idle_after = Some(Duration::from_secs(2));
    let mut source = Pulled::new(vec![split], Manner { idle_after, ..manner(Corrupt::Fail) });
    tell.send(5).await.unwrap();
    assert!(matches!(source.next().await.unwrap(), Fed::Rows(_)));
    assert!(matches!(source.next().await.unwrap(), Fed::Watermark(_)));
    let begun = Instant::now();
    // A barrier comes in between; the silence goes on meanwhile.
    assert!(tokio::time::timeout(Duration::from_secs(1), source.next()).await.is_err());
    assert!(matches!(source.next().await.unwrap(), Fed::Idle));
    assert_eq!(begun.elapsed().as_secs(), 2);
    assert!(tokio::time::timeout(Duration::from_secs(60), source.next()).await.is_err(), "it is told once");
    tell.send(6).await.unwrap();
    assert!(matches!(source.next().await.unwrap(), Fed::Rows(_)));
    assert!(matches!(source.next().await.unwrap(), Fed::Watermark(_)));
    assert!(matches!(source.next().await.unwrap(), Fed::Idle));
    drop(tell);
    assert!(matches!(source.next().await.unwrap(), Fed::End));
}

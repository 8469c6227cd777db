use std::{fs, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, StringArray},
    datatypes::Int64Type,
};
use flow::Uid;
use formats::{Column, Csv, Kind, Layout, Ndjson, Parquet, Unit};
use proptest::prelude::*;

use super::*;

const ID: TaskId = TaskId { vertex: 0, subtask: 0 };

fn encodings() -> [FileFormat; 3] {
    [FileFormat::Ndjson, FileFormat::Csv { delimiter: ',', header: true }, FileFormat::Parquet]
}

/// A directory, and the last checkpoint that is committed.
struct Trial {
    dir: tempfile::TempDir,
    format: FileFormat,
    attempt: u32,
    checkpoint: u64,
    committed: Option<Part>,
    /// Rows that the checkpoint knows.
    known: i64,
}

impl Trial {
    fn new(format: FileFormat) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, format, attempt: 0, checkpoint: 0, committed: None, known: 0 }
    }

    /// A new attempt behind the last committed checkpoint.
    async fn begin(&mut self, roll: u64) -> FilesSink {
        self.attempt += 1;
        let family = Family::new(&"j".parse().unwrap(), 1, 0);
        let parts: Vec<Part> = self.committed.iter().cloned().collect();
        let (written, kept) = known(&parts, (ID, 1), 0).unwrap();
        pending::sweep(self.dir.path(), &family, |subtask| subtask == 0, &kept).unwrap();
        let (prefix, dir) = (family.prefix(0, self.attempt, 0), self.dir.path().to_path_buf());
        let mut sink = FilesSink::at(dir, Encoding::new(&self.format).unwrap(), prefix, written, (Some(roll), None));
        if let Some(part) = &self.committed {
            sink.committed(part.checkpoint).await.unwrap();
        }
        sink
    }

    async fn barrier(&mut self, sink: &mut FilesSink) -> Part {
        self.checkpoint += 1;
        let mut part = Part::new(ID, Uid::default(), self.checkpoint);
        sink.barrier(self.checkpoint, &mut part).await.unwrap();
        part
    }

    /// The rows that a reader of the directory sees.
    fn seen(&self) -> Vec<i64> {
        let columns = vec![Column::new("n", Kind::Integer), Column::new("text", Kind::Text)];
        let layout = Layout::new(columns, None, Unit::Millis).unwrap();
        let mut rows = Vec::new();
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with('.') {
                continue;
            }
            let bytes = bytes::Bytes::from(fs::read(path).unwrap());
            let mut take = |read: formats::Rows| {
                assert!(read.faults.is_empty());
                rows.extend_from_slice(read.batch.column(0).as_primitive::<Int64Type>().values());
            };
            match &self.format {
                FileFormat::Ndjson => take(Ndjson::new(layout.clone(), 0).read(&bytes, true, 9_999).unwrap().rows),
                FileFormat::Csv { .. } => {
                    take(Csv::new(layout.clone(), ',', true).unwrap().read(&bytes, true, 9_999).unwrap().rows);
                }
                FileFormat::Parquet => {
                    let mut file = Parquet::open(bytes, layout.clone(), 0, 100).unwrap();
                    while let Some(read) = file.read().unwrap() {
                        take(read);
                    }
                }
            }
        }
        rows.sort_unstable();
        rows
    }
}

fn batch(rows: std::ops::Range<i64>) -> RecordBatch {
    let texts: StringArray = rows.clone().map(|n| Some(format!("text, {n}"))).collect();
    let numbers = Arc::new(rows.collect::<Int64Array>()) as ArrayRef;
    RecordBatch::try_from_iter([("n", numbers), ("text", Arc::new(texts) as ArrayRef)]).unwrap()
}

#[tokio::test]
async fn rows_are_seen_once_their_checkpoint_is_committed_and_once_only() {
    for format in encodings() {
        let mut trial = Trial::new(format);
        let mut first = trial.begin(60).await;
        first.take(&batch(0..20)).await.unwrap();
        first.take(&batch(20..21)).await.unwrap();
        assert!(!first.holds_back());
        let part = trial.barrier(&mut first).await;
        assert!(first.holds_back() && trial.seen().is_empty());
        first.take(&batch(21..30)).await.unwrap();
        trial.barrier(&mut first).await;
        first.committed(1).await.unwrap();
        assert_eq!(trial.seen(), (0..21).collect::<Vec<_>>());
        first.take(&batch(30..40)).await.unwrap();
        drop(first);

        // Killed before the second checkpoint was committed: the next attempt goes on behind the first one.
        trial.committed = Some(part);
        let mut second = trial.begin(1 << 20).await;
        second.take(&batch(21..50)).await.unwrap();
        trial.barrier(&mut second).await;
        trial.barrier(&mut second).await;
        second.committed(4).await.unwrap();
        second.committed(4).await.unwrap();
        assert_eq!(trial.seen(), (0..50).collect::<Vec<_>>());
        assert!(!second.holds_back());
        let unnamed = fs::read_dir(trial.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        assert_eq!(unnamed.filter(|name| name.starts_with('.')).count(), 0);
    }
}

#[tokio::test]
async fn a_file_that_is_lost_is_no_commit() {
    let mut trial = Trial::new(FileFormat::Ndjson);
    let mut sink = trial.begin(60).await;
    sink.take(&batch(0..3)).await.unwrap();
    trial.barrier(&mut sink).await;
    for entry in fs::read_dir(trial.dir.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert!(sink.committed(1).await.unwrap_err().to_string().contains("00000000"));
}

#[tokio::test]
async fn rows_of_other_columns_get_a_file_of_their_own() {
    for format in encodings() {
        let has_schema = format != FileFormat::Ndjson;
        let mut trial = Trial::new(format);
        let mut sink = trial.begin(1 << 20).await;
        sink.take(&batch(0..3)).await.unwrap();
        sink.take(&batch(3..5).project(&[0]).unwrap()).await.unwrap();
        trial.barrier(&mut sink).await;
        assert_eq!(sink.written.held.len(), if has_schema { 2 } else { 1 });
    }
}

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    Rows(i64),
    /// A checkpoint that is committed and told.
    Checkpoint,
    /// One that is given up.
    Barrier,
    /// One that is committed, of which the sink never hears, or in the middle of whose publishing it dies.
    Dies {
        named: usize,
    },
    Crash,
    /// Dies cut off: it goes on writing while the next attempt runs.
    CutOff,
    /// The task comes to its end and names its files; then the job begins again behind the last checkpoint.
    EndsInVain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1i64..30).prop_map(Step::Rows),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Barrier),
        1 => (0usize..4).prop_map(|named| Step::Dies { named }),
        1 => Just(Step::Crash),
        1 => Just(Step::CutOff),
        1 => Just(Step::EndsInVain),
    ]
}

async fn run(format: FileFormat, steps: Vec<Step>, roll: u64) {
    let mut trial = Trial::new(format);
    let mut sink = trial.begin(roll).await;
    let (mut given, mut zombies) = (0, Vec::new());
    for step in steps {
        for zombie in &mut zombies {
            let zombie: &mut FilesSink = zombie;
            zombie.take(&batch(0..7)).await.unwrap();
        }
        let ends = match step {
            Step::Rows(count) => {
                sink.take(&batch(given..given + count)).await.unwrap();
                given += count;
                false
            }
            Step::Checkpoint => {
                let part = trial.barrier(&mut sink).await;
                sink.committed(part.checkpoint).await.unwrap();
                (trial.committed, trial.known) = (Some(part), given);
                false
            }
            Step::Barrier => {
                trial.barrier(&mut sink).await;
                false
            }
            Step::Dies { named } => {
                let part = trial.barrier(&mut sink).await;
                let held: Vec<String> = sink.written.held.iter().map(|(_, name)| name.clone()).collect();
                pending::name(trial.dir.path(), held.iter().take(named).map(String::as_str)).unwrap();
                (trial.committed, trial.known) = (Some(part), given);
                true
            }
            Step::Crash => true,
            Step::CutOff => {
                let old = std::mem::replace(&mut sink, trial.begin(roll).await);
                given = trial.known;
                zombies.push(old);
                false
            }
            Step::EndsInVain => {
                sink.hold(u64::MAX).await.unwrap();
                sink.committed(u64::MAX).await.unwrap();
                true
            }
        };
        if ends {
            sink = trial.begin(roll).await;
            given = trial.known;
        }
    }
    sink.take(&batch(given..given + 5)).await.unwrap();
    sink.hold(u64::MAX).await.unwrap();
    sink.committed(u64::MAX).await.unwrap();
    assert_eq!(trial.seen(), (0..given + 5).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_row_is_in_one_file_however_often_it_dies(
        steps in prop::collection::vec(step(), 0..25),
        format in prop::sample::select(encodings().to_vec()),
        roll in prop::sample::select(vec![1u64, 300, 1 << 20]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(format, steps, roll));
    }
}

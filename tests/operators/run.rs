//! One run of an operator: its subtasks, the splits that feed them, and what chance does to both.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
        UInt64Array,
    },
    datatypes::{
        DataType, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampNanosecondType, UInt32Type, UInt64Type,
    },
};
use flow::{Error, ErrorPolicy, KeyGroups, Operator, Out, Port, Setting, StoredBlock, key_groups_of, scatter};
use logboom_tests::{
    recompute::{Answer, Input, Judged},
    seeded::Seeded,
};
use types::Timestamp;

use crate::kinds::{Kind, TOP_WINDOW_MS};

/// What happens meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faults {
    None,
    /// Several times what came behind the last snapshot is lost, and done again.
    Restart,
    /// The same, each time with another parallelism.
    Rescale([usize; 3]),
}

impl Faults {
    pub(crate) fn rescales(self) -> bool {
        matches!(self, Self::Rescale(_))
    }
}

const MILLI: i64 = 1_000_000;
/// Rows of a batch at most.
const BATCH: usize = 40;
/// How many times everything behind a snapshot is lost.
const RESTARTS: usize = 3;

/// Rows of one input and split, in order, and where it stands.
struct Split {
    input: usize,
    rows: Vec<Judged>,
    next: usize,
}

impl Split {
    /// What its watermark is now; the end passes everything.
    fn watermark(&self) -> i64 {
        self.rows.get(self.next).map_or(i64::MAX, |judged| judged.watermark)
    }
}

pub(crate) struct Run<'a> {
    kind: &'a Kind,
    random: Seeded,
    splits: Vec<Split>,
    subtasks: Vec<(Box<dyn Operator>, Out)>,
    /// The combined watermark that was told.
    told: i64,
    answer: Answer,
}

impl<'a> Run<'a> {
    pub(crate) fn new(kind: &'a Kind, inputs: &[Input], seed: u64, parallelism: usize) -> Self {
        let mut of_split = BTreeMap::<(usize, u64), Vec<Judged>>::new();
        let mut answer = Answer::default();
        for (number, input) in inputs.iter().enumerate() {
            for judged in &input.rows {
                if kind.late_at_source.is_some_and(|late| late(judged)) {
                    answer.late += 1;
                } else {
                    of_split.entry((number, judged.row.split)).or_default().push(judged.clone());
                }
            }
        }
        let splits = of_split.into_iter().map(|((input, _), rows)| Split { input, rows, next: 0 }).collect();
        let mut run =
            Self { kind, random: Seeded::new(seed ^ 99), splits, subtasks: Vec::new(), told: i64::MIN, answer };
        run.subtasks = run.built(parallelism);
        run
    }

    fn built(&self, parallelism: usize) -> Vec<(Box<dyn Operator>, Out)> {
        let one = |subtask| {
            let setting = Setting { key_groups: key_groups_of(subtask, parallelism), ..Setting::alone("judged") };
            (self.kind.spec.build(setting).unwrap(), Out::new(ErrorPolicy::Fail, true))
        };
        (0..parallelism).map(one).collect()
    }

    /// Feeds everything; answers what came out.
    pub(crate) fn finish(mut self, faults: Faults) -> Result<Answer, Error> {
        let restarts = if faults == Faults::None { 0 } else { RESTARTS };
        for restart in 0..restarts {
            let all: usize = self.splits.iter().map(|split| split.rows.len()).sum();
            self.steps(all / (BATCH / 2) / (RESTARTS + 1))?;
            let (blocks, positions) =
                (self.snapshot()?, self.splits.iter().map(|split| split.next).collect::<Vec<_>>());
            let answer = self.answer.clone();
            let lost = self.random.below(12);
            self.steps(usize::try_from(lost).unwrap())?;
            // Everything since is gone, and with it what a sink had not committed.
            self.answer = answer;
            self.told = i64::MIN;
            self.splits.iter_mut().zip(positions).for_each(|(split, next)| split.next = next);
            let parallelism = match faults {
                Faults::Rescale(to) => to[restart],
                _ => self.subtasks.len(),
            };
            self.restore(&blocks, parallelism)?;
            // As sources do, before the first row.
            self.tell()?;
        }
        self.steps(usize::MAX)?;
        for (operator, out) in &mut self.subtasks {
            operator.end(out)?;
        }
        self.collect()?;
        Ok(self.answer)
    }

    fn steps(&mut self, count: usize) -> Result<(), Error> {
        for _ in 0..count {
            let open: Vec<usize> = (0..self.splits.len()).filter(|n| self.splits[*n].watermark() < i64::MAX).collect();
            let Some(pick) =
                (!open.is_empty()).then(|| open[usize::try_from(self.random.below(open.len() as u64)).unwrap()])
            else {
                break;
            };
            self.step(pick)?;
        }
        Ok(())
    }

    /// Some rows of a split, and the watermark behind them.
    fn step(&mut self, pick: usize) -> Result<(), Error> {
        let rows = usize::try_from(1 + self.random.below(BATCH as u64)).unwrap();
        let split = &mut self.splits[pick];
        let until = (split.next + rows).min(split.rows.len());
        let batch = batch(&split.rows[split.next..until]);
        split.next = until;
        let input = split.input;
        let parts = scatter(&batch, self.kind.key, self.subtasks.len())?;
        for ((operator, out), part) in self.subtasks.iter_mut().zip(parts) {
            if let Some(part) = part {
                operator.process(input, &part, out)?;
            }
        }
        self.tell()?;
        self.collect()
    }

    /// Tells the watermark of all splits, if it rose.
    fn tell(&mut self) -> Result<(), Error> {
        let watermark = self.splits.iter().map(Split::watermark).min().unwrap_or(i64::MAX);
        if watermark > self.told {
            self.told = watermark;
            let at = if watermark == i64::MAX { Timestamp::MAX } else { Timestamp::from_nanos(watermark * MILLI) };
            for (operator, out) in &mut self.subtasks {
                operator.watermark(at, out)?;
            }
        }
        Ok(())
    }

    /// Takes what came out.
    fn collect(&mut self) -> Result<(), Error> {
        let keep_late = || Out::new(ErrorPolicy::Fail, true);
        for (_, out) in &mut self.subtasks {
            self.answer.late += out.counts().late;
            let mut given = std::mem::replace(out, keep_late());
            for (port, batch) in given.take() {
                if port == Port::Main {
                    rows(&batch, self.kind.columns, &mut self.answer.rows);
                }
            }
        }
        Ok(())
    }

    /// Every block as it would be stored.
    fn snapshot(&mut self) -> Result<Vec<StoredBlock>, Error> {
        let mut stored = Vec::new();
        for (operator, _) in &mut self.subtasks {
            for block in operator.snapshot()? {
                let bytes = block.content.encode()?.into();
                stored.push(StoredBlock { table: block.table, groups: block.groups, time: block.time, bytes });
            }
        }
        Ok(stored)
    }

    fn restore(&mut self, blocks: &[StoredBlock], parallelism: usize) -> Result<(), Error> {
        self.subtasks = self.built(parallelism);
        for (subtask, (operator, _)) in self.subtasks.iter_mut().enumerate() {
            let groups = KeyGroups::from(key_groups_of(subtask, parallelism));
            let own: Vec<StoredBlock> = blocks.iter().filter(|block| block.groups.meets(groups)).cloned().collect();
            operator.restore(&own)?;
        }
        Ok(())
    }
}

/// Rows as a source and the projections behind it give them on.
fn batch(rows: &[Judged]) -> RecordBatch {
    let instants = |of: fn(&Judged) -> i64| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<TimestampNanosecondArray>())
    };
    let texts = |of: fn(&Judged) -> &str| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<StringArray>())
    };
    let marked =
        |mark: &str| -> ArrayRef { Arc::new(rows.iter().map(|r| Some(r.row.mark == mark)).collect::<BooleanArray>()) };
    let columns = [
        ("_time", instants(|judged| judged.row.time * MILLI)),
        ("_wm", instants(|judged| judged.watermark.saturating_mul(MILLI))),
        ("_split", Arc::new(rows.iter().map(|judged| judged.row.split).collect::<UInt64Array>()) as ArrayRef),
        ("_offset", Arc::new(rows.iter().map(|judged| judged.row.offset.cast_signed()).collect::<Int64Array>())),
        ("key", texts(|judged| &judged.row.key)),
        ("value", Arc::new(rows.iter().map(|judged| judged.row.value).collect::<Int64Array>())),
        ("id", texts(|judged| &judged.row.id)),
        ("is_login", marked("login")),
        ("is_error", marked("error")),
        ("window_start", instants(|judged| judged.row.time.div_euclid(TOP_WINDOW_MS) * TOP_WINDOW_MS * MILLI)),
        ("window_end", instants(|judged| (judged.row.time.div_euclid(TOP_WINDOW_MS) + 1) * TOP_WINDOW_MS * MILLI)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, !name.starts_with('_'))))
        .unwrap()
}

/// Adds the rows of a batch as the recomputation writes them.
fn rows(batch: &RecordBatch, columns: &[&str], into: &mut BTreeMap<Vec<String>, u64>) {
    let columns: Vec<&ArrayRef> = columns
        .iter()
        .map(|name| batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name} in {:?}", batch.schema())))
        .collect();
    for row in 0..batch.num_rows() {
        let cells = columns.iter().map(|column| cell(column, row)).collect();
        *into.entry(cells).or_default() += 1;
    }
}

fn cell(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "null".to_owned();
    }
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            (column.as_primitive::<TimestampNanosecondType>().value(row) / MILLI).to_string()
        }
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).to_string(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).to_string(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).to_owned(),
        DataType::Utf8View => column.as_string_view().value(row).to_owned(),
        other => panic!("a column of type {other}"),
    }
}

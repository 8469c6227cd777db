//! For tests: an operator of several inputs under chance. Splits interleave, batches are cut anywhere, and subtasks are thrown
//! away and put together again from their last snapshot, with more or fewer of them.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanArray, Int8Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt64Array,
    },
    util::display::{ArrayFormatter, FormatOptions},
};
use types::Timestamp;

use crate::{
    Error, ErrorPolicy, KeyGroups, Operator, OperatorSpec, Out, Port, Setting, StoredBlock, key_groups_of, scatter,
};

const MILLI: i64 = 1_000_000;
/// How much disorder is waited for, in milliseconds.
const DELAY: i64 = 12;

/// Numbers by chance, the same for one seed.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self((seed + 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % u64::try_from(end.max(1)).unwrap()).unwrap()
    }
}

/// A row, and the watermark of its split before it; times are milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) input: usize,
    pub(crate) split: u64,
    pub(crate) offset: i64,
    pub(crate) time: i64,
    pub(crate) watermark: i64,
    pub(crate) key: Option<String>,
    /// Which of the columns `a`, `b`, `c` and `d` are true.
    pub(crate) bits: usize,
    pub(crate) change: i8,
}

impl Row {
    pub(crate) fn id(&self) -> String {
        format!("{}.{}.{}", self.input, self.split, self.offset)
    }

    /// Rule 2.
    pub(crate) fn in_time(&self) -> bool {
        self.time >= self.watermark
    }
}

/// Rows of two splits of each input; some are late, some have no key, and times have ties.
pub(crate) fn rows(seed: u64, inputs: usize, count: usize, keys: usize) -> Vec<Row> {
    let mut chance = Chance::new(seed);
    let mut latest = vec![[i64::MIN; 2]; inputs];
    let mut offsets = vec![[0; 2]; inputs];
    let row = |n: usize| {
        let (input, split) = (chance.below(inputs), chance.below(2));
        let back = if chance.below(10) == 0 { 30 } else { 9 };
        let time = i64::try_from(n / 2).unwrap() - i64::try_from(chance.below(back)).unwrap();
        let latest = &mut latest[input][split];
        let watermark = if *latest == i64::MIN { i64::MIN } else { *latest - DELAY };
        *latest = time.max(*latest);
        offsets[input][split] += 1;
        Row {
            input,
            split: u64::try_from(split).unwrap(),
            offset: offsets[input][split],
            time,
            watermark,
            key: (chance.below(15) > 0).then(|| format!("k{}", chance.below(keys))),
            bits: chance.below(16) & chance.below(16),
            change: [0, 0, 2, 1, 3][chance.below(5)],
        }
    };
    (0..count).map(row).collect()
}

/// Those of an input that are in time, in order.
pub(crate) fn in_order(rows: &[Row], input: usize) -> Vec<&Row> {
    let mut taken: Vec<&Row> = rows.iter().filter(|row| row.input == input && row.in_time()).collect();
    taken.sort_by_key(|row| (row.time, row.split, row.offset));
    taken
}

pub(crate) fn late(rows: &[Row]) -> u64 {
    u64::try_from(rows.iter().filter(|row| !row.in_time()).count()).unwrap()
}

fn batch(rows: &[Row], changes: bool) -> RecordBatch {
    let instants = |of: fn(&Row) -> i64| -> ArrayRef {
        Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| of(row).saturating_mul(MILLI))))
    };
    let meets = |bit: usize| -> ArrayRef {
        // False is also null.
        let meets = |row: &Row| (row.bits & bit > 0 || row.offset % 2 > 0).then_some(row.bits & bit > 0);
        Arc::new(rows.iter().map(meets).collect::<BooleanArray>())
    };
    let mut columns = vec![
        ("_time", instants(|row| row.time), false),
        ("_wm", instants(|row| row.watermark), false),
        ("_split", Arc::new(rows.iter().map(|row| row.split).collect::<UInt64Array>()) as ArrayRef, false),
        ("_offset", Arc::new(rows.iter().map(|row| row.offset).collect::<Int64Array>()), false),
        ("key", Arc::new(rows.iter().map(|row| row.key.clone()).collect::<StringArray>()), true),
        ("id", Arc::new(rows.iter().map(|row| Some(row.id())).collect::<StringArray>()), true),
    ];
    columns.extend([("a", meets(1), true), ("b", meets(2), true), ("c", meets(4), true), ("d", meets(8), true)]);
    if changes {
        columns.push(("_change", Arc::new(rows.iter().map(|row| row.change).collect::<Int8Array>()), false));
    }
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// What came out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    /// Each row as text of its columns.
    pub(crate) rows: Vec<String>,
    pub(crate) late: u64,
}

/// Each row of a batch as text of its columns; instants are milliseconds, rounded down.
pub(crate) fn texts(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("-");
    let shown = |array: &ArrayRef, row: usize| match array.data_type() {
        arrow::datatypes::DataType::Timestamp(..) => {
            let nanos = arrow::compute::cast(array, &arrow::datatypes::DataType::Int64).unwrap();
            let text = ArrayFormatter::try_new(&nanos, &options).unwrap().value(row).to_string();
            text.parse::<i64>().map_or(text, |nanos| nanos.div_euclid(MILLI).to_string())
        }
        _ => ArrayFormatter::try_new(array, &options).unwrap().value(row).to_string(),
    };
    let text = |row| batch.columns().iter().map(|array| shown(array, row)).collect::<Vec<_>>().join(" ");
    (0..batch.num_rows()).map(text).collect()
}

/// An operator and what happens to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course<'a> {
    pub(crate) spec: &'a OperatorSpec,
    /// Of which input the rows change others.
    pub(crate) changes: Option<usize>,
    pub(crate) seed: u64,
    pub(crate) parallelism: usize,
    /// How many subtasks there are after each restart.
    pub(crate) then: &'a [usize],
}

struct Run<'a> {
    course: Course<'a>,
    chance: Chance,
    splits: Vec<(Vec<Row>, usize)>,
    subtasks: Vec<(Box<dyn Operator>, Out)>,
    told: i64,
    found: Found,
}

impl Course<'_> {
    /// All rows, from begin to end.
    pub(crate) fn run(self, rows: &[Row]) -> Result<Found, Error> {
        let of = |input: usize, split: u64| {
            (rows.iter().filter(|row| (row.input, row.split) == (input, split)).cloned().collect::<Vec<_>>(), 0)
        };
        let splits = [of(0, 0), of(0, 1), of(1, 0), of(1, 1)];
        let splits = splits.into_iter().filter(|(rows, _)| !rows.is_empty()).collect();
        let (chance, told) = (Chance::new(self.seed + 77), i64::MIN);
        let subtasks = self.build(self.parallelism);
        Run { course: self, chance, splits, subtasks, told, found: Found::default() }.finish()
    }

    fn build(&self, parallelism: usize) -> Vec<(Box<dyn Operator>, Out)> {
        let one = |subtask| {
            let setting = Setting { key_groups: key_groups_of(subtask, parallelism), ..Setting::alone("tested") };
            (self.spec.build(setting).unwrap(), Out::new(ErrorPolicy::Fail, true))
        };
        (0..parallelism).map(one).collect()
    }
}

impl Run<'_> {
    fn finish(mut self) -> Result<Found, Error> {
        let all: usize = self.splits.iter().map(|(rows, _)| rows.len()).sum();
        for parallelism in self.course.then {
            self.steps(all / 6 / (self.course.then.len() + 1))?;
            let (blocks, positions) = (self.snapshot()?, self.splits.iter().map(|split| split.1).collect::<Vec<_>>());
            let found = self.found.clone();
            let lost = self.chance.below(9);
            self.steps(lost)?;
            (self.found, self.told) = (found, i64::MIN);
            self.splits.iter_mut().zip(positions).for_each(|(split, next)| split.1 = next);
            self.subtasks = self.course.build(*parallelism);
            for (subtask, (operator, _)) in self.subtasks.iter_mut().enumerate() {
                let groups = KeyGroups::from(key_groups_of(subtask, *parallelism));
                let own: Vec<StoredBlock> = blocks.iter().filter(|block| block.groups.meets(groups)).cloned().collect();
                operator.restore(&own)?;
            }
            self.tell()?;
        }
        self.steps(usize::MAX)?;
        self.subtasks.iter_mut().try_for_each(|(operator, out)| operator.end(out))?;
        self.collect();
        Ok(self.found)
    }

    fn steps(&mut self, count: usize) -> Result<(), Error> {
        for _ in 0..count {
            let open: Vec<usize> =
                (0..self.splits.len()).filter(|n| self.splits[*n].1 < self.splits[*n].0.len()).collect();
            if open.is_empty() {
                return Ok(());
            }
            let pick = open[self.chance.below(open.len())];
            let count = 1 + self.chance.below(12);
            let (rows, next) = &mut self.splits[pick];
            let until = (*next + count).min(rows.len());
            let input = rows[*next].input;
            let batch = batch(&rows[*next..until], self.course.changes == Some(input));
            *next = until;
            let keys = self.course.spec.keys(input).unwrap_or_default();
            let parts = scatter(&batch, keys, self.subtasks.len())?;
            for ((operator, out), part) in self.subtasks.iter_mut().zip(parts) {
                part.map_or(Ok(()), |part| operator.process(input, &part, out))?;
            }
            self.tell()?;
            self.collect();
        }
        Ok(())
    }

    fn tell(&mut self) -> Result<(), Error> {
        let of = |(rows, next): &(Vec<Row>, usize)| rows.get(*next).map_or(i64::MAX, |row| row.watermark);
        let watermark = self.splits.iter().map(of).min().unwrap_or(i64::MAX).saturating_mul(MILLI);
        if watermark > self.told {
            for (operator, out) in &mut self.subtasks {
                let held = operator.hold(Timestamp::from_nanos(self.told)).nanos();
                operator.watermark(Timestamp::from_nanos(watermark), out)?;
                let given = out.take();
                for (port, batch) in given {
                    if port == Port::Main {
                        let times = crate::row::row_times(&batch)?;
                        assert!(times.iter().all(|time| *time >= held), "a row behind what was told: {batch:?}");
                    }
                    out.push(port, batch);
                }
            }
            self.told = watermark;
        }
        Ok(())
    }

    fn collect(&mut self) {
        for (_, out) in &mut self.subtasks {
            self.found.late += out.counts().late;
            let mut given = std::mem::replace(out, Out::new(ErrorPolicy::Fail, true));
            for (_, batch) in given.take().into_iter().filter(|(port, _)| *port == Port::Main) {
                self.found.rows.extend(texts(&batch));
            }
        }
    }

    fn snapshot(&mut self) -> Result<Vec<StoredBlock>, Error> {
        let mut stored = Vec::new();
        for (operator, _) in &mut self.subtasks {
            for block in operator.snapshot()? {
                let bytes = block.content.encode()?;
                assert_eq!(bytes, block.content.encode()?, "the name is made of the bytes");
                let (table, groups, time) = (block.table, block.groups, block.time);
                stored.push(StoredBlock { table, groups, time, bytes: bytes.into() });
            }
        }
        Ok(stored)
    }
}

/// Runs an operator in every way, and compares what came out with what must; the same rows in the same order where there is one
/// subtask throughout.
pub(crate) fn each_way(spec: &OperatorSpec, changes: Option<usize>, rows: &[Row], expected: &[String], name: &str) {
    let mut expected = expected.to_vec();
    expected.sort();
    assert!(expected.len() > 5, "{name}: only {} rows are compared", expected.len());
    let mut alone: Option<Vec<String>> = None;
    let courses: [(u64, usize, &[usize]); 6] =
        [(1, 1, &[]), (3, 2, &[]), (4, 4, &[]), (5, 1, &[1, 1, 1]), (7, 1, &[2, 4, 1]), (8, 4, &[1, 2, 4])];
    for (seed, parallelism, then) in courses {
        let what = format!("{name}, seed {seed}: {parallelism} subtasks, then {then:?}");
        let found =
            Course { spec, changes, seed, parallelism, then }.run(rows).unwrap_or_else(|e| panic!("{what}: {e:?}"));
        assert_eq!(found.late, late(rows), "{what}: late rows");
        let mut sorted = found.rows.clone();
        sorted.sort();
        let surplus: Vec<_> = sorted.iter().filter(|row| !expected.contains(row)).collect();
        let missing: Vec<_> = expected.iter().filter(|row| !sorted.contains(row)).collect();
        assert_eq!(sorted, expected, "{what}: surplus {surplus:?}, missing {missing:?}");
        if parallelism == 1 && then.iter().all(|then| *then == 1) {
            assert_eq!(*alone.get_or_insert_with(|| found.rows.clone()), found.rows, "{what}: the order");
        }
    }
}

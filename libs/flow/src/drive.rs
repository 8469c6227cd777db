//! For tests: an operator under chance. Splits interleave, batches are cut anywhere, subtasks are thrown away and put together
//! again from their last snapshot, with more or fewer of them.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int8Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt64Array},
    util::display::{ArrayFormatter, FormatOptions},
};
use types::Timestamp;

use crate::{ErrorPolicy, KeyGroups, Operator, OperatorSpec, Out, Port, Setting, StoredBlock, key_groups_of, scatter};

/// Numbers by chance, the same for one seed.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end.max(1)
    }
}

/// A row, and the watermark of its split before it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) split: u64,
    pub(crate) offset: i64,
    pub(crate) time: i64,
    pub(crate) watermark: i64,
    pub(crate) key: String,
    pub(crate) value: Option<i64>,
    /// As in `_change`, of rows that have the column.
    pub(crate) change: Option<i8>,
}

impl Row {
    pub(crate) fn in_time(&self) -> bool {
        self.time >= self.watermark
    }

    pub(crate) fn place(&self) -> (i64, u64, i64) {
        (self.time, self.split, self.offset)
    }
}

/// How much disorder is waited for.
const DELAY: i64 = 20;

/// Rows of three splits, of which some are late; times have ties.
pub(crate) fn rows(seed: u64, count: usize, keys: u64) -> Vec<Row> {
    let mut chance = Chance::new(seed + 1);
    let mut latest = [i64::MIN; 3];
    let mut offsets = [0; 3];
    let mut rows = Vec::new();
    for n in 0..count {
        let split = usize::try_from(chance.below(3)).unwrap();
        let back = if chance.below(12) == 0 { 40 } else { 15 };
        let time = i64::try_from(n / 2 + 100).unwrap() - i64::try_from(chance.below(back)).unwrap();
        let watermark = if latest[split] == i64::MIN { i64::MIN } else { latest[split] - DELAY };
        latest[split] = latest[split].max(time);
        offsets[split] += 1;
        rows.push(Row {
            split: u64::try_from(split).unwrap(),
            offset: offsets[split],
            time,
            watermark,
            key: format!("k{}", chance.below(keys)),
            value: (chance.below(9) > 0).then(|| i64::try_from(chance.below(50)).unwrap() - 20),
            change: None,
        });
    }
    rows
}

/// Those that are in time, in order.
pub(crate) fn by_order(rows: &[Row]) -> Vec<Row> {
    let mut taken: Vec<Row> = rows.iter().filter(|row| row.in_time()).cloned().collect();
    taken.sort_by_key(Row::place);
    taken
}

/// The windows of rows, for operators that want them: each is so long.
pub(crate) const WINDOW: i64 = 25;

/// Rows as a source gives them on.
pub(crate) fn batch(rows: &[Row]) -> RecordBatch {
    let instants =
        |of: fn(&Row) -> i64| -> ArrayRef { Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(of))) };
    let mut columns = vec![
        ("_time", instants(|row| row.time), false),
        ("_wm", instants(|row| row.watermark), false),
        ("_split", Arc::new(rows.iter().map(|row| row.split).collect::<UInt64Array>()) as ArrayRef, false),
        ("_offset", Arc::new(rows.iter().map(|row| row.offset).collect::<Int64Array>()), false),
        ("key", Arc::new(rows.iter().map(|row| Some(&row.key)).collect::<StringArray>()), true),
        ("value", Arc::new(rows.iter().map(|row| row.value).collect::<Int64Array>()), true),
        ("window_end", instants(|row| (row.time.div_euclid(WINDOW) + 1) * WINDOW), true),
    ];
    if rows.iter().any(|row| row.change.is_some()) {
        let changes = rows.iter().map(|row| row.change.unwrap_or_default()).collect::<Int8Array>();
        columns.push(("_change", Arc::new(changes), false));
    }
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// What came out of all subtasks.
#[derive(Debug, Default, Clone)]
pub(crate) struct Found {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) late: u64,
}

impl Found {
    /// Each row as text of these columns, in the order in which they came.
    pub(crate) fn texts(&self, columns: &[&str]) -> Vec<String> {
        self.batches.iter().flat_map(|batch| texts(batch, columns)).collect()
    }
}

pub(crate) fn texts(batch: &RecordBatch, columns: &[&str]) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let cell = |name: &&str, row: usize| {
        let array = batch.column_by_name(name).unwrap_or_else(|| panic!("no {name} in {:?}", batch.schema()));
        match array.data_type() {
            arrow::datatypes::DataType::Timestamp(..) => {
                let ints = arrow::compute::cast(array, &arrow::datatypes::DataType::Int64).unwrap();
                ArrayFormatter::try_new(&ints, &options).unwrap().value(row).to_string()
            }
            _ => ArrayFormatter::try_new(array, &options).unwrap().value(row).to_string(),
        }
    };
    let row = |row| columns.iter().map(|name| cell(name, row)).collect::<Vec<_>>().join(" ");
    (0..batch.num_rows()).map(row).collect()
}

/// An operator in subtasks, and what feeds them.
pub(crate) struct Run<'a> {
    spec: &'a OperatorSpec,
    key: &'a [&'a str],
    chance: Chance,
    splits: Vec<(Vec<Row>, usize)>,
    subtasks: Vec<(Box<dyn Operator>, Out)>,
    told: i64,
    found: Found,
}

impl<'a> Run<'a> {
    pub(crate) fn new(spec: &'a OperatorSpec, key: &'a [&'a str], rows: &[Row], seed: u64, parallelism: usize) -> Self {
        let of = |split| (rows.iter().filter(|row| row.split == split).cloned().collect::<Vec<_>>(), 0);
        let splits = (0..3).map(of).collect();
        let mut run = Self {
            spec,
            key,
            chance: Chance::new(seed + 77),
            splits,
            subtasks: Vec::new(),
            told: i64::MIN,
            found: Found::default(),
        };
        run.build(parallelism);
        run
    }

    fn build(&mut self, parallelism: usize) {
        let one = |subtask| {
            let setting = Setting { key_groups: key_groups_of(subtask, parallelism), ..Setting::alone("tested") };
            (self.spec.build(setting).unwrap(), Out::new(ErrorPolicy::Fail, true))
        };
        self.subtasks = (0..parallelism).map(one).collect();
    }

    /// To the end; restarted once for each of `parallelisms`, with what came behind a snapshot lost and done again.
    pub(crate) fn finish(mut self, parallelisms: &[usize]) -> Found {
        let all: usize = self.splits.iter().map(|(rows, _)| rows.len()).sum();
        for parallelism in parallelisms {
            self.steps(all / 10 / (parallelisms.len() + 1));
            let (blocks, positions) = (self.snapshot(), self.splits.iter().map(|split| split.1).collect::<Vec<_>>());
            let found = self.found.clone();
            let lost = usize::try_from(self.chance.below(9)).unwrap();
            self.steps(lost);
            (self.found, self.told) = (found, i64::MIN);
            self.splits.iter_mut().zip(positions).for_each(|(split, next)| split.1 = next);
            self.build(*parallelism);
            for (subtask, (operator, _)) in self.subtasks.iter_mut().enumerate() {
                let groups = KeyGroups::from(key_groups_of(subtask, *parallelism));
                let own: Vec<StoredBlock> = blocks.iter().filter(|block| block.groups.meets(groups)).cloned().collect();
                operator.restore(&own).unwrap();
            }
            self.tell();
        }
        self.steps(usize::MAX);
        self.subtasks.iter_mut().for_each(|(operator, out)| operator.end(out).unwrap());
        self.collect();
        self.found
    }

    fn watermark((rows, next): &(Vec<Row>, usize)) -> i64 {
        rows.get(*next).map_or(i64::MAX, |row| row.watermark)
    }

    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            let open: Vec<usize> = (0..3).filter(|n| self.splits[*n].1 < self.splits[*n].0.len()).collect();
            if open.is_empty() {
                return;
            }
            let pick = open[usize::try_from(self.chance.below(open.len() as u64)).unwrap()];
            let rows = usize::try_from(1 + self.chance.below(20)).unwrap();
            let (all, next) = &mut self.splits[pick];
            let until = (*next + rows).min(all.len());
            let batch = batch(&all[*next..until]);
            *next = until;
            let parts = scatter(&batch, self.key, self.subtasks.len()).unwrap();
            for ((operator, out), part) in self.subtasks.iter_mut().zip(parts) {
                if let Some(part) = part {
                    operator.process(0, &part, out).unwrap();
                }
            }
            self.tell();
            self.collect();
        }
    }

    fn tell(&mut self) {
        let watermark = self.splits.iter().map(Self::watermark).min().unwrap();
        if watermark > self.told {
            self.told = watermark;
            for (operator, out) in &mut self.subtasks {
                operator.watermark(Timestamp::from_nanos(watermark), out).unwrap();
            }
        }
    }

    fn collect(&mut self) {
        for (_, out) in &mut self.subtasks {
            self.found.late += out.counts().late;
            let mut given = std::mem::replace(out, Out::new(ErrorPolicy::Fail, true));
            let main = given.take().into_iter().filter(|(port, _)| *port == Port::Main);
            self.found.batches.extend(main.map(|(_, batch)| batch));
        }
    }

    fn snapshot(&mut self) -> Vec<StoredBlock> {
        let mut stored: Vec<StoredBlock> = Vec::new();
        for (operator, _) in &mut self.subtasks {
            let before = stored.len();
            for block in operator.snapshot().unwrap() {
                let bytes: Vec<u8> = block.content.encode().unwrap();
                assert_eq!(bytes, block.content.encode().unwrap(), "the name is made of the bytes");
                let twice =
                    stored[before..].iter().any(|other| (&other.table, other.time) == (&block.table, block.time));
                assert!(!twice, "two blocks of one table and time: {} {:?}", block.table, block.time);
                let (table, groups, time) = (block.table, block.groups, block.time);
                stored.push(StoredBlock { table, groups, time, bytes: bytes.into() });
            }
        }
        stored
    }
}

/// Every way to run an operator: at one, two and four subtasks, with restarts, and with other numbers of subtasks.
pub(crate) fn each_way(spec: &OperatorSpec, key: &[&str], rows: &[Row], mut check: impl FnMut(&Found, &str)) {
    for (seed, parallelism, then) in [
        (1, 1, &[][..]),
        (2, 1, &[]),
        (3, 2, &[]),
        (4, 4, &[]),
        (5, 1, &[1, 1, 1]),
        (6, 2, &[2, 2]),
        (7, 1, &[2, 4, 1]),
        (8, 4, &[1, 2, 4]),
    ] {
        let found = Run::new(spec, key, rows, seed, parallelism).finish(then);
        check(&found, &format!("seed {seed}, {parallelism} subtasks, then {then:?}"));
    }
}

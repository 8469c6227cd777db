//! Patterns as an operator: rows by key, matches out, and state that is rows alone.
//!
//! What is stored of the runs is the rows that they can still need. Put through again they give the same runs, and no match: the
//! rows of a match are not needed behind it, nor those before it.

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasherDefault,
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, TimestampNanosecondArray, UInt16Array},
    compute::filter_record_batch,
    datatypes::{DataType, Field, Schema, SchemaRef, UInt16Type},
};
use types::Timestamp;

use super::{
    MeasureValue, PatternSpec,
    plan::{Bits, Plan},
    runs::{Match, Runs, Taken, Turn},
};
use crate::{
    Error, INSTANT_TYPE, KeyGroups, Operator, Out, Setting, StateBlock, StoredBlock, TIME_COLUMN, column,
    kept::{
        BATCH_ROWS, Form, Log, Marks, Pending, Place, SameHash, Stamps, Stored, Wanted, clock, fired, inserts_only,
    },
};

/// Which conditions a kept row meets.
pub(super) const BITS_COLUMN: &str = "_bits";
const TABLE: &str = "rows";
/// Bytes of a way beside what it took of each step, with its part of the run and the key.
const WAY_BYTES: usize = 160;

/// The runs of each key, by hash; of keys that share one there are several.
type OfHash = HashMap<u64, Vec<Runs>, BuildHasherDefault<SameHash>>;

/// A pattern as an operator.
#[derive(Debug)]
pub(crate) struct PatternOperator {
    name: String,
    spec: PatternSpec,
    what: String,
    plan: Plan,
    groups: KeyGroups,
    state_bytes_max: usize,
    form: Form,
    pending: Pending,
    log: Log,
    runs: OfHash,
    ways: usize,
    /// When runs that began in that order are over, and the hashes of their keys.
    ends: VecDeque<(i64, u64)>,
    stamps: Stamps,
    fired: i64,
}

impl PatternOperator {
    /// No runs.
    pub(crate) fn new(spec: PatternSpec, setting: Setting) -> Result<Self, Error> {
        let plan = Plan::new(&spec)?;
        let read = spec.measures.iter().filter_map(|measure| match &measure.value {
            MeasureValue::First(column) | MeasureValue::Last(column) => Some(column.clone()),
            MeasureValue::Count => None,
        });
        let columns = read.chain([BITS_COLUMN.to_owned()]).collect();
        let form = Form::new(Wanted { keys: spec.keys.clone(), columns, ..Wanted::default() });
        Ok(Self {
            name: setting.name,
            what: serde_json::to_string(&spec).map_err(|e| Error::Snapshot(e.to_string()))?,
            plan,
            groups: setting.key_groups.into(),
            state_bytes_max: setting.state_bytes_max,
            form,
            pending: Pending::default(),
            log: Log::default(),
            runs: OfHash::default(),
            ways: 0,
            ends: VecDeque::new(),
            stamps: Stamps::default(),
            fired: i64::MIN,
            spec,
        })
    }

    /// The batch with the bits of its rows.
    fn with_bits(&self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        let mut bits: Vec<Bits> = vec![0; batch.num_rows()];
        for (number, step) in self.spec.steps.iter().enumerate() {
            let array = column::column(batch, &step.condition)?;
            if *array.data_type() == DataType::Null {
                continue;
            }
            let Some(meets) = array.as_boolean_opt() else {
                let (column, found) = (step.condition.clone(), array.data_type().to_string());
                return Err(Error::ColumnType { column, found, wanted: "Boolean".to_owned() });
            };
            for (row, bits) in bits.iter_mut().enumerate() {
                if meets.is_valid(row) && meets.value(row) {
                    *bits |= 1 << number;
                }
            }
        }
        let schema = batch.schema();
        let field = Arc::new(Field::new(BITS_COLUMN, DataType::UInt16, false));
        let fields: Vec<_> = schema.fields().iter().cloned().chain([field]).collect();
        let columns = batch.columns().iter().cloned().chain([Arc::new(UInt16Array::from(bits)) as ArrayRef]);
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.collect())?)
    }

    /// Gives a row of the log its turn.
    fn turn(&mut self, seq: u64, bits: Bits, matches: &mut Vec<Match>) {
        let place = self.log.place(seq);
        let (time, hash, key) = (self.log.time(place), self.log.hash(place), self.log.key(place));
        let of_hash = self.runs.entry(hash).or_default();
        let at = of_hash.iter().position(|runs| *runs.key == *key).unwrap_or_else(|| {
            of_hash.push(Runs::new(key));
            of_hash.len() - 1
        });
        let runs = &mut of_hash[at];
        self.ways -= runs.ways;
        if runs.row(&self.plan, Turn { seq, time, bits }, matches) {
            self.ends.push_back((time.saturating_add(self.plan.within), hash));
        }
        self.ways += runs.ways;
        for done in runs.done() {
            self.log.mark(self.log.place(done), &mut self.stamps);
        }
        self.forget(hash);
    }

    /// Drops keys without runs.
    fn forget(&mut self, hash: u64) {
        if let Some(of_hash) = self.runs.get_mut(&hash) {
            of_hash.retain(|runs| !runs.is_empty());
            if of_hash.is_empty() {
                self.runs.remove(&hash);
            }
        }
    }

    /// Gives rows of the log their turns, and ends what is over before that instant; answers the matches in their order.
    fn turns(&mut self, rows: std::ops::Range<u64>, until: i64) -> Vec<Match> {
        let mut matches = Vec::new();
        for seq in rows {
            let found = self.log.column(self.log.place(seq), BITS_COLUMN);
            let bits = found.and_then(|(array, row)| Some(array.as_primitive_opt::<UInt16Type>()?.value(row)));
            self.turn(seq, bits.unwrap_or(0), &mut matches);
        }
        while let Some((_, hash)) = self.ends.pop_front_if(|(end, _)| *end < until) {
            let Some(of_hash) = self.runs.get_mut(&hash) else { continue };
            for runs in of_hash {
                self.ways -= runs.ways;
                runs.expire(&self.plan, until, &mut matches);
                self.ways += runs.ways;
                for done in runs.done() {
                    self.log.mark(self.log.place(done), &mut self.stamps);
                }
            }
            self.forget(hash);
        }
        matches.sort_by_key(|found| found.order);
        matches
    }

    fn give(&self, matches: &[Match], out: &mut Out) -> Result<(), Error> {
        for page in matches.chunks(BATCH_ROWS) {
            let places = |of: &dyn Fn(&Match) -> Option<u64>| -> Vec<Option<Place>> {
                page.iter().map(|found| of(found).map(|seq| self.log.place(seq))).collect()
            };
            let times = page.iter().map(|found| self.log.time(self.log.place(found.last)));
            let mut columns: Vec<ArrayRef> = vec![Arc::new(TimestampNanosecondArray::from_iter_values(times))];
            let first = places(&|found| Some(found.first));
            for key in &self.spec.keys {
                columns.push(self.log.gather(key, &first, &self.form.type_of(key))?);
            }
            for measure in &self.spec.measures {
                let step = Plan::place(&self.spec, &measure.step).unwrap_or(usize::MAX);
                let of = |found: &Match| found.taken.get(step).copied().filter(|taken: &Taken| taken.count > 0);
                columns.push(match &measure.value {
                    MeasureValue::Count => {
                        let counts = page.iter().map(|found| of(found).map_or(0, |taken| i64::from(taken.count)));
                        Arc::new(Int64Array::from_iter_values(counts))
                    }
                    MeasureValue::First(column) => {
                        let rows = places(&|found| of(found).map(|taken| taken.first));
                        self.log.gather(column, &rows, &self.form.type_of(column))?
                    }
                    MeasureValue::Last(column) => {
                        let rows = places(&|found| of(found).map(|taken| taken.last));
                        self.log.gather(column, &rows, &self.form.type_of(column))?
                    }
                });
            }
            out.rows(RecordBatch::try_new(self.schema(), columns)?);
        }
        Ok(())
    }

    fn schema(&self) -> SchemaRef {
        let mut fields = vec![Field::new(TIME_COLUMN, INSTANT_TYPE, false)];
        fields.extend(self.spec.keys.iter().map(|key| Field::new(key, self.form.type_of(key), true)));
        fields.extend(self.spec.measures.iter().map(|measure| match &measure.value {
            MeasureValue::Count => Field::new(&measure.name, DataType::Int64, false),
            MeasureValue::First(column) | MeasureValue::Last(column) => {
                Field::new(&measure.name, self.form.type_of(column), true)
            }
        }));
        Arc::new(Schema::new(fields))
    }

    fn check_bytes(&self) -> Result<(), Error> {
        let (bytes, limit) = (self.bytes(), self.state_bytes_max);
        if bytes > limit {
            return Err(Error::StateTooLarge { operator: self.name.clone(), bytes, limit });
        }
        Ok(())
    }
}

impl Operator for PatternOperator {
    fn process(&mut self, _: usize, batch: &RecordBatch, out: &mut Out) -> Result<(), Error> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        inserts_only(batch, "pattern")?;
        let mut rows = self.form.read(&self.with_bits(batch)?, self.fired, out)?;
        if self.plan.gaps {
            // A row that no step takes, and none forbids, changes nothing.
            let bits = column::column(&rows, BITS_COLUMN)?.as_primitive_opt::<UInt16Type>();
            let meets: Option<BooleanArray> =
                bits.map(|bits| bits.values().iter().map(|bits| Some(*bits > 0)).collect());
            if let Some(meets) = meets {
                rows = filter_record_batch(&rows, &meets)?;
            }
        }
        self.pending.push(rows, &mut self.stamps)?;
        self.check_bytes()
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Out) -> Result<(), Error> {
        let until = watermark.nanos();
        if until <= self.fired {
            return Ok(());
        }
        let rows = match self.pending.ready(until, self.form.placed(), &mut self.stamps)? {
            Some(rows) => self.log.push(&self.form, &rows, None, &mut self.stamps)?,
            None => self.log.next()..self.log.next(),
        };
        let matches = self.turns(rows, until);
        self.give(&matches, out)?;
        self.fired = until;
        self.log.drop_before(self.log.first_at(until.saturating_sub(self.plan.within)), |_, _| {});
        self.log.sweep(&self.form, &mut self.stamps)?;
        self.check_bytes()
    }

    fn hold(&self, watermark: Timestamp) -> Timestamp {
        if watermark == Timestamp::MAX || self.plan.at_once {
            return watermark;
        }
        Timestamp::from_nanos(watermark.nanos().saturating_sub(self.plan.within))
    }

    fn snapshot(&mut self) -> Result<Vec<StateBlock>, Error> {
        let stored = Stored { table: TABLE, what: &self.what, marks: Marks::Gone, groups: self.groups };
        let mut blocks = vec![clock(self.fired, self.groups)];
        blocks.extend(stored.freeze(&self.form, &self.pending, &self.log));
        Ok(blocks)
    }

    fn restore(&mut self, blocks: &[StoredBlock]) -> Result<(), Error> {
        self.fired = fired(blocks, &[TABLE])?;
        let stored = Stored { table: TABLE, what: &self.what, marks: Marks::Gone, groups: self.groups };
        let parts = (&mut self.form, &mut self.pending, &mut self.log);
        stored.load(blocks, self.fired, parts, &mut self.stamps)?;
        let again = self.turns(self.log.first()..self.log.next(), self.fired);
        debug_assert!(again.is_empty(), "a match comes out once");
        self.check_bytes()
    }

    fn bytes(&self) -> usize {
        let way = WAY_BYTES + self.plan.steps.len() * size_of::<Taken>();
        self.pending.bytes() + self.log.bytes() + self.ways * way
    }
}

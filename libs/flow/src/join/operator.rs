//! What the joins of two inputs have in common: rows in, state, and the clock.

use arrow::array::RecordBatch;
use types::Timestamp;

use super::{
    JoinKind, JoinSpec, check,
    interval::Interval,
    page::Page,
    side::Side,
    temporal::{self, Temporal},
    windows::Windows,
};
use crate::{
    CHANGE_COLUMN, Error, KeyGroups, Operator, Out, Setting, StateBlock, StoredBlock,
    kept::{Marks, Stamps, Stored, clock, fired, inserts_only},
};

/// The tables of the two sides.
const TABLES: [&str; 2] = ["left", "right"];

/// A join of two inputs as an operator.
#[derive(Debug)]
pub(crate) struct JoinOperator {
    state: State,
    meet: Meet,
}

/// What is kept of the inputs, and what is about to come out.
#[derive(Debug)]
pub(super) struct State {
    name: String,
    pub(super) spec: JoinSpec,
    /// The specification as stored state names it.
    what: String,
    groups: KeyGroups,
    state_bytes_max: usize,
    pub(super) sides: [Side; 2],
    pub(super) page: Page,
    pub(super) stamps: Stamps,
    /// The watermark up to which rows have met.
    pub(super) fired: i64,
}

/// Which rows meet.
#[derive(Debug)]
enum Meet {
    Interval(Interval),
    Windows(Windows),
    Temporal(Temporal),
}

impl JoinOperator {
    /// No rows yet.
    ///
    /// Errors: `NotBuilt` for a lookup, which is a [`LookupJoin`](crate::LookupJoin); whatever is wrong with the specification.
    pub(crate) fn new(spec: JoinSpec, setting: Setting) -> Result<Self, Error> {
        spec.validate()?;
        let meet = match &spec.kind {
            JoinKind::Window(shape) => Meet::Windows(Windows::new(check::grid(*shape)?)),
            JoinKind::Interval { lower_ms, upper_ms } => Meet::Interval(Interval::new(*lower_ms, *upper_ms, spec.how)),
            JoinKind::Temporal => Meet::Temporal(Temporal::default()),
            JoinKind::Lookup { .. } => {
                return Err(Error::NotBuilt("a lookup join without the rows of its table".to_owned()));
            }
        };
        let more: &[&str] = if matches!(meet, Meet::Temporal(_)) { &[CHANGE_COLUMN] } else { &[] };
        let sides = [Side::new(&spec.left, true, &[]), Side::new(&spec.right, !spec.how.left_alone(), more)];
        let what = serde_json::to_string(&spec).map_err(|e| Error::Snapshot(e.to_string()))?;
        let state = State {
            name: setting.name,
            what,
            groups: setting.key_groups.into(),
            state_bytes_max: setting.state_bytes_max,
            sides,
            page: Page::default(),
            stamps: Stamps::default(),
            fired: i64::MIN,
            spec,
        };
        Ok(Self { state, meet })
    }

    fn stored(&self, side: usize) -> Stored<'_> {
        let temporal = matches!(self.meet, Meet::Temporal(_));
        let marks = if temporal { Marks::Gone } else { Marks::Kept };
        Stored { table: TABLES[side.min(1)], what: &self.state.what, marks, groups: self.state.groups }
    }

    fn check_bytes(&self) -> Result<(), Error> {
        let (bytes, limit) = (self.bytes(), self.state.state_bytes_max);
        if bytes > limit {
            return Err(Error::StateTooLarge { operator: self.state.name.clone(), bytes, limit });
        }
        Ok(())
    }

    /// Rows meet by their keys, which must be of the same types.
    fn check_keys(&self) -> Result<(), Error> {
        let [Some(left), Some(right)] = self.state.sides.each_ref().map(|side| side.form.key_types()) else {
            return Ok(());
        };
        let names = self.state.spec.left.keys.iter().zip(&self.state.spec.right.keys);
        for ((left, right), (name, other)) in left.iter().zip(right).zip(names) {
            if left != right {
                return Err(Error::ColumnType {
                    column: other.clone(),
                    found: right.to_string(),
                    wanted: format!("{left} as {name:?} on the left side"),
                });
            }
        }
        Ok(())
    }
}

impl Operator for JoinOperator {
    fn process(&mut self, input: usize, batch: &RecordBatch, out: &mut Out) -> Result<(), Error> {
        let state = &mut self.state;
        let Some(side) = state.sides.get_mut(input) else {
            return Err(check::broken(format!("takes two inputs, and rows came by input {input}")));
        };
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let learnt = side.form.kept().is_some();
        match &mut self.meet {
            Meet::Temporal(meet) if input == 1 => {
                let batch = meet.versions(batch)?;
                side.take(&batch, state.fired, &mut state.stamps, out)?;
            }
            _ => {
                inserts_only(batch, "join")?;
                side.take(batch, state.fired, &mut state.stamps, out)?;
            }
        }
        if !learnt {
            self.check_keys()?;
        }
        self.check_bytes()
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Out) -> Result<(), Error> {
        let until = watermark.nanos();
        if until <= self.state.fired {
            return Ok(());
        }
        let state = &mut self.state;
        match &mut self.meet {
            Meet::Interval(meet) => meet.step(state, until, out)?,
            Meet::Windows(meet) => meet.step(state, until, out)?,
            Meet::Temporal(meet) => meet.step(state, until, out)?,
        }
        state.page.flush(&state.spec, &state.sides, out)?;
        state.fired = until;
        match &mut self.meet {
            Meet::Interval(meet) => meet.drop(state),
            Meet::Windows(meet) => meet.drop(state),
            Meet::Temporal(_) => temporal::drop(state)?,
        }
        self.check_bytes()
    }

    fn hold(&self, watermark: Timestamp) -> Timestamp {
        match &self.meet {
            Meet::Interval(meet) if watermark != Timestamp::MAX => {
                Timestamp::from_nanos(watermark.nanos().saturating_sub(meet.held()))
            }
            _ => watermark,
        }
    }

    fn snapshot(&mut self) -> Result<Vec<StateBlock>, Error> {
        let mut blocks = vec![clock(self.state.fired, self.state.groups)];
        for (number, side) in self.state.sides.iter().enumerate() {
            blocks.extend(self.stored(number).freeze(&side.form, &side.pending, &side.log));
        }
        Ok(blocks)
    }

    fn restore(&mut self, blocks: &[StoredBlock]) -> Result<(), Error> {
        self.state.fired = fired(blocks, &TABLES)?;
        let temporal = matches!(self.meet, Meet::Temporal(_));
        let state = &mut self.state;
        for (side, table) in state.sides.iter_mut().zip(TABLES) {
            let marks = if temporal { Marks::Gone } else { Marks::Kept };
            let stored = Stored { table, what: &state.what, marks, groups: state.groups };
            let parts = (&mut side.form, &mut side.pending, &mut side.log);
            stored.load(blocks, state.fired, parts, &mut state.stamps)?;
        }
        match &mut self.meet {
            Meet::Temporal(meet) => meet.resume(state)?,
            Meet::Interval(_) | Meet::Windows(_) => {
                for side in &mut state.sides {
                    (side.log.first()..side.log.next()).for_each(|seq| side.enter(seq));
                }
            }
        }
        if let Meet::Interval(meet) = &mut self.meet {
            meet.resume(state);
        }
        self.check_keys()?;
        self.check_bytes()
    }

    fn bytes(&self) -> usize {
        self.state.sides.iter().map(|side| side.pending.bytes() + side.log.bytes() + side.index.bytes()).sum()
    }
}

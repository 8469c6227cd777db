//! Tumbling windows as an operator.

use std::sync::Arc;

use arrow::array::RecordBatch;
use types::Timestamp;

use super::{TumblingState, WindowSpec};
use crate::{Error, KeyGroups, Operator, Out, Setting, StateBlock, StoredBlock};

/// The table of the one block, which holds everything.
const TABLE: &str = "tumbling";

/// [`TumblingState`] behind the common trait: its state is one block, whole, in the form that it always had.
#[derive(Debug)]
pub struct TumblingOperator {
    state: TumblingState,
    groups: KeyGroups,
    edition: u64,
}

impl TumblingOperator {
    /// Empty windows.
    pub fn new(spec: WindowSpec, setting: Setting) -> Result<Self, Error> {
        Ok(Self { state: TumblingState::new(spec)?, groups: setting.key_groups.into(), edition: 0 })
    }
}

impl Operator for TumblingOperator {
    fn process(&mut self, _: usize, batch: &RecordBatch, out: &mut Out) -> Result<(), Error> {
        self.edition += 1;
        let late = self.state.late_rows();
        if let Some(early) = self.state.update(batch)? {
            out.rows(early);
        }
        out.count_late(self.state.late_rows() - late);
        Ok(())
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Out) -> Result<(), Error> {
        self.edition += 1;
        self.state.advance(watermark)?.into_iter().for_each(|batch| out.rows(batch));
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Vec<StateBlock>, Error> {
        let content = Arc::new(self.state.snapshot()?);
        let (table, groups, edition) = (TABLE.to_owned(), self.groups, self.edition);
        Ok(vec![StateBlock { table, groups, time: None, edition, content }])
    }

    fn restore(&mut self, blocks: &[StoredBlock]) -> Result<(), Error> {
        match blocks {
            [] => Ok(()),
            [one] if one.table == TABLE && one.groups == self.groups => {
                self.state = TumblingState::restore(self.state.spec().clone(), &one.bytes)?;
                Ok(())
            }
            _ => Err(Error::Snapshot("windows in one block cannot be given other key groups".to_owned())),
        }
    }

    fn bytes(&self) -> usize {
        self.state.key_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow::array::{ArrayRef, StringArray, TimestampNanosecondArray};
    use types::DurationText;

    use super::*;
    use crate::{AggregateSpec, ErrorPolicy, OperatorSpec};

    #[test]
    fn it_goes_on_from_its_block() {
        let spec = WindowSpec {
            keys: vec!["k".into()],
            aggregates: vec![AggregateSpec::count_all("n")],
            size: DurationText(Duration::from_secs(10)),
            early: None,
        };
        let rows = RecordBatch::try_from_iter([
            ("_time", Arc::new(TimestampNanosecondArray::from(vec![1, 2, 3])) as ArrayRef),
            ("k", Arc::new(StringArray::from(vec!["a", "a", "b"]))),
        ])
        .unwrap();
        let spec = OperatorSpec::WindowAggregate(spec);
        let mut first = spec.build(Setting::alone("window")).unwrap();
        let mut out = Out::new(ErrorPolicy::Fail, false);
        first.process(0, &rows, &mut out).unwrap();
        let blocks: Vec<StoredBlock> = first
            .snapshot()
            .unwrap()
            .into_iter()
            .map(|b| StoredBlock {
                table: b.table,
                groups: b.groups,
                time: b.time,
                bytes: b.content.encode().unwrap().into(),
            })
            .collect();
        let mut second = spec.build(Setting::alone("window")).unwrap();
        second.restore(&blocks).unwrap();
        second.watermark(Timestamp::from_millis(10_000), &mut out).unwrap();
        let fired = out.take();
        assert_eq!(fired.len(), 1);
        assert_eq!(fired[0].1.num_rows(), 2);
    }
}

//! A chain of operators that call each other by function call.

use arrow::array::RecordBatch;
use types::Timestamp;

use crate::{Error, Operator, Out, Port, StateBlock, StoredBlock};

/// The operators of one subtask between its inputs and its outputs, each under its name.
///
/// Rows of the main port go to the next operator; late rows and dead letters leave the chain at once. A chain without
/// operators hands everything on.
#[derive(Debug)]
pub struct Chain {
    operators: Vec<(String, Box<dyn Operator>)>,
    told: Timestamp,
}

impl Chain {
    /// A chain of these operators, in order, under the names of [`Vertex::operator_names`](crate::Vertex::operator_names).
    pub fn new(operators: Vec<(String, Box<dyn Operator>)>) -> Self {
        Self { operators, told: Timestamp::MIN }
    }

    /// Rows of one input.
    pub fn process(&mut self, input: usize, batch: RecordBatch, out: &mut Out) -> Result<(), Error> {
        self.feed(0, input, vec![batch], out)
    }

    /// The watermark over all inputs. What it completes goes to `out`; the answer is to be told behind that, if it rose.
    pub fn watermark(&mut self, watermark: Timestamp, out: &mut Out) -> Result<Option<Timestamp>, Error> {
        let mut held = watermark;
        for at in 0..self.operators.len() {
            let given = self.call(at, out, |operator, out| operator.watermark(held, out))?;
            // Nothing is held back from the last watermark: no row can follow it.
            held = if held == Timestamp::MAX { held } else { self.operators[at].1.hold(held) };
            self.feed(at + 1, 0, given, out)?;
        }
        let rose = held > self.told;
        self.told = self.told.max(held);
        Ok(rose.then_some(held))
    }

    /// The watermark that was last to be told.
    pub fn told(&self) -> Timestamp {
        self.told
    }

    /// A barrier is about to be passed on: what operators give for it goes before it, and the snapshot follows.
    pub fn barrier(&mut self, out: &mut Out) -> Result<(), Error> {
        for at in 0..self.operators.len() {
            let given = self.call(at, out, |operator, out| operator.barrier(out))?;
            self.feed(at + 1, 0, given, out)?;
        }
        Ok(())
    }

    /// The time of day; the answer is when it is wanted again.
    pub fn timer(&mut self, now: Timestamp, out: &mut Out) -> Result<Option<Timestamp>, Error> {
        let mut next: Option<Timestamp> = None;
        for at in 0..self.operators.len() {
            let mut wanted = None;
            let given = self.call(at, out, |operator, out| {
                wanted = operator.timer(now, out)?;
                Ok(())
            })?;
            next = next.into_iter().chain(wanted).min();
            self.feed(at + 1, 0, given, out)?;
        }
        Ok(next)
    }

    /// All inputs have ended; [`Timestamp::MAX`] was told before.
    pub fn end(&mut self, out: &mut Out) -> Result<(), Error> {
        for at in 0..self.operators.len() {
            let given = self.call(at, out, |operator, out| operator.end(out))?;
            self.feed(at + 1, 0, given, out)?;
        }
        Ok(())
    }

    /// The state of each operator that has some, under its name.
    pub fn snapshot(&mut self) -> Result<Vec<(String, Vec<StateBlock>)>, Error> {
        let mut all = Vec::new();
        for (name, operator) in &mut self.operators {
            let blocks = operator.snapshot()?;
            if !blocks.is_empty() {
                all.push((name.clone(), blocks));
            }
        }
        Ok(all)
    }

    /// Gives an operator its stored blocks.
    ///
    /// Errors: `StateWithoutOperator` names the operator if the chain has none of that name.
    pub fn restore(&mut self, name: &str, blocks: &[StoredBlock]) -> Result<(), Error> {
        match self.operators.iter_mut().find(|(known, _)| known == name) {
            Some((_, operator)) => operator.restore(blocks),
            None => Err(Error::StateWithoutOperator { operator: name.to_owned() }),
        }
    }

    /// The operators, for figures, budgets and live state.
    pub fn operators(&mut self) -> impl Iterator<Item = (&str, &mut dyn Operator)> {
        self.operators.iter_mut().map(|(name, operator)| (name.as_str(), operator.as_mut() as &mut dyn Operator))
    }

    fn feed(&mut self, from: usize, input: usize, rows: Vec<RecordBatch>, out: &mut Out) -> Result<(), Error> {
        let mut rows = rows;
        for at in from..self.operators.len() {
            if rows.is_empty() {
                return Ok(());
            }
            let input = if at == 0 { input } else { 0 };
            let taken = std::mem::take(&mut rows);
            rows = self.call(at, out, |operator, out| {
                taken.iter().try_for_each(|batch| operator.process(input, batch, out))
            })?;
        }
        rows.into_iter().for_each(|batch| out.rows(batch));
        Ok(())
    }

    /// Calls one operator, and returns what it gave on to the next; the rest of it goes to `out`.
    fn call(
        &mut self,
        at: usize,
        out: &mut Out,
        call: impl FnOnce(&mut dyn Operator, &mut Out) -> Result<(), Error>,
    ) -> Result<Vec<RecordBatch>, Error> {
        let before = out.take();
        call(self.operators[at].1.as_mut(), out)?;
        let given = out.take();
        before.into_iter().for_each(|(port, batch)| out.push(port, batch));
        let mut rows = Vec::new();
        for (port, batch) in given {
            match port {
                Port::Main => rows.push(batch),
                Port::Late | Port::DeadLetter => out.push(port, batch),
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    /// Adds one; holds rows back until the watermark; says that zeros are late; holds the watermark by 5.
    #[derive(Debug, Default)]
    struct Hold(Vec<RecordBatch>);

    fn numbers(values: Vec<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(values)) as ArrayRef)]).unwrap()
    }

    fn values(batch: &RecordBatch) -> Vec<i64> {
        batch.column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    impl Operator for Hold {
        fn process(&mut self, _: usize, batch: &RecordBatch, out: &mut Out) -> Result<(), Error> {
            let (zeros, rest): (Vec<i64>, Vec<i64>) = values(batch).into_iter().partition(|n| *n == 0);
            out.late(numbers(zeros));
            self.0.push(numbers(rest.into_iter().map(|n| n + 1).collect()));
            Ok(())
        }

        fn watermark(&mut self, _: Timestamp, out: &mut Out) -> Result<(), Error> {
            self.0.drain(..).for_each(|batch| out.rows(batch));
            Ok(())
        }

        fn hold(&self, watermark: Timestamp) -> Timestamp {
            Timestamp::from_nanos(watermark.nanos() - 5)
        }
    }

    #[test]
    fn rows_go_through_before_the_watermark_that_follows_them() {
        let hold = || Box::new(Hold::default()) as Box<dyn Operator>;
        let mut chain = Chain::new(vec![("a".into(), hold()), ("b".into(), hold())]);
        let mut out = Out::new(crate::ErrorPolicy::Fail, true);
        chain.process(0, numbers(vec![0, 1, 2]), &mut out).unwrap();
        let late: Vec<_> = out.take().into_iter().map(|(port, batch)| (port, values(&batch))).collect();
        assert_eq!(late, [(Port::Late, vec![0])]);
        assert_eq!(chain.watermark(Timestamp::from_nanos(100), &mut out).unwrap(), Some(Timestamp::from_nanos(90)));
        let rows: Vec<_> = out.take().into_iter().map(|(port, batch)| (port, values(&batch))).collect();
        assert_eq!(rows, [(Port::Main, vec![3, 4])]);
        assert_eq!(chain.watermark(Timestamp::from_nanos(100), &mut out).unwrap(), None, "a watermark is told once");
        assert_eq!(out.counts().late, 1);
        assert!(matches!(chain.restore("c", &[]), Err(Error::StateWithoutOperator { .. })));
    }
}

//! A pattern, checked and brought to the form that runs follow.

use std::collections::BTreeSet;

use super::{AfterMatch, MeasureValue, PATTERN_STEPS_MAX, PatternSpec, PatternStep};
use crate::{Error, HASH_COLUMN, TIME_COLUMN};

/// The longest time of a pattern, in nanoseconds: 73 years, so that nothing overflows.
const WITHIN_MAX: i64 = i64::MAX / 4;

/// The steps as bits of a row: bit `n` says that the row meets the condition of step `n` of the specification.
pub(super) type Bits = u16;

#[derive(Debug)]
pub(super) struct Plan {
    /// The steps that take rows.
    pub(super) steps: Vec<Step>,
    pub(super) within: i64,
    pub(super) after: AfterMatch,
    pub(super) gaps: bool,
    /// Whether a match is known with its last row.
    pub(super) at_once: bool,
}

#[derive(Debug)]
pub(super) struct Step {
    pub(super) bit: Bits,
    pub(super) least: u32,
    pub(super) most: u32,
    /// The rows that may not come between it and the next one.
    pub(super) absent: Bits,
}

fn broken(problem: impl Into<String>) -> Error {
    Error::Spec { operator: "pattern", problem: problem.into() }
}

impl PatternSpec {
    /// Checks the pattern: its steps, its names, its time.
    ///
    /// Errors: `Spec` names the rule.
    pub fn validate(&self) -> Result<(), Error> {
        Plan::new(self).map(|_| ())
    }

    fn check_steps(&self) -> Result<(), Error> {
        if self.steps.is_empty() || self.steps.len() > PATTERN_STEPS_MAX {
            let problem = format!("has {} steps: 1 to {PATTERN_STEPS_MAX} are allowed", self.steps.len());
            return Err(broken(problem));
        }
        let mut names = BTreeSet::new();
        for PatternStep { name, least, most, absent, .. } in &self.steps {
            if !names.insert(name) {
                return Err(broken(format!("has two steps {name:?}: rename one")));
            }
            if *absent && (*least, *most) != (1, 1) {
                return Err(broken(format!("step {name:?} is absent, so it has no number of rows")));
            }
            if *most == 0 || least > most {
                return Err(broken(format!(
                    "step {name:?} takes {least} to {most} rows: the first is the lesser one, of 1 at least"
                )));
            }
        }
        if self.steps.first().is_some_and(|step| step.absent) {
            return Err(broken(
                "begins with an absent step: there is no row before it from which on one could be absent",
            ));
        }
        if !self.steps.iter().any(|step| !step.absent && step.least > 0) {
            return Err(broken("can match no row at all: one step takes a row at least"));
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), Error> {
        let mut names: BTreeSet<&str> = self.keys.iter().map(String::as_str).chain([TIME_COLUMN]).collect();
        for measure in &self.measures {
            if !names.insert(&measure.name) {
                return Err(broken(format!("gives two columns of the name {:?}: rename one", measure.name)));
            }
            match self.steps.iter().find(|step| step.name == measure.step) {
                None => return Err(broken(format!("measures {:?}, which is no step", measure.step))),
                Some(step) if step.absent => return Err(broken(format!("measures {:?}, which is absent", step.name))),
                Some(_) => {}
            }
            if let MeasureValue::First(column) | MeasureValue::Last(column) = &measure.value
                && (column == HASH_COLUMN || column == super::operator::BITS_COLUMN)
            {
                return Err(broken(format!("cannot read {column:?}, which is the engine's: rename it in front")));
            }
        }
        Ok(())
    }
}

impl Plan {
    pub(super) fn new(spec: &PatternSpec) -> Result<Self, Error> {
        spec.check_steps()?;
        spec.check_names()?;
        let within = i64::try_from(spec.within.0.as_nanos()).unwrap_or(i64::MAX);
        if within == 0 || within > WITHIN_MAX {
            return Err(broken(format!("within {:?} is out of range: more than nothing, to 73 years", spec.within.0)));
        }
        let mut steps: Vec<Step> = Vec::new();
        for (number, step) in spec.steps.iter().enumerate() {
            let bit = 1 << number;
            match steps.last_mut() {
                Some(last) if step.absent => last.absent |= bit,
                _ => steps.push(Step { bit, least: step.least, most: step.most, absent: 0 }),
            }
        }
        let waits = steps.last().is_some_and(|last| last.absent > 0);
        let at_once = !waits && steps.iter().all(|step| step.least == step.most);
        Ok(Self { steps, within, after: spec.after, gaps: spec.gaps, at_once })
    }

    /// The place of a step of the specification among those that take rows.
    pub(super) fn place(spec: &PatternSpec, name: &str) -> Option<usize> {
        spec.steps.iter().filter(|step| !step.absent).position(|step| step.name == name)
    }
}

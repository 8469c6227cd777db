//! From an operator as data to one that runs.

use crate::{
    Error, Keep, Operator, OperatorSpec, Setting, TumblingOperator, WindowShape,
    group::GroupRows,
    join::JoinOperator,
    ordered::Ordered,
    over::OverRows,
    pattern::PatternOperator,
    rank::{FirstRows, RankedRows, TopWindows},
    window::{CountRows, PaneOperator, SessionOperator},
};

impl OperatorSpec {
    /// The operator, if it is one of this crate: without expressions, sources and sinks, which a worker makes.
    ///
    /// Errors: `NotBuilt`; whatever is wrong with the specification.
    pub fn build(&self, setting: Setting) -> Result<Box<dyn Operator>, Error> {
        self.built()?;
        match self {
            Self::WindowAggregate(spec) => Ok(Box::new(TumblingOperator::new(spec.clone(), setting)?)),
            Self::Window(plan) => match plan.shape {
                WindowShape::Session { .. } => Ok(Box::new(SessionOperator::new(plan.clone(), setting)?)),
                WindowShape::Count { .. } => {
                    let work = CountRows::new(plan, &setting.name)?;
                    Ok(Box::new(Ordered::new(&plan.keys, self.what()?, work, setting)))
                }
                _ => Ok(Box::new(PaneOperator::new(plan.clone(), setting)?)),
            },
            Self::GroupAggregate(spec) => {
                let work = GroupRows::new(spec, &setting.name, setting.errors)?;
                Ok(Box::new(Ordered::new(&spec.keys, self.what()?, work, setting)))
            }
            Self::Over(spec) => {
                let work = OverRows::new(spec, &setting.name)?;
                Ok(Box::new(Ordered::new(&spec.keys, self.what()?, work, setting)))
            }
            Self::TopN(spec) if spec.windowed => Ok(Box::new(TopWindows::new(spec.clone(), self.what()?, setting)?)),
            Self::TopN(spec) => Ok(Box::new(Ordered::new(&spec.keys, self.what()?, RankedRows::top(spec)?, setting))),
            Self::Deduplicate(spec) => {
                spec.validate()?;
                let what = self.what()?;
                match spec.keep {
                    Keep::First => Ok(Box::new(Ordered::new(&spec.keys, what, FirstRows::new(spec)?, setting))),
                    Keep::Last => Ok(Box::new(Ordered::new(&spec.keys, what, RankedRows::last(spec)?, setting))),
                }
            }
            Self::Join(spec) => Ok(Box::new(JoinOperator::new(spec.clone(), setting)?)),
            Self::Pattern(spec) => Ok(Box::new(PatternOperator::new(spec.clone(), setting)?)),
            other => Err(Error::NotBuilt(format!("a {} as an operator of its own", other.word()))),
        }
    }

    /// The specification, as blocks of state name it.
    fn what(&self) -> Result<String, Error> {
        serde_json::to_string(self).map_err(|error| Error::Snapshot(error.to_string()))
    }
}

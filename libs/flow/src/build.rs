//! From an operator as data to one that runs.

use crate::{
    Error, Operator, OperatorSpec, Setting, TumblingOperator, WindowShape,
    window::{PaneOperator, SessionOperator},
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
                _ => Ok(Box::new(PaneOperator::new(plan.clone(), setting)?)),
            },
            other => Err(Error::NotBuilt(format!("a {} as an operator of its own", other.word()))),
        }
    }
}

//! From what a plan says of a sink to one that takes rows.

use std::sync::Arc;

use flow::SinkSpec;

use super::{
    files::FilesSink,
    plain::{Blackhole, Stdout},
};
use crate::{
    error::TaskError,
    run::{Begin, RowSink},
    task::Context,
};

/// Opens a sink, fresh or behind the parts of all subtasks of its vertex.
pub(crate) async fn open(
    context: &Arc<Context>,
    spec: &SinkSpec,
    begin: Begin<'_>,
) -> Result<Box<dyn RowSink>, TaskError> {
    match spec {
        SinkSpec::Blackhole => Ok(Box::new(Blackhole)),
        SinkSpec::Stdout => Ok(Box::new(Stdout)),
        SinkSpec::Files { url, format, roll_bytes, roll_after } => {
            let rolls = (*roll_bytes, roll_after.map(|after| after.0));
            Ok(Box::new(FilesSink::open(context, url, format, rolls, begin).await?))
        }
        SinkSpec::JetStream { .. } | SinkSpec::Http { .. } => {
            Err(TaskError::Plan(format!("the {} is not built", spec.word())))
        }
    }
}

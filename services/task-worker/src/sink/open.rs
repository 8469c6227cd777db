//! From what a plan says of a sink to one that takes rows.

use std::sync::Arc;

use flow::SinkSpec;

use super::{
    files::FilesSink,
    http::HttpSink,
    jetstream::JetStreamSink,
    plain::{Blackhole, Stdout},
};
use crate::{
    error::TaskError,
    run::{Begin, RowSink},
    task::Context,
};

/// Opens a sink, fresh or behind the parts of all subtasks of its vertex; `ordered` tells whether every attempt gives the same rows
/// in the same order.
pub(crate) async fn open(
    context: &Arc<Context>,
    spec: &SinkSpec,
    ordered: bool,
    begin: Begin<'_>,
) -> Result<Box<dyn RowSink>, TaskError> {
    match spec {
        SinkSpec::Blackhole => Ok(Box::new(Blackhole)),
        SinkSpec::Stdout => Ok(Box::new(Stdout)),
        SinkSpec::Files { url, format, roll_bytes, roll_after } => {
            let rolls = (*roll_bytes, roll_after.map(|after| after.0));
            Ok(Box::new(FilesSink::open(context, url, format, rolls, begin).await?))
        }
        SinkSpec::JetStream { subject } => Ok(Box::new(JetStreamSink::open(context, subject, ordered, begin)?)),
        SinkSpec::Http { url, headers } => Ok(Box::new(HttpSink::open(context, url, headers, ordered, begin)?)),
    }
}

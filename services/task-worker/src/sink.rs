//! Where results go.

pub(crate) mod alerts;
pub(crate) mod index;
mod targets;

pub(crate) use alerts::AlertSink;
pub(crate) use index::IndexSink;

/// The sink of a window.
#[derive(Debug)]
pub(crate) enum Sink {
    Index(Box<IndexSink>),
    Alerts(Box<AlertSink>),
}

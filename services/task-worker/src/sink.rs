//! Where results go.

pub(crate) mod alerts;
mod files;
pub(crate) mod index;
mod open;
mod plain;
mod targets;

pub(crate) use alerts::AlertSink;
pub(crate) use index::IndexSink;
pub(crate) use open::open;

/// The sink of a window.
#[derive(Debug)]
pub(crate) enum Sink {
    Index(Box<IndexSink>),
    Alerts(Box<AlertSink>),
}

//! Where results go.

pub(crate) mod alerts;
mod files;
mod http;
pub(crate) mod index;
mod jetstream;
mod numbered;
mod open;
mod pending;
mod plain;
mod posts;
mod targets;
mod writer;

pub(crate) use alerts::AlertSink;
pub(crate) use index::IndexSink;
pub(crate) use open::open;
pub(crate) use posts::{Posts, prefixes};

/// The sink of a window.
#[derive(Debug)]
pub(crate) enum Sink {
    Index(Box<IndexSink>),
    Alerts(Box<AlertSink>),
}

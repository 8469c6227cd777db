//! Everything that takes bytes from outside, with whatever comes: one function for each target of `cargo fuzz`
//! (`tests/fuzz`), which ordinary tests run over seeds.
//!
//! Owns what must hold for any bytes: no panic, no overflow, refusals that a client can read, and that what was taken can be written
//! and taken again. The libraries are dependencies. Of the broker, the segment store and the gateway only the pure sources are taken in by
//! their paths, so that neither a web server nor a client of NATS or Kubernetes is built, and nothing private becomes public.
//! Deliberately does not know: sockets, files, clocks.

// The sources that are taken in bring tests that are run where they stand.
#![cfg(not(test))]

mod agents;
mod damage;
mod front;
mod messages;
mod searches;
mod stored;
mod texts;

pub use agents::{door_elastic, door_hec, door_jsonline, door_loki, door_otlp, syslog_stream};
pub use front::{osb_body, osb_path};
pub use messages::wire_decode;
pub use searches::search_elastic;
pub use stored::{chunk_read, frame_decode};
pub use texts::{ingest_lines, query_parse, settings};

// The sources that are taken in name each other from the root of their crate, and use a part of themselves.
#[allow(dead_code, unused_imports, missing_docs, unreachable_pub)]
#[path = "../../../services/broker/src"]
mod broker {
    pub(crate) mod alerts;
    pub(crate) mod catalog;
    pub(crate) mod osb;
    pub(crate) mod wanted;
}
use broker::{alerts, catalog, osb, wanted};

/// What the sources of the broker's front take from its errors.
mod error {
    pub(crate) const CONCURRENCY: &str = "ConcurrencyError";
}

#[allow(dead_code, unused_imports, missing_docs, unreachable_pub)]
#[path = "../../../services/segment-store/src/container"]
mod container {
    pub(crate) mod frame;
}

#[allow(dead_code, unused_imports, missing_docs, unreachable_pub)]
#[path = "../../../services/gateway/src/doors"]
mod doors {
    pub(crate) mod elastic;
    pub(crate) mod event;
    pub(crate) mod hec;
    pub(crate) mod json;
    pub(crate) mod jsonline;
    pub(crate) mod loki;
    pub(crate) mod otlp;
    pub(crate) mod protobuf;
}

#[allow(dead_code, unused_imports, missing_docs, unreachable_pub)]
#[path = "../../../services/gateway/src/elastic"]
mod elastic {
    pub(crate) mod aggregation;
    pub(crate) mod buckets;
    pub(crate) mod clause;
    pub(crate) mod condition;
    pub(crate) mod field;
    pub(crate) mod gather;
    pub(crate) mod highlight;
    pub(crate) mod lucene;
    pub(crate) mod moment;
    pub(crate) mod refused;
    pub(crate) mod search;
    pub(crate) mod shown;
    pub(crate) mod sort;
    pub(crate) mod words;
}

#[allow(dead_code, unused_imports, missing_docs, unreachable_pub)]
#[path = "../../../services/gateway/src/syslog"]
mod syslog {
    pub(crate) mod frame;
    pub(crate) mod token;
}

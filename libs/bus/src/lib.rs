//! NATS at arm's length: the only crate that names the NATS client.
//!
//! Owns connections that come back, calls and doors (ADR-32 micro services), notices, journals and container logs with
//! their fences, buckets with watches and leases, the producers' lanes, and the keys and tokens of operator mode.
//! Deliberately does not know: what a message means, what a service decides, or where a file is.
//!
//! Outcomes are kept apart everywhere: what certainly did not happen, and what may have happened.
//!
//! ```no_run
//! use bus::{Bus, BusOptions, Doors};
//! use wire::{
//!     Service,
//!     coordinator::{ListStreams, StreamsOf},
//! };
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let (url, name) = ("nats://127.0.0.1:4222".into(), "coordinator/c-0".into());
//! let bus = Bus::connect(BusOptions { url, name, ..Default::default() }).await?;
//! let doors = Doors::new(&bus, Service::Coordinator, &"c-0".parse()?);
//! let door = doors.serve::<ListStreams, _, _>(None, |_request| async { Ok(Default::default()) }).await?;
//!
//! let streams = bus.call::<ListStreams>(&(), &StreamsOf::default()).await?;
//! assert!(streams.streams.is_empty());
//! door.close().await;
//! # Ok(())
//! # }
//! ```

mod append;
mod audit;
mod bucket;
mod call;
mod claims_push;
mod clock;
mod connect;
mod container_log;
mod delegate;
mod discovery;
mod door;
mod error;
mod headers;
mod jetstream;
mod journal;
pub mod keys;
mod lane;
mod lease;
mod notice;
mod origin;
mod pull;
mod record;
mod stream_reader;
mod watch;

pub use append::AppendError;
pub use audit::{AuditReader, AuditRecord};
pub use bucket::{Bucket, BucketError, Entry};
pub use call::CALL_DEADLINE;
pub use clock::SystemClock;
pub use connect::{Bus, BusOptions};
pub use container_log::{
    ClaimError, ContainerLog, LOG_HEADROOM_BYTES, LogOptions, LogRecord, RECORD_OVERHEAD_BYTES, RecordKind,
};
pub use door::{DOOR_IN_FLIGHT_MAX, Door, Doors, Gatekeeper, Incoming};
pub use error::BusError;
pub use journal::{Follower, Journal, JournalRecord};
pub use lane::{Lane, LaneMessage};
pub use lease::Lease;
pub use notice::{Notices, RawMessage, RawMessages};
pub use origin::{Origin, as_leader, origin, with_origin};
pub use stream_reader::{StreamMessage, StreamReader};
pub use watch::{Change, Watch};

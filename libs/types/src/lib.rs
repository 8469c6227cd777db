//! The words of the house.
//!
//! Owns the types that more than one crate says: ids, time, units, routing keys, positions, severities.
//! Deliberately does not know: encodings, subjects, sockets, files or any clock but the one it is handed.
//!
//! ```
//! use types::{IndexName, RoutingKey, Timestamp};
//!
//! let index: IndexName = "shop-frontend".parse()?;
//! let key = RoutingKey::new("cart-17")?;
//! assert_eq!(index.as_str(), "shop-frontend");
//! assert!(Timestamp::from_nanos(5) < Timestamp::from_nanos(6));
//! assert_eq!(key.hash(), RoutingKey::new("cart-17")?.hash());
//! # Ok::<(), types::Invalid>(())
//! ```

mod id;
mod key;
mod position;
mod severity;
mod time;
mod unit;

pub use id::{
    BindingId, ContainerId, Generation, GroupName, IndexName, InstanceId, Invalid, ItemName, JobId, LaneId, ReaderId,
    ReplicaId, RuleId, ScopeName, SegmentId, TOKEN_BYTES_MAX, Tag, Token, TransactionId, WriterId,
};
pub use key::{KeyRange, ROUTING_KEY_BYTES_MAX, RoutingKey, hash64};
pub use position::{Offset, Position, StreamCut};
pub use severity::Severity;
pub use time::{Clock, ManualClock, Timestamp};
pub use unit::{ByteSize, DurationText};

/// The largest event the platform takes: 1 MiB of payload.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

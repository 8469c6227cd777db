//! What makes a snapshot complete, which one to restore, what may be deleted.
//!
//! Owns the manifest (its bytes, its key, its parts), the packing of a state into parts, and four decisions: whether a manifest may
//! be written ([`may_commit`]), which one to restore ([`pick_restore`]), which objects to delete ([`plan_gc`]), and how far the log
//! underneath may be purged ([`purge_bound`]).
//! Deliberately does not know: object storage, journals, clocks, or what a state contains; whoever drives it reads facts, asks for a
//! decision and carries it out.
//!
//! ```
//! use snapshot::{Manifest, Restore, pack, pick_restore, unpack};
//!
//! let parts = pack(b"the state after event 42")?;
//! let manifest = Manifest {
//!     service: "coordinator".into(),
//!     generation: 3,
//!     number: 7,
//!     format: snapshot::FORMAT,
//!     position: 42,
//!     parts: parts.iter().map(|(info, _)| info.clone()).collect(),
//! };
//! assert_eq!(manifest.key(), "snap/coordinator/00000000000000000007/manifest.lb");
//! assert_eq!(Manifest::decode(&manifest.encode())?, manifest);
//!
//! // The journal still has everything from 31 on, so the snapshot at 42 is usable.
//! let manifests = [manifest];
//! let Restore::From(chosen) = pick_restore(&manifests, |_| true, 31) else { panic!("usable") };
//! let bytes: Vec<Vec<u8>> = parts.into_iter().map(|(_, bytes)| bytes).collect();
//! assert_eq!(unpack(chosen, &bytes)?, b"the state after event 42");
//! # Ok::<(), snapshot::SnapshotError>(())
//! ```

mod decide;
mod manifest;
mod pack;

pub use decide::{
    KEEP, MANIFESTS_MAX, PURGE_NEEDS_MIN, Restore, may_commit, next_number, pick_restore, plan_gc, purge_bound,
};
pub use manifest::{FORMAT, Manifest, PARTS_MAX, PartInfo, part_key, prefix, service_and_number};
pub use pack::{PART_BYTES_MAX, STATE_BYTES_MAX, pack, unpack};

/// What is wrong with the bytes of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The manifest is cut, changed or not a manifest.
    #[error("manifest is damaged: {0}; an older snapshot must be used")]
    Manifest(String),
    /// The manifest or state was written by a newer version.
    #[error(
        "snapshot has format {found}, this version reads up to {known}; run the version that wrote it, or a newer one"
    )]
    Format {
        /// What was found.
        found: u16,
        /// What is known.
        known: u16,
    },
    /// A part is missing, cut or changed.
    #[error("part {name:?} is missing or damaged; an older snapshot must be used")]
    Part {
        /// Its name.
        name: String,
    },
    /// The state does not fit the bounds.
    #[error("state of {bytes} bytes is beyond the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Packing failed.
    #[error("state could not be packed: {0}")]
    Pack(String),
}

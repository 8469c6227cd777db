//! Object storage, and local state that can always be rebuilt.
//!
//! Owns [`Objects`] (a directory or an S3 bucket, with a put that never overwrites; objects whose key ends with [`SEALED`] are
//! sealed on their way in and opened on their way out) and [`Local`] (sled behind a guard: whatever goes
//! wrong inside, its directory is moved aside and work goes on empty).
//! Deliberately does not know: what the bytes mean, where keys are kept ([`ObjectKeys`]), journals, snapshots, when to write which, or where settings come from.
//!
//! ```
//! use store::{Local, Objects, Put};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let objects = Objects::open(&format!("file://{}", dir.path().join("objects").display()))?;
//! assert_eq!(objects.put_if_absent("snap/a", b"one".as_slice().into()).await?, Put::Stored);
//! assert_eq!(objects.put_if_absent("snap/a", b"two".as_slice().into()).await?, Put::Exists);
//! assert_eq!(&objects.get("snap/a").await?[..], b"one");
//!
//! let local = Local::open(&dir.path().join("local"));
//! local.rebase(10, b"state at 10");
//! local.apply(11, b"event 11");
//! let state = local.load().expect("what was written is there");
//! assert_eq!((state.base_seq, state.entries), (10, vec![(11, b"event 11".to_vec())]));
//! # Ok(())
//! # }
//! ```

mod error;
mod local;
mod objects;
mod s3;
mod sealed;
mod tree;

pub use error::{KeyError, StoreError};
pub use local::{BROKEN_KEPT_MAX, ENTRIES_MAX, Local, LocalState};
pub use objects::{LIST_MAX, ObjectInfo, Objects, Put};
pub use s3::S3Options;
pub use sealed::{ObjectKeys, SEALED};

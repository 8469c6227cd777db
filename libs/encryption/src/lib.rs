//! Encryption at rest: data keys of indexes, and objects that nobody reads without them; bytes in, bytes out.
//!
//! Owns the form of a sealed object ([`seal`], [`Trailer`], [`Opener`]) and how a data key is wrapped by a master key
//! ([`MasterKeys`]). Deliberately does not know: where objects and keys are kept, who may have them, where random bytes come from.
//!
//! Any part of a sealed object can be opened by itself, and what was changed, cut off, or belongs to another object or another
//! place in it is an error and never other bytes. Decision 0014 says why it is so.
//!
//! ```
//! use encryption::{DataKey, Trailer, seal, sealed_range};
//!
//! let key = DataKey::new(1, [7; 32]);
//! let plain = vec![42; 200_000];
//! let sealed = seal(&key, "chunks/shop/1-0-0/a.sealed", &[9; 32], &plain)?;
//! // A reader wants 10 bytes: it fetches the block that holds them, and what follows it as far as a trailer reaches.
//! let trailer = Trailer::read(&sealed, sealed.len() as u64)?;
//! let part = sealed_range(&(70_000..70_010));
//! let fetched = &sealed[part.start as usize..part.end as usize];
//! let opened = trailer.opener(&key, "chunks/shop/1-0-0/a.sealed")?.open(70_000..70_010, fetched)?;
//! assert_eq!(opened, plain[70_000..70_010]);
//! # Ok::<(), encryption::Error>(())
//! ```

mod master;
mod object;

use std::fmt;

pub use master::{MasterKeys, NONCE_BYTES};
pub use object::{
    BLOCK_BYTES, Opener, SALT_BYTES, TRAILER_BYTES, Trailer, plain_size, seal, sealed_range, sealed_size,
};

/// Bytes of any key here.
pub const KEY_BYTES: usize = 32;

/// A key of one index: it seals what the index has in object storage.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey {
    version: u32,
    bytes: [u8; KEY_BYTES],
}

impl DataKey {
    /// The key of this version; an index never has two keys of one version.
    pub fn new(version: u32, bytes: [u8; KEY_BYTES]) -> Self {
        Self { version, bytes }
    }

    /// Its version.
    pub fn version(&self) -> u32 {
        self.version
    }
}

impl fmt::Debug for DataKey {
    /// Shows the version only: secrets never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DataKey").field(&self.version).finish()
    }
}

/// Why something cannot be sealed, opened, wrapped or unwrapped; none of them says what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are no sealed object.
    #[error("not a sealed object: it does not end with LBSEALED")]
    Foreign,
    /// A later release sealed it.
    #[error("it was sealed in form {0}, this release opens form 1: upgrade it")]
    Form(u32),
    /// Bytes are missing or were added.
    #[error("it has {found} bytes, which is not what was sealed: fetch it again, else restore the object")]
    Size {
        /// How many it has.
        found: u64,
    },
    /// A block was changed, or belongs elsewhere.
    #[error(
        "block {0} is not what was sealed there: it was changed, or belongs to another object or index; restore the object"
    )]
    Block(u64),
    /// Another key than the one that sealed it.
    #[error("it was sealed with version {needed} of the key of its index, and version {given} was given")]
    KeyVersion {
        /// The version that sealed it.
        needed: u32,
        /// The one at hand.
        given: u32,
    },
    /// Bytes behind the end were asked for, or not enough were handed in.
    #[error("bytes {from} to {to} of {bytes} were asked for and not handed in")]
    Range {
        /// The first of them.
        from: u64,
        /// The one behind the last.
        to: u64,
        /// How many the object has.
        bytes: u64,
    },
    /// There is no master key.
    #[error("there is no master key")]
    NoMaster,
    /// The master key is not among those at hand.
    #[error("it was wrapped by master key {0:?}, which is not there: put it back, below the first")]
    UnknownMaster(String),
    /// A wrapped key is not what was wrapped for this stream and version.
    #[error("the wrapped key is not what was wrapped for stream {stream}, version {version}")]
    Wrapped {
        /// The stream.
        stream: u32,
        /// The version.
        version: u32,
    },
    /// The cipher does not take so much.
    #[error("the cipher refused")]
    Cipher,
}

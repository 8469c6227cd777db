//! Pages of listings: none is larger than what NATS carries.

use serde::{Deserialize, Serialize};

/// Entries of one page, at most.
pub const PAGE_MAX: u32 = 1_000;

/// Bytes of one page, at most; a page has at least one entry, which may be larger. 768 KiB: NATS takes 1 MiB unless it is told otherwise.
pub const PAGE_BYTES_MAX: usize = 768 << 10;

/// How many entries a page has at most: 1 to [`PAGE_MAX`]. Whoever does not say gets as many as there can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Page(pub u32);

impl Default for Page {
    fn default() -> Self {
        Self(PAGE_MAX)
    }
}

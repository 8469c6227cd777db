//! The operating system's clock, behind the house's trait.

use std::time::{SystemTime, UNIX_EPOCH};

use types::{Clock, Timestamp};

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the wrapper that the ban asks for")]
    fn now(&self) -> Timestamp {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        Timestamp::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
    }
}

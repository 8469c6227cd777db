//! How much of an index its users may take: events a second, bytes a day, queries at once.
//!
//! Owns: the thinking about quotas - the token bucket ([`Rate`]), the bytes of a day ([`Days`]), and both for one index together
//! with what other replicas let in ([`Meter`]).
//! Deliberately does not know: where quotas come from, how replicas tell each other, which door asks. Time is handed in, and
//! a clock that goes back harms nobody: it takes nothing away and gives no more than one burst.
//!
//! ```
//! use quota::{Limits, Meter, Refusal, Take};
//! use types::Timestamp;
//!
//! let limits = Limits { events_per_second: Some(2), ..Limits::default() };
//! let (now, event) = (Timestamp::from_millis(0), Take { events: 1, bytes: 100 });
//! let mut meter = Meter::new(limits, now);
//! for _ in 0..4 {
//!     meter.take(event, now)?;
//! }
//! assert!(matches!(meter.take(event, now), Err(Refusal::Rate { .. })));
//! meter.take(event, Timestamp::from_millis(500))?;
//! # Ok::<(), Refusal>(())
//! ```

mod day;
mod meter;
mod rate;

pub use day::{Days, day_of, until_next_day};
pub use meter::{Limits, MEMBERS_MAX, Meter, QUERIES_HEARD_FOR, Refusal, Take, Told};
pub use rate::{BURST_SECONDS, Rate};

//! Back-pressure: from half of the limit on appends are slowed down, so that writers feel the limit before they hit it.

use std::time::Duration;

/// The longest delay of a frame: as long as Pravega's longest batching delay.
pub(crate) const DELAY_MAX: Duration = Duration::from_millis(50);

/// How long a frame waits when `used` of `max` bytes wait for Tier 2: nothing up to a half, [`DELAY_MAX`] from 90 % on,
/// in proportion between.
///
/// The frame waits and not the single append, so that no append overtakes another, and what comes meanwhile is in it.
pub(crate) fn delay(used: u64, max: u64) -> Duration {
    let (begin, full) = (max / 2, max / 10 * 9);
    let over = used.saturating_sub(begin);
    if over == 0 {
        return Duration::ZERO;
    }
    let part = over as f64 / full.saturating_sub(begin).max(1) as f64;
    DELAY_MAX.mul_f64(part.min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_from_half_to_nine_tenths() {
        for (used, millis) in [(0, 0), (500, 0), (600, 12), (700, 25), (900, 50), (1_000, 50), (9_000, 50)] {
            assert_eq!(delay(used, 1_000).as_millis(), millis, "{used}");
        }
        assert_eq!(delay(0, 0), Duration::ZERO);
        assert_eq!(delay(1, 1), DELAY_MAX);
    }
}

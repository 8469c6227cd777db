//! Byte credits: how much a sender may have on its way to one consumer.
//!
//! Both sides count totals since the channel was opened. A grant is a total too, so a lost, repeated or reordered one
//! does no harm: the next says it all.

use std::time::Duration;

use types::Timestamp;

use crate::Error;

/// The smallest window: one usual frame.
pub const WINDOW_BYTES_MIN: u64 = 64 << 10;

/// The largest window, hence the most bytes that one channel can hold in memory.
pub const WINDOW_BYTES_MAX: u64 = 4 << 20;

/// How much consumption a window should last for: longer than a round trip, short enough that barriers stay fast.
pub const GRANT_TARGET: Duration = Duration::from_millis(50);

/// The shortest stretch over which a drain rate is measured; below it one batch would decide.
const SAMPLE: Duration = Duration::from_millis(10);

/// The sender's ledger of one channel.
#[derive(Debug, Clone, Default)]
pub struct SenderCredit {
    sent: u64,
    granted: u64,
    room: u64,
}

impl SenderCredit {
    /// Whether a frame of that size is covered by the grants.
    pub fn may_send(&self, bytes: u64) -> bool {
        self.sent.checked_add(bytes).is_some_and(|total| total <= self.granted)
    }

    /// Books a frame; `Credit` if it is not covered, and then nothing is booked.
    pub fn sent(&mut self, bytes: u64) -> Result<(), Error> {
        if !self.may_send(bytes) {
            return Err(Error::Credit { bytes, used: self.sent, granted: self.granted });
        }
        self.sent += bytes;
        Ok(())
    }

    /// Takes a grant; true if it raised the credit.
    ///
    /// Bounds: an honest consumer has taken no more than was sent, so a grant above `sent` + [`WINDOW_BYTES_MAX`]
    /// counts as exactly that.
    pub fn granted(&mut self, total: u64) -> bool {
        let total = total.min(self.sent.saturating_add(WINDOW_BYTES_MAX));
        let raised = total > self.granted;
        if raised {
            self.granted = total;
            self.room = self.available();
        }
        raised
    }

    /// Bytes that might be sent when the last grant came: at least a quarter of the window while the consumer takes them.
    pub fn room(&self) -> u64 {
        self.room
    }

    /// Bytes sent in all.
    pub fn sent_total(&self) -> u64 {
        self.sent
    }

    /// Bytes granted in all.
    pub fn granted_total(&self) -> u64 {
        self.granted
    }

    /// Bytes that may be sent now.
    pub fn available(&self) -> u64 {
        self.granted.saturating_sub(self.sent)
    }
}

/// The consumer's ledger of one channel; the window follows the measured drain rate.
///
/// What is drained says how fast the consumer is only while it has something to drain: over a long way the credit can be
/// what is slow. Then the consumer finds nothing although its sender waits, and the window doubles with each of its fills.
#[derive(Debug, Clone)]
pub struct ReceiverCredit {
    received: u64,
    consumed: u64,
    granted: u64,
    window: u64,
    limit: u64,
    need: u64,
    sample: Option<(Timestamp, u64)>,
    /// The consumer found nothing within the sample, for want of credit.
    starved: bool,
    /// What was granted when the window was last widened for that.
    widened: u64,
}

impl Default for ReceiverCredit {
    fn default() -> Self {
        Self {
            received: 0,
            consumed: 0,
            granted: 0,
            window: WINDOW_BYTES_MIN,
            limit: WINDOW_BYTES_MAX,
            need: 0,
            sample: None,
            starved: false,
            widened: 0,
        }
    }
}

impl ReceiverCredit {
    /// Limits the window, so that many channels can share one budget; within the two named bounds.
    pub fn set_window_max(&mut self, bytes: u64) {
        self.limit = bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        self.window = self.window.min(self.limit);
    }

    /// Takes the sender's news that its next frame is that large; the window opens for it once.
    ///
    /// Bounds: at most [`WINDOW_BYTES_MAX`]; a frame is never larger.
    pub fn needs(&mut self, bytes: u64) {
        self.need = bytes.min(WINDOW_BYTES_MAX);
    }

    /// Books an arrived frame; `Credit` if the sender was never allowed to send it.
    pub fn received(&mut self, bytes: u64) -> Result<(), Error> {
        let total = self.received.checked_add(bytes).filter(|total| *total <= self.granted);
        self.received = total.ok_or(Error::Credit { bytes, used: self.received, granted: self.granted })?;
        if bytes >= self.need {
            self.need = 0;
        }
        Ok(())
    }

    /// Takes the news that a frame had to wait for credit and met a consumer that had nothing else.
    pub fn starved(&mut self) {
        self.starved = true;
        // Once for each fill of the window: what arrives of one fill says the same.
        if self.received >= self.widened {
            self.widened = self.granted;
            self.window = self.window.saturating_mul(2).min(self.limit);
        }
    }

    /// Books a frame that the consumer has taken.
    pub fn consumed(&mut self, bytes: u64, now: Timestamp) {
        self.consumed = self.consumed.saturating_add(bytes).min(self.received);
        let (since, before) = *self.sample.get_or_insert((now, self.consumed));
        let elapsed = now.since(since);
        if elapsed >= SAMPLE {
            let rate = u128::from(self.consumed - before) * GRANT_TARGET.as_nanos() / elapsed.as_nanos();
            let wanted = u64::try_from(rate).unwrap_or(u64::MAX).clamp(WINDOW_BYTES_MIN, self.limit);
            // Half way each time: one stall must not close a window that was right, nor one burst open it fully.
            let follows = self.window.midpoint(wanted).max(WINDOW_BYTES_MIN);
            self.window = if self.starved { follows.max(self.window) } else { follows };
            self.starved = false;
            self.sample = Some((now, self.consumed));
        }
    }

    /// The new total to announce, if it is worth a frame: a quarter of the window, or everything was taken.
    pub fn grant(&mut self) -> Option<u64> {
        let total = self.consumed.saturating_add(self.window.max(self.need));
        let more = total.saturating_sub(self.granted);
        let worth = more >= self.window / 4 || self.consumed == self.received || self.need > 0;
        (more > 0 && worth).then(|| {
            self.granted = total;
            total
        })
    }

    /// Bytes granted in all.
    pub fn granted_total(&self) -> u64 {
        self.granted
    }

    /// Bytes that arrived and were not yet taken.
    pub fn waiting(&self) -> u64 {
        self.received - self.consumed
    }

    /// Bytes taken in all.
    pub fn consumed_total(&self) -> u64 {
        self.consumed
    }

    /// The present window.
    pub fn window(&self) -> u64 {
        self.window
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_window_follows_the_drain_rate() {
        let mut r = ReceiverCredit::default();
        let mut now = Timestamp::from_millis(0);
        let mut run = |r: &mut ReceiverCredit, bytes_per_10ms: u64| {
            for _ in 0..200 {
                now = now + Duration::from_millis(10);
                r.grant();
                let bytes = bytes_per_10ms.min(r.granted_total() - r.received);
                r.received(bytes).unwrap();
                r.consumed(bytes, now);
            }
        };
        run(&mut r, 1 << 20); // 100 MiB/s over 50 ms is more than the largest window
        assert!(r.window() > WINDOW_BYTES_MAX * 9 / 10, "{}", r.window());
        run(&mut r, 64 << 10); // 6.4 MiB/s: 320 KiB
        assert!((300 << 10..340 << 10).contains(&r.window()), "{}", r.window());
        run(&mut r, 100);
        assert!(r.window() < WINDOW_BYTES_MIN + 100, "{}", r.window());
        r.set_window_max(1);
        assert_eq!(r.window(), WINDOW_BYTES_MIN);
    }

    /// A sender that always has more, a way that takes so long in each direction, a consumer that takes so much in a
    /// millisecond. Returns the bytes of the last second and the most that waited within it.
    fn over(delay_ms: usize, bytes_per_ms: u64) -> (u64, u64) {
        const FRAME: u64 = 48 << 10;
        let (mut s, mut r) = (SenderCredit::default(), ReceiverCredit::default());
        let mut there = std::collections::VecDeque::from(vec![Vec::new(); delay_ms]);
        let mut back = std::collections::VecDeque::from(vec![r.grant(); delay_ms]);
        let (mut waited, mut hunger, mut budget, mut waiting) = (false, true, 0, 0);
        let (mut last_second, mut most) = (0, 0);
        for ms in 0..5_000 {
            if let Some(total) = back.pop_front().flatten() {
                s.granted(total);
            }
            let mut leave = Vec::new();
            while s.sent(FRAME).is_ok() {
                leave.push(std::mem::take(&mut waited));
            }
            waited = s.granted_total() > 0;
            there.push_back(leave);
            for waited in there.pop_front().unwrap() {
                r.received(FRAME).unwrap();
                waiting += FRAME;
                if waited && std::mem::take(&mut hunger) {
                    r.starved();
                }
            }
            budget = (budget + bytes_per_ms).min(bytes_per_ms.max(FRAME));
            let mut granted = None;
            while waiting >= FRAME && budget >= FRAME {
                (waiting, budget) = (waiting - FRAME, budget - FRAME);
                r.consumed(FRAME, Timestamp::from_millis(ms));
                granted = r.grant().or(granted);
                last_second += if ms >= 4_000 { FRAME } else { 0 };
            }
            hunger = waiting < FRAME && budget >= FRAME;
            back.push_back(granted);
            most = if ms >= 4_000 { most.max(waiting) } else { 0 };
        }
        (last_second, most)
    }

    #[test]
    fn a_long_way_gets_a_wide_window_and_a_slow_consumer_a_narrow_one() {
        // 100 ms each way: the widest window brings 4 MiB every 200 ms, the narrowest 320 KiB a second.
        let (bytes, _) = over(100, 1 << 20);
        assert!(bytes > 15 << 20, "{bytes}");
        // 5 MB/s; where the way takes longer than the target, the window covers the target alone.
        for (delay_ms, least) in [(1, 4_500_000), (10, 4_500_000), (30, 4_000_000), (100, 1_250_000)] {
            let (bytes, waiting) = over(delay_ms, 5_000);
            assert!(bytes > least, "{delay_ms} ms: {bytes}");
            assert!(waiting <= 256 << 10, "{delay_ms} ms: {waiting} wait where 250 KB last for the target");
        }
    }

    #[test]
    fn a_frame_larger_than_the_window_is_let_through() {
        let (mut s, mut r) = (SenderCredit::default(), ReceiverCredit::default());
        s.granted(r.grant().unwrap());
        assert!(!s.may_send(WINDOW_BYTES_MAX));
        r.needs(WINDOW_BYTES_MAX);
        s.granted(r.grant().unwrap());
        s.sent(WINDOW_BYTES_MAX).unwrap();
        r.received(WINDOW_BYTES_MAX).unwrap();
        assert_eq!(r.grant(), None, "the exception holds for one frame");
        assert!(matches!(r.received(1), Err(Error::Credit { .. })));
    }

    #[test]
    fn a_grant_covers_its_bytes_and_not_one_more() {
        let mut s = SenderCredit::default();
        assert!(!s.may_send(1));
        s.granted(100);
        assert!(s.may_send(100) && !s.may_send(101));
        s.sent(60).unwrap();
        assert!(matches!(s.sent(41), Err(Error::Credit { bytes: 41, used: 60, granted: 100 })));
        assert!(!s.granted(50), "an older grant says nothing new");
        s.sent(40).unwrap();
        assert_eq!(s.available(), 0);
    }

    #[test]
    fn a_dishonest_grant_is_cut() {
        let mut s = SenderCredit::default();
        assert!(s.granted(u64::MAX));
        assert_eq!(s.available(), WINDOW_BYTES_MAX);
        assert!(!s.may_send(u64::MAX));
    }

    proptest! {
        /// Grants are lost, repeated and reordered; what is outstanding never exceeds the largest window, and once
        /// everything is taken the sender can always go on.
        #[test]
        fn credits_are_never_exceeded_and_never_run_dry(
            steps in prop::collection::vec((0u8..5, 1u64..300_000, any::<prop::sample::Index>()), 1..300),
        ) {
            let (mut s, mut r) = (SenderCredit::default(), ReceiverCredit::default());
            let (mut grants, mut flying, mut waiting) = (vec![], std::collections::VecDeque::new(), std::collections::VecDeque::new());
            let mut now = Timestamp::from_millis(0);
            for (kind, bytes, pick) in steps {
                match kind {
                    0 | 1 => if s.may_send(bytes) { s.sent(bytes).unwrap(); flying.push_back(bytes); } else { r.needs(bytes); },
                    2 => if let Some(b) = flying.pop_front() { r.received(b).unwrap(); waiting.push_back(b); },
                    3 => if let Some(b) = waiting.pop_front() { now = now + Duration::from_millis(bytes % 20); r.consumed(b, now); },
                    _ => if !grants.is_empty() { s.granted(grants[pick.index(grants.len())]); },
                }
                grants.extend(r.grant());
                prop_assert!(s.sent_total() <= s.granted_total());
                prop_assert!(s.granted_total() <= r.granted_total());
                prop_assert!(s.sent_total() - r.consumed_total() <= WINDOW_BYTES_MAX);
                prop_assert!(r.waiting() <= WINDOW_BYTES_MAX);
            }
            for b in flying { r.received(b).unwrap(); waiting.push_back(b); }
            for b in waiting { r.consumed(b, now); }
            grants.extend(r.grant());
            s.granted(r.granted_total());
            prop_assert!(s.may_send(WINDOW_BYTES_MIN));
        }
    }
}

//! Whether a peer still lives: one that is stopped, or whose cable is cut, says nothing and closes nothing.
//!
//! A connection with nothing to say sends a heartbeat every second tick. Silence is counted in our own ticks: a
//! process that was itself held up, or a machine that was paused, sees one late tick and not a dead peer. What came in
//! meanwhile is read before the silence is judged.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{self, AsyncRead, ReadBuf},
    time::{Instant, MissedTickBehavior, interval_at},
};

/// How long a peer may be silent before it counts as dead; it is noticed up to a tick (a ninth) earlier.
///
/// Heartbeats come every 200 ms, so no false alarm where the exchange's thread of the peer runs at least every 0.6 s:
/// it computes nothing, and under the usual scheduler that takes two hundred busy threads per core.
pub const SILENCE_MAX: Duration = Duration::from_millis(900);

/// Ticks of a silence.
const TICKS: u32 = 9;

/// Ticks between heartbeats.
const HEARTBEAT_TICKS: u32 = 2;

/// How often a connection says something.
pub(crate) fn heartbeat(silence_max: Duration) -> Duration {
    silence_max / TICKS * HEARTBEAT_TICKS
}

/// Counts the reads that brought something.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<AtomicU64>);

impl Heard {
    /// Ends when nothing was heard for all ticks but one, for the first began before the last byte.
    pub(crate) async fn silence(&self, silence_max: Duration) {
        let tick = (silence_max / TICKS).max(Duration::from_millis(1));
        let mut ticks = interval_at(Instant::now() + tick, tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut watch = Watch::default();
        loop {
            ticks.tick().await;
            if watch.tick(self.0.load(Relaxed)) {
                return;
            }
        }
    }
}

/// Counts the ticks at which nothing new had been heard.
#[derive(Debug, Default)]
struct Watch {
    known: u64,
    silent: u32,
}

impl Watch {
    /// Whether the peer counts as dead at this tick.
    fn tick(&mut self, count: u64) -> bool {
        self.silent = if count == self.known { self.silent + 1 } else { 0 };
        self.known = count;
        self.silent >= TICKS - 1
    }
}

/// A reader that is listened to.
#[derive(Debug)]
pub(crate) struct Listening<R> {
    reader: R,
    heard: Heard,
}

impl<R> Listening<R> {
    pub(crate) fn new(reader: R, heard: Heard) -> Self {
        Self { reader, heard }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Listening<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.reader).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.heard.0.fetch_add(1, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_begins_the_silence_anew() {
        let mut watch = Watch::default();
        for count in 1..100 {
            let ticks = (0..TICKS - 1).map(|_| watch.tick(count));
            assert!(ticks.filter(|dead| *dead).count() == 0, "{count}");
        }
        assert!(watch.tick(99), "eight ticks without a byte");
        // Of a heartbeat every second tick three may be lost.
        assert!(heartbeat(SILENCE_MAX) * 4 < SILENCE_MAX);
    }
}

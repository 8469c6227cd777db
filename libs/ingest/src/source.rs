//! What is known of a source of lines: where its timestamps stand, how it numbers severities, which times it may state.

use std::time::Duration;

use types::Timestamp;

use crate::{
    RawEvent, Record, raw,
    severity::Scale,
    time::{self, Pin, Stamp},
    understand,
};

/// Which event times are believed, seen from the time of receipt.
///
/// A time outside is not taken: the event gets the next best time (that of its envelope, else of its receipt), and the
/// text that states the other one stays where it is, in the message or as a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window(Option<(Duration, Duration)>);

impl Window {
    /// Every time that a timestamp can state: for imports of old logs.
    pub const ANY: Self = Self(None);

    /// A week back, for agents that were cut off; ten minutes ahead, for clocks that run fast.
    pub const SANE: Self = Self::new(Duration::from_secs(7 * 86_400), Duration::from_secs(600));

    /// From `past` before the receipt to `future` after it.
    pub const fn new(past: Duration, future: Duration) -> Self {
        Self(Some((past, future)))
    }

    fn admits(self, time: Timestamp, received: Timestamp) -> bool {
        self.0.is_none_or(|(past, future)| received - past <= time && time <= received + future)
    }
}

/// What earlier lines of one source (a container, a file, a connection) taught.
///
/// The layout and place of the last timestamp are tried first, so that a line like the one before costs a branch; a
/// line that misses is searched as if it were the first, and what is found is remembered instead. The result for a line
/// is the same as without a source, except for numeric levels, whose scale is a property of the program: 20 is `debug`
/// to a JavaScript logger and `error` to OpenTelemetry.
/// Bounds: a few words of memory that never grow; who keeps many sources bounds their number.
///
/// ```
/// use ingest::{RawEvent, Source, Window};
/// use types::Timestamp;
///
/// let received = Timestamp::from_millis(1_767_323_045_000);
/// let mut source = Source::new(Window::SANE);
/// let record = source.parse(RawEvent { payload: b"2026-01-02 03:04:01,500 WARN slow", received });
/// assert_eq!(record.time, Timestamp::from_millis(1_767_323_041_500));
/// assert_eq!(source.layout(), Some("yyyy-mm-dd hh:mm:ss"));
/// let record = source.parse(RawEvent { payload: b"1999-12-31 23:59:59,000 WARN clock reset", received });
/// assert_eq!(record.time, received);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Source {
    window: Window,
    pin: Option<Pin>,
    scale: Scale,
}

impl Source {
    /// A source of which nothing is known yet.
    pub const fn new(window: Window) -> Self {
        Self { window, pin: None, scale: Scale::Unknown }
    }

    /// Understands one event of the source, see [`parse`](crate::parse); never fails.
    pub fn parse<'a>(&mut self, event: RawEvent<'a>) -> Record<'a> {
        let mut context = Context { received: event.received, source: *self };
        let record = match raw::escape(event.payload) {
            std::borrow::Cow::Borrowed(text) => understand(text, &mut context),
            std::borrow::Cow::Owned(text) => understand(&text, &mut context).into_owned(),
        };
        *self = context.source;
        record
    }

    /// The layout of timestamps that is tried first, as its pattern.
    pub fn layout(&self) -> Option<&'static str> {
        self.pin.map(Pin::layout)
    }
}

/// One event being understood.
pub(crate) struct Context {
    /// The time of receipt, or of the envelope around the line.
    pub(crate) received: Timestamp,
    source: Source,
}

impl Context {
    /// A line with nothing known of its source.
    #[cfg(test)]
    pub(crate) fn bare(received: Timestamp) -> Self {
        Self { received, source: Source::new(Window::ANY) }
    }

    /// Understands what an envelope written at `time` holds: its line may state another time only close to that.
    pub(crate) fn within<T>(&mut self, time: Timestamp, understand: impl FnOnce(&mut Self) -> T) -> T {
        let window = self.source.window;
        let mut inner = Self { received: time, source: Source { window: Window::SANE, ..self.source } };
        let result = understand(&mut inner);
        self.source = Source { window, ..inner.source };
        result
    }

    /// Finds the timestamp near the beginning of a line.
    pub(crate) fn find(&mut self, line: &[u8]) -> Option<Stamp> {
        time::find(line, self.received, &mut self.source.pin)
    }

    /// The time with which a message begins, if it is believed.
    pub(crate) fn leading(&mut self, message: &str) -> Option<Timestamp> {
        let stamp = time::leading(message.as_bytes(), self.received, &mut self.source.pin)?;
        self.admit(stamp.time)
    }

    /// The time if it is believed.
    pub(crate) fn admit(&self, time: Timestamp) -> Option<Timestamp> {
        self.source.window.admits(time, self.received).then_some(time)
    }

    /// How the source numbers severities.
    pub(crate) fn scale(&mut self) -> &mut Scale {
        &mut self.source.scale
    }
}

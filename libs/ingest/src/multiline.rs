//! Lines that belong to the line before: stack traces and what is indented.

mod trace;

use std::{borrow::Cow, time::Duration};

use types::Timestamp;

use self::trace::Trace;
use crate::{
    envelope::{Parts, Stream, split},
    time,
};

/// The most lines of one event: a Java stack overflow prints 1,024 frames, and may have a cause.
pub const JOIN_LINES_MAX: usize = 4_096;

/// The most bytes of one joined event: a quarter of the largest event, since its envelope and its fields come on top.
pub const JOIN_BYTES_MAX: usize = 256 << 10;

/// How long further lines are waited for: programs write a trace at once, and a reader wants to see it soon.
pub const JOIN_WAIT: Duration = Duration::from_millis(500);

/// How much of a line is looked at to tell whether it goes on.
const LOOK_BYTES_MAX: usize = 1_024;

/// Joins the lines of one source to events; pure.
///
/// A line goes on the event before if it is indented, or if it is a part of a stack trace of Java, Python, Go, .NET or
/// Node that stands at the margin. A line that begins with a timestamp, a syslog priority or a brace always begins an
/// event. Lines within envelopes of a container runtime are judged by what is inside, each stream by itself, and the
/// joined event stands in the envelope of its first line; pieces of lines must have been joined before
/// ([`Partials`](crate::Partials)).
/// Bounds: one event per stream is held, of at most [`JOIN_LINES_MAX`] lines and [`JOIN_BYTES_MAX`] bytes. The line that
/// would make it larger begins another event, so that a longer trace becomes several; a single longer line is one event.
/// An event is given out when a line begins the next, or [`JOIN_WAIT`] after its last line.
///
/// ```
/// use ingest::Joiner;
/// use types::Timestamp;
///
/// let (mut joiner, mut events) = (Joiner::default(), Vec::new());
/// for line in ["2026-01-02 03:04:05 ERROR failed", "java.io.IOException: gone", "\tat a.B.c(B.java:1)", "next"] {
///     joiner.push(line.as_bytes(), Timestamp::MIN, &mut events);
/// }
/// assert_eq!(events, [b"2026-01-02 03:04:05 ERROR failed\njava.io.IOException: gone\n\tat a.B.c(B.java:1)"]);
/// ```
#[derive(Debug, Default)]
pub struct Joiner {
    /// For lines without an envelope, of stdout and of stderr.
    streams: [Option<Open>; 3],
}

#[derive(Debug)]
struct Open {
    /// All but the tail of its envelope.
    event: Vec<u8>,
    tail: Vec<u8>,
    docker: bool,
    lines: usize,
    trace: Trace,
    last: Timestamp,
}

impl Joiner {
    /// Takes a line without its line end, and puts the event that it ended, if any, to `out`.
    pub fn push(&mut self, line: &[u8], now: Timestamp, out: &mut Vec<Vec<u8>>) {
        let parts = split(line).filter(|parts| !parts.partial);
        let slot = match parts.map(|parts| parts.stream) {
            None => &mut self.streams[0],
            Some(Stream::Out) => &mut self.streams[1],
            Some(Stream::Err) => &mut self.streams[2],
        };
        let bare = Parts { head: b"", body: line, tail: b"", stream: Stream::Out, partial: false, docker: false };
        let parts = parts.unwrap_or(bare);
        let look = look(&parts);
        let begins = begins(&look);
        if let Some(open) = slot
            && open.docker == parts.docker
            && open.lines < JOIN_LINES_MAX
            && open.event.len() + parts.body.len() < JOIN_BYTES_MAX
            && !begins
            && open.trace.goes_on(&look, open.lines == 1)
        {
            if !open.docker {
                open.event.push(b'\n');
            }
            open.event.extend_from_slice(parts.body);
            open.lines += 1;
            open.last = now;
            return;
        }
        let open = Open {
            event: [parts.head, parts.body].concat(),
            tail: parts.tail.to_vec(),
            docker: parts.docker,
            lines: 1,
            trace: Trace::begun_by(&look, begins),
            last: now,
        };
        out.extend(slot.replace(open).map(Open::close));
    }

    /// Gives out events whose last line came [`JOIN_WAIT`] ago.
    pub fn expire(&mut self, now: Timestamp, out: &mut Vec<Vec<u8>>) {
        for slot in &mut self.streams {
            out.extend(slot.take_if(|open| now.since(open.last) >= JOIN_WAIT).map(Open::close));
        }
    }

    /// Gives out what is held: the source is gone.
    pub fn finish(&mut self, out: &mut Vec<Vec<u8>>) {
        out.extend(self.streams.iter_mut().filter_map(Option::take).map(Open::close));
    }
}

impl Open {
    fn close(mut self) -> Vec<u8> {
        self.event.extend_from_slice(&self.tail);
        self.event
    }
}

/// The beginning of the line itself; within Docker's envelope it stands as JSON.
fn look<'a>(parts: &Parts<'a>) -> Cow<'a, [u8]> {
    let body = &parts.body[..parts.body.len().min(LOOK_BYTES_MAX)];
    if !parts.docker || memchr::memchr(b'\\', body).is_none() {
        return Cow::Borrowed(body);
    }
    let mut text = Vec::with_capacity(body.len());
    let mut bytes = body.iter();
    while let Some(byte) = bytes.next() {
        match (byte, if *byte == b'\\' { bytes.next() } else { None }) {
            (b'\\', Some(b't')) => text.push(b'\t'),
            // The line's own end.
            (b'\\', Some(b'n' | b'r')) => {}
            (b'\\', Some(escaped)) => text.push(*escaped),
            (byte, _) => text.push(*byte),
        }
    }
    Cow::Owned(text)
}

/// Whether a line begins an event whatever came before.
fn begins(line: &[u8]) -> bool {
    match line {
        [b'{', _, ..] => true,
        [b'<', digit, ..] => digit.is_ascii_digit(),
        // A yearless date needs no year here, so that the time of receipt does not matter.
        _ => time::find(line, Timestamp::MAX, &mut None).is_some_and(|stamp| stamp.start <= 1),
    }
}

#[cfg(test)]
mod tests;

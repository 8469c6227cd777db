//! Lines that a container runtime cut into pieces, put together again.

use std::{borrow::Cow, time::Duration};

use types::{EVENT_BYTES_MAX, Timestamp};

use crate::envelope::{Parts, Stream, split};

/// How long the rest of a line is waited for: runtimes write the pieces of a line at once.
pub const PARTIAL_WAIT: Duration = Duration::from_secs(5);

/// Joins the pieces of CRI (`P`) and Docker lines (no `\n` at the end) of one container; pure.
///
/// What comes out is again a line in its envelope, that of its first piece; anything without an envelope passes through.
/// The pieces of each stream are joined by themselves.
/// Bounds: one line per stream is held, of at most [`EVENT_BYTES_MAX`] bytes; what would make it longer ends it, still
/// marked as partial, and begins the next. A line whose rest does not come within [`PARTIAL_WAIT`] comes out as it is.
///
/// ```
/// use ingest::Partials;
/// use types::Timestamp;
///
/// let (mut partials, mut lines) = (Partials::default(), Vec::new());
/// partials.push(b"2026-01-02T03:04:05.1Z stdout P one ", Timestamp::MIN, &mut lines);
/// partials.push(b"2026-01-02T03:04:05.2Z stdout F line", Timestamp::MIN, &mut lines);
/// assert_eq!(lines, [&b"2026-01-02T03:04:05.1Z stdout F one line"[..]]);
/// ```
#[derive(Debug, Default)]
pub struct Partials {
    streams: [Option<Open>; 2],
}

#[derive(Debug)]
struct Open {
    /// Head and body so far.
    line: Vec<u8>,
    tail: Vec<u8>,
    /// Where the tag stands in a CRI line.
    tag: Option<usize>,
    since: Timestamp,
}

impl Partials {
    /// Takes a line and puts what is whole now to `out`.
    pub fn push<'a>(&mut self, line: &'a [u8], now: Timestamp, out: &mut Vec<Cow<'a, [u8]>>) {
        let Some(parts) = split(trim_end(line)) else {
            out.push(Cow::Borrowed(line));
            return;
        };
        let slot = match parts.stream {
            Stream::Out => &mut self.streams[0],
            Stream::Err => &mut self.streams[1],
        };
        if let Some(open) = slot {
            let same = open.tag.is_none() == parts.docker;
            if same && open.line.len() + parts.body.len() + open.tail.len() <= EVENT_BYTES_MAX {
                open.line.extend_from_slice(parts.body);
                if !parts.partial {
                    out.extend(slot.take().map(|open| Cow::Owned(open.close(false))));
                }
                return;
            }
            out.extend(slot.take().map(|open| Cow::Owned(open.close(true))));
        }
        if parts.partial {
            *slot = Some(Open::new(&parts, now));
        } else {
            out.push(Cow::Borrowed(line));
        }
    }

    /// Gives up waiting for the rest of lines begun [`PARTIAL_WAIT`] ago.
    pub fn expire(&mut self, now: Timestamp, out: &mut Vec<Cow<'_, [u8]>>) {
        self.close(out, |open| now.since(open.since) >= PARTIAL_WAIT);
    }

    /// Gives out what is held: the container is gone.
    pub fn finish(&mut self, out: &mut Vec<Cow<'_, [u8]>>) {
        self.close(out, |_| true);
    }

    fn close(&mut self, out: &mut Vec<Cow<'_, [u8]>>, ends: impl Fn(&Open) -> bool) {
        for slot in &mut self.streams {
            out.extend(slot.take_if(|open| ends(open)).map(|open| Cow::Owned(open.close(true))));
        }
    }
}

impl Open {
    fn new(parts: &Parts<'_>, since: Timestamp) -> Self {
        let mut line = parts.head.to_vec();
        // The tag stands after the second blank, and one must follow it before there can be a body.
        let tag = (!parts.docker).then(|| memchr::memchr_iter(b' ', parts.head).nth(1).map_or(0, |blank| blank + 1));
        if tag.is_some() && !line.ends_with(b" ") {
            line.push(b' ');
        }
        line.extend_from_slice(parts.body);
        Self { line, tail: parts.tail.to_vec(), tag, since }
    }

    fn close(mut self, partial: bool) -> Vec<u8> {
        if let Some(tag) = self.tag.filter(|_| !partial) {
            self.line[tag] = b'F';
        }
        self.line.extend_from_slice(&self.tail);
        self.line
    }
}

fn trim_end(line: &[u8]) -> &[u8] {
    let ends = line.iter().rev().take_while(|b| matches!(b, b'\n' | b'\r')).count();
    &line[..line.len() - ends]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(0) + Duration::from_secs(seconds)
    }

    fn texts(lines: &[Cow<'_, [u8]>]) -> Vec<String> {
        lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    fn check(lines: &[&str], expected: &[&str]) {
        let (mut partials, mut out) = (Partials::default(), Vec::new());
        for line in lines {
            partials.push(line.as_bytes(), at(0), &mut out);
        }
        assert_eq!(texts(&out), expected, "{lines:?}");
    }

    #[test]
    fn pieces_of_a_stream_are_joined() {
        check(
            &[
                "2026-01-02T03:04:05Z stdout P:x a",
                "2026-01-02T03:04:05Z stderr P 1",
                "plain",
                "2026-01-02T03:04:06Z stdout P b",
                "2026-01-02T03:04:07Z stderr F 2",
                "2026-01-02T03:04:07Z stdout F",
                "2026-01-02T03:04:08Z stdout F whole",
                "2026-01-02T03:04:09Z stdout P",
                "2026-01-02T03:04:09Z stdout F z",
            ],
            &[
                "plain",
                "2026-01-02T03:04:05Z stderr F 12",
                "2026-01-02T03:04:05Z stdout F:x ab",
                "2026-01-02T03:04:08Z stdout F whole",
                "2026-01-02T03:04:09Z stdout F z",
            ],
        );
        check(
            &[
                r#"{"log":"a\"","stream":"stdout","time":"1"}"#,
                r#"{"log":"b","stream":"stdout","time":"2"}"#,
                r#"{"log":"c\n","stream":"stdout","time":"3"}"#,
            ],
            &[r#"{"log":"a\"bc\n","stream":"stdout","time":"1"}"#],
        );
    }

    #[test]
    fn what_does_not_come_is_not_waited_for() {
        let (mut partials, mut out) = (Partials::default(), Vec::new());
        let line = b"2026-01-02T03:04:05Z stdout P a";
        partials.push(line, at(10), &mut out);
        partials.expire(at(14), &mut out);
        assert!(out.is_empty());
        partials.expire(at(15), &mut out);
        assert_eq!(out, [&line[..]], "still marked as partial");
        out.clear();
        partials.push(line, at(20), &mut out);
        partials.finish(&mut out);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn a_line_beyond_the_limit_loses_nothing() {
        let piece = "x".repeat(16 << 10);
        let line = format!("2026-01-02T03:04:05Z stdout P {piece}");
        let (mut partials, mut out) = (Partials::default(), Vec::new());
        let pieces = EVENT_BYTES_MAX / piece.len() * 2 + 1;
        for _ in 0..pieces {
            partials.push(line.as_bytes(), at(0), &mut out);
            assert!(partials.streams.iter().flatten().all(|open| open.line.len() <= EVENT_BYTES_MAX));
        }
        partials.push(b"2026-01-02T03:04:05Z stdout F .", at(0), &mut out);
        assert!(out.len() >= 3);
        let kept: usize = out.iter().map(|line| line.iter().filter(|b| **b == b'x').count()).sum();
        assert_eq!(kept, pieces * piece.len());
    }

    proptest! {
        /// Whatever comes in whatever order, the bodies of a stream come out whole and in order.
        #[test]
        fn bodies_are_kept(pieces in proptest::collection::vec((0..2usize, any::<bool>(), "[ -~]{0,9}"), 0..30)) {
            let (mut partials, mut out) = (Partials::default(), Vec::new());
            let streams = ["stdout", "stderr"];
            let tag = |partial: bool| if partial { 'P' } else { 'F' };
            let lines: Vec<_> = pieces
                .iter()
                .map(|(stream, partial, body)| format!("2026-01-02T03:04:05Z {} {} {body}", streams[*stream], tag(*partial)))
                .collect();
            for (number, line) in lines.iter().enumerate() {
                let now = at(u64::try_from(number).unwrap() * 3);
                partials.push(line.as_bytes(), now, &mut out);
                partials.expire(now, &mut out);
            }
            partials.finish(&mut out);
            for (place, name) in [Stream::Out, Stream::Err].into_iter().enumerate() {
                let came: String = pieces.iter().filter(|piece| piece.0 == place).map(|piece| piece.2.as_str()).collect();
                let mut left = Vec::new();
                for line in &out {
                    let parts = split(line).unwrap();
                    if parts.stream == name {
                        left.extend_from_slice(parts.body);
                    }
                }
                prop_assert_eq!(String::from_utf8(left).unwrap(), came);
            }
        }

        #[test]
        fn nothing_makes_it_fail(head in 0..HEADS.len(), cut in 0..60usize, tail in proptest::collection::vec(any::<u8>(), 0..30)) {
            let head = HEADS[head];
            let line = [&head[..cut.min(head.len())], &tail].concat();
            let (mut partials, mut out) = (Partials::default(), Vec::new());
            for _ in 0..3 {
                partials.push(&line, at(0), &mut out);
            }
            partials.finish(&mut out);
            prop_assert!(out.iter().map(|line| line.len()).sum::<usize>() >= tail.len());
        }
    }

    const HEADS: [&[u8]; 3] = [
        b"2026-01-02T03:04:05.123456789Z stdout P ",
        b"2026-01-02T03:04:05Z stderr F:x",
        b"{\"log\":\"x\\\"\",\"stream\":\"stdout\",\"time\":\"t\"}",
    ];
}

//! Where a message ends in a stream of bytes; pure.

use bytes::{Buf, Bytes, BytesMut};

/// A longer message becomes several, so that nothing of it is lost and no connection holds more than this.
pub(crate) const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// The longest count in front of a message: that of 9,999,999,999 bytes.
const COUNT_DIGITS_MAX: usize = 10;

/// Why nothing more can be read from a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("where the length of a message should stand, there is {0:?}")]
    NoCount(String),
}

/// A message, or a part of one that is too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) text: Bytes,
    /// Whether it goes on with the message of the piece before it.
    pub(crate) goes_on: bool,
}

/// How the messages of a connection are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Nothing has come that tells.
    Unknown,
    /// `LENGTH MESSAGE`; so many bytes of the present message have not come yet, none where a length comes next.
    Counted(usize),
    /// A message ends with LF or NUL.
    Ended,
}

/// Cuts a stream into messages.
///
/// The first bytes of a connection tell the two framings of RFC 6587 apart: a length, a blank and `<` begin a counted message, and
/// everything else is ended by LF or, as some programs do, by NUL. Line ends behind a message are no part of it, whether counted or not.
/// Bounds: holds no more than [`MESSAGE_BYTES_MAX`] and what was read at once.
#[derive(Debug)]
pub(crate) struct Framer {
    framing: Framing,
    buffer: BytesMut,
    /// So many bytes of the buffer certainly hold no end.
    searched: usize,
    /// Whether a part of the present message was handed out.
    is_within: bool,
}

impl Framer {
    pub(crate) fn new() -> Self {
        Self { framing: Framing::Unknown, buffer: BytesMut::new(), searched: 0, is_within: false }
    }

    /// Where to put what comes.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next message, if all of it is there, or as much as a piece of one may hold; never an empty one.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, FrameError> {
        loop {
            let cut = match self.framing {
                Framing::Unknown => {
                    let Some(framing) = told(&self.buffer) else { return Ok(None) };
                    self.framing = framing;
                    continue;
                }
                Framing::Ended => self.ended(),
                Framing::Counted(0) => match self.count()? {
                    Some(count) => {
                        self.framing = Framing::Counted(count);
                        continue;
                    }
                    None => return Ok(None),
                },
                Framing::Counted(left) => self.counted(left),
            };
            let Some((text, is_last)) = cut else { return Ok(None) };
            let (text, goes_on) = (trimmed(text), self.is_within);
            self.is_within = !is_last && (goes_on || !text.is_empty());
            if !text.is_empty() {
                return Ok(Some(Piece { text, goes_on }));
            }
        }
    }

    /// What is left when a connection has come to its end: a message without its end, or nothing; of a counted message, that a part
    /// is missing.
    pub(crate) fn finish(mut self) -> Result<Option<Piece>, FrameError> {
        match self.framing {
            Framing::Unknown | Framing::Ended => {
                let piece = Piece { text: trimmed(self.buffer.split().freeze()), goes_on: self.is_within };
                Ok(Some(piece).filter(|piece| !piece.text.is_empty()))
            }
            Framing::Counted(0) if self.buffer.iter().all(u8::is_ascii_whitespace) => Ok(None),
            Framing::Counted(_) => Err(FrameError::NoCount("the end of the connection".to_owned())),
        }
    }

    /// What can be cut off, and whether a message ends with it.
    fn ended(&mut self) -> Option<(Bytes, bool)> {
        let found = memchr::memchr2(b'\n', 0, &self.buffer[self.searched..]).map(|at| self.searched + at);
        match found {
            Some(at) if at <= MESSAGE_BYTES_MAX => {
                let message = self.cut(at);
                self.buffer.advance(1);
                Some((message, true))
            }
            _ if self.buffer.len() >= MESSAGE_BYTES_MAX => Some((self.cut(MESSAGE_BYTES_MAX), false)),
            _ => {
                self.searched = self.buffer.len();
                None
            }
        }
    }

    /// The same.
    fn counted(&mut self, left: usize) -> Option<(Bytes, bool)> {
        let piece = left.min(MESSAGE_BYTES_MAX);
        if self.buffer.len() < piece {
            return None;
        }
        self.framing = Framing::Counted(left - piece);
        Some((self.cut(piece), left == piece))
    }

    /// The length of the next message, taken off the buffer.
    fn count(&mut self) -> Result<Option<usize>, FrameError> {
        let blanks = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == 0).count();
        self.buffer.advance(blanks);
        let digits = self.buffer.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let wrong = |buffer: &[u8]| {
            let shown = String::from_utf8_lossy(&buffer[..buffer.len().min(2 * COUNT_DIGITS_MAX)]).into_owned();
            FrameError::NoCount(shown)
        };
        if digits > COUNT_DIGITS_MAX {
            return Err(wrong(&self.buffer));
        }
        match self.buffer.get(digits) {
            None => Ok(None),
            Some(b' ') => {
                let count = std::str::from_utf8(&self.buffer[..digits]).ok().and_then(|text| text.parse().ok());
                let count = count.filter(|count| *count > 0).ok_or_else(|| wrong(&self.buffer))?;
                self.buffer.advance(digits + 1);
                Ok(Some(count))
            }
            Some(_) => Err(wrong(&self.buffer)),
        }
    }

    fn cut(&mut self, at: usize) -> Bytes {
        self.searched = 0;
        self.buffer.split_to(at).freeze()
    }
}

/// What the first bytes tell; nothing while they are too few.
fn told(first: &[u8]) -> Option<Framing> {
    if !matches!(first.first()?, b'1'..=b'9') {
        return Some(Framing::Ended);
    }
    let digits = first.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > COUNT_DIGITS_MAX {
        return Some(Framing::Ended);
    }
    if *first.get(digits)? != b' ' {
        return Some(Framing::Ended);
    }
    Some(if *first.get(digits + 1)? == b'<' { Framing::Counted(0) } else { Framing::Ended })
}

/// Without the line ends, and the NUL, that programs put behind a message.
pub(crate) fn trimmed(mut message: Bytes) -> Bytes {
    let kept = message.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r' | 0)).map_or(0, |last| last + 1);
    message.truncate(kept);
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All messages of a stream that comes in pieces of a size, and whether it can be read to its end.
    fn read(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, bool) {
        let (pieces, whole) = pieces(stream, piece);
        (pieces.into_iter().map(|piece| piece.text.to_vec()).collect(), whole)
    }

    fn pieces(stream: &[u8], piece: usize) -> (Vec<Piece>, bool) {
        let (mut framer, mut messages) = (Framer::new(), Vec::new());
        for piece in stream.chunks(piece.max(1)) {
            framer.buffer().extend_from_slice(piece);
            loop {
                match framer.next() {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(_) => return (messages, false),
                }
            }
            assert!(framer.buffer.len() <= MESSAGE_BYTES_MAX + piece.len());
        }
        match framer.finish() {
            Ok(rest) => {
                messages.extend(rest);
                (messages, true)
            }
            Err(_) => (messages, false),
        }
    }

    fn check(stream: &str, expected: &[&str]) {
        for piece in [1, 2, 7, stream.len()] {
            let (messages, whole) = read(stream.as_bytes(), piece);
            let texts: Vec<_> = messages.iter().map(|message| String::from_utf8_lossy(message)).collect();
            assert_eq!(texts, expected, "{stream:?} in pieces of {piece}");
            assert!(whole, "{stream:?}");
        }
    }

    #[test]
    fn both_framings_are_told_apart() {
        // rsyslog counts the line end; syslog-ng sends none.
        check("8 <13>one\n8 <13>two\n", &["<13>one", "<13>two"]);
        check("7 <13>one8 <13>t o\n7 <13>end", &["<13>one", "<13>t o", "<13>end"]);
        check("7 <13>one\n7 <13>two\r\n", &["<13>one", "<13>two"]);
        check("8 <13>a\nb\n", &["<13>a\nb"]);
        // rsyslog and logger by default; Python ends with NUL, and some with all of them.
        check("<13>one\n<13>two\r\n\n<13>end", &["<13>one", "<13>two", "<13>end"]);
        check("<14>one\0<14>two\0", &["<14>one", "<14>two"]);
        check("<14>one\r\n\0<14>two\n\0", &["<14>one", "<14>two"]);
        // Digits that are no length.
        check("2026-01-02 a\n12 monkeys\n", &["2026-01-02 a", "12 monkeys"]);
        check("12 monkeys\n", &["12 monkeys"]);
        check("12345678901 <13>x\n", &["12345678901 <13>x"]);
        check("007 <13>x\n", &["007 <13>x"]);
        check("12", &["12"]);
        check("", &[]);
        check("\n\0\r\n", &[]);
    }

    #[test]
    fn what_has_lost_its_place_ends() {
        for stream in ["7 <13>oneX <13>two", "7 <13>one0 x", "7 <13>one 12345678901 <13>x", "99 <13>one", "7 <13>one8"]
        {
            let (messages, whole) = read(stream.as_bytes(), 3);
            assert!(!whole, "{stream}");
            assert!(messages.len() <= 1 && messages.iter().all(|message| message == b"<13>one"), "{stream}");
        }
    }

    #[test]
    fn long_messages_come_in_pieces() {
        let long = vec![b'x'; 2 * MESSAGE_BYTES_MAX + 5];
        let counted = [format!("{} <", long.len() + 1).as_bytes(), &long, b"7 <13>end"].concat();
        let ended = [b"<".as_slice(), &long, b"\n<13>end\n"].concat();
        for stream in [counted, ended] {
            let (messages, whole) = read(&stream, 10_000);
            let lengths: Vec<_> = messages.iter().map(Vec::len).collect();
            assert_eq!(lengths, [MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, 6, 7]);
            assert!(whole && messages.concat().len() == long.len() + 8);
            let go_on: Vec<_> = pieces(&stream, 10_000).0.iter().map(|piece| piece.goes_on).collect();
            assert_eq!(go_on, [false, true, true, false], "only what is of one message belongs together");
        }
        let full = [vec![b'x'; MESSAGE_BYTES_MAX], b"\nend\n".to_vec()].concat();
        let lengths: Vec<_> = read(&full, 4_096).0.iter().map(Vec::len).collect();
        assert_eq!(lengths, [MESSAGE_BYTES_MAX, 3]);
    }

    #[test]
    fn a_piece_goes_on_only_with_its_own_message() {
        // The first piece of the second message is nothing but line ends and is not handed out.
        let blank = vec![b'\r'; MESSAGE_BYTES_MAX];
        let ended = [b"<13>one\n".as_slice(), &blank, b"<13>two\n"].concat();
        let counted = [format!("7 <13>one{} ", blank.len() + 7).as_bytes(), &blank, b"<13>two"].concat();
        let unended = [b"<13>one\n".as_slice(), &blank, b"<13>two"].concat();
        for stream in [ended, counted, unended] {
            let found = pieces(&stream, 10_000).0;
            let found: Vec<_> = found.iter().map(|piece| (piece.text.as_ref(), piece.goes_on)).collect();
            assert_eq!(found, [(b"<13>one".as_slice(), false), (b"<13>two".as_slice(), false)]);
        }
        let rest = [b"<".as_slice(), &vec![b'x'; MESSAGE_BYTES_MAX]].concat();
        let go_on: Vec<_> = pieces(&rest, 10_000).0.iter().map(|piece| piece.goes_on).collect();
        assert_eq!(go_on, [false, true], "also at the end of the connection");
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(bytes in "[0-9 <>a\n\0]{0,60}", piece in 1usize..9) {
            prop_assert_eq!(read(bytes.as_bytes(), piece), read(bytes.as_bytes(), bytes.len()));
        }

        #[test]
        fn what_is_framed_is_read(texts in proptest::collection::vec("[ -~]{0,20}[!-~]", 0..9), piece in 1usize..30) {
            let messages: Vec<String> = texts.iter().map(|text| format!("<13>{text}")).collect();
            let expected: Vec<Vec<u8>> = messages.iter().map(|message| message.clone().into_bytes()).collect();
            let counted: String = messages.iter().map(|message| format!("{} {message}", message.len())).collect();
            prop_assert_eq!(read(counted.as_bytes(), piece), (expected.clone(), true));
            let ended: String = messages.iter().map(|message| format!("{message}\n")).collect();
            prop_assert_eq!(read(ended.as_bytes(), piece), (expected, true));
        }

        #[test]
        fn any_bytes_come_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (messages, _) = read(&bytes, 5);
            prop_assert!(messages.iter().all(|message| !message.is_empty()));
            prop_assert!(messages.concat().len() <= bytes.len());
        }
    }
}

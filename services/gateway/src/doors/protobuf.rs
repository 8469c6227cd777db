//! The wire format of protocol buffers, read in place: nothing is copied, and no message costs more than its bytes.

use super::event::BodyError;

/// Field of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    /// Integers, flags and enumerations.
    Number(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// Texts, bytes and messages.
    Bytes(&'a [u8]),
}

/// The fields of a message in the order of its bytes; ends after the first error.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

/// Reads a message.
pub(crate) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(count).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        // Ten groups of seven bits hold 64.
        for place in 0..10 {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let head = self.number()?;
        let value = match head & 7 {
            0 => Value::Number(self.number()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = self.number()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            // Groups were given up long ago.
            _ => return None,
        };
        Some((head >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), BodyError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or_else(|| BodyError::malformed("the body is not the protocol buffer that it should be")))
    }
}

/// Writes a field that is a text, bytes or a message.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_number(out, u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    out.extend_from_slice(bytes);
}

/// Writes a field that is a number.
pub(crate) fn put_field(out: &mut Vec<u8>, field: u8, number: u64) {
    out.push(field << 3);
    put_number(out, number);
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        put_field(&mut out, 1, u64::MAX);
        put_bytes(&mut out, 2, b"text");
        out.extend_from_slice(&[3 << 3 | 1, 1, 0, 0, 0, 0, 0, 0, 0, 4 << 3 | 5, 2, 0, 0, 0]);
        let read: Result<Vec<_>, _> = fields(&out).collect();
        let expected =
            [(1, Value::Number(u64::MAX)), (2, Value::Bytes(b"text")), (3, Value::Fixed64(1)), (4, Value::Fixed32(2))];
        assert_eq!(read.unwrap(), expected);
    }

    #[test]
    fn damage_is_one_error() {
        for wrong in [&[0x08][..], &[0x0a, 5, 1], &[0x0b], &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]]
        {
            let read: Vec<_> = fields(wrong).collect();
            assert!(read.len() == 1 && read[0].is_err(), "{wrong:?}: {read:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(fields(&bytes).count() <= bytes.len());
        }
    }
}

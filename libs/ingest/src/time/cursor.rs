//! Reading the parts of a timestamp: numbers, names, times of day, zones.

use super::civil::{NANOS, of_day};

pub(super) const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
pub(super) const WEEKDAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];

/// Reads forward; a method that returns nothing may leave the cursor anywhere.
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Cursor<'_> {
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(super) fn skip(&mut self, any_of: &[u8]) -> Option<u8> {
        let byte = self.peek().filter(|b| any_of.contains(b))?;
        self.at += 1;
        Some(byte)
    }

    pub(super) fn digits(&self) -> usize {
        self.bytes[self.at..].iter().take(20).take_while(|b| b.is_ascii_digit()).count()
    }

    /// A number of exactly so many digits, whatever follows; none if it is larger than any.
    pub(super) fn number(&mut self, width: usize) -> Option<i64> {
        let digits = self.bytes.get(self.at..self.at + width)?;
        self.at += width;
        digits.iter().try_fold(0i64, |n, b| {
            let digit = b.is_ascii_digit().then(|| i64::from(b - b'0'))?;
            n.checked_mul(10)?.checked_add(digit)
        })
    }

    pub(super) fn name(&mut self, names: &[&[u8; 3]]) -> Option<i64> {
        let word = self.bytes.get(self.at..self.at + 3)?;
        let place = names.iter().position(|name| word == name.as_slice())?;
        self.at += 3;
        i64::try_from(place + 1).ok()
    }

    /// `dd`, ` d` or `d`.
    pub(super) fn day(&mut self) -> Option<i64> {
        let padded = self.skip(b" ").is_some();
        let width = if padded { 1 } else { self.digits().min(2) };
        if width == 0 { None } else { self.number(width) }
    }

    /// `hh:mm:ss` with an optional fraction after `.` or `,`: nanoseconds of the day.
    pub(super) fn clock(&mut self) -> Option<i64> {
        let hour = self.number(2)?;
        self.clock_from(hour, b':')
    }

    /// The rest of a time of day whose hour is read, with that separator.
    pub(super) fn clock_from(&mut self, hour: i64, separator: u8) -> Option<i64> {
        self.skip(&[separator])?;
        let minute = self.number(2)?;
        self.skip(&[separator])?;
        let second = self.number(2)?;
        let whole = of_day(hour, minute, second)?;
        Some(whole + self.fraction())
    }

    /// `h:mm:ss`, of a clock with twelve hours if ` AM` or ` PM` follows.
    pub(super) fn clock_of_any_hours(&mut self) -> Option<i64> {
        let width = self.digits().min(2);
        if width == 0 {
            return None;
        }
        let hour = self.number(width)?;
        let start = self.at;
        let of_24 = self.clock_from(hour, b':')?;
        let end = self.at;
        let half = self.skip(b" ").and(self.skip(b"AP"));
        let (Some(half), Some(_)) = (half, self.skip(b"M")) else {
            self.at = end;
            return Some(of_24);
        };
        let after = self.at;
        let hour = (1..=12).contains(&hour).then_some(hour % 12 + if half == b'P' { 12 } else { 0 })?;
        self.at = start;
        let nanos = self.clock_from(hour, b':')?;
        self.at = after;
        Some(nanos)
    }

    /// `hhmmss` with an optional fraction.
    pub(super) fn compact(&mut self) -> Option<i64> {
        if self.digits() != 6 {
            return None;
        }
        let whole = of_day(self.number(2)?, self.number(2)?, self.number(2)?)?;
        Some(whole + self.fraction())
    }

    pub(super) fn fraction(&mut self) -> i64 {
        let start = self.at;
        if self.skip(b".,").is_none() {
            return 0;
        }
        let width = self.bytes[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        if width == 0 {
            self.at = start;
            return 0;
        }
        let mut nanos = 0;
        for place in 0..9 {
            let digit = if place < width { self.bytes[self.at + place] - b'0' } else { 0 };
            nanos = nanos * 10 + i64::from(digit);
        }
        self.at += width;
        nanos
    }

    /// An optional zone as nanoseconds to subtract; without one, or with a name other than UTC, zero.
    pub(super) fn zone(&mut self) -> i64 {
        let start = self.at;
        let spaced = self.skip(b" ").is_some();
        let rest = &self.bytes[self.at..];
        let named = [&b"UTC"[..], b"GMT", b"Z", b"z"].into_iter().find(|name| rest.starts_with(name));
        if let Some(name) = named.filter(|name| !rest.get(name.len()).is_some_and(u8::is_ascii_alphanumeric)) {
            self.at += name.len();
            return 0;
        }
        self.offset(spaced).unwrap_or_else(|| {
            self.at = start;
            0
        })
    }

    /// `+hh:mm`, `+hhmm` or, where nothing precedes, `+hh`.
    fn offset(&mut self, spaced: bool) -> Option<i64> {
        let sign = if self.skip(b"+-")? == b'-' { -1 } else { 1 };
        let width = self.digits();
        let hours = self.number(2)?;
        let minutes = match width {
            4 => self.number(2)?,
            2 if self.skip(b":").is_some() && self.digits() == 2 => self.number(2)?,
            2 if !spaced && self.bytes[self.at - 1] != b':' => 0,
            _ => return None,
        };
        (hours <= 18 && minutes <= 59).then_some(sign * (hours * 3_600 + minutes * 60) * NANOS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_larger_than_any_is_none() {
        for (digits, number) in
            [("9223372036854775807", Some(i64::MAX)), ("9223372036854775808", None), ("99999999999999999999", None)]
        {
            assert_eq!(Cursor { bytes: digits.as_bytes(), at: 0 }.number(digits.len()), number, "{digits}");
        }
    }
}

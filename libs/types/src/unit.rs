//! Values with units, as people write them in settings: `512MiB`, `10s`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Invalid;

/// A number of bytes; read from `4096`, `64KiB`, `512MiB`, `2GiB`, `1TiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A duration; read from `250ms`, `10s`, `5m`, `2h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct DurationText(pub Duration);

const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const SPANS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim()))
}

impl FromStr for ByteSize {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("size", text, "a whole number with B, KiB, MiB, GiB or TiB");
        let (number, unit) = split(text).ok_or_else(invalid)?;
        let unit = if unit.is_empty() { "B" } else { unit };
        let factor = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?.1;
        number.checked_mul(factor).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) = SIZES.iter().find(|(_, x)| self.0 >= *x && self.0.is_multiple_of(*x)).unwrap_or(&SIZES[4]);
        write!(f, "{}{name}", self.0 / factor)
    }
}

impl FromStr for DurationText {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("duration", text, "a whole number with ms, s, m, h or d");
        let (number, unit) = split(text).ok_or_else(invalid)?;
        let factor = SPANS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?.1;
        number.checked_mul(factor).map(|ms| Self(Duration::from_millis(ms))).ok_or_else(invalid)
    }
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let (name, factor) = SPANS.iter().find(|(_, x)| ms >= *x && ms.is_multiple_of(*x)).unwrap_or(&SPANS[4]);
        write!(f, "{}{name}", ms / factor)
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.collect_str(self) }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}
as_text!(ByteSize, DurationText);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_read_what_they_write() {
        for text in ["1B", "64KiB", "512MiB", "3GiB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["250ms", "10s", "5m", "2h", "7d", "0ms"] {
            assert_eq!(text.parse::<DurationText>().unwrap().to_string(), text);
        }
        for bad in ["", "s", "10", "1.5s", "10 years", "-1s", "99999999999999999999s"] {
            assert!(bad.parse::<DurationText>().is_err(), "{bad:?}");
        }
    }
}

//! Identifiers: every id that travels in a subject, a key or a file name is a token and cannot widen it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest token: it fits a Kubernetes label twice and a NATS subject many times.
pub const TOKEN_BYTES_MAX: usize = 128;

/// Says why a text is not the word it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not valid: {rule}")]
pub struct Invalid {
    /// The kind of word, for example `index name`.
    pub what: &'static str,
    /// The offending text, shortened to 80 characters.
    pub text: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

impl Invalid {
    /// Builds the complaint with its text shortened.
    pub fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        Self { what, text: text.chars().take(80).collect(), rule }
    }
}

/// One restricted NATS subject term: `[A-Za-z0-9_-]{1,128}`.
///
/// Source: NATS ADR-6, restricted term.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(String);

impl Token {
    /// Checks the text; a `.`, `*`, `>` or space in a name can never reach a subject.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        token("token", text).map(|()| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn token(what: &'static str, text: &str) -> Result<(), Invalid> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if text.is_empty() || text.len() > TOKEN_BYTES_MAX || !text.bytes().all(allowed) {
        return Err(Invalid::new(what, text, "1 to 128 of A-Z a-z 0-9 _ -"));
    }
    Ok(())
}

macro_rules! token_ids {
    ($($(#[$doc:meta])* $name:ident = $what:literal, $check:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str { &self.0 }
        }

        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                token($what, text)?;
                let check: fn(&str) -> Result<(), &'static str> = $check;
                check(text).map_err(|rule| Invalid::new($what, text, rule))?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.serialize_str(&self.0) }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

fn any(_: &str) -> Result<(), &'static str> {
    Ok(())
}

fn index_name(text: &str) -> Result<(), &'static str> {
    let lower = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    if text.len() > 63 || !lower || !text.as_bytes()[0].is_ascii_alphanumeric() {
        return Err("1 to 63 of a-z 0-9 - _, beginning with a letter or digit");
    }
    Ok(())
}

token_ids! {
    /// The name of a log index, unique in an installation; it is the `<index>` of `logs.<index>`.
    IndexName = "index name", index_name;
    /// The name of a view, a saved search or a lookup; unique in the library of its index.
    ItemName = "library name", index_name;
    /// The scope of a stream: the tenant of an OSB instance.
    ScopeName = "scope name", any;
    /// One running process of a service.
    ReplicaId = "replica id", any;
    /// One reader group; unique in an installation.
    GroupName = "reader group name", any;
    /// One reader of a reader group.
    ReaderId = "reader id", any;
    /// A label of a stream by which streams are listed.
    Tag = "tag", any;
    /// One continuous job.
    JobId = "job id", any;
    /// One alert rule.
    RuleId = "rule id", any;
    /// Identifies a writer for exactly-once appends; its event numbers only grow.
    WriterId = "writer id", any;
    /// An OSB service instance; ids that are not tokens are refused with 400.
    InstanceId = "service instance id", any;
    /// An OSB service binding.
    BindingId = "service binding id", any;
}

/// The number of a segment container, `0 .. container_count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId(pub u16);

/// The number of a front-door lane; lane n is served by the owner of container n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaneId(pub u16);

/// The number that fences an owner: of two owners the one with the smaller generation is stale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

/// The number of a transaction within its stream, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TransactionId(pub u32);

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One segment of a stream; written `<stream>-<epoch>-<number>`, which is a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// The stream's number, given by the coordinator and never used again.
    pub stream: u32,
    /// The epoch that created the segment.
    pub epoch: u32,
    /// The segment's number within the stream.
    pub number: u32,
}

impl SegmentId {
    /// The container that holds this segment: a hash of the id, so that no directory is needed.
    ///
    /// Bounds: `container_count` is a power of two, at least 1.
    pub fn container(self, container_count: u16) -> ContainerId {
        let mut bytes = [0u8; 12];
        bytes[..4].copy_from_slice(&self.stream.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[8..].copy_from_slice(&self.number.to_le_bytes());
        let slot = crate::hash64(&bytes) % u64::from(container_count.max(1));
        ContainerId(u16::try_from(slot).unwrap_or(0))
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.stream, self.epoch, self.number)
    }
}

impl FromStr for SegmentId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("segment id", text, "<stream>-<epoch>-<number>");
        let mut parts = text.split('-').map(str::parse::<u32>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(stream)), Some(Ok(epoch)), Some(Ok(number)), None) => Ok(Self { stream, epoch, number }),
            _ => Err(invalid()),
        }
    }
}

impl Serialize for SegmentId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SegmentId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_widen_a_subject() {
        for bad in ["", "a.b", "*", ">", "a b", "ä", &"x".repeat(129)] {
            assert!(Token::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["Shop", "-a", &"x".repeat(64), "a.b"] {
            assert!(bad.parse::<IndexName>().is_err(), "{bad:?}");
        }
        assert!("shop-1_a".parse::<IndexName>().is_ok());
    }

    #[test]
    fn a_segment_id_reads_what_it_writes() {
        let id = SegmentId { stream: 7, epoch: 1, number: 3 };
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("7-1".parse::<SegmentId>().is_err());
        assert!("7-1-2-3".parse::<SegmentId>().is_err());
    }

    #[test]
    fn segments_spread_over_containers() {
        let mut seen = [0u32; 8];
        for stream in 0..800 {
            seen[usize::from(SegmentId { stream, epoch: 0, number: 0 }.container(8).0)] += 1;
        }
        assert!(seen.iter().all(|&n| n > 60), "{seen:?}");
    }
}

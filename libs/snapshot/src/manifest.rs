//! The manifest: the object whose existence makes a snapshot.

use serde::{Deserialize, Serialize};

use crate::SnapshotError;

/// The format that this version writes; it reads this and every earlier one.
pub const FORMAT: u16 = 1;
/// Parts of one snapshot; with [`crate::PART_BYTES_MAX`] a state of 8 GiB.
pub const PARTS_MAX: usize = 1024;
/// Four letters, then the crc32c of what follows.
const MAGIC: &[u8; 4] = b"LBSM";

/// One part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartInfo {
    /// File name below the snapshot's folder.
    pub name: String,
    /// Its size as stored.
    pub bytes: u64,
    /// Checksum of its bytes as stored.
    pub crc32c: u32,
}

impl PartInfo {
    /// Describes stored bytes.
    pub fn of(name: impl Into<String>, stored: &[u8]) -> Self {
        let bytes = u64::try_from(stored.len()).unwrap_or(u64::MAX);
        Self { name: name.into(), bytes, crc32c: crc32c::crc32c(stored) }
    }

    /// Whether these are the bytes.
    pub fn matches(&self, stored: &[u8]) -> bool {
        *self == Self::of(self.name.clone(), stored)
    }
}

/// Names the parts of one snapshot and where it stands; written last, so that it is the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Whose state it is: a service, or a service and what it holds (`segment-store/3`).
    pub service: String,
    /// The owner that wrote it; only for a person to read.
    pub generation: u64,
    /// Grows by one; the newest has the highest.
    pub number: u64,
    /// The format of manifest and parts.
    pub format: u16,
    /// The sequence of the last event that the state contains.
    pub position: u64,
    /// The parts, in the order in which they are joined.
    pub parts: Vec<PartInfo>,
}

impl Manifest {
    /// The manifest's own key.
    pub fn key(&self) -> String {
        part_key(&self.service, self.number, MANIFEST)
    }

    /// The key of one of its parts.
    pub fn part_key(&self, part: &PartInfo) -> String {
        part_key(&self.service, self.number, &part.name)
    }

    /// The manifest's bytes.
    pub fn encode(&self) -> Vec<u8> {
        // Plain numbers and texts: there is nothing in it that could not be encoded.
        let body = rmp_serde::to_vec_named(self).unwrap_or_default();
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads a manifest.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let damaged = |what: &str| SnapshotError::Manifest(what.to_owned());
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("it does not begin with LBSM"))?;
        let (crc, body) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("it is cut"))?;
        if u32::from_le_bytes(*crc) != crc32c::crc32c(body) {
            return Err(damaged("its checksum is wrong"));
        }
        let manifest: Self = rmp_serde::from_slice(body).map_err(|error| damaged(&error.to_string()))?;
        if manifest.format > FORMAT {
            return Err(SnapshotError::Format { found: manifest.format, known: FORMAT });
        }
        if manifest.parts.len() > PARTS_MAX {
            return Err(damaged("it has too many parts"));
        }
        Ok(manifest)
    }
}

const MANIFEST: &str = "manifest.lb";

/// The folder of all snapshots of a service, ending with `/`.
pub fn prefix(service: &str) -> String {
    format!("snap/{service}/")
}

/// The key of a file of a snapshot.
pub fn part_key(service: &str, number: u64, name: &str) -> String {
    format!("snap/{service}/{number:020}/{name}")
}

/// Takes a key apart: service, number, and whether it is the manifest; `None` if it belongs to no snapshot.
pub fn service_and_number(key: &str) -> Option<(&str, u64, bool)> {
    let (rest, name) = key.strip_prefix("snap/")?.rsplit_once('/')?;
    let (service, number) = rest.rsplit_once('/')?;
    let digits = number.len() == 20 && number.bytes().all(|b| b.is_ascii_digit());
    let number = number.parse().ok().filter(|_| digits)?;
    Some((service, number, name == MANIFEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            service: "segment-store/3".into(),
            generation: 2,
            number: 41,
            format: FORMAT,
            position: 1000,
            parts: vec![PartInfo::of("part-0000.lb", b"abc"), PartInfo::of("part-0001.lb", b"")],
        }
    }

    #[test]
    fn keys_read_back() {
        let manifest = manifest();
        assert_eq!(service_and_number(&manifest.key()), Some(("segment-store/3", 41, true)));
        assert_eq!(service_and_number(&manifest.part_key(&manifest.parts[0])), Some(("segment-store/3", 41, false)));
        for odd in ["", "snap/x", "snap/a/1/manifest.lb", "chunk/a/00000000000000000041/manifest.lb"] {
            assert_eq!(service_and_number(odd), None, "{odd}");
        }
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let bytes = manifest().encode();
        for at in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..at]).is_err(), "cut at {at}");
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Manifest::decode(&changed).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let newer = Manifest { format: FORMAT + 1, ..manifest() };
        let expected = SnapshotError::Format { found: FORMAT + 1, known: FORMAT };
        assert_eq!(Manifest::decode(&newer.encode()), Err(expected));
    }

    /// Written by the first version; it must decode for ever.
    #[test]
    fn the_first_manifest_still_reads() {
        let golden =
            b"LBSM\x8eQ\xefc\x86\xa7service\xafsegment-store/3\xaageneration\x02\xa6number)\xa6format\x01\xa8positi\
            on\xcd\x03\xe8\xa5parts\x92\x83\xa4name\xacpart-0000.lb\xa5bytes\x03\xa6crc32c\xce6K?\xb7\x83\xa4name\
            \xacpart-0001.lb\xa5bytes\x00\xa6crc32c\x00";
        assert_eq!(Manifest::decode(golden), Ok(manifest()));
        assert_eq!(manifest().encode(), golden);
    }
}

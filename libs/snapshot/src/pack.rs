//! A state as parts: compressed, cut, checksummed.

use std::io::Read;

use crate::{Manifest, PARTS_MAX, PartInfo, SnapshotError};

/// Stored bytes of one part: one put of object storage.
pub const PART_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of a state; what unpacks to more is refused before it fills the memory.
pub const STATE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// zstd's fast levels give up little on msgpack maps.
const LEVEL: i32 = 3;

/// Compresses a state and cuts it into parts with their descriptions, in order.
pub fn pack(state: &[u8]) -> Result<Vec<(PartInfo, Vec<u8>)>, SnapshotError> {
    let bytes = u64::try_from(state.len()).unwrap_or(u64::MAX);
    if bytes > STATE_BYTES_MAX {
        return Err(SnapshotError::TooLarge { bytes, limit: STATE_BYTES_MAX });
    }
    let packed = zstd::encode_all(state, LEVEL).map_err(|error| SnapshotError::Pack(error.to_string()))?;
    if packed.len().div_ceil(PART_BYTES_MAX) > PARTS_MAX {
        return Err(SnapshotError::TooLarge { bytes, limit: STATE_BYTES_MAX });
    }
    let parts = packed.chunks(PART_BYTES_MAX).enumerate();
    Ok(parts.map(|(n, part)| (PartInfo::of(format!("part-{n:04}.lb"), part), part.to_vec())).collect())
}

/// Verifies the parts of a manifest, given in its order, and restores the state.
pub fn unpack(manifest: &Manifest, parts: &[impl AsRef<[u8]>]) -> Result<Vec<u8>, SnapshotError> {
    let damaged = |name: &str| SnapshotError::Part { name: name.to_owned() };
    let mut packed = Vec::new();
    for (number, info) in manifest.parts.iter().enumerate() {
        let stored = parts.get(number).map(AsRef::as_ref).filter(|bytes| info.matches(bytes));
        packed.extend_from_slice(stored.ok_or_else(|| damaged(&info.name))?);
    }
    let whole = manifest.parts.last().map_or("none", |info| info.name.as_str());
    let mut state = Vec::new();
    zstd::Decoder::new(packed.as_slice())
        .and_then(|decoder| decoder.take(STATE_BYTES_MAX + 1).read_to_end(&mut state))
        .map_err(|_| damaged(whole))?;
    let bytes = u64::try_from(state.len()).unwrap_or(u64::MAX);
    if bytes > STATE_BYTES_MAX {
        return Err(SnapshotError::TooLarge { bytes, limit: STATE_BYTES_MAX });
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::FORMAT;

    fn manifest(parts: &[(PartInfo, Vec<u8>)]) -> Manifest {
        Manifest {
            service: "broker".into(),
            generation: 0,
            number: 1,
            format: FORMAT,
            position: 9,
            parts: parts.iter().map(|(info, _)| info.clone()).collect(),
        }
    }

    fn bytes(parts: Vec<(PartInfo, Vec<u8>)>) -> Vec<Vec<u8>> {
        parts.into_iter().map(|(_, bytes)| bytes).collect()
    }

    #[test]
    fn a_large_state_is_cut_and_joined() {
        // Does not compress: two parts and a bit.
        let mut x = 1u64;
        let state: Vec<u8> = std::iter::repeat_with(|| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            x.to_be_bytes()[0]
        })
        .take(2 * PART_BYTES_MAX + 5)
        .collect();
        let parts = pack(&state).unwrap();
        assert_eq!(parts.len(), 3);
        let manifest = manifest(&parts);
        let mut stored = bytes(parts);
        assert!(unpack(&manifest, &stored).unwrap() == state);
        stored.swap(0, 1);
        assert_eq!(unpack(&manifest, &stored), Err(SnapshotError::Part { name: "part-0000.lb".into() }));
    }

    proptest! {
        #[test]
        fn a_state_reads_back_and_no_harm_goes_unnoticed(state in proptest::collection::vec(any::<u8>(), 0..2000), at: prop::sample::Index, bit in 0..8u8) {
            let parts = pack(&state).unwrap();
            let manifest = manifest(&parts);
            let mut stored = bytes(parts);
            prop_assert_eq!(&unpack(&manifest, &stored).unwrap(), &state);
            let at = at.index(stored[0].len());
            stored[0][at] ^= 1 << bit;
            prop_assert!(unpack(&manifest, &stored).is_err());
            prop_assert!(unpack(&manifest, &[] as &[Vec<u8>]).is_err());
        }
    }
}

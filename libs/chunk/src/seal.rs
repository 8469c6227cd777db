//! The seal: length and checksum of the whole file, in a gap that other Parquet readers skip.

use crate::Error;

/// Parquet's own magic, at both ends of a file.
const PARQUET: &[u8; 4] = b"PAR1";
const MARK: &[u8; 8] = b"LBCHUNK1";

/// What [`blank`] adds: mark, length, checksum.
pub(crate) const BYTES: usize = 8 + 8 + 4;
const LENGTH_AT: usize = 4 + 8;
const CHECKSUM_AT: usize = LENGTH_AT + 8;
const END: usize = CHECKSUM_AT + 4;

/// The gap before the file is complete, to be written right after Parquet's leading magic.
pub(crate) fn blank() -> [u8; BYTES] {
    let mut gap = [0; BYTES];
    gap[..8].copy_from_slice(MARK);
    gap
}

/// Fills the gap of a complete file.
pub(crate) fn close(file: &mut [u8]) {
    debug_assert!(file.len() >= END && &file[4..LENGTH_AT] == MARK, "the gap was left when the file was begun");
    let length = file.len() as u64;
    file[LENGTH_AT..CHECKSUM_AT].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(file);
    file[CHECKSUM_AT..END].copy_from_slice(&sum.to_le_bytes());
}

/// Finds every missing, added or changed byte.
pub(crate) fn check(file: &[u8]) -> Result<(), Error> {
    if file.len() < END || &file[..4] != PARQUET {
        return Err(Error::Foreign("it does not begin like a Parquet file"));
    }
    if &file[4..LENGTH_AT] != MARK {
        return Err(Error::Foreign("it is a Parquet file without the mark LBCHUNK1 at byte 4"));
    }
    let expected = u64::from_le_bytes(array(&file[LENGTH_AT..CHECKSUM_AT]));
    let found = file.len() as u64;
    if expected != found {
        return Err(Error::Length { expected, found });
    }
    let expected = u32::from_le_bytes(array(&file[CHECKSUM_AT..END]));
    let found = checksum(file);
    if expected != found {
        return Err(Error::Checksum { expected, found });
    }
    Ok(())
}

fn checksum(file: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&file[..CHECKSUM_AT]), &file[END..])
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

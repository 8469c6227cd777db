//! A sealed object: blocks of AES-256-GCM, and a trailer that says how to open them.
//!
//! ```text
//! object  = block*, trailer
//! block   = ciphertext of 64 KiB (of less: the last one), tag of 16 bytes; there is at least one
//! trailer = salt (32) | plain bytes u64 | key version u32 | form u32 = 1 | "LBSEALED"; little endian
//! key     = HKDF-SHA-256(salt, data key, "logboom sealed object" | trailer | name of the object)
//! nonce   = 0 (4) | number of the block u64, big endian
//! ```
//!
//! The key of an object is its own, so that numbers of blocks can be nonces. Name and trailer go into it: an object under another
//! name, one that is longer or shorter, and blocks of another object all fail to open. The length is in the trailer, which is why
//! no block has to say that it is the last.

use std::ops::Range;

use bytes::Bytes;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
};

use crate::{DataKey, Error};

/// What is sealed as one, and is fetched whole for any byte of it.
pub const BLOCK_BYTES: u64 = 64 << 10;
/// Bytes behind the last block.
pub const TRAILER_BYTES: u64 = 56;
/// Random bytes of an object's own, never used for another one.
pub const SALT_BYTES: usize = 32;

const TAG_BYTES: u64 = 16;
const SEALED_BLOCK_BYTES: u64 = BLOCK_BYTES + TAG_BYTES;
const FORM: u32 = 1;
const MAGIC: &[u8; 8] = b"LBSEALED";
const LABEL: &[u8] = b"logboom sealed object";

/// Bytes of an object that holds so many plain ones.
pub fn sealed_size(plain: u64) -> u64 {
    plain.saturating_add(blocks(plain) * TAG_BYTES).saturating_add(TRAILER_BYTES)
}

/// Plain bytes of an object of this size; `None` for a size that no object has.
pub fn plain_size(sealed: u64) -> Option<u64> {
    let body = sealed.checked_sub(TRAILER_BYTES)?;
    let plain = body.checked_sub(body.div_ceil(SEALED_BLOCK_BYTES) * TAG_BYTES)?;
    (sealed_size(plain) == sealed).then_some(plain)
}

/// Which bytes of an object to fetch for a range of plain ones: whole blocks, and as much more as a trailer has.
///
/// It may reach beyond the end of the object.
pub fn sealed_range(plain: &Range<u64>) -> Range<u64> {
    let last = plain.end.max(plain.start.saturating_add(1)).div_ceil(BLOCK_BYTES);
    let start = (plain.start / BLOCK_BYTES).saturating_mul(SEALED_BLOCK_BYTES);
    start..last.saturating_mul(SEALED_BLOCK_BYTES).saturating_add(TRAILER_BYTES)
}

fn blocks(plain: u64) -> u64 {
    plain.div_ceil(BLOCK_BYTES).max(1)
}

/// Seals an object that is to lie under this name. The salt must be random: the same one twice would give two objects one key.
pub fn seal(key: &DataKey, object: &str, salt: &[u8; SALT_BYTES], plain: &[u8]) -> Result<Bytes, Error> {
    let plain_bytes = u64::try_from(plain.len()).map_err(|_| Error::Cipher)?;
    let trailer = Trailer { salt: *salt, plain_bytes, key_version: key.version };
    let cipher = trailer.cipher(key, object)?;
    let mut out = Vec::with_capacity(usize::try_from(sealed_size(plain_bytes)).map_err(|_| Error::Cipher)?);
    for number in 0..blocks(plain_bytes) {
        let block = &plain[place(number * BLOCK_BYTES)..place(((number + 1) * BLOCK_BYTES).min(plain_bytes))];
        let from = out.len();
        out.extend_from_slice(block);
        let tag = cipher.seal_in_place_separate_tag(nonce(number), Aad::empty(), &mut out[from..]);
        out.extend_from_slice(tag.map_err(|_| Error::Cipher)?.as_ref());
    }
    out.extend_from_slice(&trailer.bytes());
    Ok(out.into())
}

/// What the end of an object says; it is proved by the first block that opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    salt: [u8; SALT_BYTES],
    plain_bytes: u64,
    key_version: u32,
}

impl Trailer {
    /// Reads the end of an object of `size` bytes.
    pub fn read(end: &[u8], size: u64) -> Result<Self, Error> {
        let start = end.len().checked_sub(place(TRAILER_BYTES)).ok_or(Error::Size { found: size })?;
        let (salt, rest) = end[start..].split_at(SALT_BYTES);
        let (numbers, magic) = rest.split_at(16);
        if magic != MAGIC {
            return Err(Error::Foreign);
        }
        let form = u32::from_le_bytes(array(&numbers[12..]));
        if form != FORM {
            return Err(Error::Form(form));
        }
        let plain_bytes = u64::from_le_bytes(array(&numbers[..8]));
        if plain_size(size) != Some(plain_bytes) {
            return Err(Error::Size { found: size });
        }
        Ok(Self { salt: array(salt), plain_bytes, key_version: u32::from_le_bytes(array(&numbers[8..12])) })
    }

    /// Which version of the index's key sealed the object.
    pub fn key_version(&self) -> u32 {
        self.key_version
    }

    /// How many plain bytes the object holds.
    pub fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// Opens blocks of the object that lies under this name.
    pub fn opener(&self, key: &DataKey, object: &str) -> Result<Opener, Error> {
        if key.version != self.key_version {
            return Err(Error::KeyVersion { needed: self.key_version, given: key.version });
        }
        Ok(Opener { cipher: self.cipher(key, object)?, plain_bytes: self.plain_bytes })
    }

    fn cipher(&self, key: &DataKey, object: &str) -> Result<LessSafeKey, Error> {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, &self.salt).extract(&key.bytes);
        let (trailer, name) = (self.bytes(), object.as_bytes());
        let info = [LABEL, &trailer, name];
        let own = secret.expand(&info, &AES_256_GCM).map_err(|_| Error::Cipher)?;
        Ok(LessSafeKey::new(UnboundKey::from(own)))
    }

    fn bytes(&self) -> Vec<u8> {
        let (length, version) = (self.plain_bytes.to_le_bytes(), self.key_version.to_le_bytes());
        [self.salt.as_slice(), &length, &version, &FORM.to_le_bytes(), MAGIC].concat()
    }
}

/// Opens parts of one object.
#[derive(Debug)]
pub struct Opener {
    cipher: LessSafeKey,
    plain_bytes: u64,
}

impl Opener {
    /// The plain bytes of a range, out of the object's bytes from the start of [`sealed_range`] on.
    pub fn open(&self, range: Range<u64>, sealed: &[u8]) -> Result<Bytes, Error> {
        let Range { start, end } = range;
        let missing = || Error::Range { from: start, to: end, bytes: self.plain_bytes };
        if start > end || end > self.plain_bytes {
            return Err(missing());
        }
        if start == end && self.plain_bytes > 0 {
            return Ok(Bytes::new());
        }
        let first = start / BLOCK_BYTES;
        let mut out = Vec::with_capacity(sealed.len());
        let mut rest = sealed;
        for number in first..end.div_ceil(BLOCK_BYTES).max(first + 1) {
            let plain = (self.plain_bytes - number * BLOCK_BYTES).min(BLOCK_BYTES);
            let (block, behind) = rest.split_at_checked(place(plain + TAG_BYTES)).ok_or_else(missing)?;
            rest = behind;
            let from = out.len();
            out.extend_from_slice(block);
            let opened = self.cipher.open_in_place(nonce(number), Aad::empty(), &mut out[from..]);
            let length = opened.map_err(|_| Error::Block(number))?.len();
            out.truncate(from + length);
        }
        let skipped = first * BLOCK_BYTES;
        Ok(Bytes::from(out).slice(place(start - skipped)..place(end - skipped)))
    }
}

fn nonce(block: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 8..].copy_from_slice(&block.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// A place in bytes that are in memory.
fn place(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

#[cfg(test)]
#[path = "object_tests.rs"]
mod tests;

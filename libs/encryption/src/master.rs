//! Master keys, which wrap the data keys of indexes.
//!
//! A wrapped key is the text `ID:BASE64` of a nonce and AES-256-GCM of the data key. The number of its stream and its version are
//! associated data: it unwraps as what it was wrapped as, and as nothing else.

use std::fmt;

use data_encoding::BASE64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::{DataKey, Error, KEY_BYTES};

/// Random bytes that wrapping takes.
pub const NONCE_BYTES: usize = NONCE_LEN;

const LABEL: &[u8] = b"logboom data key";

/// Master keys by name: the first wraps, all unwrap.
pub struct MasterKeys(Vec<(String, LessSafeKey)>);

impl fmt::Debug for MasterKeys {
    /// Shows the names only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}

impl MasterKeys {
    /// Keys in their order; names hold no colon.
    pub fn new(keys: impl IntoIterator<Item = (String, [u8; KEY_BYTES])>) -> Result<Self, Error> {
        let of = |(id, bytes): (String, [u8; KEY_BYTES])| {
            let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| Error::Cipher)?;
            Ok((id, LessSafeKey::new(key)))
        };
        keys.into_iter().map(of).collect::<Result<_, Error>>().map(Self)
    }

    /// The name of the one that wraps.
    pub fn first(&self) -> Option<&str> {
        self.0.first().map(|(id, _)| id.as_str())
    }

    /// Wraps a key of a stream; the nonce must be random.
    pub fn wrap(&self, stream: u32, key: &DataKey, nonce: [u8; NONCE_BYTES]) -> Result<String, Error> {
        let (id, master) = self.0.first().ok_or(Error::NoMaster)?;
        let mut bytes = key.bytes.to_vec();
        let aad = associated(stream, key.version);
        let sealed = master.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut bytes);
        sealed.map_err(|_| Error::Cipher)?;
        Ok(format!("{id}:{}", BASE64.encode(&[nonce.as_slice(), &bytes].concat())))
    }

    /// The key that was wrapped for this stream and version.
    pub fn unwrap(&self, stream: u32, version: u32, wrapped: &str) -> Result<DataKey, Error> {
        let broken = || Error::Wrapped { stream, version };
        let (id, text) = wrapped.split_once(':').ok_or_else(broken)?;
        let master = self.0.iter().find(|(known, _)| known == id);
        let (_, master) = master.ok_or_else(|| Error::UnknownMaster(id.to_owned()))?;
        let mut bytes = BASE64.decode(text.as_bytes()).map_err(|_| broken())?;
        let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN).ok_or_else(broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken())?;
        let plain = master.open_in_place(nonce, associated(stream, version), sealed).map_err(|_| broken())?;
        Ok(DataKey::new(version, <[u8; KEY_BYTES]>::try_from(&*plain).map_err(|_| broken())?))
    }

    /// The name of the master key that wrapped this.
    pub fn wrapped_by(wrapped: &str) -> Option<&str> {
        wrapped.split_once(':').map(|(id, _)| id)
    }
}

fn associated(stream: u32, version: u32) -> Aad<Vec<u8>> {
    Aad::from([LABEL, &stream.to_be_bytes(), &version.to_be_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masters(ids: &[(&str, u8)]) -> MasterKeys {
        MasterKeys::new(ids.iter().map(|(id, byte)| ((*id).to_owned(), [*byte; KEY_BYTES]))).unwrap()
    }

    #[test]
    fn a_key_unwraps_for_its_stream_and_version_only() {
        let (masters, key) = (masters(&[("k1", 1)]), DataKey::new(2, [5; KEY_BYTES]));
        let wrapped = masters.wrap(7, &key, [3; NONCE_BYTES]).unwrap();
        assert_eq!(
            wrapped, "k1:AwMDAwMDAwMDAwMD/WQRn/qBMmyo+eNiyRwhrb02pEiCyse3qRW4Q69Pg3awbV9TJdol9xhfV56jbqc8",
            "written for ever"
        );
        assert_eq!(masters.unwrap(7, 2, &wrapped), Ok(key));
        for (stream, version) in [(8, 2), (7, 1), (2, 7)] {
            assert_eq!(masters.unwrap(stream, version, &wrapped), Err(Error::Wrapped { stream, version }));
        }
        for broken in
            ["", "k1", "k1:", "k1:AAAA", "k1:!", &wrapped[..wrapped.len() - 8], &wrapped.replace("/WQR", "/WQS")]
        {
            assert_eq!(masters.unwrap(7, 2, broken), Err(Error::Wrapped { stream: 7, version: 2 }), "{broken}");
        }
    }

    #[test]
    fn an_older_master_key_unwraps_and_a_lost_one_is_named() {
        let key = DataKey::new(1, [5; KEY_BYTES]);
        let wrapped = masters(&[("k1", 1)]).wrap(7, &key, [3; NONCE_BYTES]).unwrap();
        let both = masters(&[("k2", 2), ("k1", 1)]);
        assert_eq!(both.unwrap(7, 1, &wrapped), Ok(key.clone()));
        assert_eq!(MasterKeys::wrapped_by(&both.wrap(7, &key, [4; NONCE_BYTES]).unwrap()), Some("k2"));
        assert_eq!(masters(&[("k2", 2)]).unwrap(7, 1, &wrapped), Err(Error::UnknownMaster("k1".to_owned())));
        assert_eq!(masters(&[("k1", 2)]).unwrap(7, 1, &wrapped), Err(Error::Wrapped { stream: 7, version: 1 }));
        assert_eq!(masters(&[]).wrap(7, &key, [3; NONCE_BYTES]), Err(Error::NoMaster));
        assert_eq!((both.first(), masters(&[]).first()), (Some("k2"), None));
        assert_eq!(format!("{both:?}"), r#"["k2", "k1"]"#);
    }
}

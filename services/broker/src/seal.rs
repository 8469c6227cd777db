//! Secret parameters on their way into the journal: sealed, so that nobody who reads it or a snapshot learns them.
//!
//! A sealed value is the text `sealed:ID:BASE64` of a nonce and AES-256-GCM of the value. The nonce is made of the value itself by
//! HMAC-SHA-256, so that the same secret of the same instance has the same text and a repeated request is found to be one; it is never
//! used for two different texts. The instance is associated data: a value opens for its own instance only.
//! Source: Rogaway and Shrimpton, Deterministic Authenticated-Encryption (the shape of SIV).

use std::{fmt, sync::Arc};

use data_encoding::BASE64;
use host::{KeyringError, NamedKey, named_keys};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};
use serde_json::Value;

/// What a sealed value begins with.
const PREFIX: &str = "sealed:";
/// Why keys cannot be used, or a value not be opened; none of them says what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    #[error("broker.sealing_keys: {0}")]
    Keys(#[from] KeyringError),
    #[error(
        "a secret parameter was sealed with key {0:?}, which is not in broker.sealing_keys: put it back, below the first"
    )]
    UnknownKey(String),
    #[error("a secret parameter cannot be opened: it is not what was sealed for this service instance")]
    Broken,
    #[error("secret parameters need a key: set broker.sealing_keys")]
    NoKey,
}

struct Key {
    id: String,
    seals: LessSafeKey,
    nonces: hmac::Key,
}

/// The keys; the first seals, all open. There may be none. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct SealingKeys(Arc<Vec<Key>>);

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

impl SealingKeys {
    /// Reads keys, which [`named_keys`] describes.
    pub(crate) fn parse(text: &str) -> Result<Self, SealError> {
        let keys: Option<Vec<Key>> = named_keys(text)?.into_iter().map(Key::of).collect();
        keys.map(|keys| Self(Arc::new(keys))).ok_or(SealError::Broken)
    }

    /// Whether anything can be sealed.
    pub(crate) fn can_seal(&self) -> bool {
        !self.0.is_empty()
    }

    /// What stands for a secret of an instance: always the same as long as the first key is.
    pub(crate) fn seal(&self, instance: &str, secret: &Value) -> Result<Value, SealError> {
        let key = self.0.first().ok_or(SealError::NoKey)?;
        let plain = crate::osb::canonical(secret).into_bytes();
        let mut context = hmac::Context::with_key(&key.nonces);
        // The length keeps instance and secret apart.
        context.update(&instance.len().to_be_bytes());
        context.update(instance.as_bytes());
        context.update(&plain);
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&context.sign().as_ref()[..NONCE_LEN]);
        let mut text = plain;
        let aad = Aad::from(instance.as_bytes());
        let sealed = key.seals.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut text);
        sealed.map_err(|_| SealError::Broken)?;
        let bytes = [nonce.as_slice(), &text].concat();
        Ok(format!("{PREFIX}{}:{}", key.id, BASE64.encode(&bytes)).into())
    }

    /// The secret of a sealed value. What is no sealed value is answered as it is: versions before this one sealed nothing.
    pub(crate) fn open(&self, instance: &str, sealed: &Value) -> Result<Value, SealError> {
        let parts = sealed.as_str().and_then(|text| text.strip_prefix(PREFIX)?.split_once(':'));
        let Some((id, text)) = parts else { return Ok(sealed.clone()) };
        let key = self.0.iter().find(|key| key.id == id).ok_or_else(|| SealError::UnknownKey(id.to_owned()))?;
        let mut bytes = BASE64.decode(text.as_bytes()).map_err(|_| SealError::Broken)?;
        if bytes.len() < NONCE_LEN {
            return Err(SealError::Broken);
        }
        let mut text = bytes.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).map_err(|_| SealError::Broken)?;
        let aad = Aad::from(instance.as_bytes());
        let plain = key.seals.open_in_place(nonce, aad, &mut text).map_err(|_| SealError::Broken)?;
        serde_json::from_slice(plain).map_err(|_| SealError::Broken)
    }
}

impl Key {
    /// One key gives two, for two purposes.
    fn of(NamedKey { id, bytes }: NamedKey) -> Option<Self> {
        let master = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let seals = UnboundKey::new(&AES_256_GCM, hmac::sign(&master, b"seal").as_ref()).ok()?;
        let nonces = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&master, b"nonce").as_ref());
        Some(Self { id, seals: LessSafeKey::new(seals), nonces })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(id: &str, byte: u8) -> String {
        format!("{id}:{}\n", BASE64.encode(&[byte; 32]))
    }

    #[test]
    fn what_is_sealed_opens_for_its_instance_only() {
        let keys = SealingKeys::parse(&line("k1", 1)).unwrap();
        for secret in [json!("hunter2"), json!({ "b": 1, "a": ["hunter2"] }), json!(7), json!("sealed:k1:AAAA")] {
            let sealed = keys.seal("i", &secret).unwrap();
            assert!(sealed.as_str().unwrap().starts_with("sealed:k1:") && !sealed.to_string().contains("hunter2"));
            assert_eq!(keys.open("i", &sealed), Ok(secret.clone()));
            assert_eq!(keys.seal("i", &secret).unwrap(), sealed, "a repeat is seen to be one");
            assert_ne!(keys.seal("j", &secret).unwrap(), sealed);
            assert_eq!(keys.open("j", &sealed), Err(SealError::Broken));
            let text = sealed.as_str().unwrap();
            let other = if text.ends_with("A=") { "B=" } else { "A=" };
            assert_eq!(keys.open("i", &format!("{}{other}", &text[..text.len() - 2]).into()), Err(SealError::Broken));
        }
        assert_ne!(keys.seal("i", &json!("a")), keys.seal("i", &json!("b")));
        assert_eq!(keys.open("i", &json!("as before")), Ok(json!("as before")));
    }

    #[test]
    fn an_older_key_opens_and_a_lost_one_is_named() {
        let old = SealingKeys::parse(&line("k1", 1)).unwrap();
        let sealed = old.seal("i", &json!("s")).unwrap();
        let both = SealingKeys::parse(&format!("# keys\n{}\n{}", line("k2", 2), line("k1", 1))).unwrap();
        assert_eq!(both.open("i", &sealed), Ok(json!("s")));
        assert!(both.seal("i", &json!("s")).unwrap().as_str().unwrap().starts_with("sealed:k2:"));
        let lost = SealingKeys::parse(&line("k2", 2)).unwrap().open("i", &sealed).unwrap_err();
        assert_eq!(lost, SealError::UnknownKey("k1".into()));
        let none = SealingKeys::parse("").unwrap();
        assert!(!none.can_seal() && none.seal("i", &json!("s")) == Err(SealError::NoKey));
        assert_eq!(format!("{both:?}"), r#"["k2", "k1"]"#);
        let wrong = SealingKeys::parse("k1").unwrap_err().to_string();
        assert!(wrong.starts_with("broker.sealing_keys: line 1: a key is written"), "{wrong}");
    }
}

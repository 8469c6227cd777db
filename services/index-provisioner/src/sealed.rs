//! Secrets of bindings that cannot be derived: sealed under keys of the settings, each bound to its own binding.
//!
//! A sealed value is `1, length of the key id, key id, nonce (12), AES-256-GCM of the values with its tag (16)`; everything before the
//! ciphertext, the binding's id and its instant of issue are associated data. So a value opens for its own binding only, and not at
//! all when a byte of it has changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use bus::{Bucket, BucketError};
use host::{KeyringError, NamedKey, named_keys};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use types::{BindingId, Timestamp};
use wire::{Problem, index_provisioner::BindingDescription};

use crate::{backend::unavailable, metrics};

/// Bucket of sealed secrets; key = binding.
pub(crate) const SEALED: &str = "lb_sealed";

/// What a sealed value begins with.
const FORMAT: u8 = 1;

/// Why a value cannot be sealed or opened; none of them says what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealedError {
    /// The text of the keys is not one.
    #[error(transparent)]
    Keys(#[from] KeyringError),
    /// There is none at all.
    #[error("it holds no key; write `ID:BASE64` of 32 random bytes")]
    NoKey,
    /// The key is not among those of the settings.
    #[error(
        "it was sealed with key {0:?}, which is not in index_provisioner.sealing_keys: put it back, below the first"
    )]
    UnknownKey(String),
    /// Changed, cut off, or another binding's.
    #[error("it is not what was sealed for this binding")]
    Broken,
    /// The system gave no random bytes, or the cipher refused.
    #[error("the system gave no random bytes")]
    Random,
}

/// The keys; the first seals, all open.
pub(crate) struct SealingKeys {
    keys: Vec<(String, LessSafeKey)>,
}

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

/// What a sealed value held.
#[derive(Debug, PartialEq, Eq)]
struct Opened {
    plain: Vec<u8>,
    /// Whether another key than the first sealed it.
    is_old: bool,
}

impl SealingKeys {
    /// Reads keys, which [`named_keys`] describes; there must be one.
    pub(crate) fn parse(text: &str) -> Result<Self, SealedError> {
        let key = |named: NamedKey| {
            let key = UnboundKey::new(&AES_256_GCM, &named.bytes).map_err(|_| SealedError::NoKey)?;
            Ok((named.id, LessSafeKey::new(key)))
        };
        let keys: Vec<_> = named_keys(text)?.into_iter().map(key).collect::<Result<_, SealedError>>()?;
        if keys.is_empty() { Err(SealedError::NoKey) } else { Ok(Self { keys }) }
    }

    fn seal(&self, label: &str, plain: &[u8]) -> Result<Vec<u8>, SealedError> {
        let (id, key) = self.keys.first().ok_or(SealedError::NoKey)?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealedError::Random)?;
        let mut sealed = vec![FORMAT, u8::try_from(id.len()).unwrap_or(u8::MAX)];
        sealed.extend_from_slice(id.as_bytes());
        sealed.extend_from_slice(&nonce);
        let aad = associated(&sealed, label);
        let mut text = plain.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce, aad, &mut text).map_err(|_| SealedError::Random)?;
        sealed.append(&mut text);
        Ok(sealed)
    }

    fn open(&self, label: &str, sealed: &[u8]) -> Result<Opened, SealedError> {
        let [FORMAT, length, rest @ ..] = sealed else { return Err(SealedError::Broken) };
        let (id, rest) = rest.split_at_checked(usize::from(*length)).ok_or(SealedError::Broken)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(SealedError::Broken)?;
        let known = self.keys.iter().position(|(known, _)| known.as_bytes() == id);
        let known = known.ok_or_else(|| SealedError::UnknownKey(String::from_utf8_lossy(id).into_owned()))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealedError::Broken)?;
        let aad = associated(&sealed[..sealed.len() - text.len()], label);
        let mut text = text.to_vec();
        let plain = self.keys[known].1.open_in_place(nonce, aad, &mut text).map_err(|_| SealedError::Broken)?;
        Ok(Opened { plain: plain.to_vec(), is_old: known > 0 })
    }
}

/// The head has its own length in it, so that no two pairs of head and label give the same bytes.
fn associated(head: &[u8], label: &str) -> Aad<Vec<u8>> {
    Aad::from([head, label.as_bytes()].concat())
}

/// What a value is sealed for: a binding id that is used again later is another binding.
fn label(binding: &BindingId, issued: Timestamp) -> String {
    format!("{SEALED}/{binding}/{}", issued.nanos())
}

/// The sealed secrets of an installation.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    bucket: Bucket,
    keys: Arc<SealingKeys>,
}

impl Sealed {
    pub(crate) fn new(bucket: Bucket, keys: SealingKeys) -> Self {
        Self { bucket, keys: Arc::new(keys) }
    }

    /// Keeps the secrets of a binding, whatever was kept before; they are there when this returns.
    pub(crate) async fn put(
        &self,
        binding: &BindingDescription,
        values: &BTreeMap<String, String>,
    ) -> Result<(), Problem> {
        let label = label(&binding.binding, binding.created);
        let sealed = self.keys.seal(&label, &wire::encode(values)).map_err(Problem::internal)?;
        self.bucket.put(binding.binding.as_str(), sealed).await.map(drop).map_err(problem)
    }

    /// The secrets of a binding, if any were kept.
    pub(crate) async fn get(&self, binding: &BindingDescription) -> Result<Option<BTreeMap<String, String>>, Problem> {
        let Some(entry) = self.bucket.get(binding.binding.as_str()).await.map_err(problem)? else { return Ok(None) };
        let opened = self.keys.open(&label(&binding.binding, binding.created), &entry.value);
        let values = opened.and_then(|opened| wire::decode(&opened.plain).map_err(|_| SealedError::Broken));
        let unreadable = |error| unavailable(format_args!("the sealed secret of {}: {error}", binding.binding));
        values.map(Some).map_err(unreadable)
    }

    /// Forgets the secrets of a binding; forgetting what is not there succeeds, and those of a later binding of this id stay.
    pub(crate) async fn delete(&self, binding: &BindingDescription) -> Result<(), Problem> {
        let key = binding.binding.as_str();
        let Some(entry) = self.bucket.get(key).await.map_err(problem)? else { return Ok(()) };
        match self.keys.open(&label(&binding.binding, binding.created), &entry.value) {
            Err(SealedError::Broken) => Ok(()),
            _ => self.bucket.delete_at(key, entry.revision).await.map_err(problem),
        }
    }

    /// Forgets what belongs to no binding, and seals again what an old key has sealed. What no key opens stays, and is counted.
    ///
    /// Bounds: as many entries as there can be bindings, of some hundred bytes each.
    ///
    /// `bindings` is asked after the bucket: whatever was sealed by then belongs to a binding that it knows, or to none.
    pub(crate) async fn rewrite<F>(&self, bindings: impl FnOnce() -> F) -> Result<(), Problem>
    where
        F: Future<Output = Result<BTreeSet<(BindingId, Timestamp)>, Problem>>,
    {
        let entries = self.bucket.list("").await.map_err(problem)?;
        let bindings = bindings().await?;
        let known: BTreeMap<&str, &(BindingId, Timestamp)> = bindings.iter().map(|b| (b.0.as_str(), b)).collect();
        let (mut kept, mut unopened) = (0_usize, 0_usize);
        for (key, entry) in entries {
            let Some((binding, issued)) = known.get(key.as_str()) else {
                self.bucket.delete_at(&key, entry.revision).await.map_err(problem)?;
                continue;
            };
            kept += 1;
            let label = label(binding, *issued);
            match self.keys.open(&label, &entry.value) {
                Ok(opened) if opened.is_old => {
                    let sealed = self.keys.seal(&label, &opened.plain).map_err(Problem::internal)?;
                    self.bucket.update(&key, sealed, entry.revision).await.map_err(problem)?;
                }
                Ok(_) => {}
                Err(error) => {
                    unopened += 1;
                    tracing::error!(%binding, %error, "sealed secret cannot be opened");
                }
            }
        }
        metrics::SEALED.set(kept);
        metrics::UNOPENED.set(unopened);
        Ok(())
    }
}

fn problem(error: BucketError) -> Problem {
    Problem::unavailable("TokensUnavailable", format_args!("the bucket of sealed secrets does not answer: {error}"))
        .unknown()
}

#[cfg(test)]
mod tests;

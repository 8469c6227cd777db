//! Who may sign delegations, and which of those that are shown are proved.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use ring::digest::{SHA256, digest};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;
use types::Timestamp;
use wire::{
    Code, Problem,
    delegation::{Bearer, Delegation},
    header,
    views::{Role, SIGNERS},
};

use crate::{
    Bucket, Bus, BusError, Change,
    keys::{
        Signer,
        delegation::{Claimed, TOKEN_BYTES_MAX},
    },
};

/// How long a signer is known after it has announced itself: twice the longest delegation, so that what it signed is proved to
/// its end also when it died.
const SIGNER_TTL: Duration = Duration::from_secs(2 * 3_600);
/// How often a signer announces itself: so long its delegations are refused after the bucket was lost.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(30);
/// Signers known at once: coordinators that were started within [`SIGNER_TTL`]; further ones are not heard of.
const SIGNERS_MAX: usize = 256;
/// Tokens remembered as proved, twice: the present generation and the one before.
const PROVED_MAX: usize = 4_096;

/// Why a caller is turned away; nothing of its request was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("this call needs a delegation in the header {}", header::DELEGATION)]
    Missing,
    #[error("the delegation has ended: ask for a new one")]
    Expired,
    #[error("the delegation is not a token that its signer has signed")]
    Forged,
    #[error("the delegation is another binding's, or the request is about another index")]
    Foreign,
    #[error("a binding of role {0} may not make this call")]
    TooWeak(Role),
    #[error("the signer of the delegation is not known here: ask for a new one")]
    SignerUnknown,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Missing => Self::new(Code::Forbidden, "DelegationMissing", refusal),
            Refusal::Expired => Self::new(Code::Forbidden, "DelegationExpired", refusal),
            Refusal::Forged => Self::new(Code::Forbidden, "DelegationForged", refusal),
            Refusal::Foreign => Self::new(Code::Forbidden, "DelegationForeign", refusal),
            Refusal::TooWeak(_) => Self::new(Code::Forbidden, "DelegationTooWeak", refusal),
            Refusal::SignerUnknown => Self::new(Code::Forbidden, "DelegationSignerUnknown", refusal),
        }
    }
}

impl Bus {
    /// Tells every door, for ever, that this signer's delegations are good; the first time before it returns.
    pub async fn announce_signer(
        &self,
        signer: &Signer,
        replicas: u8,
    ) -> Result<impl Future<Output = ()> + use<>, BusError> {
        let mut bucket = self.signers(replicas).await?;
        let (bus, key) = (self.clone(), signer.public_key().to_owned());
        let put = async move |bucket: &Bucket, key: &str| bucket.put(key, Vec::new()).await;
        put(&bucket, &key).await.map_err(|error| BusError::Unavailable {
            what: "announcement of a signer".to_owned(),
            reason: error.to_string(),
        })?;
        Ok(async move {
            loop {
                tokio::time::sleep(ANNOUNCE_EVERY).await;
                if let Err(error) = put(&bucket, &key).await {
                    warn!(%error, "signer not announced again yet");
                    // The bucket may be gone; whoever makes it again must be heard there.
                    if let Ok(again) = bus.signers(replicas).await {
                        bucket = again;
                    }
                }
            }
        })
    }

    async fn signers(&self, replicas: u8) -> Result<Bucket, BusError> {
        self.bucket(SIGNERS, Some(SIGNER_TTL), replicas).await
    }
}

/// Knows who may sign delegations, and proves those that are shown; clones share what they know.
///
/// Bounds: 256 signers; 8,192 tokens remembered as proved, so that a token costs one signature check and then a hash.
#[derive(Clone)]
pub struct Gatekeeper(Arc<Inner>);

struct Inner {
    tenants: Bus,
    known: Arc<Known>,
    _watch: DropGuard,
}

/// What is proved, apart from any connection.
#[derive(Default)]
struct Known {
    signers: RwLock<HashMap<String, nkeys::KeyPair>>,
    proved: Mutex<Proved>,
}

/// Two generations of tokens by their hash: when the young one is full, the old one goes.
#[derive(Default)]
struct Proved {
    young: HashMap<[u8; 32], Arc<Delegation>>,
    old: HashMap<[u8; 32], Arc<Delegation>>,
}

impl Gatekeeper {
    /// Begins to follow who signs; knows it when this returns. `tenants` is the connection in the tenants' account.
    pub async fn open(platform: &Bus, tenants: &Bus, replicas: u8) -> Result<Self, BusError> {
        let bucket = platform.signers(replicas).await?;
        let (known, stop) = (Arc::new(Known::default()), CancellationToken::new());
        let (tell, ready) = oneshot::channel();
        let (learning, until) = (known.clone(), stop.clone());
        tokio::spawn(async move { until.run_until_cancelled(learning.follow(bucket, tell)).await });
        let gone = |_| BusError::Unavailable { what: "signers".to_owned(), reason: "nobody follows them".to_owned() };
        ready.await.map_err(gone)?;
        Ok(Self(Arc::new(Inner { tenants: tenants.clone(), known, _watch: stop.drop_guard() })))
    }

    pub(super) fn tenants(&self) -> &Bus {
        &self.0.tenants
    }

    /// See [`Known::prove`].
    pub(super) fn prove(
        &self,
        bearer: &Bearer,
        token: Option<&str>,
        now: Timestamp,
    ) -> Result<Arc<Delegation>, Refusal> {
        self.0.known.prove(bearer, token, now)
    }
}

impl std::fmt::Debug for Gatekeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gatekeeper").field("tenants", &self.0.tenants).finish_non_exhaustive()
    }
}

impl Known {
    async fn follow(&self, bucket: Bucket, ready: oneshot::Sender<()>) {
        let (mut watch, mut ready) = (bucket.watch(""), Some(ready));
        loop {
            match watch.next().await {
                Change::Key { key, entry: Some(_) } => self.learn(&key),
                Change::Key { key, entry: None } => {
                    self.signers.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
                }
                Change::Ready => {
                    if let Some(ready) = ready.take() {
                        // Nobody waits any more: the gatekeeper was dropped.
                        ready.send(()).ok();
                    }
                }
            }
        }
    }

    fn learn(&self, key: &str) {
        let mut signers = self.signers.write().unwrap_or_else(PoisonError::into_inner);
        match nkeys::KeyPair::from_public_key(key) {
            Ok(_) if signers.len() >= SIGNERS_MAX => warn!(key, "signer not taken: there are too many"),
            Ok(pair) => drop(signers.insert(key.to_owned(), pair)),
            Err(error) => warn!(key, %error, "signer not taken: this is no key"),
        }
    }

    /// Proves a token, which must be this bearer's.
    ///
    /// What costs least comes first; the signature is looked at only of a token that would be good.
    fn prove(&self, bearer: &Bearer, token: Option<&str>, now: Timestamp) -> Result<Arc<Delegation>, Refusal> {
        let token = token.ok_or(Refusal::Missing)?;
        let hash = digest(&SHA256, &token.as_bytes()[..token.len().min(TOKEN_BYTES_MAX + 1)]);
        let hash = <[u8; 32]>::try_from(hash.as_ref()).map_err(|_| Refusal::Forged)?;
        let proved = self.proved.lock().unwrap_or_else(PoisonError::into_inner).get(&hash);
        if let Some(delegation) = proved {
            return fits(&delegation, bearer, now).map(|()| delegation);
        }
        let claimed = Claimed::read(token).ok_or(Refusal::Forged)?;
        fits(&claimed.delegation, bearer, now)?;
        let signers = self.signers.read().unwrap_or_else(PoisonError::into_inner);
        let key = signers.get(&claimed.issuer).ok_or(Refusal::SignerUnknown)?;
        if !claimed.is_signed_by(key) {
            return Err(Refusal::Forged);
        }
        drop(signers);
        let delegation = Arc::new(claimed.delegation);
        self.proved.lock().unwrap_or_else(PoisonError::into_inner).put(hash, delegation.clone());
        Ok(delegation)
    }
}

fn fits(delegation: &Delegation, bearer: &Bearer, now: Timestamp) -> Result<(), Refusal> {
    if delegation.bearer != *bearer {
        return Err(Refusal::Foreign);
    }
    if now < delegation.expires { Ok(()) } else { Err(Refusal::Expired) }
}

impl Proved {
    fn get(&mut self, hash: &[u8; 32]) -> Option<Arc<Delegation>> {
        if let Some(known) = self.young.get(hash) {
            return Some(known.clone());
        }
        let known = self.old.remove(hash)?;
        self.put(*hash, known.clone());
        Some(known)
    }

    fn put(&mut self, hash: [u8; 32], delegation: Arc<Delegation>) {
        if self.young.len() >= PROVED_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, delegation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn bearer(index: &str, binding: &str, role: Role) -> Bearer {
        Bearer { index: index.parse().unwrap(), binding: binding.parse().unwrap(), role }
    }

    fn token(signer: &Signer, bearer: &Bearer, expires: Timestamp) -> String {
        signer.sign(&Delegation { bearer: bearer.clone(), stream: 7, expires }, NOW).unwrap()
    }

    #[test]
    fn only_a_living_token_of_the_bearer_by_a_known_signer_is_proved() {
        let (known, signer) = (Known::default(), Signer::generate().unwrap());
        let mine = bearer("shop", "b1", Role::Write);
        let later = NOW + Duration::from_secs(60);
        let good = token(&signer, &mine, later);
        assert_eq!(known.prove(&mine, Some(&good), NOW), Err(Refusal::SignerUnknown));
        known.learn(signer.public_key());
        let stranger = token(&Signer::generate().unwrap(), &mine, later);
        // The words of a signer that is known, signed by another one.
        let (text, _) = good.rsplit_once('.').unwrap();
        let forged = format!("{text}.{}", stranger.rsplit_once('.').unwrap().1);
        for (shown, by, refusal) in [
            (None, &mine, Refusal::Missing),
            (Some(""), &mine, Refusal::Forged),
            (Some(&*forged), &mine, Refusal::Forged),
            (Some(&"x".repeat(1 << 20)), &mine, Refusal::Forged),
            (Some(&stranger), &mine, Refusal::SignerUnknown),
            (Some(&token(&signer, &mine, NOW)), &mine, Refusal::Expired),
            (Some(&good), &bearer("bank", "b1", Role::Write), Refusal::Foreign),
            (Some(&good), &bearer("shop", "b2", Role::Write), Refusal::Foreign),
            (Some(&good), &bearer("shop", "b1", Role::Admin), Refusal::Foreign),
        ] {
            assert_eq!(known.prove(by, shown, NOW).unwrap_err(), refusal, "{shown:?} {by:?}");
        }
        // Once proved it is remembered, and still looked at: for whom it is, and whether it has ended.
        for _ in 0..2 {
            assert_eq!(known.prove(&mine, Some(&good), NOW).unwrap().stream, 7);
            assert_eq!(known.prove(&bearer("bank", "b1", Role::Write), Some(&good), NOW), Err(Refusal::Foreign));
            assert_eq!(known.prove(&mine, Some(&good), later), Err(Refusal::Expired));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_used_stays() {
        let mut proved = Proved::default();
        let delegation =
            Arc::new(Delegation { bearer: bearer("shop", "b1", Role::Read), stream: 1, expires: Timestamp::MAX });
        let hash = |n: u64| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_le_bytes());
            hash
        };
        for n in 0..5 * PROVED_MAX as u64 {
            proved.put(hash(n), delegation.clone());
            assert!(proved.get(&hash(0)).is_some(), "{n}");
        }
        assert!(proved.young.len() + proved.old.len() <= 2 * PROVED_MAX);
        assert!(proved.get(&hash(1)).is_none());
    }
}

//! Operator-mode keys: who signs accounts, who signs users, what a server must be told.
//!
//! One operator signs three accounts: the system account (for servers and claims, without JetStream), the platform
//! (where services talk) and the tenants (where producers publish and alerts arrive). A binding is a user of the
//! tenants' account.

mod claims;
mod config;
pub(crate) mod delegation;
mod jwt;

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPairType;
use ring::hmac;
use serde::{Deserialize, Serialize};
use types::Timestamp;

pub use claims::{AccountSpec, CLAIMS_UPDATES, UserSpec, account_jwt, user_jwt};
pub use config::{ClusterSpec, ServerSpec, TlsSpec, cluster_config, server_config};
pub use delegation::Signer;

use crate::BusError;

/// A signing key in NATS' text form.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    /// The secret half.
    pub seed: String,
    /// The name under which others know it.
    pub public: String,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("seed", &"***").field("public", &self.public).finish()
    }
}

/// The keys of an installation.
///
/// Keep it: the same ring gives the same server configuration for ever. A configuration made from newer preloaded
/// claims would replace what was pushed since, revocations included; therefore `created` dates them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyring {
    /// Signs accounts.
    pub operator_seed: String,
    /// Signs users of the system account.
    pub system_seed: String,
    /// Signs the services' users.
    pub platform_seed: String,
    /// Signs bindings and the front door's user.
    pub tenants_seed: String,
    /// When the ring was made.
    pub created: Timestamp,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("created", &self.created).finish_non_exhaustive()
    }
}

impl Keyring {
    /// Fresh keys.
    pub fn generate(now: Timestamp) -> Result<Self, BusError> {
        let account = || nkeys::KeyPair::new_account().seed().map_err(key_error);
        Ok(Self {
            operator_seed: nkeys::KeyPair::new_operator().seed().map_err(key_error)?,
            system_seed: account()?,
            platform_seed: account()?,
            tenants_seed: account()?,
            created: now,
        })
    }
}

/// The public key of a seed of any kind.
pub fn public_key(seed: &str) -> Result<String, BusError> {
    Ok(nkeys::KeyPair::from_seed(seed).map_err(key_error)?.public_key())
}

/// A fresh user key.
pub fn generate_user() -> Result<KeyPair, BusError> {
    pair(&nkeys::KeyPair::new_user())
}

/// Derives a user key: the same secret and info always give the same key.
///
/// `info` names one credential for ever: after a revocation derive from another one. Bounds: the secret has at least 32
/// bytes.
pub fn derive_user(secret: &[u8], info: &str) -> Result<KeyPair, BusError> {
    if secret.len() < 32 {
        return Err(BusError::Key(format!("a secret to derive from has at least 32 bytes, not {}", secret.len())));
    }
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), info.as_bytes());
    let raw = <[u8; 32]>::try_from(tag.as_ref()).map_err(|e| BusError::Key(e.to_string()))?;
    pair(&nkeys::KeyPair::new_from_raw(KeyPairType::User, raw).map_err(key_error)?)
}

/// The text of a `.creds` file.
pub fn creds_file(jwt: &str, seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         ************************* IMPORTANT *************************\n\
         The seed below proves who you are. Keep it like a password.\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n\n\
         *************************************************************\n"
    )
}

/// Whether credentials may subscribe to a subject, as far as their text says.
///
/// Credentials that were issued by an older release may lack what this one needs. Those that list nothing may everything.
pub fn creds_may_subscribe(creds: &str, subject: &str) -> bool {
    let claims = || {
        let jwt = creds.lines().find(|line| line.split('.').count() == 3)?;
        let body = BASE64URL_NOPAD.decode(jwt.split('.').nth(1)?.as_bytes()).ok()?;
        serde_json::from_slice::<serde_json::Value>(&body).ok()
    };
    let Some(claims) = claims() else { return false };
    let Some(allowed) = claims["nats"]["sub"]["allow"].as_array() else { return true };
    let covers = |one: &str| one == subject || one.strip_suffix('>').is_some_and(|start| subject.starts_with(start));
    allowed.iter().filter_map(serde_json::Value::as_str).any(covers)
}

/// Makes a fresh user and gives the text of its `.creds` file; `make` describes the user of the given public key.
pub fn issue_creds(
    make: impl FnOnce(String) -> UserSpec,
    account_seed: &str,
    issued: Timestamp,
) -> Result<String, BusError> {
    let user = generate_user()?;
    let jwt = user_jwt(&make(user.public.clone()), account_seed, issued)?;
    Ok(creds_file(&jwt, &user.seed))
}

fn pair(key: &nkeys::KeyPair) -> Result<KeyPair, BusError> {
    Ok(KeyPair { seed: key.seed().map_err(key_error)?, public: key.public_key() })
}

fn key_error(error: nkeys::error::Error) -> BusError {
    BusError::Key(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_keys_are_stable_and_apart() {
        let secret = [7u8; 32];
        let key = derive_user(&secret, "binding/b1/1").unwrap();
        assert_eq!(key, derive_user(&secret, "binding/b1/1").unwrap());
        assert_ne!(key, derive_user(&secret, "binding/b1/2").unwrap());
        assert!(key.seed.starts_with("SU") && key.public.starts_with('U'));
        assert_eq!(public_key(&key.seed).unwrap(), key.public);
        assert!(derive_user(&[7u8; 31], "x").is_err());
    }

    #[test]
    fn credentials_say_what_they_may_hear() {
        let ring = Keyring::generate(Timestamp::from_millis(1)).unwrap();
        let creds = issue_creds(|key| UserSpec::front_door("f", key), &ring.tenants_seed, ring.created).unwrap();
        assert!(creds_may_subscribe(&creds, "lane.>") && creds_may_subscribe(&creds, wire::delegation::OUTER_FILTER));
        assert!(!creds_may_subscribe(&creds, "logs.>") && !creds_may_subscribe("a.b.c", "lane.>"));
        for (allowed, expected) in
            [(None, true), (Some("$SYS.>"), true), (Some(CLAIMS_UPDATES), true), (Some("_INBOX.>"), false)]
        {
            let sub_allow = allowed.into_iter().map(str::to_owned).collect();
            let user = |key| UserSpec { sub_allow, ..UserSpec::platform("s", key) };
            let creds = issue_creds(user, &ring.system_seed, ring.created).unwrap();
            assert_eq!(creds_may_subscribe(&creds, CLAIMS_UPDATES), expected, "{allowed:?}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let ring = Keyring::generate(Timestamp::from_millis(1)).unwrap();
        let user = generate_user().unwrap();
        let text = format!("{ring:?} {user:?}");
        assert!(!text.contains(&ring.operator_seed) && !text.contains(&user.seed), "{text}");
    }
}

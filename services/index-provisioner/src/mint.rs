//! Makes the secrets of bindings. The same binding always gets the same ones, so none of them is ever stored.

use std::{collections::BTreeMap, sync::Arc};

use bus::keys::{self, KeyPair, UserSpec};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::{digest, hmac};
use types::{BindingId, IndexName, InstanceId, Timestamp};
use wire::{Problem, index_provisioner::BindingDescription, subjects};

/// The least length of the secret that everything is derived from.
pub(crate) const SECRET_BYTES_MIN: usize = 32;

/// What every token begins with, so that scanners can find leaked ones.
const TOKEN_PREFIX: &str = "lbt_";

/// Derives keys and tokens, and signs users.
#[derive(Clone)]
pub(crate) struct Mint {
    account_seed: Arc<str>,
    secret: Arc<[u8]>,
}

impl Mint {
    /// Errors: a secret shorter than [`SECRET_BYTES_MIN`], or a seed that is not one.
    pub(crate) fn new(account_seed: &str, secret: &str) -> Result<Self, String> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(format!("has {} bytes; it needs at least {SECRET_BYTES_MIN}", secret.len()));
        }
        Ok(Self { account_seed: account_seed.into(), secret: secret.as_bytes().into() })
    }

    /// The NATS user of a binding issued at an instant.
    pub(crate) fn key(&self, binding: &BindingId, issued: Timestamp) -> Result<KeyPair, Problem> {
        Ok(keys::derive_user(&self.secret, &format!("{binding}/{}", issued.nanos()))?)
    }

    /// The HTTP token of a binding issued at an instant.
    pub(crate) fn token(&self, binding: &BindingId, issued: Timestamp) -> String {
        format!("{TOKEN_PREFIX}{}", BASE64URL_NOPAD.encode(&self.derive("token", binding, issued)))
    }

    /// The key of that token in the bucket of tokens.
    pub(crate) fn token_key(&self, binding: &BindingId, issued: Timestamp) -> String {
        sha256(self.token(binding, issued).as_bytes())
    }

    /// The flat credentials; the broker adds the addresses, which only it knows.
    pub(crate) fn credentials(&self, binding: &BindingDescription) -> Result<BTreeMap<String, String>, Problem> {
        let pair = self.key(&binding.binding, binding.created)?;
        let mut spec = UserSpec::binding(&binding.index, &binding.binding, binding.role, pair.public.clone());
        spec.expires = binding.expires;
        let jwt = keys::user_jwt(&spec, &self.account_seed, binding.created)?;
        let values = [
            ("nats_creds", keys::creds_file(&jwt, &pair.seed)),
            ("nats_jwt", jwt),
            ("nats_seed", pair.seed),
            ("subject", subjects::logs(&binding.index)),
            ("alerts_subject", format!("alerts.{}.>", binding.index)),
            ("inbox_prefix", subjects::inbox_prefix(&binding.binding)),
            ("token", self.token(&binding.binding, binding.created)),
        ];
        Ok(values.map(|(key, value)| (key.to_owned(), value)).into())
    }

    /// A secret of a binding on another back-end, of 32 bytes; `what` tells it from the binding's others.
    pub(crate) fn derive(&self, what: &str, binding: &BindingId, issued: Timestamp) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
        let tag = hmac::sign(&key, format!("{what}/{binding}/{}", issued.nanos()).as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }
}

/// What every binding's credentials have, whatever the back-end.
pub(crate) fn plain(binding: &BindingDescription) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> =
        [("index".to_owned(), binding.index.to_string()), ("role".to_owned(), binding.role.to_string())].into();
    if let Some(end) = binding.expires.and_then(text) {
        values.insert("expires_at".to_owned(), end);
    }
    values
}

/// The name of an index whose owner named none.
pub(crate) fn derived_name(instance: &InstanceId) -> Result<IndexName, types::Invalid> {
    format!("ix-{}", &sha256(instance.as_str().as_bytes())[..16]).parse()
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// `yyyy-mm-ddThh:mm:ss.sssZ`.
fn text(at: Timestamp) -> Option<String> {
    let at = jiff::Timestamp::from_nanosecond(i128::from(at.nanos())).ok()?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::keys::Keyring;
    use wire::views::Role;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn mint() -> Mint {
        let ring = Keyring::generate(Timestamp::from_nanos(1)).unwrap();
        Mint::new(&ring.tenants_seed, SECRET).unwrap()
    }

    fn binding(name: &str, role: Role) -> BindingDescription {
        BindingDescription {
            binding: name.parse().unwrap(),
            instance: "i".parse().unwrap(),
            index: "shop".parse().unwrap(),
            role,
            created: Timestamp::from_millis(1_700_000_000_000),
            expires: Some(Timestamp::from_millis(1_700_000_060_123)),
        }
    }

    #[test]
    fn the_same_binding_gets_the_same_credentials_and_no_other_does() {
        let mint = mint();
        let first = mint.credentials(&binding("b", Role::Admin)).unwrap();
        assert_eq!(first, mint.credentials(&binding("b", Role::Admin)).unwrap());
        let other = mint.credentials(&binding("c", Role::Admin)).unwrap();
        let later = BindingDescription { created: Timestamp::from_millis(1), ..binding("b", Role::Admin) };
        for different in [other, mint.credentials(&later).unwrap()] {
            for key in ["token", "nats_seed", "nats_jwt"] {
                assert_ne!(first[key], different[key], "{key}");
            }
        }
    }

    #[test]
    fn credentials_are_flat_and_complete_but_for_addresses() {
        let mut values = mint().credentials(&binding("b", Role::Write)).unwrap();
        values.extend(plain(&binding("b", Role::Write)));
        let expected = [
            ("index", "shop"),
            ("role", "write"),
            ("subject", "logs.shop"),
            ("alerts_subject", "alerts.shop.>"),
            ("inbox_prefix", "_INBOX.b"),
            ("expires_at", "2023-11-14T22:14:20.123Z"),
        ];
        for (key, value) in expected {
            assert_eq!(values[key], value, "{key}");
        }
        assert!(values["token"].starts_with("lbt_") && values["token"].len() == 47);
        assert!(
            values["nats_creds"].contains(&values["nats_jwt"]) && values["nats_creds"].contains(&values["nats_seed"])
        );
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert!(Mint::new("SA", "short").err().unwrap().contains("at least 32"));
    }

    #[test]
    fn a_derived_name_is_an_index_name_and_never_changes() {
        let name = derived_name(&"3f2504e0-4f89-11d3-9a0c-0305e82c3301".parse().unwrap()).unwrap();
        assert_eq!(name.as_str().len(), 19);
        assert!(name.as_str().starts_with("ix-"));
        assert_ne!(name, derived_name(&"x".parse().unwrap()).unwrap());
    }
}

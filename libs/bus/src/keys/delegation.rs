//! Delegations as tokens: signed by a coordinator, proved at every door.

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::json;
use types::{BindingId, IndexName, Timestamp};
use wire::{
    delegation::{Bearer, Delegation},
    views::Role,
};

use super::{
    KeyPair,
    jwt::{HEAD, sign},
    pair,
};
use crate::BusError;

/// The longest token that is looked at; the longest names make one of about 800 bytes.
pub(crate) const TOKEN_BYTES_MAX: usize = 1_024;
/// What our tokens say they are, so that no other claims can be taken for one.
const KIND: &str = "delegation";

/// Signs delegations with a key of its own, which nobody else ever sees: it is made anew by each process and never stored.
///
/// Its kind of key signs neither accounts nor users, so that no delegation opens a connection.
#[derive(Debug)]
pub struct Signer(KeyPair);

impl Signer {
    /// A signer with a fresh key.
    pub fn generate() -> Result<Self, BusError> {
        pair(&nkeys::KeyPair::new_server()).map(Self)
    }

    /// The key by which its signatures are proved.
    pub fn public_key(&self) -> &str {
        &self.0.public
    }

    /// The token of a delegation.
    pub fn sign(&self, delegation: &Delegation, issued: Timestamp) -> Result<String, BusError> {
        let Delegation { bearer: Bearer { index, binding, role }, stream, expires } = delegation;
        let claims = json!({ "type": KIND, "index": index, "stream": stream, "role": role });
        sign(binding.as_str(), KIND, claims, &self.0.seed, issued, Some(*expires))
    }
}

/// A token taken apart; nothing of it is proved.
pub(crate) struct Claimed<'a> {
    /// Who is said to have signed it.
    pub(crate) issuer: String,
    /// What it says.
    pub(crate) delegation: Delegation,
    signed: &'a str,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: BindingId,
    exp: i64,
    nats: Named,
}

#[derive(Deserialize)]
struct Named {
    r#type: String,
    index: IndexName,
    stream: u32,
    role: Role,
}

impl<'a> Claimed<'a> {
    /// Takes a token apart; `None` if it is not of our form, to the letter.
    ///
    /// Which algorithm proves it is not for the token to say: a head that is not ours is no head.
    pub(crate) fn read(token: &'a str) -> Option<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (head, body) = signed.split_once('.')?;
        if head != BASE64URL_NOPAD.encode(HEAD) {
            return None;
        }
        let Claims { iss, sub, exp, nats } =
            serde_json::from_slice(&BASE64URL_NOPAD.decode(body.as_bytes()).ok()?).ok()?;
        if nats.r#type != KIND {
            return None;
        }
        let bearer = Bearer { index: nats.index, binding: sub, role: nats.role };
        let expires = Timestamp::from_nanos(exp.saturating_mul(1_000_000_000));
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
        Some(Self { issuer: iss, delegation: Delegation { bearer, stream: nats.stream, expires }, signed, signature })
    }

    /// Whether this key has signed exactly this text.
    pub(crate) fn is_signed_by(&self, key: &nkeys::KeyPair) -> bool {
        key.verify(self.signed.as_bytes(), &self.signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use ring::hmac;
    use serde_json::Value;

    use super::*;
    use crate::keys::{Keyring, UserSpec, generate_user, user_jwt};

    fn delegation() -> Delegation {
        let bearer = Bearer { index: "shop".parse().unwrap(), binding: "b1".parse().unwrap(), role: Role::Write };
        Delegation { bearer, stream: 7, expires: Timestamp::from_millis(1_700_000_600_000) }
    }

    fn signed() -> (Signer, String) {
        let signer = Signer::generate().unwrap();
        let token = signer.sign(&delegation(), Timestamp::from_millis(1_700_000_000_000)).unwrap();
        (signer, token)
    }

    fn proved(signer: &Signer, token: &str) -> Option<Delegation> {
        let key = nkeys::KeyPair::from_public_key(signer.public_key()).unwrap();
        let claimed = Claimed::read(token)?;
        claimed.is_signed_by(&key).then_some(claimed.delegation)
    }

    /// The token with other claims and the old signature.
    fn altered(token: &str, alter: impl FnOnce(&mut Value)) -> String {
        let parts: Vec<&str> = token.split('.').collect();
        let mut claims = serde_json::from_slice(&BASE64URL_NOPAD.decode(parts[1].as_bytes()).unwrap()).unwrap();
        alter(&mut claims);
        format!("{}.{}.{}", parts[0], BASE64URL_NOPAD.encode(claims.to_string().as_bytes()), parts[2])
    }

    #[test]
    fn a_token_is_proved_by_its_signer_alone() {
        let (signer, token) = signed();
        assert_eq!(proved(&signer, &token), Some(delegation()));
        assert_eq!(proved(&Signer::generate().unwrap(), &token), None);
        let longest = Bearer {
            index: "i".repeat(63).parse().unwrap(),
            binding: "b".repeat(128).parse().unwrap(),
            role: Role::Admin,
        };
        let longest = Delegation { bearer: longest, stream: u32::MAX, expires: Timestamp::MAX };
        let token = signer.sign(&longest, Timestamp::MAX).unwrap();
        assert!(token.len() < TOKEN_BYTES_MAX, "{}", token.len());
        assert_eq!(proved(&signer, &token).unwrap().bearer, longest.bearer);
    }

    #[test]
    fn whatever_is_altered_proves_nothing() {
        let (signer, token) = signed();
        for (what, value) in [
            ("stream", Value::from(8)),
            ("index", Value::from("bank")),
            ("role", Value::from("admin")),
            ("type", Value::from("user")),
        ] {
            assert_eq!(proved(&signer, &altered(&token, |claims| claims["nats"][what] = value)), None, "{what}");
        }
        for (what, value) in [("exp", Value::from(9_999_999_999_i64)), ("sub", Value::from("b2"))] {
            assert_eq!(proved(&signer, &altered(&token, |claims| claims[what] = value)), None, "{what}");
        }
        let (signed, signature) = token.rsplit_once('.').unwrap();
        for odd in [
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            signed.to_owned(),
            format!("{signed}."),
            format!("{signed}.{}", &signature[..40]),
            format!("{token}="),
            format!("{token}.{signature}"),
            format!("{token} "),
            token.replace('.', ".."),
            "x".repeat(TOKEN_BYTES_MAX + 1),
        ] {
            assert_eq!(proved(&signer, &odd), None, "{odd}");
        }
    }

    /// A token that names another algorithm, or none, is not proved by that algorithm.
    #[test]
    fn the_algorithm_is_not_the_tokens_choice() {
        let (signer, token) = signed();
        let body = token.split('.').nth(1).unwrap();
        for head in [
            r#"{"typ":"JWT","alg":"none"}"#,
            r#"{"typ":"JWT","alg":"HS256"}"#,
            r#"{"alg":"ed25519-nkey","typ":"JWT"}"#,
            r#"{"typ":"JWT","alg":"ed25519-nkey","jwk":{}}"#,
        ] {
            let text = format!("{}.{body}", BASE64URL_NOPAD.encode(head.as_bytes()));
            let by_public_key = hmac::Key::new(hmac::HMAC_SHA256, signer.public_key().as_bytes());
            let tag = BASE64URL_NOPAD.encode(hmac::sign(&by_public_key, text.as_bytes()).as_ref());
            // Even what the right key has signed is refused under a head of somebody's own.
            let key = nkeys::KeyPair::from_seed(&signer.0.seed).unwrap();
            let right = BASE64URL_NOPAD.encode(&key.sign(text.as_bytes()).unwrap());
            for signature in ["", &tag, &right] {
                assert_eq!(proved(&signer, &format!("{text}.{signature}")), None, "{head}");
            }
        }
    }

    #[test]
    fn credentials_are_no_delegation() {
        let ring = Keyring::generate(Timestamp::from_millis(1)).unwrap();
        let bearer = delegation().bearer;
        let spec = UserSpec::binding(&bearer.index, &bearer.binding, bearer.role, generate_user().unwrap().public);
        let jwt = user_jwt(&spec, &ring.tenants_seed, Timestamp::from_millis(1)).unwrap();
        assert!(Claimed::read(&jwt).is_none());
    }
}

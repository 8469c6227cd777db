//! Signed claims in NATS' form: JSON, base64url, Ed25519 by an nkey.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use ring::digest;
use serde_json::{Value, json};
use types::Timestamp;

use super::key_error;
use crate::BusError;

/// The head of every token.
pub(crate) const HEAD: &[u8] = br#"{"typ":"JWT","alg":"ed25519-nkey"}"#;

/// Signs claims about `subject`.
pub(crate) fn sign(
    subject: &str,
    name: &str,
    nats: Value,
    issuer_seed: &str,
    issued: Timestamp,
    expires: Option<Timestamp>,
) -> Result<String, BusError> {
    let issuer = nkeys::KeyPair::from_seed(issuer_seed).map_err(key_error)?;
    let mut claims = json!({
        "iat": seconds(issued),
        "iss": issuer.public_key(),
        "name": name,
        "sub": subject,
        "nats": nats,
    });
    if let Some(expires) = expires {
        claims["exp"] = json!(seconds(expires));
    }
    // The id is the hash of the claims without it.
    let hash = digest::digest(&digest::SHA512_256, claims.to_string().as_bytes());
    claims["jti"] = json!(BASE32_NOPAD.encode(hash.as_ref()));
    let text = format!("{}.{}", BASE64URL_NOPAD.encode(HEAD), BASE64URL_NOPAD.encode(claims.to_string().as_bytes()));
    let signature = issuer.sign(text.as_bytes()).map_err(key_error)?;
    Ok(format!("{text}.{}", BASE64URL_NOPAD.encode(&signature)))
}

/// Whole seconds, as tokens count time.
pub(crate) fn seconds(at: Timestamp) -> i64 {
    at.nanos().div_euclid(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_verifies_and_says_what_it_was_told() {
        let operator = nkeys::KeyPair::new_operator();
        let seed = operator.seed().unwrap();
        let now = Timestamp::from_millis(1_700_000_000_900);
        let token = sign("AXY", "n", json!({"type": "account"}), &seed, now, None).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let signature = BASE64URL_NOPAD.decode(parts[2].as_bytes()).unwrap();
        operator.verify(format!("{}.{}", parts[0], parts[1]).as_bytes(), &signature).unwrap();
        let claims: Value = serde_json::from_slice(&BASE64URL_NOPAD.decode(parts[1].as_bytes()).unwrap()).unwrap();
        assert_eq!(claims["iat"], 1_700_000_000);
        assert_eq!(claims["iss"], operator.public_key());
        assert!(claims.get("exp").is_none());
    }
}

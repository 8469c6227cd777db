//! Telling running servers what an account may do from now on.

use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{Bus, BusError, connect::AskError, jetstream::JETSTREAM_WITHIN};

/// The parts of a token by which two versions of an account are compared.
#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    iss: String,
    iat: i64,
}

impl Bus {
    /// Gives the servers a new version of an account, on a connection in the system account.
    ///
    /// It takes effect at once: users it revokes lose their connections. Repeating it changes nothing.
    /// Bounds: tried for about 10 s. Errors: `Refused` when the account in force has another signer or was issued
    /// later. A server would store either, answer that all is well, and let nobody in after its next start.
    pub async fn push_account_claims(&self, jwt: &str) -> Result<(), BusError> {
        let end = Instant::now() + JETSTREAM_WITHIN;
        let refused = |reason: String| BusError::Refused { what: "account claims".to_owned(), reason };
        let new = read(jwt).ok_or_else(|| refused("this is not a token".to_owned()))?;
        let lookup = format!("$SYS.REQ.ACCOUNT.{}.CLAIMS.LOOKUP", new.sub);
        let present = self.system_request(&lookup, Bytes::new(), end).await?;
        if let Some(present) = std::str::from_utf8(&present).ok().and_then(read) {
            may_replace(&present, &new).map_err(refused)?;
        }
        let answer = self.system_request("$SYS.REQ.CLAIMS.UPDATE", Bytes::from(jwt.to_owned()), end).await?;
        understand(&answer)
    }

    async fn system_request(&self, subject: &str, payload: Bytes, end: Instant) -> Result<Bytes, BusError> {
        let what = || subject.to_owned();
        loop {
            let until = end.min(Instant::now() + Duration::from_secs(3));
            match self.ask(subject, None, payload.clone(), until).await {
                Ok(message) => return Ok(message.payload),
                Err(AskError::Refused(reason)) => return Err(BusError::Refused { what: what(), reason }),
                Err(error) if Instant::now() >= end => {
                    return Err(BusError::Unknown { what: what(), reason: error.to_string() });
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

fn read(jwt: &str) -> Option<Claims> {
    let body = BASE64URL_NOPAD.decode(jwt.trim().split('.').nth(1)?.as_bytes()).ok()?;
    serde_json::from_slice(&body).ok()
}

fn may_replace(present: &Claims, new: &Claims) -> Result<(), String> {
    if present.iss != new.iss {
        return Err(format!("the account in force is signed by {}, this one by {}", present.iss, new.iss));
    }
    if present.iat > new.iat {
        return Err(format!(
            "the account in force was issued at {} s, this one earlier, at {} s",
            present.iat, new.iat
        ));
    }
    Ok(())
}

fn understand(payload: &[u8]) -> Result<(), BusError> {
    let answer: Value = serde_json::from_slice(payload)
        .map_err(|e| BusError::Malformed { what: "answer to account claims".to_owned(), reason: e.to_string() })?;
    if answer["data"]["code"] == 200 {
        return Ok(());
    }
    let reason = answer["error"]["description"].as_str().map_or_else(|| answer.to_string(), str::to_owned);
    Err(BusError::Refused { what: "account claims".to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_the_servers_words() {
        assert!(understand(br#"{"data":{"code":200,"message":"jwt updated"}}"#).is_ok());
        let refused = understand(br#"{"error":{"code":500,"description":"not trusted"}}"#).unwrap_err();
        assert!(refused.to_string().contains("not trusted"));
    }

    #[test]
    fn only_a_later_version_of_the_same_signer_replaces() {
        let claims = |iss: &str, iat| Claims { sub: "A".to_owned(), iss: iss.to_owned(), iat };
        let present = claims("O1", 10);
        for (new, allowed) in
            [(claims("O1", 10), true), (claims("O1", 11), true), (claims("O1", 9), false), (claims("O2", 11), false)]
        {
            assert_eq!(may_replace(&present, &new).is_ok(), allowed, "{new:?}");
        }
        assert!(read("x").is_none() && read("a.b.c").is_none());
    }
}

//! Telling running servers what an account may do from now on.

use bytes::Bytes;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{Bus, BusError, connect::AskError, jetstream::JETSTREAM_WITHIN};

impl Bus {
    /// Gives the servers a new version of an account, on a connection in the system account.
    ///
    /// It takes effect at once: users it revokes lose their connections. Repeating it changes nothing.
    /// Bounds: tried for about 10 s. Errors: `Refused` when the claims are not signed by the operator.
    pub async fn push_account_claims(&self, jwt: &str) -> Result<(), BusError> {
        let what = || "account claims".to_owned();
        let end = Instant::now() + JETSTREAM_WITHIN;
        loop {
            let until = end.min(Instant::now() + std::time::Duration::from_secs(3));
            match self.ask("$SYS.REQ.CLAIMS.UPDATE", None, Bytes::from(jwt.to_owned()), until).await {
                Ok(message) => return understand(&message.payload),
                Err(AskError::Refused(reason)) => return Err(BusError::Refused { what: what(), reason }),
                Err(error) if Instant::now() >= end => {
                    return Err(BusError::Unknown { what: what(), reason: error.to_string() });
                }
                Err(_) => sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    }
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
}

//! HTTP to Splunk: within its time, with answers of bounded size, and without a secret in any message.

use std::time::Duration;

use host::StartError;
use reqwest::{RequestBuilder, redirect::Policy};
use serde_json::Value;
use tls::Tls;
use wire::Problem;

use crate::{
    backend::{refused, unavailable},
    metrics,
};

/// The longest answer that is read; an entry of Splunk has some kilobytes.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Characters of Splunk's own words that are repeated.
const WORDS_MAX: usize = 200;

/// An answer that came.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// `Null` where it is not JSON.
    pub(super) body: Value,
}

impl Reply {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What Splunk says about it, without a secret that the request carried.
    pub(super) fn words(&self, hidden: &str) -> String {
        let texts = self.body["messages"].as_array().into_iter().flatten().filter_map(|m| m["text"].as_str());
        let other = [&self.body["message"], &self.body["text"]].into_iter().filter_map(Value::as_str);
        let words = texts.chain(other).collect::<Vec<_>>().join("; ");
        let words = if hidden.is_empty() { words } else { words.replace(hidden, "***") };
        words.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
    }

    /// Why the request failed. `what` completes "Splunk cannot …".
    pub(super) fn problem(&self, what: &str, hidden: &str) -> Problem {
        let message = format!("Splunk cannot {what}: it answers {} {}", self.status, self.words(hidden));
        match self.status {
            // Our own credentials are the operator's to set right, and no fault of whoever asked.
            401 => unavailable(format_args!("Splunk does not take our credentials; {message}")),
            408 | 409 | 423 | 424 | 425 | 429 => unavailable(message),
            400..500 => refused(message),
            _ => unavailable(message),
        }
    }

    /// The answer if it is a success.
    pub(super) fn good(self, what: &str, hidden: &str) -> Result<Self, Problem> {
        if self.is_success() { Ok(self) } else { Err(self.problem(what, hidden)) }
    }
}

/// The connections.
#[derive(Debug, Clone)]
pub(super) struct Client(reqwest::Client);

impl Client {
    /// Trusts the authorities that are named and no others, or those of the system and the process.
    pub(super) fn open(tls: &Tls, named_only: bool, timeout: Duration) -> Result<Self, StartError> {
        let builder = reqwest::Client::builder().timeout(timeout).redirect(Policy::none()).no_proxy();
        let trust = tls.client().filter(|_| named_only).unwrap_or_else(|| tls.outward());
        Ok(Self(builder.tls_backend_preconfigured((*trust).clone()).build().map_err(StartError::other)?))
    }

    pub(super) fn request(&self, method: reqwest::Method, url: String) -> RequestBuilder {
        self.0.request(method, url)
    }

    pub(super) fn post(&self, url: String) -> RequestBuilder {
        self.request(reqwest::Method::POST, url)
    }

    /// Sends a request. Errors: no answer, or one that is too long; what was asked for may have happened.
    pub(super) async fn send(&self, request: RequestBuilder, what: &str) -> Result<Reply, Problem> {
        let result = exchange(request).await;
        let counted = match &result {
            Ok(reply) if reply.is_success() => "done",
            Ok(reply) if reply.status < 500 => "refused",
            _ => "unavailable",
        };
        metrics::BACKEND_CALLS.with(counted).inc();
        result.map_err(|reason| unavailable(format_args!("Splunk cannot {what}: {reason}")))
    }
}

async fn exchange(request: RequestBuilder) -> Result<Reply, String> {
    let reason = |error: reqwest::Error| match error.is_timeout() {
        true => "it does not answer in time".to_owned(),
        // The URL stands in the settings; a cause may be several errors deep.
        false => {
            let error = error.without_url();
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            format!("{error} {cause}")
        }
    };
    let mut response = request.send().await.map_err(reason)?;
    let status = response.status().as_u16();
    let mut bytes = Vec::new();
    while let Some(part) = response.chunk().await.map_err(reason)? {
        bytes.extend_from_slice(&part);
        if bytes.len() > BODY_BYTES_MAX {
            return Err(format!("its answer is longer than {BODY_BYTES_MAX} bytes"));
        }
    }
    Ok(Reply { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_final_and_everything_else_is_tried_again() {
        for (status, kind) in [
            (400, "BackendRefused"),
            (401, "BackendUnavailable"),
            (402, "BackendRefused"),
            (403, "BackendRefused"),
            (409, "BackendUnavailable"),
            (424, "BackendUnavailable"),
            (429, "BackendUnavailable"),
            (302, "BackendUnavailable"),
            (500, "BackendUnavailable"),
            (503, "BackendUnavailable"),
        ] {
            let reply = Reply { status, body: Value::Null };
            assert_eq!(reply.problem("create it", "").kind, kind, "{status}");
        }
    }

    #[test]
    fn splunk_is_quoted_briefly_and_without_the_secret() {
        let long = "x".repeat(1_000);
        let body = json!({"messages": [{"type": "ERROR", "text": format!("token 123-456 is taken\n{long}")}]});
        let words = Reply { status: 400, body }.words("123-456");
        assert!(words.starts_with("token *** is takenx"), "{words}");
        assert_eq!(words.chars().count(), WORDS_MAX);
        let acs = Reply { status: 400, body: json!({"code": "bad", "message": "no"}) };
        assert_eq!(acs.words(""), "no");
    }
}

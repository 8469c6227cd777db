//! Requests to one endpoint: signed, within a time, repeated where that helps, with answers of bounded size.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, Method, Response, redirect};
use serde::de::DeserializeOwned;
use tls::Tls;
use types::{Clock, Timestamp};

use super::{
    error::{S3Error, passes},
    sigv4::{self, Signer, Unsigned, encoded},
    xml,
};
use crate::metrics;

/// One request, its answer included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts of one request that may be repeated: 0.1 + 0.2 + 0.4 s between them.
const ATTEMPTS_MAX: u32 = 4;
const PAUSE: Duration = Duration::from_millis(100);
/// A page of 1 000 versions whose keys of 1 024 bytes are percent-encoded, twice over.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// The server's clock may be so far away before it, and not the key, is blamed; AWS allows 15 minutes.
const SKEW_MAX: Duration = Duration::from_secs(300);

/// One request to make.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    /// As it is: it is encoded when it is sent.
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    /// Lower-case names.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// Whether the same request may be sent again when no answer came.
    pub(super) repeatable: bool,
    /// The request in words, for people.
    pub(super) what: String,
}

/// A server that understands signature version 4.
#[derive(Clone)]
pub(super) struct Http {
    client: Client,
    /// `https://host:port`, without a path.
    base: String,
    /// The header `host`.
    host: String,
    clock: Arc<dyn Clock>,
}

impl Http {
    /// Errors: an endpoint that is no URL of a server.
    pub(super) fn new(endpoint: &str, tls: &Tls, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let url = reqwest::Url::parse(endpoint).map_err(|error| format!("is no URL: {error}"))?;
        let host = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https") && url.path() == "/");
        let host = host.ok_or("must be https://host, without a path")?;
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let builder = Client::builder().timeout(REQUEST_TIMEOUT).redirect(redirect::Policy::none()).no_proxy();
        let builder = builder.tls_backend_preconfigured((*tls.outward()).clone());
        let client = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { client, base: format!("{}://{host}", url.scheme()), host, clock })
    }

    /// Whether what is said here is said in secret.
    pub(super) fn is_tls(&self) -> bool {
        self.base.starts_with("https")
    }

    /// The endpoint as applications need it.
    pub(super) fn url(&self) -> &str {
        &self.base
    }

    /// Sends, and reads the answer as XML.
    pub(super) async fn read<T: DeserializeOwned>(&self, signer: &Signer, ask: &Ask) -> Result<T, S3Error> {
        let body = self.send(signer, ask).await?;
        xml::read(&body).map_err(|reason| S3Error::Unreadable { what: ask.what.clone(), reason })
    }

    /// Sends until there is an answer that counts; returns its body.
    pub(super) async fn send(&self, signer: &Signer, ask: &Ask) -> Result<Vec<u8>, S3Error> {
        let mut attempt = 1;
        loop {
            match self.once(signer, ask).await {
                Err(S3Error::Unavailable { .. }) if ask.repeatable && attempt < ATTEMPTS_MAX => {
                    tokio::time::sleep(PAUSE * (1 << (attempt - 1))).await;
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    async fn once(&self, signer: &Signer, ask: &Ask) -> Result<Vec<u8>, S3Error> {
        let signed = encoded(&ask.path, true);
        let sent = sigv4::sent(&signed);
        let done = match self.exchange(signer, ask, &signed, &sent).await {
            // Some servers sign the path as it comes.
            Err(error) if sent != signed && error.code() == "SignatureDoesNotMatch" => {
                self.exchange(signer, ask, &sent, &sent).await
            }
            done => done,
        };
        let counted = match &done {
            Ok(_) => "done",
            Err(S3Error::Refused { .. } | S3Error::ClockSkew { .. }) => "refused",
            Err(_) => "unavailable",
        };
        metrics::BACKEND_CALLS.with(counted).inc();
        done
    }

    async fn exchange(&self, signer: &Signer, ask: &Ask, signed: &str, sent: &str) -> Result<Vec<u8>, S3Error> {
        let lost = |reason: String| S3Error::Unavailable { what: ask.what.clone(), reason };
        let now = self.clock.now();
        let mut headers: Vec<(String, String)> =
            ask.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        headers.push(("host".to_owned(), self.host.clone()));
        headers.push(("x-amz-content-sha256".to_owned(), sigv4::sha256(&ask.body)));
        headers.push(("x-amz-date".to_owned(), sigv4::instant(now)));
        headers.sort();
        let method = ask.method.as_str();
        let unsigned = Unsigned { method, path: signed, query: &ask.query, headers: &headers, body: &ask.body };
        let authorization = signer.authorization(&unsigned, now);
        let query = match sigv4::query(&ask.query) {
            query if query.is_empty() => query,
            query => format!("?{query}"),
        };
        let mut request = self.client.request(ask.method.clone(), format!("{}{sent}{query}", self.base));
        // The client writes the host by itself, and the same one.
        for (name, value) in headers.iter().filter(|(name, _)| name != "host") {
            request = request.header(name, value);
        }
        let sent = request.header("authorization", authorization).body(ask.body.clone()).send().await;
        let mut response = sent.map_err(|error| lost(reason(&error)))?;
        let body = whole(&mut response).await.map_err(lost)?;
        let status = response.status();
        if status.is_success() {
            return Ok(body);
        }
        let refusal = xml::refusal(&body).unwrap_or_else(|| (status.to_string(), String::new()));
        Err(self.refused(ask, status.as_u16(), refusal, server_time(&response), now))
    }

    fn refused(
        &self,
        ask: &Ask,
        status: u16,
        (code, message): (String, String),
        theirs: Option<Timestamp>,
        ours: Timestamp,
    ) -> S3Error {
        let what = ask.what.clone();
        let apart = theirs.map(|theirs| theirs.since(ours).max(ours.since(theirs)));
        match apart {
            Some(apart) if status == 403 && (apart > SKEW_MAX || code == "RequestTimeTooSkewed") => {
                S3Error::ClockSkew { what, apart }
            }
            _ if passes(status, &code) => S3Error::Unavailable { what, reason: format!("{status} {code} {message}") },
            _ => S3Error::refused(&what, status, code, &message),
        }
    }
}

/// The innermost reason: the outer ones only say that something could not be sent.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("nothing came within {REQUEST_TIMEOUT:?}");
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

async fn whole(response: &mut Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| reason(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("an answer has more than {ANSWER_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What the server takes for the time.
fn server_time(response: &Response) -> Option<Timestamp> {
    let text = response.headers().get("date")?.to_str().ok()?;
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Timestamp::from_nanos(i64::try_from(at.as_nanosecond()).ok()?))
}

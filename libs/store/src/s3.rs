//! S3 and what speaks its protocol.

use std::{fmt, sync::Arc, time::Duration};

use object_store::{
    ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut},
    client::{HttpClient, HttpConnector},
};
use rustls::ClientConfig;

use crate::StoreError;

/// One request, its answer included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// One connection, the handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Repeats of one request by the client itself.
const RETRIES_MAX: usize = 5;
/// All repeats of one request together.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// How to reach an S3 bucket; nothing is read from the environment behind the caller's back.
#[derive(Clone, Default)]
pub struct S3Options {
    /// URL of the server; `None` is AWS itself.
    pub endpoint: Option<String>,
    /// Region, for example `eu-central-1`.
    pub region: String,
    /// Access key id.
    pub key_id: String,
    /// Secret access key.
    pub secret: String,
    /// Session token of temporary credentials.
    pub token: Option<String>,
    /// Whether plain HTTP is allowed; for servers inside a trusted network only.
    pub allow_http: bool,
    /// Whom to believe behind `https://`; `None` believes the authorities of the system.
    pub tls: Option<Arc<ClientConfig>>,
}

/// Makes clients that believe whom a configuration believes at the moment.
#[derive(Debug)]
struct Trusting {
    tls: Arc<ClientConfig>,
    allow_http: bool,
}

impl HttpConnector for Trusting {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let failed = |error| object_store::Error::Generic { store: "S3", source: Box::new(error) };
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(ClientConfig::clone(&self.tls))
            .https_only(!self.allow_http)
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .http1_only();
        Ok(HttpClient::new(builder.build().map_err(failed)?))
    }
}

impl S3Options {
    /// Options by the usual names (`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, ...), looked up with `find`.
    pub fn from_names(find: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| find(name)).filter(|value| !value.is_empty());
        Self {
            endpoint: first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]),
            region: first(&["AWS_REGION", "AWS_DEFAULT_REGION"]).unwrap_or_else(|| "us-east-1".to_owned()),
            key_id: first(&["AWS_ACCESS_KEY_ID"]).unwrap_or_default(),
            secret: first(&["AWS_SECRET_ACCESS_KEY"]).unwrap_or_default(),
            token: first(&["AWS_SESSION_TOKEN"]),
            allow_http: first(&["AWS_ALLOW_HTTP"]).is_some_and(|value| value == "true" || value == "1"),
            tls: None,
        }
    }

    pub(crate) fn client(&self, url: &str, bucket: &str) -> Result<AmazonS3, StoreError> {
        let complain = |what: String| StoreError::Options { url: url.to_owned(), what };
        if self.key_id.is_empty() || self.secret.is_empty() {
            return Err(complain("key id or secret is missing".to_owned()));
        }
        // The client panics without one; if the process has chosen already, its choice stays.
        drop(rustls::crypto::ring::default_provider().install_default());
        let retry = RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        let client = ClientOptions::new()
            .with_timeout(REQUEST_TIMEOUT)
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_allow_http(self.allow_http);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&self.region)
            .with_access_key_id(&self.key_id)
            .with_secret_access_key(&self.secret)
            .with_client_options(client)
            .with_retry(retry)
            .with_conditional_put(S3ConditionalPut::ETagMatch);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(token) = &self.token {
            builder = builder.with_token(token);
        }
        if let Some(tls) = &self.tls {
            builder = builder.with_http_connector(Trusting { tls: Arc::clone(tls), allow_http: self.allow_http });
        }
        builder.build().map_err(|error| complain(error.to_string()))
    }
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("allow_http", &self.allow_http)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_by_their_usual_names_and_show_no_secret() {
        let options = S3Options::from_names(|name| match name {
            "AWS_ENDPOINT_URL" => Some("http://127.0.0.1:9000".into()),
            "AWS_ACCESS_KEY_ID" => Some("key".into()),
            "AWS_SECRET_ACCESS_KEY" => Some("hunter2".into()),
            "AWS_ALLOW_HTTP" => Some("true".into()),
            _ => None,
        });
        assert_eq!(options.region, "us-east-1");
        assert!(options.allow_http && options.token.is_none());
        assert!(!format!("{options:?}").contains("hunter2"));
        assert!(options.client("s3://b", "b").is_ok());
    }

    #[test]
    fn missing_credentials_say_what_to_set() {
        let error = S3Options::default().client("s3://b/p", "b").unwrap_err().to_string();
        assert!(error.contains("AWS_ACCESS_KEY_ID") && error.contains("s3://b/p"), "{error}");
    }
}

//! The provisioner's section of the settings; meaning, unit and bounds stand in `default.toml`.

use std::time::Duration;

use serde::Deserialize;
use settings::{Findings, Secret, Section};
use types::DurationText;

/// `[index_provisioner]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the probes; empty is off.
    pub probe_address: String,
    /// Seed of the NATS operator, which signs account changes.
    pub operator_seed: Secret,
    /// Seed of the tenants account, which signs user credentials.
    pub account_seed: Secret,
    /// Credentials of the NATS system account.
    pub system_creds: Secret,
    /// Key from which user keys and tokens are derived.
    pub binding_secret: Secret,
    /// Keys that seal what cannot be derived; the first seals, all open.
    pub sealing_keys: Secret,
    /// Segments of a new index when nobody names a number.
    pub default_segments: u16,
    /// The back-end `splunk`; off without a URL.
    pub splunk: SplunkConfig,
    /// The back-end `s3`; off without a region.
    pub s3: S3Config,
}

/// `[index_provisioner.splunk]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplunkConfig {
    /// Base URL of the management interface; empty is off.
    pub url: String,
    /// Base URL of the HTTP Event Collector.
    pub hec_url: String,
    /// Base URL of the Admin Config Service of a stack; empty for Splunk Enterprise.
    pub acs_url: String,
    /// User of the management interface.
    pub username: String,
    /// That user's password.
    pub password: Secret,
    /// Token of the management interface and of the Admin Config Service.
    pub token: Secret,
    /// App in which indexes are made.
    pub app: String,
    /// File of the authorities that are trusted.
    pub ca: String,
    /// Longest time of one request.
    pub timeout: DurationText,
}

/// `[index_provisioner.s3]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// URL of the server; empty is AWS.
    pub endpoint: String,
    /// URL of IAM; empty is AWS's own, or the server's.
    pub iam_endpoint: String,
    /// Region of the buckets; empty is off.
    pub region: String,
    /// What the name of every bucket begins with.
    pub bucket_prefix: String,
    /// Whether the server has IAM.
    pub iam: bool,
    /// The path of every user.
    pub iam_path: String,
    /// Our access key.
    pub access_key_id: Secret,
    /// Its secret.
    pub access_secret: Secret,
    /// File of the authorities that are trusted besides the system's.
    pub ca: String,
}

impl Section for Config {
    const NAME: &'static str = "index_provisioner";

    fn validate(&self, found: &mut Findings) {
        let fits = self.default_segments.is_power_of_two() && self.default_segments <= 64;
        found.require(fits, "default_segments", "must be a power of two from 1 to 64");
        self.splunk.validate(found);
        let path = self.s3.iam_path.starts_with('/') && self.s3.iam_path.ends_with('/');
        found.require(path, "s3.iam_path", "must begin and end with a slash");
        for (key, url) in [("s3.endpoint", &self.s3.endpoint), ("s3.iam_endpoint", &self.s3.iam_endpoint)] {
            found.require(url.is_empty() || is_http(url), key, "must begin with http:// or https://, or be empty");
        }
        let prefix = &self.s3.bucket_prefix;
        let plain = prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let prefix = plain && !prefix.starts_with('-') && (1..=40).contains(&prefix.len());
        found.require(prefix, "s3.bucket_prefix", "must be 1 to 40 of a-z 0-9 -, beginning with a letter or digit");
        let keyed = self.s3.region.is_empty() || self.sealing_keys.reference().is_some();
        found.require(keyed, "sealing_keys", "is needed by the back-end s3, whose secrets cannot be derived");
    }
}

impl SplunkConfig {
    fn validate(&self, found: &mut Findings) {
        for (key, url) in
            [("splunk.url", &self.url), ("splunk.hec_url", &self.hec_url), ("splunk.acs_url", &self.acs_url)]
        {
            found.require(url.is_empty() || is_http(url), key, "must begin with http:// or https://, or be empty");
        }
        if self.url.is_empty() {
            return;
        }
        found.require(!self.hec_url.is_empty(), "splunk.hec_url", "is needed too: events are taken there");
        let (token, password) = (self.token.reference().is_some(), self.password.reference().is_some());
        let one = token || (password && !self.username.is_empty());
        found.require(one, "splunk.token", "set it, or splunk.username and splunk.password");
        let cloud = self.acs_url.is_empty() || token;
        found.require(cloud, "splunk.token", "is needed by the Admin Config Service");
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        let app = !self.app.is_empty() && self.app.bytes().all(plain);
        found.require(app, "splunk.app", "must be the name of an app: letters, digits, _ and -");
        let fits = (Duration::from_millis(100)..=Duration::from_secs(20)).contains(&self.timeout.0);
        found.require(fits, "splunk.timeout", "must be from 100ms to 20s");
    }
}

fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

//! Where the server is and what we are there.

use std::{fs, sync::Arc};

use host::{Host, StartError};
use settings::Secret;
use tls::Tls;
use types::Clock;
use wire::{index_provisioner::IndexDescription, views::ArchivePlace};

use super::{S3, buckets::Buckets, http::Http, policy, sigv4::Signer, users::Users};
use crate::{config::S3Config, sealed::Sealed};

/// IAM is one for all regions, and its requests are signed for this one.
const IAM_REGION: &str = "us-east-1";

/// URL of the server.
fn endpoint(config: &S3Config) -> String {
    match config.region.as_str() {
        _ if !config.endpoint.is_empty() => config.endpoint.clone(),
        region if region.starts_with("cn-") => format!("https://s3.{region}.amazonaws.com.cn"),
        region => format!("https://s3.{region}.amazonaws.com"),
    }
}

/// Where the bucket is into which an index is archived, if it is: one of its own scope.
pub(crate) fn place(config: &S3Config, index: &IndexDescription) -> Result<Option<ArchivePlace>, String> {
    let Some(archive) = &index.options.archive_to else { return Ok(None) };
    let bucket = policy::bucket(&config.bucket_prefix, archive)?;
    let (endpoint, region, scope) = (endpoint(config), config.region.clone(), Some(index.scope.clone()));
    Ok(Some(ArchivePlace { bucket, endpoint, region, scope }))
}

impl S3 {
    /// The back-end of the settings. Errors: what is wrong with which setting.
    pub(crate) fn open(config: &S3Config, host: &Host, sealed: Sealed) -> Result<Self, StartError> {
        let wrong = |key: &str, reason: &dyn std::fmt::Display| {
            StartError::other(format_args!("index_provisioner.s3.{key} {reason}"))
        };
        let required = |key: &str, secret: &Secret| {
            let text = host.secret(secret)?.filter(|text| !text.is_empty());
            text.ok_or_else(|| wrong(key, &"is not set; it is needed by the back-end s3"))
        };
        let ca = match config.ca.as_str() {
            "" => None,
            path => Some(fs::read_to_string(path).map_err(|error| wrong("ca", &format_args!("{path}: {error}")))?),
        };
        let key =
            (required("access_key_id", &config.access_key_id)?, required("access_secret", &config.access_secret)?);
        let tls = host.trusting("index_provisioner.s3.ca", &config.ca)?;
        Self::new(config, key, (ca, &tls), sealed, host.clock.clone()).map_err(StartError::other)
    }

    fn new(
        config: &S3Config,
        (key_id, secret): (String, String),
        (ca, tls): (Option<String>, &Tls),
        sealed: Sealed,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let aws = config.endpoint.is_empty();
        let endpoint = endpoint(config);
        let iam = match config.iam_endpoint.as_str() {
            "" if aws => "https://iam.amazonaws.com",
            "" => endpoint.as_str(),
            url => url,
        };
        let http = |key: &str, url: &str| {
            let made = Http::new(url, tls, clock.clone());
            made.map_err(|reason| format!("index_provisioner.s3.{key} {url:?} {reason}"))
        };
        let signer = Signer { key_id, secret, region: config.region.clone(), service: "s3" };
        let users = match config.iam {
            false => None,
            true => Some(Users {
                http: http("iam_endpoint", iam)?,
                signer: Signer { region: IAM_REGION.to_owned(), service: "iam", ..signer.clone() },
                path: config.iam_path.clone(),
            }),
        };
        let buckets = Buckets { http: http("endpoint", &endpoint)?, signer };
        Ok(Self { buckets, users, prefix: config.bucket_prefix.clone(), ca, sealed })
    }
}

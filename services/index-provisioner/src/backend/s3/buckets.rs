//! The calls of S3 that buckets need, path-style.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use md5::{Digest, Md5};
use reqwest::Method;

use super::{
    error::S3Error,
    http::{Ask, Http},
    sigv4::Signer,
    xml::{self, Deleted, Tagging, Upload, Uploads, Version, Versions},
};

/// Versions of one page and of one deletion: what S3 takes at once.
pub(super) const PAGE: usize = 1_000;

/// Who owns a bucket that was to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// This account: it is new, or was there.
    Here,
    /// Another account: names of buckets are unique in the world.
    Elsewhere,
}

/// Buckets of one account.
#[derive(Clone)]
pub(super) struct Buckets {
    pub(super) http: Http,
    pub(super) signer: Signer,
}

impl Buckets {
    /// Creates a bucket; one that is there already in this account is as good.
    pub(super) async fn create(&self, bucket: &str) -> Result<Made, S3Error> {
        let body = xml::location(&self.signer.region);
        let ask = ask(Method::PUT, bucket, &[], body.into_bytes(), "create");
        match self.http.send(&self.signer, &ask).await {
            Ok(_) => Ok(Made::Here),
            Err(error) if error.code() == "BucketAlreadyOwnedByYou" => Ok(Made::Here),
            Err(error) if error.code() == "BucketAlreadyExists" => Ok(Made::Elsewhere),
            Err(error) => Err(error),
        }
    }

    /// Sets one of the bucket's configurations.
    pub(super) async fn put(&self, bucket: &str, what: &'static str, body: String) -> Result<(), S3Error> {
        let ask = ask(Method::PUT, bucket, &[(what, "")], body.into_bytes(), &format!("set the {what} of"));
        self.http.send(&self.signer, &ask).await.map(drop)
    }

    /// Takes all tags away.
    pub(super) async fn untag(&self, bucket: &str) -> Result<(), S3Error> {
        let ask = ask(Method::DELETE, bucket, &[("tagging", "")], Vec::new(), "take the tags from");
        self.http.send(&self.signer, &ask).await.map(drop)
    }

    /// The bucket's tags; `None` if there is no such bucket. One without tags has an empty set.
    pub(super) async fn tags(&self, bucket: &str) -> Result<Option<BTreeMap<String, String>>, S3Error> {
        let ask = ask(Method::GET, bucket, &[("tagging", "")], Vec::new(), "read the tags of");
        match self.http.read::<Tagging>(&self.signer, &ask).await {
            Ok(tags) => Ok(Some(tags.into())),
            Err(error) if error.code() == "NoSuchTagSet" => Ok(Some(BTreeMap::new())),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The first versions and deletion marks of the bucket, at most `count`.
    pub(super) async fn versions(&self, bucket: &str, count: usize) -> Result<Vec<Version>, S3Error> {
        let count = count.to_string();
        let query = [("versions", ""), ("encoding-type", "url"), ("max-keys", &count)];
        let ask = ask(Method::GET, bucket, &query, Vec::new(), "list");
        self.http.read::<Versions>(&self.signer, &ask).await.map(Versions::all)
    }

    /// Deletes versions, at most [`PAGE`]; returns how many it refused, and why it refused the first.
    pub(super) async fn delete_versions(
        &self,
        bucket: &str,
        versions: &[Version],
    ) -> Result<Option<(usize, String)>, S3Error> {
        let (sayable, others): (Vec<Version>, Vec<Version>) =
            versions.iter().cloned().partition(|version| xml::can_say(&version.key));
        let mut refused = Vec::new();
        for one in &others {
            let query = [("versionId", one.version_id.as_str())];
            let query = if one.version_id.is_empty() { &query[..0] } else { &query[..] };
            refused.extend(self.of_object(bucket, &one.key, query, "delete an object of").await?);
        }
        if sayable.is_empty() {
            return Ok(refused.first().map(|code| (refused.len(), code.clone())));
        }
        let ask = ask(Method::POST, bucket, &[("delete", "")], xml::delete(&sayable).into_bytes(), "delete objects of");
        let deleted: Deleted = self.http.read(&self.signer, &ask).await?;
        refused.extend(deleted.errors.into_iter().map(|error| error.code));
        Ok(refused.first().map(|code| (refused.len(), code.clone())))
    }

    /// The first uploads that nobody ended.
    pub(super) async fn uploads(&self, bucket: &str) -> Result<Vec<Upload>, S3Error> {
        let ask = ask(Method::GET, bucket, &[("uploads", ""), ("encoding-type", "url")], Vec::new(), "list uploads of");
        self.http.read::<Uploads>(&self.signer, &ask).await.map(Uploads::all)
    }

    /// Ends an upload for nothing; answers why the server refuses that, if it does.
    pub(super) async fn abort(&self, bucket: &str, upload: &Upload) -> Result<Option<String>, S3Error> {
        let query = [("uploadId", upload.upload_id.as_str())];
        self.of_object(bucket, &upload.key, &query, "abort an upload to").await
    }

    /// Asks for one object's end. A refusal is of this object only: others may go.
    async fn of_object(
        &self,
        bucket: &str,
        key: &str,
        query: &[(&str, &str)],
        what: &'static str,
    ) -> Result<Option<String>, S3Error> {
        let mut ask = ask(Method::DELETE, bucket, query, Vec::new(), what);
        ask.path = format!("/{bucket}/{key}");
        match self.http.send(&self.signer, &ask).await {
            Err(error) if error.is_absent() => Ok(None),
            Err(error) if error.is_of_request() => Ok(Some(error.code().to_owned())),
            done => done.map(|_| None),
        }
    }

    /// Deletes a bucket; `false` if it holds anything. One that is not there is deleted already.
    pub(super) async fn delete(&self, bucket: &str) -> Result<bool, S3Error> {
        let ask = ask(Method::DELETE, bucket, &[], Vec::new(), "delete");
        match self.http.send(&self.signer, &ask).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_absent() => Ok(true),
            Err(error) if error.code() == "BucketNotEmpty" => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a key may ask where a bucket is, which every key that we issue may.
    pub(super) async fn lets_in(&self, bucket: &str, key: &Signer) -> Result<bool, S3Error> {
        let ask = ask(Method::GET, bucket, &[("location", "")], Vec::new(), "try a key on");
        match self.http.send(key, &ask).await {
            Ok(_) => Ok(true),
            Err(S3Error::Refused { status: 401 | 403, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn ask(method: Method, bucket: &str, query: &[(&str, &str)], body: Vec<u8>, what: &str) -> Ask {
    let mut headers = Vec::new();
    if !body.is_empty() {
        // Some configurations want a checksum, and this is the one that every server knows.
        headers.push(("content-md5", BASE64.encode(&Md5::digest(&body))));
        headers.push(("content-type", "application/xml".to_owned()));
    }
    Ask {
        method,
        path: format!("/{bucket}"),
        query: query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        headers,
        body,
        repeatable: true,
        what: format!("{what} bucket {bucket}"),
    }
}

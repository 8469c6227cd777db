//! Buckets on S3 or what speaks its protocol, and users of IAM whose keys reach one bucket each.
//!
//! A bucket is called after its index and bears the tag [`MARK`] with its service instance. What bears no such tag is touched only if
//! it is empty, as an attempt that was cut off leaves it, or if the index is to adopt it.

mod buckets;
mod config;
mod error;
mod http;
mod keys;
mod policy;
mod sigv4;
mod users;
mod xml;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use tokio::time::timeout;
use wire::{
    Problem,
    coordinator::ScalingPolicy,
    index_provisioner::{IndexDescription, Reclaim},
    views::Quota,
};

pub(crate) use self::config::place;
use self::{
    buckets::{Buckets, Made},
    error::S3Error,
    users::Users,
};
use crate::{
    backend::{Backend, Found, foreign, refused, unavailable, unfinished},
    sealed::Sealed,
    state::Binding,
};

/// The name of this back-end.
pub(crate) const NAME: &str = "s3";
/// The tag that says whose a bucket is.
const MARK: &str = "osb-instance";
/// The tag that says for which scope a bucket was made: nobody of another scope adopts it.
const SCOPE: &str = "osb-scope";
/// The tag that says whose a bucket was, whose objects outlived their instance.
const RETAINED: &str = "osb-retained";
/// How long one call empties a bucket before it answers that there is more to do: less than a step may take, with room for what
/// comes before.
const EMPTYING_MAX: Duration = Duration::from_secs(15);
/// Bindings that are revoked in one step: four requests for each, and at most 12.7 s until all their keys are closed.
const REVOKED_AT_ONCE: usize = 8;
/// Configurations that a server may not have; S3 itself has them all.
const DISPENSABLE: [&str; 2] = ["publicAccessBlock", "encryption"];

/// The back-end `s3`.
#[derive(Clone)]
pub(crate) struct S3 {
    buckets: Buckets,
    /// `None` where the server has no IAM.
    users: Option<Users>,
    prefix: String,
    /// The certificates that applications must trust too.
    ca: Option<String>,
    sealed: Sealed,
}

/// Whose a bucket is, with the tags that it has.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Absent,
    Ours(BTreeMap<String, String>),
    Unowned(BTreeMap<String, String>),
    /// Another service instance's, or another scope's.
    Foreign,
    /// Another account's, or our key may not look.
    Closed,
}

fn standing(tags: Option<BTreeMap<String, String>>, index: &IndexDescription) -> Standing {
    let Some(tags) = tags else { return Standing::Absent };
    let differs = |tag: &str, ours: &str| tags.get(tag).is_some_and(|theirs| theirs != ours);
    match tags.contains_key(MARK) {
        _ if differs(MARK, index.instance.as_str()) || differs(SCOPE, index.scope.as_str()) => Standing::Foreign,
        true => Standing::Ours(tags),
        false => Standing::Unowned(tags),
    }
}

/// Whether a bucket without a mark may be one that was made and not marked yet, if nothing is in it.
fn is_begun(tags: &BTreeMap<String, String>, index: &IndexDescription) -> bool {
    tags.is_empty() && !index.options.adopt
}

impl S3 {
    fn bucket(&self, index: &IndexDescription) -> Result<String, Problem> {
        policy::bucket(&self.prefix, &index.index).map_err(refused)
    }

    async fn standing(&self, bucket: &str, index: &IndexDescription) -> Result<Standing, Problem> {
        match self.buckets.tags(bucket).await {
            Ok(tags) => Ok(standing(tags, index)),
            Err(error) if error.code() == "AccessDenied" => Ok(Standing::Closed),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes sure that there is a bucket which may become this index; returns the tags that it has.
    async fn claim(&self, bucket: &str, index: &IndexDescription) -> Result<BTreeMap<String, String>, Problem> {
        let elsewhere = || foreign(format_args!("bucket {bucket} belongs to another account, or our key may not look"));
        match self.standing(bucket, index).await? {
            Standing::Ours(tags) => Ok(tags),
            Standing::Foreign => {
                Err(foreign(format_args!("bucket {bucket} belongs to somebody else; choose another name")))
            }
            Standing::Closed => Err(elsewhere()),
            Standing::Unowned(tags) if index.options.adopt => Ok(tags),
            Standing::Unowned(tags) if is_begun(&tags, index) && self.is_empty(bucket).await? => Ok(tags),
            Standing::Unowned(_) => Err(foreign(format_args!(
                "bucket {bucket} is there already and bears no tag {MARK}; choose another name, or set adopt_existing"
            ))),
            Standing::Absent => match self.buckets.create(bucket).await? {
                Made::Here => Ok(BTreeMap::new()),
                Made::Elsewhere => Err(elsewhere()),
            },
        }
    }

    /// Gives the bucket its mark and everything else that it is to have.
    async fn shape(
        &self,
        bucket: &str,
        index: &IndexDescription,
        mut tags: BTreeMap<String, String>,
    ) -> Result<(), S3Error> {
        tags.remove(RETAINED);
        tags.insert(MARK.to_owned(), index.instance.to_string());
        tags.insert(SCOPE.to_owned(), index.scope.to_string());
        let mut steps = vec![
            ("tagging", xml::tagging(&tags)),
            ("publicAccessBlock", xml::public_access_block()),
            ("encryption", xml::encryption()),
        ];
        // Over plain HTTP it would lock everybody out, us too.
        if self.buckets.http.is_tls() {
            steps.push(("policy", policy::of_bucket(&self.buckets.signer.region, bucket)));
        }
        // Last: of an adoption that fails before, no rule stays that deletes somebody's objects.
        steps.push(("lifecycle", xml::lifecycle(index.retention_days)));
        for (what, body) in steps {
            match self.buckets.put(bucket, what, body).await {
                Err(error) if error.code() == "NotImplemented" && DISPENSABLE.contains(&what) => {
                    tracing::warn!(bucket, configuration = what, "server does not have this configuration");
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// Takes back what was begun of an index that can never be created. No object is deleted.
    async fn undo(&self, bucket: &str, index: &IndexDescription) -> Result<(), Problem> {
        match self.standing(bucket, index).await? {
            Standing::Unowned(tags) if is_begun(&tags, index) => self.buckets.delete(bucket).await.map(drop)?,
            Standing::Ours(tags) if index.options.adopt || !self.buckets.delete(bucket).await? => {
                self.release(bucket, tags, None).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes the mark from a bucket, so that it belongs to nobody; `was` is whose it was.
    async fn release(
        &self,
        bucket: &str,
        mut tags: BTreeMap<String, String>,
        was: Option<&str>,
    ) -> Result<(), Problem> {
        tags.remove(MARK);
        match was {
            // Its scope stays with it.
            Some(was) => drop(tags.insert(RETAINED.to_owned(), was.to_owned())),
            None => drop(tags.remove(SCOPE)),
        }
        if tags.is_empty() {
            self.buckets.untag(bucket).await?;
        } else {
            self.buckets.put(bucket, "tagging", xml::tagging(&tags)).await?;
        }
        Ok(())
    }

    async fn is_empty(&self, bucket: &str) -> Result<bool, S3Error> {
        match self.buckets.versions(bucket, 1).await {
            Ok(found) => Ok(found.is_empty()),
            Err(error) if error.is_absent() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Deletes everything in a bucket and the bucket itself. Wherever it is cut off, the next call goes on from there.
    async fn empty(&self, bucket: &str) -> Result<(), Problem> {
        while !self.buckets.delete(bucket).await? {
            let uploads = self.buckets.uploads(bucket).await?;
            let mut refused = Vec::new();
            for upload in &uploads {
                refused.extend(self.buckets.abort(bucket, upload).await?);
            }
            let versions = self.buckets.versions(bucket, buckets::PAGE).await?;
            if uploads.is_empty() && versions.is_empty() {
                return Err(unfinished(format_args!("bucket {bucket} shows nothing and says that it is not empty")));
            }
            let stays = self.buckets.delete_versions(bucket, &versions).await?;
            let (count, code) = stays.unwrap_or_else(|| (0, refused.first().cloned().unwrap_or_default()));
            if count == versions.len() && refused.len() == uploads.len() {
                return Err(unavailable(format_args!("bucket {bucket} lets no object be deleted: {code}")));
            }
            tracing::info!(bucket, versions = versions.len(), uploads = uploads.len(), "bucket is being emptied");
        }
        Ok(())
    }
}

#[async_trait]
impl Backend for S3 {
    fn check(&self, _before: Option<&IndexDescription>, index: &IndexDescription) -> Result<(), Problem> {
        self.bucket(index)?;
        if index.retention_days == Some(0) {
            return Err(refused("a bucket keeps objects for at least 1 day"));
        }
        if index.options.bytes_max.is_some() {
            return Err(refused("a bucket cannot bound its bytes: leave max_bytes out"));
        }
        if index.options.scaling != ScalingPolicy::Fixed || index.options.quota != Quota::default() {
            return Err(refused("a bucket neither scales nor holds a quota: leave both out"));
        }
        match index.options.backend.keys().next() {
            Some(name) => Err(refused(format_args!("the back-end s3 has no option {name:?}"))),
            None => Ok(()),
        }
    }

    async fn create(&self, index: &IndexDescription) -> Result<(), Problem> {
        let bucket = self.bucket(index)?;
        let tags = self.claim(&bucket, index).await?;
        let Err(error) = self.shape(&bucket, index, tags).await else { return Ok(()) };
        let problem = Problem::from(error);
        if !problem.is_transient()
            && let Err(left) = self.undo(&bucket, index).await
        {
            if left.is_transient() {
                return Err(left);
            }
            tracing::warn!(bucket, problem = %left, "bucket of an index that cannot be created stays behind");
        }
        Err(problem)
    }

    async fn update(&self, index: &IndexDescription) -> Result<(), Problem> {
        let bucket = self.bucket(index)?;
        match self.standing(&bucket, index).await? {
            // Of what a plan may change, the bucket knows the retention only.
            Standing::Ours(_) => {
                Ok(self.buckets.put(&bucket, "lifecycle", xml::lifecycle(index.retention_days)).await?)
            }
            Standing::Absent => Err(refused(format_args!("bucket {bucket} is gone"))),
            _ => Err(foreign(format_args!("bucket {bucket} bears no tag {MARK} with {} any more", index.instance))),
        }
    }

    async fn delete(&self, index: &IndexDescription) -> Result<(), Problem> {
        let bucket = self.bucket(index)?;
        let tags = match self.standing(&bucket, index).await? {
            Standing::Absent => return Ok(()),
            Standing::Foreign => {
                tracing::warn!(bucket, "bucket of somebody else is left alone");
                return Ok(());
            }
            Standing::Closed => return Err(unavailable(format_args!("our key may not look at bucket {bucket}"))),
            // Made and not marked, or never ours: it goes if nothing is in it.
            Standing::Unowned(tags) => {
                if is_begun(&tags, index) {
                    self.buckets.delete(&bucket).await?;
                }
                return Ok(());
            }
            Standing::Ours(tags) => tags,
        };
        match index.options.reclaim {
            Reclaim::Retain => self.release(&bucket, tags, Some(index.instance.as_str())).await,
            Reclaim::Fail if !self.buckets.delete(&bucket).await? => Err(Problem::conflict(
                "NotEmpty",
                format_args!("bucket {bucket} holds objects or versions of them; empty it first"),
            )),
            Reclaim::Fail => Ok(()),
            Reclaim::Delete => timeout(EMPTYING_MAX, self.empty(&bucket))
                .await
                .unwrap_or_else(|_| Err(unfinished(format_args!("bucket {bucket} is being emptied")))),
        }
    }

    async fn describe(&self, index: &IndexDescription) -> Result<Found, Problem> {
        let bucket = self.bucket(index)?;
        Ok(match self.standing(&bucket, index).await? {
            Standing::Absent => Found::Absent,
            Standing::Ours(_) => Found::Ours,
            // Made by an attempt that was cut off before it could mark it.
            Standing::Unowned(tags) if is_begun(&tags, index) && self.is_empty(&bucket).await? => Found::Ours,
            Standing::Unowned(_) => Found::Unowned,
            Standing::Foreign | Standing::Closed => Found::Foreign,
        })
    }

    async fn holds_events(&self, index: &IndexDescription) -> Result<bool, Problem> {
        let bucket = self.bucket(index)?;
        match self.standing(&bucket, index).await? {
            Standing::Ours(_) => Ok(!self.is_empty(&bucket).await?),
            _ => Ok(false),
        }
    }

    async fn issue(&self, index: &IndexDescription, binding: &Binding) -> Result<BTreeMap<String, String>, Problem> {
        self.issue_key(index, binding).await
    }

    fn revoked_at_once(&self) -> usize {
        REVOKED_AT_ONCE
    }

    async fn revoke(&self, index: &IndexDescription, bindings: &[Binding]) -> Result<(), Problem> {
        self.revoke_keys(index, bindings).await
    }
}

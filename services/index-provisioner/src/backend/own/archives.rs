//! Where indexes are archived, as segment-stores are told: a bucket, and no credentials.

use wire::{Problem, encode, index_provisioner::IndexDescription, views::ArchivePlace};

use super::view::{View, Wanted, is_ending, is_wanted, own_indexes};
use crate::{
    ProvisionerError,
    backend::{s3, unavailable},
    config::S3Config,
    state::State,
};

/// The view of archives. What it names was there when the index was described, and cannot be deleted while an index names it.
#[derive(Clone)]
pub(crate) struct Archives {
    pub(crate) view: View,
    pub(crate) s3: S3Config,
}

impl Archives {
    /// Tells where an index is archived, or that it is not.
    pub(super) async fn show(&self, index: &IndexDescription) -> Result<(), Problem> {
        let place = self.place(index)?.map(|place| encode(&place));
        self.view.show(index.index.as_str(), place.as_deref(), is_wanted(index)).await
    }

    /// Nothing of an index that ends is archived any more.
    pub(super) async fn hide(&self, index: &IndexDescription) -> Result<(), Problem> {
        self.view.show(index.index.as_str(), None, is_ending(&index.instance)).await
    }

    /// Makes the view equal to the truth; of unsettled indexes it is left as it is.
    pub(super) async fn rewrite(&self) -> Result<(), Problem> {
        let wanted = |state: &State| {
            let (live, unsettled) = own_indexes(state);
            let left_alone = unsettled.iter().map(ToString::to_string).collect();
            let mut wanted = Wanted { left_alone, ..Wanted::default() };
            for index in &live {
                match self.place(index) {
                    Ok(Some(place)) => drop(wanted.entries.insert(index.index.to_string(), encode(&place))),
                    Ok(None) => {}
                    // The back-end was taken out of the settings: that must not keep everything else from being served.
                    Err(problem) => tracing::warn!(index = %index.index, %problem, "index is not archived"),
                }
            }
            wanted
        };
        self.view.rewrite(wanted).await
    }

    fn place(&self, index: &IndexDescription) -> Result<Option<ArchivePlace>, Problem> {
        // What was begun waits for the back-end: a person may take it out of the settings at any time.
        check(&self.s3, index).map_err(unavailable)?;
        s3::place(&self.s3, index).map_err(Problem::internal)
    }
}

/// Whether there can be a bucket into which the index is archived: what is not begun yet is refused for good without one.
pub(super) fn check(s3: &S3Config, index: &IndexDescription) -> Result<(), ProvisionerError> {
    match &index.options.archive_to {
        Some(archive) if s3.region.is_empty() => Err(ProvisionerError::NoArchives(archive.clone())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use types::Timestamp;
    use wire::{Code, index_provisioner::IndexOptions};

    use super::*;
    use crate::state::OWN;

    fn index(archive: Option<&str>) -> IndexDescription {
        IndexDescription {
            instance: "i".parse().unwrap(),
            scope: "team".parse().unwrap(),
            index: "shop".parse().unwrap(),
            backend: OWN.into(),
            segment_count: 1,
            retention_days: None,
            options: IndexOptions { archive_to: archive.map(|name| name.parse().unwrap()), ..IndexOptions::default() },
            created: Timestamp::from_nanos(1),
        }
    }

    #[test]
    fn an_archive_belongs_to_a_scope_and_needs_its_back_end() {
        let of_region = |region: &str| {
            serde_json::from_value::<S3Config>(serde_json::json!({
                "endpoint": "", "iam_endpoint": "", "region": region, "bucket_prefix": "logboom-", "iam": true,
                "iam_path": "/", "access_key_id": "", "access_secret": "", "ca": "",
            }))
        };
        let (none, s3) = (of_region("").unwrap(), of_region("eu-central-1").unwrap());
        assert!(check(&none, &index(None)).is_ok() && check(&s3, &index(Some("cold"))).is_ok());
        let refused = Problem::from(check(&none, &index(Some("cold"))).unwrap_err());
        assert_eq!((refused.code, refused.kind.as_str()), (Code::BadRequest, "NoArchive"));
        assert!(refused.message.contains("archive_to"), "{refused}");
        let place = s3::place(&s3, &index(Some("cold"))).unwrap().unwrap();
        assert_eq!((place.scope, place.region.as_str()), (Some("team".parse().unwrap()), "eu-central-1"));
        assert!(place.bucket.ends_with("cold"), "{}", place.bucket);
        assert_eq!(s3::place(&s3, &index(None)).unwrap(), None);
    }
}

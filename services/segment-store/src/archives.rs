//! Which indexes are archived and where, as the provisioner's view says; the key with which chunks are copied is our own.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use bus::{Bucket, Change};
use host::{Host, StartError};
use parking_lot::RwLock;
use store::{Objects, S3Options};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tracing::{error, warn};
use types::{IndexName, ScopeName};
use wire::views::ArchivePlace;

use crate::config::ArchiveConfig;

/// Indexes that are archived; more are not.
const ARCHIVED_MAX: usize = 100_000;
/// Copies at the same time, all containers together: each holds a chunk in memory, twice where it copies a part of one.
const COPIES_AT_ONCE: usize = 4;

/// The archives of the installation; clones share them.
///
/// Bounds: [`ARCHIVED_MAX`] indexes; [`COPIES_AT_ONCE`].
#[derive(Clone)]
pub(crate) struct Archives {
    /// With what we come to a bucket: our key, and whom we believe; `None` without a key.
    access: Option<S3Options>,
    known: Arc<RwLock<HashMap<IndexName, Arc<Place>>>>,
    changes: watch::Sender<()>,
    copies: Arc<Semaphore>,
}

/// A bucket into which an index is archived.
pub(crate) struct Place {
    place: ArchivePlace,
    access: Option<S3Options>,
    objects: OnceLock<Objects>,
}

impl Place {
    pub(crate) fn bucket(&self) -> &str {
        &self.place.bucket
    }

    /// Whether events of this tenant may be copied there; those of whom nobody knows may not.
    pub(crate) fn takes(&self, scope: Option<&ScopeName>) -> bool {
        scope.is_some() && scope == self.place.scope.as_ref()
    }

    /// The bucket's objects. Errors: in words; a person must change the settings.
    pub(crate) fn objects(&self) -> Result<&Objects, String> {
        if let Some(open) = self.objects.get() {
            return Ok(open);
        }
        let access = self.access.clone().ok_or("segment_store.archive.access_key_id is not set")?;
        let ArchivePlace { bucket, endpoint, region, .. } = &self.place;
        let options = S3Options {
            allow_http: endpoint.starts_with("http://"),
            endpoint: Some(endpoint.clone()).filter(|url| !url.is_empty()),
            region: region.clone(),
            ..access
        };
        let opened = Objects::open_s3(&format!("s3://{bucket}"), options).map_err(|error| error.to_string())?;
        Ok(self.objects.get_or_init(|| opened))
    }
}

impl Archives {
    /// With the key of the settings; nothing is known yet.
    pub(crate) fn open(config: &ArchiveConfig, host: &Host) -> Result<Self, StartError> {
        let (id, secret) = (host.secret(&config.access_key_id)?, host.secret(&config.access_secret)?);
        let key = id.zip(secret).filter(|(id, secret)| !id.is_empty() && !secret.is_empty());
        let tls = Some(host.tls.outward());
        let access = key.map(|(key_id, secret)| S3Options { key_id, secret, tls, ..S3Options::default() });
        let copies = Arc::new(Semaphore::new(COPIES_AT_ONCE));
        Ok(Self { access, known: Arc::default(), changes: watch::Sender::new(()), copies })
    }

    /// Where an index is archived.
    pub(crate) fn get(&self, index: &IndexName) -> Option<Arc<Place>> {
        self.known.read().get(index).cloned()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.known.read().is_empty()
    }

    /// Tells that something changed after it was asked for last.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Waits for a place among those who copy.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes it.
        self.copies.acquire().await.ok()
    }

    /// Follows the view for ever, and says on `/readyz` what keeps it from copying.
    pub(crate) async fn follow(self, view: Bucket, host: Host) {
        let mut watch = view.watch("");
        loop {
            let Change::Key { key, entry } = watch.next().await else { continue };
            match key.parse::<IndexName>() {
                Ok(index) => self.set(index, entry.as_ref().map(|entry| &entry.value[..])),
                Err(_) => warn!(key, "archive with a name that no index has"),
            }
            host.note("archives", self.missing_key());
        }
    }

    /// What a person must do before what is to be archived is; the provisioner cannot know it, since the key is ours alone.
    fn missing_key(&self) -> Option<String> {
        let waiting = self.known.read().len();
        (waiting > 0 && self.access.is_none()).then(|| {
            format!("{waiting} indexes are to be archived and nothing is copied: set segment_store.archive.access_key_id and access_secret")
        })
    }

    fn set(&self, index: IndexName, place: Option<&[u8]>) {
        let place = match place.map(wire::decode::<ArchivePlace>) {
            Some(Ok(place)) => Some(place),
            None => None,
            Some(Err(problem)) => {
                // Rather nothing than into a bucket that it may have left.
                error!(%index, %problem, "archive of an index cannot be read, it is not archived");
                None
            }
        };
        let mut known = self.known.write();
        match place {
            None => drop(known.remove(&index)),
            Some(place) if known.get(&index).is_some_and(|there| there.place == place) => return,
            Some(_) if known.len() >= ARCHIVED_MAX && !known.contains_key(&index) => {
                error!(%index, "index is not archived, too many are");
            }
            Some(place) => {
                let place = Place { place, access: self.access.clone(), objects: OnceLock::new() };
                known.insert(index, Arc::new(place));
            }
        }
        drop(known);
        self.changes.send_modify(|()| {});
    }
}

#[cfg(test)]
impl Archives {
    /// None, and no key.
    pub(crate) fn none() -> Self {
        let (changes, copies) = (watch::Sender::new(()), Arc::new(Semaphore::new(COPIES_AT_ONCE)));
        Self { access: None, known: Arc::default(), changes, copies }
    }

    /// An index of the scope `team` has one, wherever it is.
    pub(crate) fn show(&self, index: &IndexName) {
        let (bucket, endpoint, region) = ("b".to_owned(), String::new(), "r".to_owned());
        let place = ArchivePlace { bucket, endpoint, region, scope: "team".parse().ok() };
        self.set(index.clone(), Some(&wire::encode(&place)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archives(key: Option<(&str, &str)>) -> Archives {
        let own = |(id, secret): (&str, &str)| (id.to_owned(), secret.to_owned());
        let access = key.map(own).map(|(key_id, secret)| S3Options { key_id, secret, ..S3Options::default() });
        Archives { access, ..Archives::none() }
    }

    fn place(bucket: &str) -> Vec<u8> {
        let (bucket, region) = (bucket.to_owned(), "eu-central-1".to_owned());
        let scope = "team".parse().ok();
        wire::encode(&ArchivePlace { bucket, endpoint: "http://127.0.0.1:9".to_owned(), region, scope })
    }

    #[test]
    fn an_index_goes_where_the_view_says_and_nowhere_else() {
        let archives = archives(Some(("id", "secret")));
        let index: IndexName = "shop".parse().unwrap();
        archives.set(index.clone(), Some(&place("one")));
        let first = archives.get(&index).unwrap();
        assert_eq!((first.bucket(), first.objects().unwrap().location()), ("one", "s3://one"));
        let mut changes = archives.changes();
        archives.set(index.clone(), Some(&place("one")));
        assert!(!changes.has_changed().unwrap() && Arc::ptr_eq(&first, &archives.get(&index).unwrap()));
        archives.set(index.clone(), Some(&place("two")));
        assert!(changes.has_changed().unwrap());
        assert_eq!(archives.get(&index).unwrap().bucket(), "two");
        changes.borrow_and_update();
        archives.set(index.clone(), Some(b"rubbish"));
        assert!(archives.is_empty() && changes.has_changed().unwrap());
    }

    #[test]
    fn a_missing_key_is_told_of_when_something_waits_for_it() {
        let index: IndexName = "shop".parse().unwrap();
        for (archives, told) in [(archives(Some(("id", "secret"))), false), (archives(None), true)] {
            assert_eq!(archives.missing_key(), None);
            archives.set(index.clone(), Some(&place("one")));
            assert_eq!(archives.missing_key().is_some_and(|said| said.contains("archive.access_key_id")), told);
            archives.set(index.clone(), None);
            assert_eq!(archives.missing_key(), None);
        }
    }

    #[test]
    fn a_bucket_takes_events_of_its_own_tenant_alone() {
        let archives = archives(None);
        let index: IndexName = "shop".parse().unwrap();
        let takes = |scope: Option<&str>| {
            let scope: Option<ScopeName> = scope.map(|name| name.parse().unwrap());
            archives.get(&index).unwrap().takes(scope.as_ref())
        };
        archives.set(index.clone(), Some(&place("one")));
        assert!(takes(Some("team")) && !takes(Some("others")) && !takes(None));
        // As a provisioner before this one tells it.
        let (bucket, endpoint, region) = ("one".to_owned(), String::new(), "r".to_owned());
        archives.set(index.clone(), Some(&wire::encode(&ArchivePlace { bucket, endpoint, region, scope: None })));
        assert!(!takes(Some("team")) && !takes(None), "it is told anew with its scope");
    }

    #[test]
    fn without_a_key_it_says_what_to_set() {
        let archives = archives(None);
        archives.set("shop".parse().unwrap(), Some(&place("one")));
        let place = archives.get(&"shop".parse().unwrap()).unwrap();
        assert!(place.objects().unwrap_err().contains("segment_store.archive.access_key_id"));
    }
}

//! Object storage: immutable objects under keys, in a directory or a bucket.

use std::{fmt, ops::Range, path::PathBuf, sync::Arc};

use bytes::Bytes;
use encryption::plain_size;
use futures::StreamExt;
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, local::LocalFileSystem, path::Path,
    prefix::PrefixStore,
};
use rustls::ClientConfig;

use crate::{
    ObjectKeys, S3Options, SEALED, StoreError,
    sealed::{Sealer, beyond},
};

/// The most objects that one [`Objects::list`] answers.
pub const LIST_MAX: usize = 100_000;

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object was absent and is there now.
    Stored,
    /// The key is taken; nothing was changed. On S3 the object may be one's own, of an attempt whose answer was lost.
    Exists,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its whole key.
    pub key: String,
    /// Its size; of a sealed one that of what it holds.
    pub bytes: u64,
}

/// Object storage below one location.
///
/// Keys are `/`-separated; a key never begins or ends with `/`. Durable: a stored object survives power loss (directories are
/// synced, S3 is by itself). An object whose key ends with [`SEALED`] is sealed when it is stored and opened when it is read, and
/// sizes and ranges are those of its plain bytes; without its key it can be neither stored nor read.
#[derive(Clone)]
pub struct Objects {
    inner: Arc<dyn ObjectStore>,
    location: Arc<str>,
    /// Without one nothing counts as sealed.
    sealer: Option<Sealer>,
}

impl Objects {
    /// Opens `file:///dir`, `/dir` (created if absent) or `s3://bucket/prefix` with the usual `AWS_*` environment variables.
    ///
    /// Errors: a location that is none of these, a directory that cannot be written, missing S3 options. Nothing is asked of S3.
    #[allow(
        clippy::disallowed_methods,
        reason = "object storage is configured by the environment that every S3 tool reads"
    )]
    pub fn open(url: &str) -> Result<Self, StoreError> {
        Self::open_with(url, || S3Options::from_names(|name| std::env::var(name).ok()))
    }

    /// The same; S3 is believed as the given configuration says, and not for an authority of the system alone.
    #[allow(
        clippy::disallowed_methods,
        reason = "object storage is configured by the environment that every S3 tool reads"
    )]
    pub fn open_trusting(url: &str, tls: Arc<ClientConfig>) -> Result<Self, StoreError> {
        let options = || S3Options { tls: Some(tls), ..S3Options::from_names(|name| std::env::var(name).ok()) };
        Self::open_with(url, options)
    }

    /// Opens `s3://bucket/prefix` with the given options.
    pub fn open_s3(url: &str, options: S3Options) -> Result<Self, StoreError> {
        if !url.starts_with("s3://") {
            return Err(StoreError::Url { url: url.to_owned(), rule: "is not an s3:// location".to_owned() });
        }
        Self::open_with(url, || options)
    }

    fn open_with(url: &str, options: impl FnOnce() -> S3Options) -> Result<Self, StoreError> {
        let refuse = |rule: &str| StoreError::Url { url: url.to_owned(), rule: rule.to_owned() };
        let inner: Arc<dyn ObjectStore> = if let Some(rest) = url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(refuse("names no bucket"));
            }
            let client = options().client(url, bucket)?;
            match prefix.trim_matches('/') {
                "" => Arc::new(client),
                prefix => Arc::new(PrefixStore::new(client, prefix)),
            }
        } else {
            let dir = url.strip_prefix("file://").unwrap_or(url);
            if !dir.starts_with('/') {
                return Err(refuse("is not an absolute path"));
            }
            directory(PathBuf::from(dir))?
        };
        Ok(Self { inner, location: url.into(), sealer: Some(Sealer::default()) })
    }

    /// The same objects; sealed ones are opened with the keys that are to be had there.
    pub fn with_keys(self, keys: Arc<dyn ObjectKeys>) -> Self {
        Self { sealer: Some(Sealer::new(keys)), ..self }
    }

    /// The same objects as they lie there: sealed ones are copied and measured as they are, for repairs.
    pub fn as_they_lie(&self) -> Self {
        Self { sealer: None, ..self.clone() }
    }

    /// Where the objects are, as it was written.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Stores an object unless its key is taken; of several concurrent puts of one key exactly one is [`Put::Stored`].
    ///
    /// Errors: `Failed` - unknown, repeat it.
    pub async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        let path = path(key, "put")?;
        let bytes = match self.sealer(key) {
            Some(sealer) => sealer.seal(key, bytes).await?,
            None => bytes,
        };
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.inner.put_opts(&path, PutPayload::from_bytes(bytes), options).await {
            Ok(_) => Ok(Put::Stored),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(Put::Exists)
            }
            Err(error) => Err(StoreError::of("put", key, error)),
        }
    }

    /// The whole object.
    pub async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let path = path(key, "get")?;
        if let Some(sealer) = self.sealer(key) {
            return sealer.open(self.inner.as_ref(), (key, &path), None).await;
        }
        let failed = |error| StoreError::of("get", key, error);
        self.inner.get(&path).await.map_err(failed)?.bytes().await.map_err(failed)
    }

    /// A range of the object's bytes; a range beyond its end is an error.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let path = path(key, "get a range of")?;
        if let Some(sealer) = self.sealer(key) {
            return sealer.open(self.inner.as_ref(), (key, &path), Some(range)).await;
        }
        let expected = range.end.saturating_sub(range.start);
        let bytes = self
            .inner
            .get_range(&path, range.clone())
            .await
            .map_err(|error| StoreError::of("get a range of", key, error))?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) == expected {
            return Ok(bytes);
        }
        let source = beyond(&range).into();
        Err(StoreError::Failed { verb: "get a range of", key: key.to_owned(), source })
    }

    /// The object's size; `None` if it does not exist.
    pub async fn head(&self, key: &str) -> Result<Option<u64>, StoreError> {
        match self.inner.head(&path(key, "head")?).await.map_err(|error| StoreError::of("head", key, error)) {
            Ok(meta) => Ok(Some(self.size(key, meta.size))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The objects whose key begins with the folder `prefix`, by ascending key.
    ///
    /// Bounds: at most `limit` and [`LIST_MAX`] of them; which ones, if there are more, is not said.
    pub async fn list(&self, prefix: &str, limit: usize) -> Result<Vec<ObjectInfo>, StoreError> {
        let folder = match prefix.trim_end_matches('/') {
            "" => None,
            folder => Some(path(folder, "list")?),
        };
        let mut found = Vec::new();
        let mut listing = self.inner.list(folder.as_ref()).take(limit.min(LIST_MAX));
        while let Some(meta) = listing.next().await {
            match meta {
                Ok(meta) => {
                    let key = meta.location.to_string();
                    found.push(ObjectInfo { bytes: self.size(&key, meta.size), key });
                }
                // Deleted by somebody between the listing and the look at it.
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(StoreError::of("list", prefix, error)),
            }
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// The largest of what the keys below the folder `prefix` say; those of which `says` answers nothing are passed over.
    ///
    /// Bounds: reads the whole listing and keeps one answer.
    pub async fn largest<T: Ord + Send>(
        &self,
        prefix: &str,
        says: impl Fn(&str) -> Option<T> + Send,
    ) -> Result<Option<T>, StoreError> {
        let folder = path(prefix.trim_end_matches('/'), "list")?;
        let mut listing = self.inner.list(Some(&folder));
        let mut largest = None;
        while let Some(meta) = listing.next().await {
            // A bucket that is not there is not an empty one.
            let meta = meta.map_err(|error| StoreError::of("list", prefix, error))?;
            largest = largest.max(says(meta.location.as_ref()));
        }
        Ok(largest)
    }

    /// The names of the folders right below the folder `prefix`, ascending; objects right below it are left out.
    ///
    /// Bounds: all of them in memory.
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let folder = match prefix.trim_end_matches('/') {
            "" => None,
            folder => Some(path(folder, "list")?),
        };
        let listing = self.inner.list_with_delimiter(folder.as_ref()).await;
        let found = listing.map_err(|error| StoreError::of("list", prefix, error))?.common_prefixes;
        let names = found.iter().filter_map(|path| path.parts().next_back().map(|part| part.as_ref().to_owned()));
        let mut names: Vec<String> = names.collect();
        names.sort();
        Ok(names)
    }

    fn sealer(&self, key: &str) -> Option<&Sealer> {
        self.sealer.as_ref().filter(|_| key.ends_with(SEALED))
    }

    /// That of the plain bytes; that of what is there where no sealed object has it.
    fn size(&self, key: &str, size: u64) -> u64 {
        self.sealer(key).and_then(|_| plain_size(size)).unwrap_or(size)
    }

    /// Deletes an object; one that is absent is already deleted.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self.inner.delete(&path(key, "delete")?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(StoreError::of("delete", key, error)),
        }
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Objects").field(&self.location).finish()
    }
}

fn directory(dir: PathBuf) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let name = dir.display().to_string();
    std::fs::create_dir_all(&dir).map_err(|source| StoreError::Directory { dir: name.clone(), source })?;
    let store = LocalFileSystem::new_with_prefix(&dir)
        .map_err(|error| StoreError::Directory { dir: name, source: std::io::Error::other(error) })?;
    Ok(Arc::new(store.with_fsync(true).with_automatic_cleanup(true)))
}

fn path(key: &str, verb: &'static str) -> Result<Path, StoreError> {
    let failed = |source| StoreError::Failed { verb, key: key.to_owned(), source };
    if key.is_empty() {
        return Err(failed("a key is never empty".into()));
    }
    Path::parse(key).map_err(|error| failed(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Objects) {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(&format!("file://{}", dir.path().join("not/yet/there").display())).unwrap();
        (dir, objects)
    }

    #[tokio::test]
    async fn an_object_reads_as_written() {
        let (_dir, objects) = store();
        let bytes = Bytes::from_static(b"0123456789");
        assert_eq!(objects.put_if_absent("a/b/c", bytes.clone()).await.unwrap(), Put::Stored);
        assert_eq!(objects.get("a/b/c").await.unwrap(), bytes);
        assert_eq!(&objects.get_range("a/b/c", 2..5).await.unwrap()[..], b"234");
        assert!(objects.get_range("a/b/c", 8..12).await.is_err());
        assert_eq!(objects.head("a/b/c").await.unwrap(), Some(10));
        objects.delete("a/b/c").await.unwrap();
        objects.delete("a/b/c").await.unwrap();
        assert_eq!(objects.head("a/b/c").await.unwrap(), None);
        assert!(objects.get("a/b/c").await.unwrap_err().is_not_found());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_concurrent_puts_exactly_one_is_stored() {
        let (_dir, objects) = store();
        for round in 0..20 {
            let tasks: Vec<_> = (0..8u8)
                .map(|writer| {
                    let objects = objects.clone();
                    tokio::spawn(async move {
                        let put = objects.put_if_absent(&format!("race/{round}"), vec![writer; 4096].into()).await;
                        (writer, put.unwrap())
                    })
                })
                .collect();
            let mut winners = Vec::new();
            for task in tasks {
                let (writer, put) = task.await.unwrap();
                winners.extend((put == Put::Stored).then_some(writer));
            }
            assert_eq!(winners.len(), 1, "round {round}");
            assert_eq!(objects.get(&format!("race/{round}")).await.unwrap(), vec![winners[0]; 4096]);
        }
    }

    #[tokio::test]
    async fn a_listing_is_sorted_and_bounded() {
        let (_dir, objects) = store();
        for key in ["s/2", "s/1", "s/10", "t/1"] {
            objects.put_if_absent(key, Bytes::from_static(b"x")).await.unwrap();
        }
        let keys = |found: Vec<ObjectInfo>| found.into_iter().map(|o| o.key).collect::<Vec<_>>();
        assert_eq!(keys(objects.list("s/", 100).await.unwrap()), ["s/1", "s/10", "s/2"]);
        assert_eq!(keys(objects.list("s", 100).await.unwrap()).len(), 3);
        assert_eq!(objects.list("", 2).await.unwrap().len(), 2);
        assert_eq!(objects.list("none", 100).await.unwrap(), []);
        let number = |key: &str| key.rsplit('/').next()?.parse::<u32>().ok().filter(|n| *n < 10);
        assert_eq!(objects.largest("s/", number).await.unwrap(), Some(2));
        assert_eq!(objects.largest("none/", number).await.unwrap(), None);
        objects.put_if_absent("s/deep/er/1", Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(objects.folders("").await.unwrap(), ["s", "t"]);
        assert_eq!(objects.folders("s/").await.unwrap(), ["deep"]);
        assert!(objects.folders("none").await.unwrap().is_empty());
    }

    #[test]
    fn locations_are_checked() {
        for url in ["", "relative/dir", "s3:///prefix", "http://x", "file://relative"] {
            assert!(matches!(Objects::open(url), Err(StoreError::Url { .. })), "{url:?}");
        }
        assert!(Objects::open_s3("/dir", S3Options::default()).is_err());
        assert!(Objects::open("/proc/none").is_err_and(|e| e.to_string().contains("/proc/none")));
    }

    #[tokio::test]
    async fn keys_cannot_leave_the_location() {
        let (_dir, objects) = store();
        for key in ["", "../x", "a/../../x", "a//b"] {
            assert!(objects.put_if_absent(key, Bytes::new()).await.is_err(), "{key:?}");
        }
    }
}

//! Objects that are sealed on their way in and opened on their way out; everybody else sees plain bytes and plain sizes.

use std::{collections::HashMap, ops::Range, sync::Arc};

use bytes::Bytes;
use encryption::{DataKey, SALT_BYTES, TRAILER_BYTES, Trailer, seal, sealed_range};
use futures::future::BoxFuture;
use object_store::{GetOptions, GetRange, ObjectStore, path::Path};
use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};

use crate::{KeyError, StoreError};

/// What the key of a sealed object ends with.
pub const SEALED: &str = ".sealed";

/// Ends of objects that are remembered, of some 150 bytes each; beyond it all are forgotten.
const TRAILERS_MAX: usize = 16_384;
/// What is sealed or opened without leaving the thread: some 30 us of work.
const INLINE_BYTES: usize = 64 << 10;

/// Who has the keys of sealed objects.
pub trait ObjectKeys: Send + Sync {
    /// The key of an object in this version; the newest for `None`, with which a new object is sealed.
    fn key<'a>(&'a self, object: &'a str, version: Option<u32>) -> BoxFuture<'a, Result<Arc<DataKey>, KeyError>>;
}

/// Seals and opens; clones share what they remember.
#[derive(Clone, Default)]
pub(crate) struct Sealer {
    keys: Option<Arc<dyn ObjectKeys>>,
    /// By key of the object. An object never changes, so neither does its end.
    trailers: Arc<Mutex<HashMap<String, (Trailer, u64)>>>,
}

impl Sealer {
    pub(crate) fn new(keys: Arc<dyn ObjectKeys>) -> Self {
        Self { keys: Some(keys), trailers: Arc::default() }
    }

    /// The bytes to store under this key.
    pub(crate) async fn seal(&self, object: &str, plain: Bytes) -> Result<Bytes, StoreError> {
        let key = self.key(object, None).await?;
        let mut salt = [0; SALT_BYTES];
        let random = SystemRandom::new().fill(&mut salt);
        random.map_err(|_| failed("seal", object, "the system gave no random bytes"))?;
        let name = name_of(object).to_owned();
        let sealed = aside(plain.len(), move || seal(&key, &name, &salt, &plain)).await;
        sealed.map_err(|source| broken(object, source))
    }

    /// The plain bytes of an object, all for `None`; asks the store once, or twice for a part of an object of which nothing is known.
    pub(crate) async fn open(
        &self,
        inner: &dyn ObjectStore,
        (object, path): (&str, &Path),
        range: Option<Range<u64>>,
    ) -> Result<Bytes, StoreError> {
        let wanted = range.as_ref().map(sealed_range);
        let (start, bytes, size) = fetch(inner, object, path, wanted.map(GetRange::Bounded)).await?;
        let trailer = match self.known(object, size) {
            Some(trailer) => trailer,
            None => {
                let has_end = start + u64::try_from(bytes.len()).unwrap_or(0) == size;
                let end = match has_end && bytes.len() >= usize::try_from(TRAILER_BYTES).unwrap_or(0) {
                    true => bytes.clone(),
                    false => fetch(inner, object, path, Some(GetRange::Suffix(TRAILER_BYTES))).await?.1,
                };
                let trailer = Trailer::read(&end, size).map_err(|source| broken(object, source))?;
                self.remember(object, trailer, size);
                trailer
            }
        };
        let range = range.unwrap_or(0..trailer.plain_bytes());
        if range.end > trailer.plain_bytes() {
            return Err(failed("get a range of", object, &beyond(&range)));
        }
        let key = self.key(object, Some(trailer.key_version())).await?;
        let name = name_of(object).to_owned();
        let opened = aside(bytes.len(), move || trailer.opener(&key, &name)?.open(range, &bytes)).await;
        opened.map_err(|source| broken(object, source))
    }

    async fn key(&self, object: &str, version: Option<u32>) -> Result<Arc<DataKey>, StoreError> {
        let none = || KeyError::Unavailable("this program was given no keys of indexes".to_owned());
        let key = match &self.keys {
            Some(keys) => keys.key(object, version).await,
            None => Err(none()),
        };
        key.map_err(|source| StoreError::Key { key: object.to_owned(), source })
    }

    fn known(&self, object: &str, size: u64) -> Option<Trailer> {
        self.trailers.lock().get(object).filter(|(_, of)| *of == size).map(|(trailer, _)| *trailer)
    }

    fn remember(&self, object: &str, trailer: Trailer, size: u64) {
        let mut trailers = self.trailers.lock();
        if trailers.len() >= TRAILERS_MAX {
            trailers.clear();
        }
        trailers.insert(object.to_owned(), (trailer, size));
    }
}

/// Under which name an object is sealed: its last folder and what it is called there. So it can be put aside and back.
fn name_of(object: &str) -> &str {
    let folder = object.rfind('/').and_then(|end| object[..end].rfind('/'));
    folder.map_or(object, |end| &object[end + 1..])
}

/// Where the bytes begin that came, they, and the size of the object.
async fn fetch(
    inner: &dyn ObjectStore,
    object: &str,
    path: &Path,
    range: Option<GetRange>,
) -> Result<(u64, Bytes, u64), StoreError> {
    let failed = |error| StoreError::of("get", object, error);
    let options = GetOptions { range, ..GetOptions::default() };
    let found = inner.get_opts(path, options).await.map_err(failed)?;
    let (start, size) = (found.range.start, found.meta.size);
    Ok((start, found.bytes().await.map_err(failed)?, size))
}

/// What is more than a moment's work does not hold up the thread.
async fn aside<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= INLINE_BYTES {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// What is said of a range behind an object's end.
pub(crate) fn beyond(range: &Range<u64>) -> String {
    format!("bytes {}..{} reach beyond its end", range.start, range.end)
}

fn failed(verb: &'static str, object: &str, why: &str) -> StoreError {
    StoreError::Failed { verb, key: object.to_owned(), source: why.into() }
}

fn broken(object: &str, source: encryption::Error) -> StoreError {
    StoreError::Sealed { key: object.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::Objects;

    /// Keys by version, which is their only byte.
    struct Keys(AtomicU32);

    impl ObjectKeys for Keys {
        fn key<'a>(&'a self, _object: &'a str, version: Option<u32>) -> BoxFuture<'a, Result<Arc<DataKey>, KeyError>> {
            Box::pin(async move {
                let newest = self.0.load(Ordering::Relaxed);
                match version.unwrap_or(newest) {
                    0 => Err(KeyError::Gone("destroyed".to_owned())),
                    version if version <= newest => {
                        Ok(Arc::new(DataKey::new(version, [u8::try_from(version).unwrap(); 32])))
                    }
                    _ => Err(KeyError::Gone("there is no such version".to_owned())),
                }
            })
        }
    }

    fn store() -> (tempfile::TempDir, Objects, Arc<Keys>) {
        let dir = tempfile::tempdir().unwrap();
        let keys = Arc::new(Keys(AtomicU32::new(1)));
        let objects = Objects::open(&dir.path().display().to_string()).unwrap().with_keys(keys.clone());
        (dir, objects, keys)
    }

    fn text(bytes: usize) -> Bytes {
        b"a line that nobody else may read\n".iter().copied().cycle().take(bytes).collect()
    }

    #[tokio::test]
    async fn a_sealed_object_reads_as_it_was_written_and_lies_there_sealed() {
        let (dir, objects, keys) = store();
        let plain = text(300_000);
        objects.put_if_absent("a/one.sealed", plain.clone()).await.unwrap();
        let lies = std::fs::read(dir.path().join("a/one.sealed")).unwrap();
        assert!(lies.len() > plain.len() && !lies.windows(6).any(|part| part == b"nobody"));
        // What another process knows of it: nothing.
        let objects = Objects::open(&dir.path().display().to_string()).unwrap().with_keys(keys.clone());
        for range in [70_000..70_010, 0..1, 299_990..300_000, 0..300_000, 65_535..65_537, 131_072..131_072] {
            let part = objects.get_range("a/one.sealed", range.clone()).await.unwrap();
            assert_eq!(
                part,
                plain.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()),
                "{range:?}"
            );
        }
        assert_eq!(objects.get("a/one.sealed").await.unwrap(), plain);
        assert_eq!(objects.head("a/one.sealed").await.unwrap(), Some(300_000));
        assert_eq!(objects.list("a", 9).await.unwrap()[0].bytes, 300_000);
        assert!(objects.get_range("a/one.sealed", 299_990..300_001).await.unwrap_err().to_string().contains("beyond"));
        assert!(objects.get("a/none.sealed").await.unwrap_err().is_not_found());
        // A later version seals from now on, and the one before still opens.
        keys.0.store(2, Ordering::Relaxed);
        objects.put_if_absent("a/two.sealed", plain.clone()).await.unwrap();
        assert_eq!(objects.get("a/one.sealed").await.unwrap(), plain);
        keys.0.store(1, Ordering::Relaxed);
        assert_eq!(objects.get("a/one.sealed").await.unwrap(), plain);
        assert!(matches!(objects.get("a/two.sealed").await, Err(StoreError::Key { .. })));
    }

    #[tokio::test]
    async fn without_its_key_nothing_opens_and_nothing_is_written_open() {
        let (dir, objects, keys) = store();
        objects.put_if_absent("one.sealed", text(100)).await.unwrap();
        keys.0.store(0, Ordering::Relaxed);
        for gone in [objects.get("one.sealed").await, objects.get_range("one.sealed", 0..9).await] {
            assert!(matches!(gone, Err(StoreError::Key { source: KeyError::Gone(_), .. })), "{gone:?}");
        }
        assert!(objects.put_if_absent("two.sealed", text(100)).await.is_err());
        let bare = Objects::open(&dir.path().display().to_string()).unwrap();
        assert!(matches!(bare.get("one.sealed").await, Err(StoreError::Key { .. })));
        assert!(bare.put_if_absent("two.sealed", text(100)).await.is_err());
        assert!(!dir.path().join("two.sealed").exists());
    }

    #[tokio::test]
    async fn what_was_changed_or_moved_is_named() {
        let (dir, objects, _keys) = store();
        for name in ["one.sealed", "other.sealed"] {
            objects.put_if_absent(name, text(200_000)).await.unwrap();
        }
        let path = |name: &str| dir.path().join(name);
        std::fs::copy(path("one.sealed"), path("moved.sealed")).unwrap();
        let moved = objects.get("moved.sealed").await.unwrap_err();
        assert!(matches!(moved, StoreError::Sealed { source: encryption::Error::Block(0), .. }), "{moved}");
        let lying = objects.as_they_lie();
        let as_it_lies = lying.get("one.sealed").await.unwrap();
        assert_eq!(lying.head("one.sealed").await.unwrap(), Some(as_it_lies.len() as u64));
        for folder in ["a", "aside/b/a"] {
            lying.put_if_absent(&format!("{folder}/one.sealed"), as_it_lies.clone()).await.unwrap();
            assert!(objects.get(&format!("{folder}/one.sealed")).await.is_err(), "it had no folder");
        }
        objects.put_if_absent("a/b.sealed", text(9)).await.unwrap();
        lying.put_if_absent("aside/a/b.sealed", lying.get("a/b.sealed").await.unwrap()).await.unwrap();
        assert_eq!(objects.get("aside/a/b.sealed").await.unwrap(), text(9));
        std::fs::write(path("plain.sealed"), text(200_000)).unwrap();
        let plain = objects.get("plain.sealed").await.unwrap_err();
        assert!(matches!(plain, StoreError::Sealed { source: encryption::Error::Foreign, .. }), "{plain}");
        let whole = std::fs::read(path("one.sealed")).unwrap();
        std::fs::write(path("one.sealed"), &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(objects.get("one.sealed").await, Err(StoreError::Sealed { .. })), "it was cut off");
        let mut changed = whole.clone();
        changed[100_000] ^= 1;
        std::fs::write(path("one.sealed"), &changed).unwrap();
        assert!(objects.get_range("one.sealed", 0..60_000).await.is_ok(), "what is whole can be read");
        assert!(objects.get_range("one.sealed", 60_000..70_000).await.is_err());
    }
}

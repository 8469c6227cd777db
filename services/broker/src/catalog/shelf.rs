//! The catalog that is in force, and its exchange while the service runs.

use std::{path::PathBuf, sync::Arc};

use parking_lot::RwLock;

use crate::catalog::{BUILT_IN, Catalog, CatalogError};

/// The largest catalog file that is read.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Holds the catalog; every request takes the one that is in force when it comes.
#[derive(Debug, Clone)]
pub(crate) struct Shelf(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Source,
    current: RwLock<Arc<Catalog>>,
    /// What was read last and is in force; a file may be another one under the same name and date.
    text: RwLock<String>,
}

#[derive(Debug, Clone)]
struct Source {
    /// `None` is the built-in catalog.
    path: Option<PathBuf>,
    /// Names of the offerings that are offered; none are all.
    offered: Vec<String>,
    /// Whether secret parameters can be sealed.
    can_seal: bool,
    /// Servers that hold each event.
    copies: u8,
}

/// Why the catalog file is not taken; the one before stays in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShelfError {
    #[error("catalog file {0} cannot be read: {1}")]
    Unreadable(String, std::io::Error),
    #[error("catalog file {0} is larger than {FILE_BYTES_MAX} bytes")]
    Large(String),
    #[error(
        "the catalog has secret parameters (writeOnly); set broker.sealing_keys to seal them before they are stored"
    )]
    NoKeys,
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl Source {
    fn read(&self) -> Result<String, ShelfError> {
        let Some(path) = &self.path else { return Ok(BUILT_IN.to_owned()) };
        let failed = |error| ShelfError::Unreadable(path.display().to_string(), error);
        if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
            return Err(ShelfError::Large(path.display().to_string()));
        }
        std::fs::read_to_string(path).map_err(failed)
    }

    fn parse(&self, text: &str) -> Result<Catalog, ShelfError> {
        let catalog = Catalog::offering_only(text, &self.offered, self.copies)?;
        if catalog.has_secrets() && !self.can_seal {
            return Err(ShelfError::NoKeys);
        }
        for lacking in catalog.withheld() {
            tracing::warn!(lacking, "plan is not offered");
        }
        Ok(catalog)
    }
}

impl Shelf {
    /// Reads the catalog; an empty path is the built-in one.
    pub(crate) fn open(path: &str, offered: Vec<String>, can_seal: bool, copies: u8) -> Result<Self, ShelfError> {
        let source = Source { path: (!path.is_empty()).then(|| path.into()), offered, can_seal, copies };
        let text = source.read()?;
        let catalog = source.parse(&text)?;
        Ok(Self(Arc::new(Inner { source, current: RwLock::new(Arc::new(catalog)), text: RwLock::new(text) })))
    }

    /// The catalog in force.
    pub(crate) fn current(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.current.read())
    }

    /// Looks at the file again and exchanges the catalog as a whole; true if there is another one now.
    ///
    /// Blocks on the file system.
    pub(crate) fn reload(&self) -> Result<bool, ShelfError> {
        let inner = &self.0;
        let text = inner.source.read()?;
        let mut known = inner.text.write();
        if *known == text {
            return Ok(false);
        }
        let catalog = inner.source.parse(&text)?.after(&self.current())?;
        *inner.current.write() = Arc::new(catalog);
        *known = text;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::osb::Version;

    const ONE: &str = r#"{"services":[{"id":"s","name":"s","description":"d","backend":"own",
        "plans":[{"id":"p","name":"p","description":"d"},{"id":"q","name":"q","description":"d"}]}]}"#;

    #[test]
    fn a_good_file_is_taken_whole_and_a_bad_one_not_at_all() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str| std::fs::write(file.path(), text).unwrap();
        write(ONE);
        let shelf = Shelf::open(file.path().to_str().unwrap(), vec!["s".into()], false, 1).unwrap();
        assert!(!shelf.reload().unwrap(), "nothing has changed");
        let before = shelf.current().etag(Version { minor: 17 });
        for (text, complaint) in [
            ("{", "cannot be read"),
            (r#"{"services":[]}"#, "no offering s"),
            (&ONE.replace(r#""id":"q""#, r#""id":"p""#), "stands twice"),
            (&ONE.replace(r#""id":"s""#, r#""id":"q2""#).replace(r#""id":"q""#, r#""id":"s""#), "was that of"),
        ] {
            write(text);
            let error = shelf.reload().unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
            assert_eq!(shelf.current().etag(Version { minor: 17 }), before);
        }
        std::fs::remove_file(file.path()).unwrap();
        assert!(shelf.reload().unwrap_err().to_string().contains("cannot be read"));
        write(&ONE.replace(r#",{"id":"q","name":"q","description":"d"}"#, ""));
        assert!(shelf.reload().unwrap());
        let now = shelf.current();
        assert_ne!(now.etag(Version { minor: 17 }), before);
        assert!(now.find("s", "q").is_none(), "not for new instances");
        assert_eq!(now.known("s", "q").unwrap().plan.name, "q", "for those that are there");
        // It may come back, and then it is offered again.
        write(ONE);
        assert!(shelf.reload().unwrap() && shelf.current().find("s", "q").is_some());
    }

    #[test]
    fn the_built_in_catalog_never_changes() {
        let shelf = Shelf::open("", vec!["log-index".into()], false, 1).unwrap();
        assert!(!shelf.reload().unwrap());
        assert!(Shelf::open("/no/such/file", Vec::new(), false, 1).unwrap_err().to_string().contains("/no/such/file"));
    }

    #[test]
    fn a_catalog_with_secret_parameters_needs_keys() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let schema = r#"{"$schema":"http://json-schema.org/draft-07/schema#","properties":{"key":{"writeOnly":true}}}"#;
        let schemas = format!(r#""schemas":{{"service_instance":{{"create":{{"parameters":{schema}}}}}}}"#);
        let path = file.path().to_str().unwrap();
        std::fs::write(path, ONE.replace(r#""id":"q""#, &format!(r#""id":"q",{schemas}"#))).unwrap();
        let refused = Shelf::open(path, Vec::new(), false, 1).unwrap_err().to_string();
        assert!(refused.contains("broker.sealing_keys"), "{refused}");
        Shelf::open(path, Vec::new(), true, 1).unwrap();
    }
}

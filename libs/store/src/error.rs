//! What goes wrong with object storage.

/// A failure of object storage; [`crate::Local`] has none, it starts empty instead.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The location cannot be used as written.
    #[error("object store {url:?}: {rule}; use file:///path, /path or s3://bucket/prefix")]
    Url {
        /// The location as written.
        url: String,
        /// What is wrong with it.
        rule: String,
    },
    /// The directory cannot be created or used.
    #[error("object store directory {dir}: {source}; create it and let this user write to it")]
    Directory {
        /// The directory.
        dir: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// An option that S3 needs is missing or unusable.
    #[error(
        "object store {url:?}: {what}; set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, off AWS, AWS_ENDPOINT_URL"
    )]
    Options {
        /// The location as written.
        url: String,
        /// What is missing.
        what: String,
    },
    /// There is no such object.
    #[error("object {key:?} does not exist")]
    NotFound {
        /// Its key.
        key: String,
    },
    /// The key of a sealed object cannot be had.
    #[error("sealed object {key:?}: {source}")]
    Key {
        /// The object's key in the store.
        key: String,
        /// Why not.
        source: KeyError,
    },
    /// A sealed object is not what was sealed under its name.
    #[error("sealed object {key:?}: {source}")]
    Sealed {
        /// The object's key in the store.
        key: String,
        /// What is wrong with it.
        source: encryption::Error,
    },
    /// The object store refused or did not answer; a write may have happened.
    #[error("object store could not {verb} {key:?}: {source}")]
    Failed {
        /// What was tried.
        verb: &'static str,
        /// On which key.
        key: String,
        /// The store's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why the key of a sealed object cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not now: it can be had when what the text says is mended.
    #[error("the key of its index cannot be had: {0}")]
    Unavailable(String),
    /// Never again, or there never was one.
    #[error("the key of its index is gone: {0}")]
    Gone(String),
}

impl StoreError {
    /// Whether the object simply is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    pub(crate) fn of(verb: &'static str, key: &str, error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound { key: key.to_owned() },
            other => Self::Failed { verb, key: key.to_owned(), source: Box::new(other) },
        }
    }
}

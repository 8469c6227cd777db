//! What is wrong with files that should hold certificates.

use std::path::PathBuf;

/// Says which file and what belongs there; nothing was taken from any file of the same look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        reason: String,
    },
    /// A file does not hold what it should.
    #[error("{} holds no {what}: a PEM file is expected", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What belongs there.
        what: &'static str,
    },
    /// What a file holds is damaged, or of a kind that we do not take.
    #[error("{} is not valid: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The two files are not a pair.
    #[error(
        "the key in {} does not belong to the first certificate in {}: both must be of one pair, the process's own certificate first",
        key.display(),
        certificate.display()
    )]
    Mismatch {
        /// The file of the chain.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// An authority or a certificate cannot be made or used.
    #[error("certificate cannot be made: {0}")]
    Make(String),
    /// The library refuses a configuration.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

impl TlsError {
    pub(crate) fn make(reason: impl std::fmt::Display) -> Self {
        Self::Make(reason.to_string())
    }

    pub(crate) fn setup(reason: impl std::fmt::Display) -> Self {
        Self::Setup(reason.to_string())
    }
}

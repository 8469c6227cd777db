//! What goes wrong with S3 and IAM, and what callers learn of it.

use std::time::Duration;

use wire::Problem;

/// The longest part of a server's message that is repeated.
const MESSAGE_CHARS_MAX: usize = 200;

/// How a server refuses a key as such.
const OWN_KEY: [&str; 4] = ["InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken"];

/// Why a request to the server failed; it never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum S3Error {
    /// No answer, or one that says to come back; the effect may have happened.
    #[error("{what}: the S3 server does not answer or is busy: {reason}")]
    Unavailable {
        /// The request.
        what: String,
        /// What was heard.
        reason: String,
    },
    /// The server refuses.
    #[error("{what}: the S3 server answered {status} {code}: {message}")]
    Refused {
        /// The request.
        what: String,
        /// The HTTP status.
        status: u16,
        /// Its word for it.
        code: String,
        /// Its text.
        message: String,
    },
    /// The clocks are too far apart to sign anything.
    #[error("{what}: the clock of this host is {apart:?} away from the S3 server's, which refuses that; set it right")]
    ClockSkew {
        /// The request.
        what: String,
        /// How far.
        apart: Duration,
    },
    /// The answer is not what was asked for.
    #[error("{what}: the S3 server's answer cannot be read: {reason}")]
    Unreadable {
        /// The request.
        what: String,
        /// Why.
        reason: String,
    },
}

impl S3Error {
    pub(super) fn refused(what: &str, status: u16, code: String, message: &str) -> Self {
        let message = message.chars().take(MESSAGE_CHARS_MAX).collect();
        Self::Refused { what: what.to_owned(), status, code, message }
    }

    /// The server's word for a refusal, or nothing.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            _ => "",
        }
    }

    /// Whether the server refuses this very request, and not our key.
    pub(super) fn is_of_request(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if !OWN_KEY.contains(&code.as_str()))
    }

    /// Whether the named thing simply is not there.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self.code(), "NoSuchBucket" | "NoSuchEntity" | "NoSuchUpload" | "NoSuchKey")
    }
}

/// Whether a refusal by this name goes by itself.
pub(super) fn passes(status: u16, code: &str) -> bool {
    let named = [
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "OperationAborted",
        "EntityTemporarilyUnmodifiable",
        "ConcurrentModification",
    ];
    matches!(status, 429 | 500 | 502 | 503 | 504) || named.contains(&code)
}

impl From<S3Error> for Problem {
    fn from(error: S3Error) -> Self {
        match &error {
            S3Error::Unavailable { .. } | S3Error::Unreadable { .. } => {
                Self::unavailable("BackendUnavailable", &error).unknown()
            }
            // Whoever runs this sets the clock, and the work goes on.
            S3Error::ClockSkew { .. } => Self::unavailable("BackendUnavailable", &error),
            // So is our own key, which is no fault of whoever asked.
            S3Error::Refused { code, .. } if OWN_KEY.contains(&code.as_str()) => Self::unavailable(
                "BackendUnavailable",
                format_args!("our own key is not taken (index_provisioner.s3.access_key_id): {error}"),
            ),
            S3Error::Refused { .. } => Self::bad_request("BackendRefused", &error),
        }
    }
}

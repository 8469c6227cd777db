//! What goes wrong below a call.

use wire::{Code, Problem};

/// A failure of the bus itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// No server took the connection.
    #[error("NATS at {url} cannot be reached: {reason}")]
    Connect {
        /// Where.
        url: String,
        /// Why, and what to look at.
        reason: String,
    },
    /// The server does not answer; nothing happened.
    #[error("{what} is unavailable: {reason}")]
    Unavailable {
        /// What was asked for.
        what: String,
        /// Why.
        reason: String,
    },
    /// The server stopped answering after it was asked; the effect may have happened.
    #[error("{what} may or may not have happened: {reason}")]
    Unknown {
        /// What was asked for.
        what: String,
        /// Why.
        reason: String,
    },
    /// The server says no.
    #[error("{what} was refused: {reason}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The server's words.
        reason: String,
    },
    /// Something that came over the wire or from storage cannot be read.
    #[error("{what} cannot be read: {reason}")]
    Malformed {
        /// What was read.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A bucket key or a signing key has a wrong form.
    #[error("key is not valid: {0}")]
    Key(String),
}

impl From<BusError> for Problem {
    fn from(error: BusError) -> Self {
        match error {
            BusError::Connect { .. } | BusError::Unavailable { .. } => Self::unavailable("BusUnavailable", error),
            BusError::Unknown { .. } => Self::unavailable("BusUnavailable", error).unknown(),
            BusError::Refused { .. } => Self::new(Code::Internal, "BusRefused", error),
            BusError::Malformed { .. } => Self::new(Code::Internal, "BusMalformed", error),
            BusError::Key(_) => Self::bad_request("InvalidKey", error),
        }
    }
}

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
    /// JetStream has no room left to reserve for a stream; nothing happened.
    #[error(
        "{stream} asks JetStream to reserve {} and is refused: {reason}; {}",
        mebibytes(*.asked),
        .reserved.map_or("what is left is not known".to_owned(), |bytes| format!("reserved by others in this account: {}", mebibytes(bytes)))
    )]
    NoRoom {
        /// Which stream.
        stream: String,
        /// Bytes that it asks for; 0 is no certain number.
        asked: u64,
        /// Bytes that the streams of the account have reserved already, if the server says.
        reserved: Option<u64>,
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
            BusError::NoRoom { .. } => Self::unavailable("NoRoomForStream", error),
            BusError::Malformed { .. } => Self::new(Code::Internal, "BusMalformed", error),
            BusError::Key(_) => Self::bad_request("InvalidKey", error),
        }
    }
}

/// A size for people: rounded down, for nobody reserves single bytes.
fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

//! What goes wrong, said so that a caller knows what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The class of a failure; mapped once to HTTP, to OSB and to the log level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Code {
    /// The request is malformed or breaks a rule.
    BadRequest,
    /// The caller may not do this.
    Forbidden,
    /// The named thing does not exist.
    NotFound,
    /// The named thing exists in another shape or state.
    Conflict,
    /// The answering owner is stale.
    Fenced,
    /// A named limit is reached; try again later.
    Throttled,
    /// A defect of ours.
    Internal,
    /// A part that is needed does not answer.
    Unavailable,
    /// The deadline passed.
    Deadline,
}

impl Code {
    /// The HTTP status and ADR-32 error code.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Fenced => 412,
            Self::Throttled => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::Deadline => 504,
        }
    }
}

/// Whether the effect of a failed call can have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// It certainly did not happen.
    NotApplied,
    /// It may have happened.
    Unknown,
}

/// Whether a caller may repeat a call whose outcome it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Retry {
    /// Repeating changes nothing.
    Idempotent,
    /// The callee recognises a repeat.
    Deduplicated,
    /// Never by itself.
    Never,
}

/// A failure as it crosses a process.
///
/// `kind` names the failure inside its code, in camel case (`SegmentSealed`); a kind that the reader does not know
/// leaves the code to act on, so that adding one is compatible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The class.
    pub code: Code,
    /// Whether the effect can have happened.
    pub outcome: Outcome,
    /// The failure's name.
    pub kind: String,
    /// What happened and what to do, for a person.
    pub message: String,
    /// When to try again, in milliseconds.
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
}

impl Problem {
    /// A failure whose effect did not happen.
    pub fn new(code: Code, kind: &str, message: impl fmt::Display) -> Self {
        Self {
            code,
            outcome: Outcome::NotApplied,
            kind: kind.to_owned(),
            message: message.to_string(),
            retry_after_ms: None,
        }
    }

    /// The same failure with an effect that may have happened.
    #[must_use]
    pub fn unknown(mut self) -> Self {
        self.outcome = Outcome::Unknown;
        self
    }

    /// The same failure with advice when to try again.
    #[must_use]
    pub fn retry_after_ms(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// Malformed or against a rule.
    pub fn bad_request(kind: &str, message: impl fmt::Display) -> Self {
        Self::new(Code::BadRequest, kind, message)
    }

    /// Not there.
    pub fn not_found(kind: &str, message: impl fmt::Display) -> Self {
        Self::new(Code::NotFound, kind, message)
    }

    /// There in another shape.
    pub fn conflict(kind: &str, message: impl fmt::Display) -> Self {
        Self::new(Code::Conflict, kind, message)
    }

    /// A limit is reached.
    pub fn throttled(kind: &str, message: impl fmt::Display) -> Self {
        Self::new(Code::Throttled, kind, message).retry_after_ms(100)
    }

    /// Something needed does not answer.
    pub fn unavailable(kind: &str, message: impl fmt::Display) -> Self {
        Self::new(Code::Unavailable, kind, message).retry_after_ms(500)
    }

    /// A defect of ours; the effect may have happened.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(Code::Internal, "Internal", message).unknown()
    }

    /// Whether trying the same again later can succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self.code, Code::Fenced | Code::Throttled | Code::Unavailable | Code::Deadline)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Problem {}

//! The one way to append to a fenced stream, and what can come of it.

use async_nats::HeaderMap;
use wire::{Code, Problem, header};

use crate::{
    headers,
    jetstream::{EXPECTED_LAST_SUBJECT_SEQUENCE, EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT, PublishError},
};

/// Why an append has no sequence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Somebody else appended or took over: the fence holds, nothing was appended.
    #[error("fenced: the checked sequence is {last}; read on, or step down")]
    Fenced {
        /// The last sequence of the checked subject; 0 where the server did not say.
        last: u64,
    },
    /// It may have been appended: stop deciding, read the log to its end, go on from what is there.
    #[error("it may or may not have been appended: {0}")]
    Unknown(String),
    /// The log is at its size limit; nothing was appended. Move data to Tier 2 and purge, then repeat.
    #[error("the log is full; nothing was appended")]
    Full,
    /// Nothing was appended.
    #[error("not appended: {0}")]
    Refused(String),
}

impl From<AppendError> for Problem {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Fenced { .. } => Self::new(Code::Fenced, "Fenced", error),
            AppendError::Unknown(_) => Self::unavailable("AppendUnknown", error).unknown(),
            AppendError::Full => Self::throttled("LogFull", error),
            AppendError::Refused(_) => Self::unavailable("AppendRefused", error),
        }
    }
}

/// The headers of a conditional append; `checked` names the subject of the condition where it is another one.
pub(crate) fn conditional(id: &str, expected: u64, checked: Option<&str>) -> HeaderMap {
    let mut map = HeaderMap::new();
    headers::set(&mut map, header::MSG_ID, id);
    headers::set(&mut map, EXPECTED_LAST_SUBJECT_SEQUENCE, &expected.to_string());
    if let Some(checked) = checked {
        headers::set(&mut map, EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT, checked);
    }
    map
}

/// The sequence in the server's `wrong last sequence: 17`.
pub(crate) fn last_in(description: &str) -> u64 {
    description.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// What is left of a publish error when the fence was already looked at.
pub(crate) fn append_error(error: PublishError) -> AppendError {
    match error {
        // The condition is looked at before the size, so that a repeat of a stored message is never told to be too
        // much.
        PublishError::Rejected { error, repeated: false } if error.is_full() => AppendError::Full,
        PublishError::Rejected { error, repeated: false } => AppendError::Refused(error.to_string()),
        PublishError::Rejected { error, repeated: true } => AppendError::Unknown(error.to_string()),
        PublishError::Unknown(reason) => AppendError::Unknown(reason),
        PublishError::NotStored(reason) => AppendError::Refused(reason),
    }
}

#[cfg(test)]
mod tests {
    use wire::Outcome;

    use super::*;
    use crate::jetstream::ApiError;

    #[test]
    fn a_repeat_that_is_refused_may_have_been_stored_before() {
        let full = ApiError { code: 503, err_code: 10077, description: "maximum bytes exceeded".to_owned() };
        let rejected = |repeated| PublishError::Rejected { error: full.clone(), repeated };
        assert_eq!(append_error(rejected(false)), AppendError::Full);
        assert!(matches!(append_error(rejected(true)), AppendError::Unknown(_)));
        assert!(matches!(append_error(PublishError::NotStored("x".to_owned())), AppendError::Refused(_)));
    }

    #[test]
    fn only_an_unknown_append_is_of_unknown_outcome() {
        for (error, outcome) in [
            (AppendError::Fenced { last: 3 }, Outcome::NotApplied),
            (AppendError::Full, Outcome::NotApplied),
            (AppendError::Refused(String::new()), Outcome::NotApplied),
            (AppendError::Unknown(String::new()), Outcome::Unknown),
        ] {
            assert_eq!(Problem::from(error.clone()).outcome, outcome, "{error}");
        }
    }

    #[test]
    fn the_real_sequence_is_read_from_the_refusal() {
        assert_eq!(last_in("wrong last sequence: 17"), 17);
        assert_eq!(last_in("wrong last sequence"), 0);
    }
}

//! Why something was not written.

use std::{fmt, time::Duration};

use types::{EVENT_BYTES_MAX, IndexName, Offset, SegmentId, TransactionId, WriterId};
use wire::{Outcome, Problem, coordinator::TransactionPhase};

/// Why events are not acknowledged, and whether they may be stored all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteError {
    /// `NotApplied`: they are not stored and never will be. `Unknown`: they may be stored or still arrive.
    pub outcome: Outcome,
    /// What went wrong.
    pub cause: WriteCause,
}

/// What went wrong while writing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteCause {
    /// The event is larger than any segment takes.
    #[error("event of {bytes} bytes exceeds {EVENT_BYTES_MAX}: split it, or keep it elsewhere and write where it is")]
    EventTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The events of a conditional append do not fit into one block, which alone is stored whole or not at all.
    #[error("{events} events of {bytes} bytes do not fit into one block: append fewer at once")]
    BlockTooLarge {
        /// How many.
        events: usize,
        /// Their size.
        bytes: usize,
    },
    /// The writer was closed.
    #[error("the writer is closed: open another one")]
    Closed,
    /// The options cannot work.
    #[error("writer options: {0}")]
    Options(&'static str),
    /// The stream takes no more events.
    #[error("stream {0} is sealed: it takes events no more")]
    StreamSealed(IndexName),
    /// There is no such stream.
    #[error("stream {0} does not exist or was deleted")]
    StreamGone(IndexName),
    /// A segment was deleted before it could say whether it had stored a block.
    #[error("segment {0} was deleted before it could be asked whether these events had been stored")]
    SegmentGone(SegmentId),
    /// Somebody else writes under the same id, so that numbers no longer say whose events are stored.
    #[error("somebody else writes to segment {segment} as {writer}: each living writer needs an id of its own")]
    WriterIdInUse {
        /// The id.
        writer: WriterId,
        /// Where it was seen.
        segment: SegmentId,
    },
    /// The segment no longer knows what was acknowledged, while other blocks were under way.
    #[error("segment {0} misses event numbers that were acknowledged: open the writer again")]
    NumbersMissing(SegmentId),
    /// Nothing helped for as long as the options allow.
    #[error("given up after {waited:?} without progress")]
    GaveUp {
        /// How long it was tried.
        waited: Duration,
        /// The last thing that was heard.
        #[source]
        last: Option<Problem>,
    },
    /// The spill directory cannot be used, or lost what was put there.
    #[error("spill file: {0}")]
    Spill(String),
    /// The transaction takes no more events and will not be visible, or is visible already.
    #[error("transaction {transaction} is over ({phase:?}{}): begin another one", because(.reason.as_deref()))]
    TransactionOver {
        /// The transaction.
        transaction: TransactionId,
        /// How it ended.
        phase: TransactionPhase,
        /// Why, as the coordinator says it: `lease expired`, `asked for`, `stream sealed`.
        reason: Option<String>,
    },
    /// Something else was appended first.
    #[error("segment {segment} ends at {end} and not at {expected}: read on and decide again")]
    ConditionFailed {
        /// The segment.
        segment: SegmentId,
        /// Where it was to end.
        expected: Offset,
        /// Where it ends.
        end: Offset,
    },
    /// A call failed in a way that no repeat heals.
    #[error("{0}")]
    Refused(#[source] Problem),
}

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(", {reason}"))
}

impl WriteError {
    /// Events that are certainly not stored.
    pub(crate) fn not_applied(cause: WriteCause) -> Self {
        Self { outcome: Outcome::NotApplied, cause }
    }

    /// Events that may be stored.
    pub(crate) fn unknown(cause: WriteCause) -> Self {
        Self { outcome: Outcome::Unknown, cause }
    }

    /// Whether a conditional append came too late.
    pub fn is_condition_failed(&self) -> bool {
        matches!(self.cause, WriteCause::ConditionFailed { .. })
    }
}

impl From<Problem> for WriteError {
    fn from(problem: Problem) -> Self {
        Self { outcome: problem.outcome, cause: WriteCause::Refused(problem) }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Outcome::NotApplied => write!(f, "not stored: {}", self.cause),
            Outcome::Unknown => write!(f, "it is not known whether it was stored: {}", self.cause),
        }
    }
}

impl std::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_is_known() {
        let cause = WriteCause::TransactionOver {
            transaction: TransactionId(7),
            phase: TransactionPhase::Aborted,
            reason: Some("lease expired".into()),
        };
        let text = WriteError::not_applied(cause.clone()).to_string();
        assert_eq!(text, "not stored: transaction 7 is over (Aborted, lease expired): begin another one");
        assert!(WriteError::unknown(cause).to_string().starts_with("it is not known whether"));
    }
}

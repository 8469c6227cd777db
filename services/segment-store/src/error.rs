//! What goes wrong in this service, and what it means for a caller.

use host::OverQuota;
use types::{ByteSize, ContainerId, Generation, ReplicaId, SegmentId, WriterId};
use wire::{Code, Problem};

use crate::container::frame::FrameError;

/// A failure of this service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such segment here, and that is certain: whoever says so owns the container.
    ///
    /// Only `Container::sure` says it.
    #[error("segment {0} does not exist in its container: ask the coordinator for the stream's segments")]
    UnknownSegment(SegmentId),
    /// No such segment in a state that may be out of date: a later owner may have it.
    #[error("segment {0} is not known here, and it is not certain that this is still its owner: try again")]
    NotHere(SegmentId),
    /// The segment takes appends no more.
    #[error("segment {0} is sealed: ask the coordinator for its successors")]
    SegmentSealed(SegmentId),
    /// The id was used before and its objects are still being removed.
    #[error("segment {0} was deleted: segment ids are never used again")]
    SegmentDeleted(SegmentId),
    /// Event numbers are missing between the writer's last and the block's first.
    #[error(
        "writer {writer} sent event {found} to segment {segment} where event {expected} is next: resume at that number"
    )]
    EventNumberGap {
        /// The segment.
        segment: SegmentId,
        /// The writer.
        writer: WriterId,
        /// The number that is next.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// The segment has another end than the append depends on.
    #[error("segment {segment} ends at offset {end} and not at {expected}: read what came in between and decide again")]
    ConditionFailed {
        /// The segment.
        segment: SegmentId,
        /// What the append depends on.
        expected: u64,
        /// What is.
        end: u64,
    },
    /// A predecessor of a new segment still takes appends.
    #[error("segment {0} is not sealed: seal it before its successors are created")]
    NotSealed(SegmentId),
    /// What writers have in a predecessor cannot be learned now.
    #[error("what writers have in segment {segment} cannot be learned now: {why}")]
    PredecessorSilent {
        /// The predecessor.
        segment: SegmentId,
        /// Why.
        why: String,
    },
    /// The start of a segment cannot lie behind its end.
    #[error("segment {segment} ends at offset {end} and cannot begin at {before}")]
    BeyondEnd {
        /// The segment.
        segment: SegmentId,
        /// Where it should begin.
        before: u64,
        /// Where it ends.
        end: u64,
    },
    /// The segment belongs to an open transaction.
    #[error("segment {0} belongs to an open transaction: its events are there when the transaction is committed")]
    Transactional(SegmentId),
    /// The segment belongs to no transaction.
    #[error("segment {0} belongs to no transaction and cannot be merged")]
    NotTransactional(SegmentId),
    /// An open transaction is full.
    #[error(
        "segment {0} of an open transaction holds 64 MiB, or all of them half of what a container keeps in memory: commit, and go on in another transaction"
    )]
    TransactionTooLarge(SegmentId),
    /// Too many objects wait for their removal.
    #[error("container {0} has too many objects that wait for their removal")]
    GarbageFull(ContainerId),
    /// Chunks are not what is to be replaced.
    #[error("segment {segment} has no chunks that exactly cover the offsets from {from} to {to}")]
    ChunksDiffer {
        /// The segment.
        segment: SegmentId,
        /// The first offset.
        from: u64,
        /// The offset after the last.
        to: u64,
    },
    /// The segment is there, and was not made of these chunks.
    #[error("segment {0} is there already and is another one: restore the index under another name, or delete it")]
    SegmentDiffers(SegmentId),
    /// Chunks make no segment.
    #[error("the chunks make no segment: {0}")]
    BadAdoption(String),
    /// A chunk is not where a segment is to find it.
    #[error("chunk {key} {why}: run the restore again, which copies what is missing")]
    ChunkMissing {
        /// Its key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// A block breaks a rule that no retry heals.
    #[error("block refused: {0}")]
    BadBlock(String),
    /// A block is too large.
    #[error("block of {found} exceeds {limit}: send smaller blocks")]
    BlockTooLarge {
        /// Its size.
        found: ByteSize,
        /// The limit.
        limit: ByteSize,
    },
    /// A chunk does not continue what is in Tier 2 already.
    #[error("chunk from offset {found} does not continue segment {segment}, which is in Tier 2 up to {expected}")]
    ChunkOutOfPlace {
        /// The segment.
        segment: SegmentId,
        /// Where the next chunk begins.
        expected: u64,
        /// Where this one begins.
        found: u64,
    },
    /// Offsets were truncated away.
    #[error("offset {from} of segment {segment} was truncated: its first event is {start}")]
    Truncated {
        /// The segment.
        segment: SegmentId,
        /// What was asked for.
        from: u64,
        /// What is there.
        start: u64,
    },
    /// Another owner took over.
    #[error("container {0} has another owner: look up its placement and try again")]
    Fenced(ContainerId),
    /// Another owner took over, and it is known who.
    #[error("container {container} is owned by {replica} of generation {generation}")]
    Superseded {
        /// The container.
        container: ContainerId,
        /// The owner.
        replica: ReplicaId,
        /// Its generation.
        generation: Generation,
    },
    /// The users of the index have taken what its plan allows.
    #[error(transparent)]
    OverQuota(#[from] OverQuota),
    /// A named limit is reached.
    #[error("container {container} takes no append now: {limit}")]
    Throttled {
        /// The container.
        container: ContainerId,
        /// Which limit.
        limit: &'static str,
    },
    /// The log or object storage does not answer, or the owner is stopping.
    #[error("container {container} is not served now: {why}")]
    Unavailable {
        /// The container.
        container: ContainerId,
        /// Why.
        why: String,
    },
    /// The caller stopped waiting before the append began.
    #[error("the deadline passed before container {0} came to the append")]
    Deadline(ContainerId),
    /// The append may or may not be in the log.
    #[error("container {0} does not know yet whether the append is durable: repeat it with the same event numbers")]
    AppendUnknown(ContainerId),
    /// The caller stopped waiting before everything was in Tier 2.
    #[error("container {0} is still moving events to object storage: ask again")]
    FlushUnfinished(ContainerId),
    /// The log is not what was written to it.
    #[error("container {container} is read-only because its log is damaged: {damage}")]
    ReadOnly {
        /// The container.
        container: ContainerId,
        /// What is wrong.
        damage: Damage,
    },
    /// Object storage failed.
    #[error("object storage: {0}")]
    Objects(String),
    /// An object of an encrypted index cannot be sealed or opened.
    #[error("{0}")]
    Sealed(String),
    /// A fragment of a query did not come to its end.
    #[error("{0}")]
    Fragment(Problem),
    /// A chunk or batch could not be built.
    #[error("columns could not be built: {0}")]
    Columns(String),
}

/// How a log differs from what was written to it; never passed over in silence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Frames are missing, or the newest snapshot is older than the first frame left.
    #[error("frame {found} follows frame {expected_after} at sequence {seq}: frames are missing or out of order")]
    Gap {
        /// Sequence in the log.
        seq: u64,
        /// The last good frame.
        expected_after: u64,
        /// The frame that came.
        found: u64,
    },
    /// A frame was exchanged.
    #[error("frame {number} at sequence {seq} does not continue the frame before it")]
    Chain {
        /// Sequence in the log.
        seq: u64,
        /// The frame.
        number: u64,
    },
    /// A frame of another container.
    #[error("frame at sequence {seq} belongs to container {found}")]
    Foreign {
        /// Sequence in the log.
        seq: u64,
        /// Whose it is.
        found: ContainerId,
    },
    /// A frame cannot be read.
    #[error("frame at sequence {seq} cannot be read")]
    Frame {
        /// Sequence in the log.
        seq: u64,
        /// Why.
        #[source]
        source: FrameError,
    },
    /// The log was lost and begun anew, and the snapshot is of the one that was lost.
    #[error("the log ends at sequence {end}, and the newest snapshot was written at {position}: it is another log")]
    LogExchanged {
        /// Up to where the snapshot knows a log.
        position: u64,
        /// Where this log ends.
        end: u64,
    },
    /// Events that are not in Tier 2 are in the log no more.
    #[error("events of segment {segment} from offset {from} are neither in Tier 2 nor in the log")]
    TailMissing {
        /// The segment.
        segment: SegmentId,
        /// The first offset that is missing.
        from: u64,
    },
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (code, kind) = match &error {
            Error::UnknownSegment(_) => (Code::NotFound, "UnknownSegment"),
            Error::NotHere(_) => return Self::unavailable("ContainerUnavailable", &error),
            Error::SegmentSealed(_) => (Code::Conflict, "SegmentSealed"),
            Error::SegmentDeleted(_) => (Code::Conflict, "SegmentDeleted"),
            Error::EventNumberGap { .. } => (Code::Conflict, "EventNumberGap"),
            Error::ConditionFailed { .. } => (Code::Conflict, "ConditionFailed"),
            Error::NotSealed(_) => (Code::Conflict, "NotSealed"),
            Error::PredecessorSilent { .. } => return Self::unavailable("PredecessorSilent", &error),
            Error::BeyondEnd { .. } => (Code::BadRequest, "BeyondEnd"),
            Error::Transactional(_) => (Code::Conflict, "Transactional"),
            Error::NotTransactional(_) => (Code::BadRequest, "NotTransactional"),
            Error::TransactionTooLarge(_) => (Code::BadRequest, "TransactionTooLarge"),
            Error::GarbageFull(_) => return Self::throttled("Throttled", &error),
            Error::ChunksDiffer { .. } => (Code::Conflict, "ChunksDiffer"),
            Error::SegmentDiffers(_) => (Code::Conflict, "SegmentDiffers"),
            Error::BadAdoption(_) => (Code::BadRequest, "InvalidRestore"),
            Error::ChunkMissing { .. } => (Code::Conflict, "ChunkMissing"),
            Error::BadBlock(_) => (Code::BadRequest, "MalformedBlock"),
            Error::BlockTooLarge { .. } => (Code::BadRequest, "EventTooLarge"),
            Error::ChunkOutOfPlace { .. } => (Code::Conflict, "ChunkOutOfPlace"),
            Error::Truncated { .. } => (Code::NotFound, "Truncated"),
            Error::Fenced(_) | Error::Superseded { .. } => (Code::Fenced, "Fenced"),
            Error::OverQuota(over) => return over.clone().into(),
            Error::Fragment(problem) => return problem.clone(),
            Error::Throttled { .. } => return Self::throttled("Throttled", &error),
            Error::Unavailable { .. } => return Self::unavailable("ContainerUnavailable", &error),
            Error::Objects(_) => return Self::unavailable("ObjectsUnavailable", &error),
            Error::Sealed(_) => return Self::unavailable("IndexKeyUnavailable", &error),
            Error::Deadline(_) => (Code::Deadline, "Deadline"),
            Error::AppendUnknown(_) => return Self::new(Code::Deadline, "AppendUnknown", &error).unknown(),
            Error::FlushUnfinished(_) => return Self::new(Code::Deadline, "FlushUnfinished", &error).unknown(),
            Error::ReadOnly { .. } => (Code::Internal, "ContainerReadOnly"),
            Error::Columns(_) => (Code::Internal, "Internal"),
        };
        Self::new(code, kind, &error)
    }
}

#[cfg(test)]
mod tests {
    use wire::Outcome;

    use super::*;

    #[test]
    fn only_what_may_have_happened_has_an_unknown_outcome() {
        let container = ContainerId(1);
        let segment = SegmentId { stream: 1, epoch: 0, number: 0 };
        for (error, code, kind) in [
            (Error::AppendUnknown(container), Code::Deadline, "AppendUnknown"),
            (Error::Fenced(container), Code::Fenced, "Fenced"),
            (Error::Throttled { container, limit: "x" }, Code::Throttled, "Throttled"),
            (Error::UnknownSegment(segment), Code::NotFound, "UnknownSegment"),
            (Error::NotHere(segment), Code::Unavailable, "ContainerUnavailable"),
            (Error::Deadline(container), Code::Deadline, "Deadline"),
            (Error::FlushUnfinished(container), Code::Deadline, "FlushUnfinished"),
            (Error::ConditionFailed { segment, expected: 1, end: 2 }, Code::Conflict, "ConditionFailed"),
            (Error::NotSealed(segment), Code::Conflict, "NotSealed"),
            (Error::Transactional(segment), Code::Conflict, "Transactional"),
            (Error::TransactionTooLarge(segment), Code::BadRequest, "TransactionTooLarge"),
            (Error::BeyondEnd { segment, before: 2, end: 1 }, Code::BadRequest, "BeyondEnd"),
        ] {
            let unknown = matches!(error, Error::AppendUnknown(_) | Error::FlushUnfinished(_));
            let problem = Problem::from(error);
            assert_eq!((problem.code, problem.kind.as_str()), (code, kind));
            assert_eq!(problem.outcome == Outcome::Unknown, unknown, "{kind}");
        }
    }
}

//! What travels on a channel, and the channel's name.

use std::fmt;

use arrow::array::RecordBatch;
use types::{JobId, Timestamp};

/// The name of a channel, the same at both ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId {
    /// The job.
    pub job: JobId,
    /// The attempt of the job; channels of another attempt are other channels.
    pub attempt: u32,
    /// The edge of the job graph.
    pub edge: u32,
    /// The sending subtask.
    pub from: u32,
    /// The receiving subtask.
    pub to: u32,
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, attempt, edge, from, to } = self;
        write!(f, "{job}/{attempt} edge {edge} from {from} to {to}")
    }
}

/// One message of a channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Rows. A large batch arrives as several, in order; an empty one does not arrive.
    Data(RecordBatch),
    /// No row before this instant will follow. Of several in a row only the last may arrive.
    Watermark(Timestamp),
    /// Nothing may follow for a while: this input does not hold watermarks back until it speaks again.
    Idle,
    /// What came before belongs to this checkpoint epoch, what follows to later ones.
    Barrier(u64),
    /// Nothing will follow.
    Eos,
}

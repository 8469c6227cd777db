//! What can go wrong between two workers.

use std::{io, net::SocketAddr, sync::Arc};

use crate::{ChannelId, frame::FRAME_BYTES_MAX, handshake::SECRET_BYTES_MIN};

/// Says which channel or peer failed and why. Every one of them ends the attempt of the job; none is retried here.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// The system gives no threads.
    #[error("the threads of the exchange cannot be started")]
    Threads {
        /// The system's answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// The shared secret is too short to protect anything.
    #[error("the exchange secret has {found} bytes: at least {SECRET_BYTES_MIN} are needed")]
    WeakSecret {
        /// Its length.
        found: usize,
    },
    /// The peer cannot be reached.
    #[error("cannot connect to task worker {peer}")]
    Connect {
        /// The peer's address.
        peer: SocketAddr,
        /// The system's answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// The peer did not prove that it knows the secret, or does not speak this protocol.
    #[error("handshake with {peer} failed: {problem}")]
    Handshake {
        /// The peer's address.
        peer: SocketAddr,
        /// What was missing.
        problem: String,
    },
    /// The connection broke; all its unfinished channels are lost.
    #[error("connection to task worker {peer} was lost: {reason}")]
    ConnectionLost {
        /// The peer's address.
        peer: SocketAddr,
        /// What was seen.
        reason: String,
    },
    /// The peer sent what it must not send.
    #[error("peer {peer} broke the exchange protocol: {problem}")]
    Protocol {
        /// The peer's address.
        peer: SocketAddr,
        /// The rule it broke.
        problem: String,
    },
    /// One row does not fit a frame.
    #[error("a row of {bytes} bytes does not fit a frame of {FRAME_BYTES_MAX}: project fewer or shorter columns")]
    FrameTooLarge {
        /// Its encoded size.
        bytes: usize,
    },
    /// The other end of the channel gave up.
    #[error("channel {channel}: the other end gave up: {reason}")]
    Peer {
        /// The channel.
        channel: ChannelId,
        /// What it said.
        reason: String,
    },
    /// The job's channels were closed here, or the exchange was shut down.
    #[error("channel {channel} was closed")]
    Closed {
        /// The channel.
        channel: ChannelId,
    },
    /// The channel has an end of that kind already.
    #[error("channel {channel} is open already: a new attempt needs a new attempt number")]
    AlreadyOpen {
        /// The channel.
        channel: ChannelId,
    },
    /// A bound of the exchange is reached.
    #[error("more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// Something was sent after the end of the stream.
    #[error("channel {channel} has ended: nothing can follow")]
    Ended {
        /// The channel.
        channel: ChannelId,
    },
    /// An earlier send was dropped half way, so the stream has a hole.
    #[error("channel {channel}: a send was cancelled half way, so the stream has a hole")]
    Cancelled {
        /// The channel.
        channel: ChannelId,
    },
    /// A batch cannot be written or read as Arrow.
    #[error("channel {channel}: {problem}")]
    Arrow {
        /// The channel.
        channel: ChannelId,
        /// What Arrow said.
        problem: String,
    },
    /// Every open input of a gate is blocked, so nothing could ever be received.
    #[error("every open input of the gate is blocked: unblock them first")]
    AllBlocked,
}

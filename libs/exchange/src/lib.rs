//! Data between task workers.
//!
//! Owns the way of a batch from one subtask to another: one permanent connection per pair of workers, a Unix socket
//! within a host and TCP between hosts, many channels on it, byte credits, Arrow frames; the same channels without a
//! socket inside one process; and the [`Gate`] that reads many channels and can leave one unread while barriers line up.
//! Deliberately does not know: SQL, operators, windows, where workers live (the job manager says), what a barrier
//! means (`flow::Aligner` does), or how long a job should be retried.
//!
//! Bounds: what a channel holds in memory never exceeds its window ([`flow::WINDOW_BYTES_MAX`]); a gate shares
//! [`GATE_BYTES_MAX`] among its channels. A sender without credit waits. Watermarks and barriers need no credit and
//! stay in order with the data. Nothing here queues without a bound and nothing waits for a dead peer: a lost
//! connection is a typed error on every channel it carried, also where the peer only fell silent for [`SILENCE_MAX`].
//! Sockets are served by threads of the exchange's own, so a process whose tasks take all its cores still answers.
//!
//! Trust: a peer proves that it knows the shared secret before one byte of its is interpreted, and so do we. With
//! [`Options::secure`] all that leaves the host is inside TLS on which both ends show a certificate; without, nothing is
//! encrypted. Unix sockets serve processes of one user only.
//!
//! ```
//! use std::{net::SocketAddr, sync::Arc};
//! use arrow::array::{ArrayRef, Int64Array, RecordBatch};
//! use exchange::{ChannelId, Exchange, Message};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let any: SocketAddr = "127.0.0.1:0".parse()?;
//! let (here, there) = (Exchange::bind(any, "a secret of the job").await?, Exchange::bind(any, "a secret of the job").await?);
//! let channel = ChannelId { job: "job-1".parse()?, attempt: 1, edge: 0, from: 0, to: 0 };
//! let mut receiver = there.receiver(channel.clone())?;
//! let mut sender = here.sender(there.local_addr(), channel).await?;
//!
//! let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef)])?;
//! sender.send(Message::Data(batch.clone())).await?;
//! sender.send(Message::Eos).await?;
//! assert_eq!(receiver.recv().await?, Some(Message::Data(batch)));
//! assert_eq!(receiver.recv().await?, Some(Message::Eos));
//! assert_eq!(receiver.recv().await?, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod codec;
mod connection;
mod error;
mod frame;
mod gate;
mod handshake;
mod hub;
mod inbox;
mod link;
mod message;
mod neighbour;
mod outbox;
mod outflow;
mod receiver;
mod registry;
mod sender;
mod silence;
#[cfg(test)]
mod tests;
mod threads;

pub use error::Error;
pub use frame::FRAME_BYTES_MAX;
pub use gate::{GATE_BYTES_MAX, Gate};
pub use handshake::SECRET_BYTES_MIN;
pub use hub::{Exchange, Options, PEERS_MAX};
pub use inbox::CONTROLS_MAX;
pub use link::Secure;
pub use message::{ChannelId, Message};
pub use receiver::Receiver;
pub use registry::PARKED_MAX;
pub use sender::Sender;
pub use silence::SILENCE_MAX;

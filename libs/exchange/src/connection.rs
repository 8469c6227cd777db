//! One connection to a peer, and the channels on it.
//!
//! The reader never waits for a consumer: it only gets what the consumer granted, so no channel can hold another one
//! back. The writer takes frames in the order in which senders, each covered by its own credit, handed them over; grants
//! and refusals go first.

mod reader;
mod writer;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use arrow::buffer::Buffer;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    ChannelId, Error,
    frame::{self, Header, Kind, TO_SENDER},
    inbox::Inbox,
    link::Link,
    outbox::Outbox,
    registry::Registry,
    silence::{Heard, Listening, heartbeat},
};

/// The most channels that either end opens on one connection.
pub(crate) const CHANNELS_MAX: usize = 16_384;

/// Frames handed to the writer and not yet written; each is covered by its channel's credit.
const FRAMES_WAITING_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Connection {
    peer: SocketAddr,
    link: &'static str,
    frames: mpsc::Sender<Outgoing>,
    urgent: Notify,
    state: Mutex<State>,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    outgoing: HashMap<u16, (u32, ChannelId, Arc<Outbox>)>,
    incoming: HashMap<u16, Incoming>,
    /// Grants not yet written: one per channel, since a newer total says it all.
    grants: BTreeMap<u16, (u32, u64)>,
    /// Refusals not yet written: at most one per use of a channel.
    refusals: VecDeque<(Header, Vec<u8>)>,
    /// Reasons of senders that left, each with the number of frames that must be written before: its channel's own.
    farewells: VecDeque<(u64, Header, Vec<u8>)>,
    /// Frames handed to the writer so far.
    queued: u64,
    next_channel: u16,
    openings: u32,
    lost: Option<Error>,
}

#[derive(Debug)]
struct Incoming {
    opening: u32,
    next_seq: u32,
    inbox: Arc<Inbox>,
}

/// What a sender hands to the writer.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Frame(Header, Vec<Buffer>),
    /// Write what waits, then close our direction.
    Finish,
}

impl Connection {
    /// Starts the two tasks of a connection whose peer has proved itself; `silence_max` without a byte ends it.
    pub(crate) fn start(
        at: &Handle,
        link: Link,
        peer: SocketAddr,
        registry: Arc<Registry>,
        silence_max: Duration,
        closed: CancellationToken,
    ) -> Arc<Self> {
        let (frames, waiting) = mpsc::channel(FRAMES_WAITING_MAX);
        let (urgent, state) = (Notify::new(), Mutex::default());
        let connection = Arc::new(Self { peer, link: link.word(), frames, urgent, state, closed: closed.clone() });
        let (read_half, write_half) = link.split();
        let writer = Arc::clone(&connection);
        at.spawn(async move {
            let outcome = tokio::select! {
                () = writer.closed.cancelled() => return,
                outcome = writer.write(write_half, waiting, heartbeat(silence_max)) => outcome,
            };
            if let Err(error) = outcome {
                writer.lose(Error::ConnectionLost { peer, reason: format!("cannot write: {error}") });
            }
        });
        let reader = Arc::clone(&connection);
        at.spawn(async move {
            let lost = |reason: String| Error::ConnectionLost { peer, reason };
            let heard = Heard::default();
            let input = Listening::new(read_half, heard.clone());
            // What has come is read before silence is judged.
            let error = tokio::select! {
                biased;
                () = reader.closed.cancelled() => lost("the exchange was shut down".to_owned()),
                error = reader.read(input, &registry) => error,
                () = heard.silence(silence_max) => lost(format!("not a byte for {} s", silence_max.as_secs_f32())),
            };
            reader.lose(error);
        });
        connection
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What it runs over: `tcp`, `tls` or `unix`.
    pub(crate) fn link(&self) -> &'static str {
        self.link
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.state.lock().lost.is_some()
    }

    /// Takes a number for a new outgoing channel.
    pub(crate) fn open(&self, id: &ChannelId, outbox: &Arc<Outbox>) -> Result<(u16, u32), Error> {
        let mut state = self.state.lock();
        if let Some(error) = &state.lost {
            return Err(error.clone());
        }
        if state.outgoing.len() >= CHANNELS_MAX {
            return Err(Error::TooMany { what: "channels are open to one task worker", limit: CHANNELS_MAX });
        }
        while state.outgoing.contains_key(&state.next_channel) {
            state.next_channel = state.next_channel.wrapping_add(1);
        }
        let channel = state.next_channel;
        state.next_channel = channel.wrapping_add(1);
        state.openings = state.openings.wrapping_add(1);
        let opening = state.openings;
        state.outgoing.insert(channel, (opening, id.clone(), Arc::clone(outbox)));
        Ok((channel, opening))
    }

    /// Hands a frame to the writer; waits while many wait there.
    pub(crate) async fn send(&self, frame: Outgoing) -> Result<(), Error> {
        let place = self.frames.reserve().await.map_err(|_| self.loss())?;
        // Counted and queued in one step, so that a farewell knows exactly what precedes it.
        let mut state = self.state.lock();
        state.queued += 1;
        place.send(frame);
        Ok(())
    }

    /// Lets go of an outgoing channel; a reason tells the other end that its stream is not complete.
    pub(crate) fn leave(&self, channel: u16, opening: u32, reason: Option<&str>) {
        {
            let mut state = self.state.lock();
            if state.outgoing.get(&channel).is_none_or(|(known, ..)| *known != opening) {
                return;
            }
            state.outgoing.remove(&channel);
            let Some(reason) = reason else { return };
            let (header, body) = notice(channel, opening, 0, reason);
            let place = state.queued;
            state.farewells.push_back((place, header, body));
        }
        self.urgent.notify_one();
    }

    /// Lets go of an incoming channel and tells its sender why.
    pub(crate) fn refuse(&self, channel: u16, opening: u32, reason: &str) {
        {
            let mut state = self.state.lock();
            if state.lost.is_some() {
                return;
            }
            if state.incoming.get(&channel).is_some_and(|known| known.opening == opening) {
                state.incoming.remove(&channel);
            }
            state.grants.remove(&channel);
            state.refusals.push_back(notice(channel, opening, TO_SENDER, reason));
        }
        self.urgent.notify_one();
    }

    /// Announces a grant for an incoming channel.
    pub(crate) fn grant(&self, channel: u16, opening: u32, total: u64) {
        {
            let mut state = self.state.lock();
            if state.incoming.get(&channel).is_none_or(|known| known.opening != opening) {
                return;
            }
            let (_, newest) = state.grants.entry(channel).or_insert((opening, total));
            *newest = total.max(*newest);
        }
        self.urgent.notify_one();
    }

    /// Ends the connection and, with the same error, every unfinished channel on it.
    pub(crate) fn lose(&self, error: Error) {
        let (outgoing, incoming) = {
            let mut state = self.state.lock();
            if state.lost.is_some() {
                return;
            }
            state.lost = Some(error.clone());
            state.refusals.clear();
            state.farewells.clear();
            state.grants.clear();
            (std::mem::take(&mut state.outgoing), std::mem::take(&mut state.incoming))
        };
        let channels = outgoing.len() + incoming.len();
        if channels > 0 {
            warn!(peer = %self.peer, channels, %error, "connection lost");
        } else {
            debug!(peer = %self.peer, %error, "connection closed");
        }
        outgoing.into_values().for_each(|(_, _, outbox)| outbox.fail(error.clone()));
        incoming.into_values().for_each(|incoming| incoming.inbox.fail(error.clone()));
        self.closed.cancel();
    }

    /// Writes what waits, closes our direction and waits for the peer to do the same.
    pub(crate) async fn finish(&self, patience: Duration) {
        let orderly = async {
            if self.send(Outgoing::Finish).await.is_ok() {
                self.closed.cancelled().await;
            }
        };
        if timeout(patience, orderly).await.is_err() {
            debug!(peer = %self.peer, "peer did not close in time");
        }
        self.closed.cancel();
    }

    fn loss(&self) -> Error {
        let lost = self.state.lock().lost.clone();
        let reason = || "the exchange was shut down".to_owned();
        lost.unwrap_or_else(|| Error::ConnectionLost { peer: self.peer, reason: reason() })
    }
}

/// A header without body.
pub(crate) fn header(kind: Kind, channel: u16, opening: u32) -> Header {
    Header { len: 0, kind, flags: 0, channel, opening, seq: 0, backlog: 0 }
}

fn notice(channel: u16, opening: u32, flags: u8, reason: &str) -> (Header, Vec<u8>) {
    let body = frame::encode_reason(reason);
    (Header { len: body.len(), flags, ..header(Kind::Err, channel, opening) }, body)
}

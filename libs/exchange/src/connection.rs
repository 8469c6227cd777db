//! One TCP connection to a peer, and the channels on it.
//!
//! The reader never waits for a consumer: it only gets what the consumer granted, so no channel can hold another one
//! back. The writer takes frames in the order in which senders, each covered by its own credit, handed them over; grants
//! and refusals go first. It flushes when nothing waits or its buffer is full, never by a timer.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use arrow::buffer::Buffer;
use parking_lot::Mutex;
use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter},
    sync::{Notify, mpsc},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use types::Timestamp;

use crate::{
    ChannelId, Error,
    frame::{self, HEADER_BYTES, Header, Kind, NEW_SCHEMA, TO_SENDER},
    inbox::{Inbox, Item, Upstream},
    link::{Link, Reader, Writer},
    outbox::Outbox,
    registry::Registry,
};

/// The most channels that either end opens on one connection.
pub(crate) const CHANNELS_MAX: usize = 16_384;

/// Frames handed to the writer and not yet written; each is covered by its channel's credit.
const FRAMES_WAITING_MAX: usize = 64;

/// What is written at once: five of the usual frames.
const WRITE_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Connection {
    peer: SocketAddr,
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
        link: Link,
        peer: SocketAddr,
        registry: Arc<Registry>,
        silence_max: Duration,
        closed: CancellationToken,
    ) -> Arc<Self> {
        let (frames, waiting) = mpsc::channel(FRAMES_WAITING_MAX);
        let connection =
            Arc::new(Self { peer, frames, urgent: Notify::new(), state: Mutex::default(), closed: closed.clone() });
        let (read_half, write_half) = link.split();
        let writer = Arc::clone(&connection);
        tokio::spawn(async move {
            let outcome = tokio::select! {
                () = writer.closed.cancelled() => return,
                outcome = writer.write(write_half, waiting, silence_max / 4) => outcome,
            };
            if let Err(error) = outcome {
                writer.lose(Error::ConnectionLost { peer, reason: format!("cannot write: {error}") });
            }
        });
        let reader = Arc::clone(&connection);
        tokio::spawn(async move {
            let error = tokio::select! {
                () = reader.closed.cancelled() =>
                    Error::ConnectionLost { peer, reason: "the exchange was shut down".to_owned() },
                error = reader.read(read_half, &registry, silence_max) => error,
            };
            reader.lose(error);
        });
        connection
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
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

    async fn write(&self, half: Writer, mut frames: mpsc::Receiver<Outgoing>, heartbeat: Duration) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(WRITE_BYTES, half);
        let mut written = 0u64;
        loop {
            for (header, body) in self.take_urgent(written) {
                out.write_all(&header.encode()).await?;
                out.write_all(&body).await?;
            }
            let next = match frames.try_recv() {
                Ok(next) => Some(next),
                Err(_) => {
                    out.flush().await?;
                    tokio::select! {
                        next = frames.recv() => next,
                        () = self.urgent.notified() => continue,
                        () = sleep(heartbeat) => {
                            out.write_all(&header(Kind::Ping, 0, 0).encode()).await?;
                            continue;
                        }
                    }
                }
            };
            written += 1;
            match next {
                Some(Outgoing::Frame(header, parts)) => {
                    out.write_all(&header.encode()).await?;
                    for part in parts {
                        out.write_all(part.as_slice()).await?;
                    }
                }
                Some(Outgoing::Finish) | None => return out.shutdown().await,
            }
        }
    }

    /// What goes before the next frame of the queue.
    fn take_urgent(&self, written: u64) -> Vec<(Header, Vec<u8>)> {
        let mut state = self.state.lock();
        let due = state.farewells.iter().take_while(|(place, ..)| *place <= written).count();
        let farewells: Vec<_> = state.farewells.drain(..due).map(|(_, header, body)| (header, body)).collect();
        let grants = std::mem::take(&mut state.grants);
        let grants = grants.into_iter().map(|(channel, (opening, total))| {
            let header = Header { len: 8, flags: TO_SENDER, ..header(Kind::Credit, channel, opening) };
            (header, total.to_le_bytes().to_vec())
        });
        grants.chain(state.refusals.drain(..)).chain(farewells).collect()
    }

    async fn read(self: &Arc<Self>, half: Reader, registry: &Registry, silence_max: Duration) -> Error {
        let peer = self.peer;
        let lost = |reason: String| Error::ConnectionLost { peer, reason };
        let mut input = BufReader::with_capacity(WRITE_BYTES, half);
        loop {
            let mut bytes = [0; HEADER_BYTES];
            match timeout(silence_max, input.read_exact(&mut bytes)).await {
                Err(_) => return lost(format!("not a byte for {} s", silence_max.as_secs_f32())),
                Ok(Err(error)) => return lost(error.to_string()),
                Ok(Ok(_)) => {}
            }
            let broke = |problem: String| Error::Protocol { peer, problem };
            let header = match Header::decode(&bytes) {
                Ok(header) => header,
                Err(problem) => return broke(problem),
            };
            let inbox = match self.expect(&header) {
                Ok(inbox) => inbox,
                Err(problem) => return broke(problem),
            };
            // Data of a channel that was given up here may still be under way; it is not worth memory.
            if header.kind == Kind::Data && inbox.is_none() {
                let mut body = (&mut input).take(u64::try_from(header.len).unwrap_or(u64::MAX));
                match timeout(silence_max, io::copy(&mut body, &mut io::sink())).await {
                    Ok(Ok(_)) => continue,
                    _ => return lost("a frame was cut off".to_owned()),
                }
            }
            let mut body = vec![0; header.len];
            match timeout(silence_max, input.read_exact(&mut body)).await {
                Ok(Ok(_)) => {}
                _ => return lost("a frame was cut off".to_owned()),
            }
            if let Err(problem) = self.take(&header, body, inbox, registry) {
                return broke(problem);
            }
        }
    }

    /// The channel that a frame from its sender belongs to, if it is still open; counts the frame and books its bytes.
    fn expect(&self, header: &Header) -> Result<Option<Arc<Inbox>>, String> {
        let to_receiver = header.flags & TO_SENDER == 0;
        if !to_receiver || matches!(header.kind, Kind::Open | Kind::Ping | Kind::Credit) {
            return Ok(None);
        }
        let inbox = {
            let mut state = self.state.lock();
            let known = state.incoming.get_mut(&header.channel).filter(|known| known.opening == header.opening);
            let Some(known) = known else { return Ok(None) };
            if !matches!(header.kind, Kind::Err | Kind::Backlog) {
                if known.next_seq != header.seq {
                    return Err(format!(
                        "frame {} of {} came instead of {}",
                        header.seq, known.inbox.id, known.next_seq
                    ));
                }
                known.next_seq = known.next_seq.wrapping_add(1);
            }
            Arc::clone(&known.inbox)
        };
        if header.kind == Kind::Data {
            inbox.book(u64::try_from(header.len).unwrap_or(u64::MAX))?;
        }
        Ok(Some(inbox))
    }

    fn take(
        self: &Arc<Self>,
        header: &Header,
        body: Vec<u8>,
        inbox: Option<Arc<Inbox>>,
        registry: &Registry,
    ) -> Result<(), String> {
        match (header.kind, inbox) {
            (Kind::Open, _) => self.opened(header, &frame::decode_id(&body)?, registry),
            (Kind::Credit, _) => {
                let total = u64::from_le_bytes(frame::number(&body)?);
                if let Some((_, outbox)) = self.outgoing(header) {
                    outbox.granted(total);
                }
                Ok(())
            }
            (Kind::Err, inbox) => {
                let reason = String::from_utf8_lossy(&body).into_owned();
                if let Some(inbox) = inbox {
                    self.forget(header);
                    inbox.fail(Error::Peer { channel: inbox.id.clone(), reason });
                } else if let Some((channel, outbox)) = self.outgoing(header).filter(|_| header.flags & TO_SENDER != 0)
                {
                    outbox.fail(Error::Peer { channel, reason });
                }
                Ok(())
            }
            (_, None) => Ok(()),
            (Kind::Data, Some(inbox)) => {
                let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
                let new_schema = header.flags & NEW_SCHEMA != 0;
                inbox.push_data(Item::Frame { new_schema, body: Buffer::from(body) }, bytes);
                Ok(())
            }
            (Kind::Watermark, Some(inbox)) => {
                let nanos = i64::from_le_bytes(frame::number(&body)?);
                inbox.push_control(Item::Watermark(Timestamp::from_nanos(nanos)))
            }
            (Kind::Barrier, Some(inbox)) => {
                inbox.push_control(Item::Barrier(u64::from_le_bytes(frame::number(&body)?)))
            }
            (Kind::Idle, Some(inbox)) => inbox.push_control(Item::Idle),
            (Kind::Eos, Some(inbox)) => {
                self.forget(header);
                inbox.push_control(Item::Eos)
            }
            (Kind::Backlog, Some(inbox)) => {
                inbox.needs(header.backlog);
                Ok(())
            }
            (Kind::Ping, _) => Ok(()),
        }
    }

    fn opened(self: &Arc<Self>, header: &Header, id: &ChannelId, registry: &Registry) -> Result<(), String> {
        let (channel, opening) = (header.channel, header.opening);
        let inbox = registry.open(id);
        {
            let mut state = self.state.lock();
            if state.incoming.contains_key(&channel) {
                return Err(format!("channel number {channel} is in use already"));
            }
            if state.incoming.len() >= CHANNELS_MAX || state.refusals.len() >= CHANNELS_MAX {
                return Err(format!("more than {CHANNELS_MAX} channels are open, or refused and not yet read"));
            }
            if let Ok(inbox) = &inbox {
                state.incoming.insert(channel, Incoming { opening, next_seq: 1, inbox: Arc::clone(inbox) });
            }
        }
        let upstream = Upstream::Remote { connection: Arc::clone(self), channel, opening };
        match inbox {
            Ok(inbox) if inbox.attach(upstream) => {}
            Ok(_) => self.refuse(channel, opening, &Error::AlreadyOpen { channel: id.clone() }.to_string()),
            Err(error) => self.refuse(channel, opening, &error.to_string()),
        }
        Ok(())
    }

    fn outgoing(&self, header: &Header) -> Option<(ChannelId, Arc<Outbox>)> {
        let state = self.state.lock();
        let known = state.outgoing.get(&header.channel).filter(|(opening, ..)| *opening == header.opening);
        known.map(|(_, id, outbox)| (id.clone(), Arc::clone(outbox)))
    }

    fn forget(&self, header: &Header) {
        let mut state = self.state.lock();
        state.incoming.remove(&header.channel);
        state.grants.remove(&header.channel);
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

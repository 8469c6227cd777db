//! The sending end of a channel.

use std::sync::Arc;

use arrow::{array::RecordBatch, buffer::Buffer, error::ArrowError};
use flow::WINDOW_BYTES_MIN;

use crate::{
    ChannelId, Error, FRAME_BYTES_MAX, Message,
    codec::{self, Body, Encoder},
    connection::{Connection, Outgoing, header},
    frame::{self, Header, Kind, NEW_SCHEMA, WAITED},
    inbox::{Inbox, Item, Upstream},
    outbox::Outbox,
    registry::Registry,
};

/// The sending end of one channel.
///
/// Order: messages arrive in the order of the calls. Dropped before [`Message::Eos`], it ends the channel with an error
/// at the other end, for a stream that just stops must not look complete.
#[derive(Debug)]
pub struct Sender {
    id: ChannelId,
    outbox: Arc<Outbox>,
    path: Path,
    registry: Arc<Registry>,
    ended: bool,
    in_flight: bool,
}

enum Path {
    Local(Arc<Inbox>),
    Remote { connection: Arc<Connection>, channel: u16, opening: u32, seq: u32, encoder: Box<Encoder> },
}

impl std::fmt::Debug for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(_) => f.write_str("Local"),
            Self::Remote { connection, channel, .. } => {
                write!(f, "Remote({} {} channel {channel})", connection.link(), connection.peer())
            }
        }
    }
}

impl Sender {
    /// Opens a channel within this process.
    pub(crate) fn local(id: ChannelId, registry: Arc<Registry>) -> Result<Self, Error> {
        let outbox = Arc::new(Outbox::default());
        registry.add_outbox(&id, &outbox)?;
        let attached = registry.open(&id).and_then(|inbox| {
            let free = inbox.attach(Upstream::Local(Arc::clone(&outbox)));
            free.then_some(inbox).ok_or_else(|| Error::AlreadyOpen { channel: id.clone() })
        });
        let inbox = attached.inspect_err(|_| registry.drop_outbox(&id, &outbox))?;
        Ok(Self { id, outbox, path: Path::Local(inbox), registry, ended: false, in_flight: false })
    }

    /// Opens a channel to a peer.
    pub(crate) async fn remote(
        id: ChannelId,
        registry: Arc<Registry>,
        connection: Arc<Connection>,
    ) -> Result<Self, Error> {
        let outbox = Arc::new(Outbox::default());
        registry.add_outbox(&id, &outbox)?;
        let (channel, opening) = connection.open(&id, &outbox).inspect_err(|_| registry.drop_outbox(&id, &outbox))?;
        let path = Path::Remote { connection, channel, opening, seq: 0, encoder: Box::default() };
        // From here on dropping it gives everything back.
        let mut sender = Self { id, outbox, path, registry, ended: false, in_flight: false };
        let body = frame::encode_id(&sender.id);
        sender.path.frame(Kind::Open, 0, 0, vec![Buffer::from(body)]).await?;
        Ok(sender)
    }

    /// Sends one message; data waits until the consumer has granted enough credit.
    ///
    /// Bounds: what is under way never exceeds the consumer's window. A large batch goes in pieces of
    /// 48 to 192 KiB, as the window allows; dictionary columns arrive as plain ones, and types that do not travel (maps,
    /// unions) are named.
    /// Errors: every error ends the channel. Not cancel safe for data: dropped half way, the next call says so.
    pub async fn send(&mut self, message: Message) -> Result<(), Error> {
        if self.ended {
            return Err(Error::Ended { channel: self.id.clone() });
        }
        if let Some(error) = self.outbox.failure() {
            return Err(error);
        }
        if self.in_flight {
            return Err(Error::Cancelled { channel: self.id.clone() });
        }
        self.in_flight = true;
        let ended = matches!(message, Message::Eos);
        match self.dispatch(message).await {
            Ok(()) => {
                self.in_flight = false;
                self.ended = ended;
                Ok(())
            }
            Err(error) => {
                // The first reason is the true one; a full queue to a lost connection only follows from it.
                self.outbox.fail(error.clone());
                Err(self.outbox.failure().unwrap_or(error))
            }
        }
    }

    /// The channel.
    pub fn id(&self) -> &ChannelId {
        &self.id
    }

    /// Bytes of data sent so far.
    pub fn sent_bytes(&self) -> u64 {
        self.outbox.totals().0
    }

    /// Bytes of data that may be sent now without waiting.
    pub fn credit_bytes(&self) -> u64 {
        let (sent, granted) = self.outbox.totals();
        granted.saturating_sub(sent)
    }

    async fn dispatch(&mut self, message: Message) -> Result<(), Error> {
        let number = |bytes: [u8; 8]| vec![Buffer::from(bytes.as_slice())];
        let (kind, body) = match &message {
            Message::Data(batch) => return self.data(batch).await,
            Message::Watermark(watermark) => (Kind::Watermark, number(watermark.nanos().to_le_bytes())),
            Message::Barrier(epoch) => (Kind::Barrier, number(epoch.to_le_bytes())),
            Message::Idle => (Kind::Idle, Vec::new()),
            Message::Eos => (Kind::Eos, Vec::new()),
        };
        let inbox = match &mut self.path {
            Path::Remote { .. } => return self.path.frame(kind, 0, 0, body).await,
            Path::Local(inbox) => inbox,
        };
        let item = match message {
            Message::Data(batch) => Item::Batch(batch),
            Message::Watermark(watermark) => Item::Watermark(watermark),
            Message::Barrier(epoch) => Item::Barrier(epoch),
            Message::Idle => Item::Idle,
            Message::Eos => Item::Eos,
        };
        inbox.push_control(item).map_err(|reason| Error::Peer { channel: self.id.clone(), reason })
    }

    async fn data(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let arrow = |id: &ChannelId, e: ArrowError| Error::Arrow { channel: id.clone(), problem: e.to_string() };
        let size = codec::piece_bytes(self.outbox.room());
        let mut pieces = codec::pieces(batch, size).map_err(|e| arrow(&self.id, e))?;
        pieces.reverse();
        while let Some(piece) = pieces.pop() {
            let Path::Remote { connection, channel, opening, encoder, .. } = &mut self.path else {
                self.local_piece(piece).await?;
                continue;
            };
            let Body { new_schema, parts, len } = encoder.encode(&piece).map_err(|e| arrow(&self.id, e))?;
            if len > FRAME_BYTES_MAX {
                let halves = codec::halves(&piece).ok_or(Error::FrameTooLarge { bytes: len })?;
                encoder.restart();
                pieces.extend(halves.into_iter().rev());
                continue;
            }
            let bytes = u64::try_from(len).unwrap_or(u64::MAX);
            if bytes > WINDOW_BYTES_MIN && !self.outbox.covers(bytes) {
                let header = Header { backlog: bytes, ..header(Kind::Backlog, *channel, *opening) };
                connection.send(Outgoing::Frame(header, Vec::new())).await?;
            }
            let waited = self.outbox.acquire(bytes).await?;
            let waiting: usize = pieces.iter().map(codec::bytes_of).sum();
            let flags = (u8::from(new_schema) * NEW_SCHEMA) | (u8::from(waited) * WAITED);
            self.path.frame(Kind::Data, flags, u64::try_from(waiting).unwrap_or(u64::MAX), parts).await?;
        }
        Ok(())
    }

    async fn local_piece(&self, piece: RecordBatch) -> Result<(), Error> {
        let Path::Local(inbox) = &self.path else { return Ok(()) };
        let bytes = u64::try_from(codec::bytes_of(&piece).min(FRAME_BYTES_MAX)).unwrap_or(u64::MAX);
        if bytes > WINDOW_BYTES_MIN && !self.outbox.covers(bytes) {
            inbox.needs(bytes);
        }
        let waited = self.outbox.acquire(bytes).await?;
        inbox.book(bytes).map_err(|reason| Error::Peer { channel: self.id.clone(), reason })?;
        inbox.push_data(Item::Batch(piece), bytes, waited);
        Ok(())
    }
}

impl Path {
    async fn frame(&mut self, kind: Kind, flags: u8, backlog: u64, parts: Vec<Buffer>) -> Result<(), Error> {
        let Self::Remote { connection, channel, opening, seq, .. } = self else { return Ok(()) };
        let len = parts.iter().map(Buffer::len).sum();
        let header = Header { len, flags, seq: *seq, backlog, ..header(kind, *channel, *opening) };
        connection.send(Outgoing::Frame(header, parts)).await?;
        *seq = seq.wrapping_add(1);
        Ok(())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.registry.drop_outbox(&self.id, &self.outbox);
        let reason = "the sender was dropped before the end of its stream";
        match &self.path {
            Path::Local(_) if self.ended => {}
            Path::Local(inbox) => inbox.fail(Error::Peer { channel: self.id.clone(), reason: reason.to_owned() }),
            Path::Remote { connection, channel, opening, .. } => {
                connection.leave(*channel, *opening, (!self.ended).then_some(reason));
            }
        }
    }
}

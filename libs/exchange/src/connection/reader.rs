//! What comes from a peer.

use std::sync::Arc;

use arrow::buffer::Buffer;
use tokio::io::{self, AsyncRead, AsyncReadExt, BufReader};
use types::Timestamp;

use super::{CHANNELS_MAX, Connection, Incoming};
use crate::{
    ChannelId, Error,
    frame::{self, HEADER_BYTES, Header, Kind, NEW_SCHEMA, TO_SENDER, WAITED},
    inbox::{Inbox, Item, Upstream},
    outbox::Outbox,
    registry::Registry,
};

/// What is read ahead: several small frames at once, but little of a large one, whose body is read to where it stays.
const READ_BYTES: usize = 4 << 10;

impl Connection {
    /// Reads until something breaks, and says what.
    pub(super) async fn read(self: &Arc<Self>, input: impl AsyncRead + Unpin, registry: &Registry) -> Error {
        let peer = self.peer;
        let lost = |error: io::Error| Error::ConnectionLost { peer, reason: error.to_string() };
        let broke = |problem: String| Error::Protocol { peer, problem };
        let mut input = BufReader::with_capacity(READ_BYTES, input);
        loop {
            let mut bytes = [0; HEADER_BYTES];
            if let Err(error) = input.read_exact(&mut bytes).await {
                return lost(error);
            }
            let header = match Header::decode(&bytes) {
                Ok(header) => header,
                Err(problem) => return broke(problem),
            };
            let inbox = match self.expect(&header) {
                Ok(inbox) => inbox,
                Err(problem) => return broke(problem),
            };
            let rest = (&mut input).take(u64::try_from(header.len).unwrap_or(u64::MAX));
            // Data of a channel that was given up here may still be under way; it is not worth memory.
            let body = match header.kind == Kind::Data && inbox.is_none() {
                true => skip(rest, header.len).await.map(|()| None),
                false => whole(rest, header.len).await.map(Some),
            };
            let taken = match body {
                Ok(Some(body)) => self.take(&header, body, inbox, registry),
                Ok(None) => Ok(()),
                Err(error) => return lost(error),
            };
            if let Err(problem) = taken {
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
                let item = Item::Frame { new_schema, body: Buffer::from(body) };
                inbox.push_data(item, bytes, header.flags & WAITED != 0);
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

/// A body in memory of its own, which an Arrow batch then shares.
async fn whole(mut rest: impl AsyncRead + Unpin, len: usize) -> io::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(len);
    match rest.read_to_end(&mut body).await? == len {
        true => Ok(body),
        false => Err(cut_off()),
    }
}

async fn skip(mut rest: impl AsyncRead + Unpin, len: usize) -> io::Result<()> {
    match usize::try_from(io::copy(&mut rest, &mut io::sink()).await?) == Ok(len) {
        true => Ok(()),
        false => Err(cut_off()),
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a frame was cut off")
}

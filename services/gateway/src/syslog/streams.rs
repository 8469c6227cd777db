//! Connections of syslog, over TCP and TLS.
//!
//! Nothing is acknowledged in them. A connection is read no further than what is durable and one batch more, so that a sender feels
//! when the store is slow; what it has sent by then and what is in the network is lost if this process ends.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{io::AsyncReadExt, time::sleep};

use super::{
    frame::{Framer, Piece},
    messages::{self, Batch, Numbers, Patience, Peer, Taker, Unstored},
    token::{self, Token},
};
use crate::{
    metrics::{SYSLOG, SYSLOG_CONNECTIONS},
    sockets::Socket,
};

/// What is read at once.
const READ_BYTES: usize = 64 << 10;
/// How long a sender that is refused is kept before it is closed: it comes back at once.
const CLOSE_AFTER: Duration = Duration::from_secs(1);

/// Stores what comes until the other end closes, is refused, or the door stops.
pub(super) async fn serve(taker: Arc<Taker>, socket: Box<dyn Socket>, peer: SocketAddr) {
    SYSLOG_CONNECTIONS.add(1);
    tracing::debug!(%peer, "syslog connection opened");
    let mut connection = Connection {
        taker: &taker,
        framer: Framer::new(),
        peer: messages::peer(peer.ip()),
        numbers: Numbers::new(),
        token: Token::None,
    };
    match connection.read(socket).await {
        Ok(()) => tracing::debug!(%peer, "syslog connection ended"),
        Err(Ended::Cut(why)) => {
            SYSLOG.with("cut").inc();
            tracing::warn!(%peer, why, "syslog connection ended within a message");
        }
        Err(Ended::Unstored(Unstored::Refused(error))) => {
            tracing::warn!(%peer, %error, "syslog connection refused");
            let _stopped = taker.door.stop.run_until_cancelled(sleep(CLOSE_AFTER)).await;
        }
        Err(Ended::Unstored(Unstored::GivenUp(error))) => {
            tracing::warn!(%peer, %error, "syslog messages not stored, the gateway stops");
        }
    }
    SYSLOG_CONNECTIONS.add(-1);
}

/// Why a connection did not come to its end.
enum Ended {
    Cut(String),
    Unstored(Unstored),
}

struct Connection<'t> {
    taker: &'t Taker,
    framer: Framer,
    peer: Option<Peer>,
    numbers: Numbers,
    /// What the present message says about its token, for those of its pieces that come later.
    token: Token,
}

impl Connection<'_> {
    async fn read(&mut self, mut socket: Box<dyn Socket>) -> Result<(), Ended> {
        let stop = &self.taker.door.stop;
        loop {
            while let Some(batch) = self.batch()? {
                self.store(batch).await?;
            }
            let buffer = self.framer.buffer();
            buffer.reserve(READ_BYTES);
            match stop.run_until_cancelled(socket.read_buf(buffer)).await {
                Some(Ok(0)) => break,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Ended::Cut(error.to_string())),
                None => return Ok(()),
            }
        }
        let framer = std::mem::replace(&mut self.framer, Framer::new());
        let rest = framer.finish().map_err(|error| Ended::Cut(error.to_string()))?;
        let mut last = Batch::default();
        if let Some(piece) = rest {
            let message = self.without_token(piece);
            last.push(message, self.peer.as_ref(), &mut self.numbers);
        }
        self.store(last).await
    }

    /// A piece without its token, which only the first of a message carries.
    fn without_token(&mut self, Piece { text, goes_on }: Piece) -> (Bytes, Token) {
        if goes_on {
            return (text, self.token.clone());
        }
        let (text, token) = token::taken(text);
        self.token.clone_from(&token);
        (text, token)
    }

    /// Messages that have come whole; nothing where more must be read first.
    fn batch(&mut self) -> Result<Option<Batch>, Ended> {
        let mut batch = Batch::default();
        while !batch.is_full() {
            match self.framer.next() {
                Ok(Some(piece)) => {
                    let message = self.without_token(piece);
                    batch.push(message, self.peer.as_ref(), &mut self.numbers);
                }
                Ok(None) => break,
                // What stood before it is stored first; the next call ends with the error.
                Err(_) if !batch.is_empty() => break,
                Err(error) => return Err(Ended::Cut(error.to_string())),
            }
        }
        Ok(Some(batch).filter(|batch| !batch.is_empty()))
    }

    /// Stores all that may be stored, also beside what is refused: a relay sends for many.
    async fn store(&self, batch: Batch) -> Result<(), Ended> {
        let mut refused = Ok(());
        for group in batch.groups() {
            match self.taker.keep_storing(group, Patience::Endless).await {
                Err(error @ Unstored::Refused(_)) => refused = refused.and(Err(Ended::Unstored(error))),
                stored => stored.map_err(Ended::Unstored)?,
            }
        }
        refused
    }
}

//! Memory of answers on their way to clients that take them as they like.
//!
//! An answer is made as a whole and lies in memory until its client took it. So that clients that take nothing cannot fill the
//! memory, large ones need room, small ones are few by the bound on connections, and a client that takes nothing for
//! [`TAKEN_WITHIN`] loses its connection. Answers that are written while they are made have bounds of their own.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    Error,
    body::{BodySize, EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web::{Bytes, Data},
};
use parking_lot::Mutex;
use socket2::SockRef;
use types::IndexName;
use wire::Problem;

use crate::{api::Door, auth::Principal, error::HttpError};

/// The memory of all large answers, as that of so many queries; half of it for tokens of one index.
pub(crate) const MEMORY_OF_QUERIES: u64 = 2;
/// The smallest answer that needs room.
const LARGE_BYTES: u64 = 256 << 10;
/// As much as goes to the connection at once; it copies it.
const PIECE_BYTES: usize = 64 << 10;
/// How long a client may take nothing of what was sent to it.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// Lets a large answer out once there is room for it, else 429 `TooManyResults`.
pub(crate) async fn bounded<B: MessageBody>(
    door: Data<Door>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, Sent>>, Error> {
    let answer = next.call(request).await?;
    let bytes = match answer.response().body().size() {
        BodySize::Sized(bytes) if bytes >= LARGE_BYTES => bytes,
        _ => return Ok(answer.map_into_left_body()),
    };
    // Who asked was let in a moment ago, so this is remembered. What needs no token is small.
    let asked_by = door.auth.of(answer.request()).await.unwrap_or(Principal::Admin);
    let room = match door.answers.room(&asked_by, bytes) {
        Ok(room) => room,
        Err(full) => {
            let (request, _) = answer.into_parts();
            let refused = actix_web::ResponseError::error_response(&HttpError::from(full));
            return Ok(ServiceResponse::new(request, refused.map_body(|_, body| EitherBody::right(Sent::small(body)))));
        }
    };
    let (request, answer) = answer.into_parts();
    let (head, body) = answer.into_parts();
    let body = match body.try_into_bytes() {
        Ok(rest) => EitherBody::right(Sent { rest, room: Some(room) }),
        Err(streamed) => EitherBody::left(streamed),
    };
    Ok(ServiceResponse::new(request, head.set_body(body)))
}

/// An answer of which the connection takes pieces.
pub(crate) struct Sent {
    rest: Bytes,
    room: Option<Room>,
}

impl Sent {
    /// An answer that needs no room.
    fn small(body: impl MessageBody) -> Self {
        Self { rest: body.try_into_bytes().unwrap_or_default(), room: None }
    }
}

impl MessageBody for Sent {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        self.rest.size()
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            this.room = None;
            return Poll::Ready(None);
        }
        // Pieces share the memory of the whole; copies make it free as they go.
        Poll::Ready(Some(Ok(this.rest.split_to(this.rest.len().min(PIECE_BYTES)))))
    }
}

/// Listens at all that an address names. The kernel ends connections whose client takes nothing for [`TAKEN_WITHIN`].
pub(crate) fn listeners(address: &str) -> io::Result<Vec<TcpListener>> {
    address.to_socket_addrs()?.map(|address| listen(address, TAKEN_WITHIN)).collect()
}

fn listen(address: SocketAddr, taken_within: Duration) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // Connections inherit it.
    SockRef::from(&listener).set_tcp_user_timeout(Some(taken_within))?;
    Ok(listener)
}

fn full() -> Problem {
    Problem::throttled("TooManyResults", "too many results are sent at once; try again in a moment")
}

/// Bytes that answers take until they are sent, half of them of tokens of one index; clones share them.
#[derive(Clone)]
pub(crate) struct Memory {
    bytes_max: u64,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: u64,
    /// As many entries as indexes have answers.
    of_index: HashMap<IndexName, u64>,
}

/// Room for an answer; given back by being dropped.
pub(crate) struct Room {
    memory: Memory,
    index: Option<IndexName>,
    bytes: u64,
}

impl Memory {
    /// So many bytes in all.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, taken: Arc::default() }
    }

    /// Room for an answer. Errors: Throttled `TooManyResults`.
    pub(crate) fn room(&self, principal: &Principal, bytes: u64) -> Result<Room, Problem> {
        self.take(principal.index(), bytes).ok_or_else(full)
    }

    /// `None` where all would be more than there is, or those of this index more than half of it. One alone always has room: its
    /// query had a bound.
    fn take(&self, index: Option<&IndexName>, bytes: u64) -> Option<Room> {
        let half = self.bytes_max / 2;
        let bytes = bytes.min(half);
        let mut taken = self.taken.lock();
        let own = index.and_then(|index| taken.of_index.get(index)).copied().unwrap_or(0);
        if taken.all + bytes > self.bytes_max || own + bytes > half {
            return None;
        }
        taken.all += bytes;
        if let Some(index) = index {
            taken.of_index.insert(index.clone(), own + bytes);
        }
        Some(Room { memory: self.clone(), index: index.cloned(), bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut taken = self.memory.taken.lock();
        taken.all -= self.bytes;
        let Some(index) = &self.index else { return };
        if let Some(own) = taken.of_index.get_mut(index) {
            *own -= self.bytes;
            if *own == 0 {
                taken.of_index.remove(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, io::Write, net::TcpStream, pin::pin};

    use super::*;

    #[actix_web::test]
    async fn room_is_given_back_with_the_last_piece() {
        let memory = Memory::new(1 << 20);
        let whole = Bytes::from_iter((0..PIECE_BYTES * 2 + 7).map(|n| u8::try_from(n % 251).unwrap()));
        let room = memory.take(None, whole.len() as u64);
        let mut sent = pin!(Sent { rest: whole.clone(), room });
        assert_eq!(sent.size(), BodySize::Sized(whole.len() as u64));
        let mut taken = Vec::new();
        while let Some(piece) = poll_fn(|context| sent.as_mut().poll_next(context)).await {
            let piece = piece.unwrap();
            assert!(piece.len() <= PIECE_BYTES);
            taken.extend_from_slice(&piece);
            assert!(memory.taken.lock().all > 0, "it is in memory");
        }
        assert_eq!(taken, whole);
        assert_eq!(memory.taken.lock().all, 0);
    }

    #[test]
    fn who_takes_nothing_loses_the_connection() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), Duration::from_millis(500)).unwrap();
        let silent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut connection, _) = listener.accept().unwrap();
        let much = vec![0; 1 << 20];
        // A write that waited for ever would hang here.
        let error = loop {
            if let Err(error) = connection.write_all(&much) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(silent);
    }

    #[test]
    fn no_index_takes_more_than_half_of_the_memory() {
        let memory = Memory::new(100);
        let [loud, quiet] = ["loud", "quiet"].map(|name| name.parse::<IndexName>().unwrap());
        let first = memory.take(Some(&loud), 30).unwrap();
        assert!(memory.take(Some(&loud), 21).is_none(), "its half is full");
        let small = memory.take(Some(&loud), 20).unwrap();
        let large = memory.take(Some(&quiet), 1_000).expect("one alone has room");
        assert!(memory.take(None, 1).is_none(), "all is taken");
        let empty = memory.take(Some(&quiet), 0).expect("nothing takes no room");
        drop((first, empty));
        assert!(memory.take(None, 31).is_none());
        let free = memory.take(None, 30).unwrap();
        drop((small, large, free));
        let taken = memory.taken.lock();
        assert!(taken.all == 0 && taken.of_index.is_empty(), "nobody is remembered");
    }
}

//! Datagrams of syslog: one message each, which nobody repeats.
//!
//! What comes faster than it is stored waits in a queue; what finds it full is dropped and counted. What the network and the system's
//! own buffer drop before is not seen here.

use std::{collections::VecDeque, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::{net::UdpSocket, sync::Notify, time::Instant};

use super::{
    frame::trimmed,
    messages::{self, Batch, Numbers, Patience, Taker},
    token,
};
use crate::metrics::SYSLOG;

/// The largest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Messages that wait; others are dropped.
const QUEUE_MAX: usize = 16_384;
/// Bytes that wait; others are dropped.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// How long messages are tried to be stored: the queue holds about as much as comes meanwhile.
const STORE_WITHIN: Duration = Duration::from_secs(10);
/// How often it is told that messages were lost.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Takes datagrams until the door stops, and stores those that were taken.
pub(super) async fn listen(taker: Arc<Taker>, socket: UdpSocket) {
    let queue = Queue::new(QUEUE_MAX, QUEUE_BYTES_MAX);
    tokio::join!(receive(&taker, &socket, &queue), store(&taker, &queue));
}

async fn receive(taker: &Taker, socket: &UdpSocket, queue: &Queue) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut told = Seldom::default();
    while let Some(received) = taker.door.stop.run_until_cancelled(socket.recv_from(&mut buffer)).await {
        match received {
            Ok((length, peer)) => {
                let datagram = (Bytes::copy_from_slice(&buffer[..length]), peer.ip());
                if !queue.push(datagram) {
                    SYSLOG.with("overflow").inc();
                    told.now(
                        || tracing::warn!(%peer, "syslog datagrams dropped, they come faster than they are stored"),
                    );
                }
            }
            Err(error) => told.now(|| tracing::warn!(%error, "syslog datagram not received")),
        }
    }
    queue.close();
}

async fn store(taker: &Taker, queue: &Queue) {
    let (mut numbers, mut told) = (Numbers::new(), Seldom::default());
    while let Some(batch) = queue.batch(&mut numbers).await {
        let stored = batch.groups().map(|group| taker.keep_storing(group, Patience::For(STORE_WITHIN)));
        for problem in join_all(stored).await.into_iter().filter_map(Result::err) {
            told.now(|| tracing::warn!(%problem, "syslog datagrams not stored"));
        }
    }
}

type Datagram = (Bytes, IpAddr);

/// Datagrams that wait to be stored.
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
    max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    datagrams: VecDeque<Datagram>,
    bytes: usize,
    is_closed: bool,
}

impl Queue {
    fn new(max: usize, bytes_max: usize) -> Self {
        Self { waiting: Mutex::default(), changed: Notify::new(), max, bytes_max }
    }

    /// Whether there was room.
    fn push(&self, datagram: Datagram) -> bool {
        let mut waiting = self.waiting.lock();
        let fits =
            waiting.datagrams.len() < self.max && waiting.bytes.saturating_add(datagram.0.len()) <= self.bytes_max;
        if fits {
            waiting.bytes += datagram.0.len();
            waiting.datagrams.push_back(datagram);
            self.changed.notify_one();
        }
        fits
    }

    fn close(&self) {
        self.waiting.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// What waits, as soon as something does; nothing when it is closed and empty.
    async fn batch(&self, numbers: &mut Numbers) -> Option<Batch> {
        loop {
            let mut batch = Batch::default();
            let is_closed = {
                let mut waiting = self.waiting.lock();
                while !batch.is_full()
                    && let Some((message, address)) = waiting.datagrams.pop_front()
                {
                    waiting.bytes -= message.len();
                    let message = token::taken(trimmed(message));
                    batch.push(message, messages::peer(address).as_ref(), numbers);
                }
                waiting.is_closed
            };
            if !batch.is_empty() {
                return Some(batch);
            }
            if is_closed {
                return None;
            }
            self.changed.notified().await;
        }
    }
}

/// Says something now and then.
#[derive(Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn now(&mut self, say: impl FnOnce()) {
        if self.0.is_none_or(|last| last.elapsed() >= TELL_EVERY) {
            self.0 = Some(Instant::now());
            say();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_finds_no_room_is_dropped() {
        let (queue, address) = (Queue::new(3, 10), IpAddr::from([127, 0, 0, 1]));
        let push = |text: &'static str| queue.push((Bytes::from_static(text.as_bytes()), address));
        assert!(push("12345") && push("12345"));
        assert!(!push("1"), "too many bytes");
        let mut numbers = Numbers::new();
        let taken = queue.batch(&mut numbers).await.unwrap();
        assert_eq!(taken.groups().map(|group| group.messages.len()).sum::<usize>(), 2);
        assert!(push("1") && push("\n") && push("3"));
        assert!(!push("4"), "too many messages");
        queue.close();
        let taken = queue.batch(&mut numbers).await.unwrap();
        assert_eq!(taken.groups().map(|group| group.messages.len()).sum::<usize>(), 2, "an empty message is none");
        assert!(queue.batch(&mut numbers).await.is_none());
    }
}

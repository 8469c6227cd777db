//! Peers that say nothing, and peers that only have no time.

use std::time::Instant;

use tokio::net::{TcpSocket, TcpStream};

use super::*;
use crate::{
    SILENCE_MAX,
    handshake::{self, Secret},
};

/// What an operator is promised.
const NOTICED_WITHIN: Duration = Duration::from_secs(1);

/// A peer that proves itself and then neither speaks nor reads nor hangs up, as one that was stopped or cut off.
async fn silent_peer() -> (SocketAddr, tokio::task::JoinHandle<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.bind(any()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, from) = listener.accept().await.unwrap();
        handshake::accept(&mut stream, &Secret::new(SECRET).unwrap(), from, &[]).await.unwrap();
        stream
    });
    (address, task)
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_lost_in_less_than_a_second() {
    let here = exchange().await;
    let (address, silent) = silent_peer().await;
    let mut sender = within(here.sender(address, id(0, 0))).await.unwrap();
    let stream = within(silent).await.unwrap();
    let began = Instant::now();
    let found = within(sender.send(Message::Data(batch(0, 1, 1)))).await.unwrap_err();
    let took = began.elapsed();
    assert!(matches!(&found, Error::ConnectionLost { reason, .. } if reason.contains("not a byte")), "{found}");
    assert!(took >= SILENCE_MAX * 7 / 9 && took < NOTICED_WITHIN, "{took:?}");
    drop(stream);
}

/// A writer that cannot write, because the peer does not read, must not keep us from seeing that it is dead.
#[tokio::test]
async fn a_full_socket_hides_no_silence() {
    let here = exchange().await;
    let (address, silent) = silent_peer().await;
    let mut sender = within(here.sender(address, id(0, 0))).await.unwrap();
    let stream = within(silent).await.unwrap();
    let began = Instant::now();
    // Barriers need no credit, so they fill whatever the kernel gives.
    let mut epoch = 0;
    let found = within(async {
        loop {
            epoch += 1;
            if let Err(error) = sender.send(Message::Barrier(epoch)).await {
                break error;
            }
        }
    })
    .await;
    assert!(matches!(&found, Error::ConnectionLost { .. }), "{found}");
    assert!(began.elapsed() < NOTICED_WITHIN, "{:?} after {epoch} barriers", began.elapsed());
    drop(stream);
}

/// Tasks that take every core, and the very thread that opened the exchange, for longer than a silence.
#[tokio::test]
async fn a_busy_process_is_not_a_dead_one() {
    for way in [Way::Tcp, Way::Unix] {
        let (here, there) = way.ends(Options::default()).await;
        let mut receiver = there.receiver(id(0, 0)).unwrap();
        let mut sender = within(here.sender(there.local_addr(), id(0, 0))).await.unwrap();
        let until = Instant::now() + SILENCE_MAX * 2;
        let busy = || (0u64..).take_while(|n| n % 1_000 > 0 || Instant::now() < until).count();
        std::thread::scope(|scope| {
            (0..8).for_each(|_| {
                scope.spawn(busy);
            });
            busy();
        });
        within(sender.send(Message::Data(batch(0, 1, 1)))).await.unwrap();
        within(sender.send(Message::Eos)).await.unwrap();
        assert_eq!(drain(&mut receiver).await.unwrap(), [0], "{way:?}");
    }
}

//! Peers that break, lie or do not know the secret.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    FRAME_BYTES_MAX,
    connection::header,
    frame::{self, HEADER_BYTES, Header, Kind, NEW_SCHEMA},
    handshake::{self, Secret},
};

/// A way to that address that can be cut.
async fn bridge(to: SocketAddr) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind(any()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(to).await.unwrap();
        copy_bidirectional(&mut near, &mut far).await.ok();
    });
    (address, task)
}

#[tokio::test]
async fn a_cut_connection_is_a_typed_error_on_all_its_channels() {
    let (here, there) = (exchange().await, exchange().await);
    let (bridge_address, cut) = bridge(there.local_addr()).await;
    let mut receivers: Vec<Receiver> = (0..3).map(|n| there.receiver(id(n, 0)).unwrap()).collect();
    let mut senders = Vec::new();
    for n in 0..3 {
        senders.push(within(here.sender(bridge_address, id(n, 0))).await.unwrap());
    }
    // Channel 0 is complete, 1 is in the middle with a waiting sender, 2 has never sent.
    within(senders[0].send(Message::Data(batch(0, 5, 1)))).await.unwrap();
    within(senders[0].send(Message::Eos)).await.unwrap();
    eventually(|| receivers[0].waiting_bytes() > 0).await;
    let mut middle = senders.remove(1);
    let waiting = tokio::spawn(async move {
        loop {
            middle.send(Message::Data(batch(0, 10, 1_000))).await?;
        }
    });
    eventually(|| receivers[1].waiting_bytes() > 40_000).await;
    cut.abort();
    let lost = |error: &Error| matches!(error, Error::ConnectionLost { .. });
    let found: Result<(), Error> = within(waiting).await.unwrap();
    assert!(lost(&found.unwrap_err()));
    for receiver in &mut receivers[1..] {
        assert!(lost(&within(receiver.recv()).await.unwrap_err()));
    }
    assert!(lost(&within(senders[1].send(Message::Idle)).await.unwrap_err()));
    assert_eq!(drain(&mut receivers[0]).await.unwrap(), [0, 1, 2, 3, 4], "what is complete is not lost");
}

#[tokio::test]
async fn the_secret_is_needed_on_both_sides() {
    let there = exchange().await;
    let other = Exchange::bind(any(), "another secret than theirs").await.unwrap();
    assert!(matches!(within(other.sender(there.local_addr(), id(0, 0))).await, Err(Error::Handshake { .. })));
    assert_eq!(there.live_peers(), 0);
    assert!(matches!(Exchange::bind(any(), "short").await, Err(Error::WeakSecret { found: 5 })));

    // An acceptor that only pretends: it cannot answer our proof.
    let listener = TcpListener::bind(any()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&[b"LBX1".as_slice(), &[7; 32]].concat()).await.unwrap();
        let mut hello = [0; 132];
        stream.read_exact(&mut hello).await.unwrap();
        stream.write_all(&hello[100..]).await.unwrap();
        stream
    });
    let found = within(other.sender(address, id(0, 0))).await.unwrap_err();
    assert!(found.to_string().contains("does not know the secret"), "{found}");
}

/// Whether the other side hangs up.
async fn hung_up(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is as good as an end.
    within(stream.read_to_end(&mut rest)).await.ok();
}

#[tokio::test]
async fn garbage_from_a_stranger_changes_nothing() {
    let (here, there) = (exchange().await, exchange().await);
    let mut receiver = there.receiver(id(0, 0)).unwrap();
    let mut sender = within(here.sender(there.local_addr(), id(0, 0))).await.unwrap();
    let mut seed = 1u64;
    for length in [1usize, 24, 131, 132, 133, 5_000, 100_000] {
        let garbage: Vec<u8> = (0..length)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed.to_be_bytes()[0]
            })
            .collect();
        let mut stream = TcpStream::connect(there.local_addr()).await.unwrap();
        stream.write_all(&garbage).await.ok();
        stream.shutdown().await.ok();
        hung_up(&mut stream).await;
    }
    assert_eq!(there.live_peers(), 1);
    within(sender.send(Message::Data(batch(0, 3, 1)))).await.unwrap();
    within(sender.send(Message::Eos)).await.unwrap();
    assert_eq!(drain(&mut receiver).await.unwrap(), [0, 1, 2]);
}

/// A peer that knows the secret and speaks frames by hand.
struct Liar {
    stream: TcpStream,
    seq: u32,
}

impl Liar {
    async fn dial(to: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let own = stream.local_addr().unwrap();
        handshake::dial(&mut stream, &Secret::new(SECRET).unwrap(), own, to, &[]).await.unwrap();
        Self { stream, seq: 0 }
    }

    async fn say(&mut self, kind: Kind, body: &[u8]) {
        let header = Header { len: body.len(), flags: NEW_SCHEMA, seq: self.seq, ..header(kind, 5, 1) };
        self.raw(&header.encode()).await;
        self.raw(body).await;
        self.seq += 1;
    }

    async fn raw(&mut self, bytes: &[u8]) {
        // It may have been hung up on already; the test looks at the other side.
        self.stream.write_all(bytes).await.ok();
    }

    /// Opens the channel and waits for its credit.
    async fn open(&mut self) {
        self.say(Kind::Open, &frame::encode_id(&id(0, 0))).await;
        let mut bytes = [0; HEADER_BYTES];
        within(self.stream.read_exact(&mut bytes)).await.unwrap();
        let credit = Header::decode(&bytes).unwrap();
        assert_eq!((credit.kind, credit.channel, credit.opening), (Kind::Credit, 5, 1));
        let total = within(self.stream.read_u64_le()).await.unwrap();
        assert_eq!(total, flow::WINDOW_BYTES_MIN);
    }
}

#[tokio::test]
async fn a_lying_peer_is_hung_up_on() {
    const CASES: [&str; 8] = [
        "unknown kind",
        "oversized",
        "beyond its credit",
        "out of order",
        "twice open",
        "bad number",
        "after end",
        "cut off",
    ];
    for case in CASES {
        let there = exchange().await;
        let mut receiver = there.receiver(id(0, 0)).unwrap();
        let mut liar = Liar::dial(there.local_addr()).await;
        liar.open().await;
        match case {
            "unknown kind" => liar.raw(&[0xee; HEADER_BYTES]).await,
            "oversized" => {
                let header = Header { len: FRAME_BYTES_MAX + 1, seq: 1, ..header(Kind::Data, 5, 1) };
                liar.raw(&header.encode()).await;
            }
            "beyond its credit" => liar.say(Kind::Data, &vec![0; 65 << 10]).await,
            "out of order" => {
                liar.seq = 7;
                liar.say(Kind::Idle, &[]).await;
            }
            "twice open" => liar.say(Kind::Open, &frame::encode_id(&id(0, 1))).await,
            "bad number" => {
                let header = Header { len: 9, seq: 1, ..header(Kind::Watermark, 5, 1) };
                liar.raw(&header.encode()).await;
            }
            "after end" => {
                // Not a lie but noise: the number is free after the end, so this frame belongs to nobody.
                liar.say(Kind::Eos, &[]).await;
                liar.say(Kind::Idle, &[]).await;
                liar.raw(&[0xee; HEADER_BYTES]).await;
            }
            _ => {
                liar.raw(&Header { len: 1_000, seq: 1, ..header(Kind::Data, 5, 1) }.encode()).await;
                liar.stream.shutdown().await.unwrap();
            }
        }
        hung_up(&mut liar.stream).await;
        match (case, within(receiver.recv()).await) {
            ("after end", found) => assert_eq!(found.unwrap(), Some(Message::Eos)),
            ("cut off", found) => assert!(matches!(found, Err(Error::ConnectionLost { .. })), "{case}: {found:?}"),
            (_, found) => assert!(matches!(found, Err(Error::Protocol { .. })), "{case}: {found:?}"),
        }
        assert_eq!(there.live_peers(), 0, "{case}");
    }
}

#[tokio::test]
async fn damaged_arrow_ends_the_channel_and_not_the_connection() {
    let there = exchange().await;
    let mut receiver = there.receiver(id(0, 0)).unwrap();
    let mut liar = Liar::dial(there.local_addr()).await;
    liar.open().await;
    liar.say(Kind::Data, &[0xff; 4_000]).await;
    assert!(matches!(within(receiver.recv()).await, Err(Error::Arrow { .. })));
    let mut bytes = [0; HEADER_BYTES];
    loop {
        within(liar.stream.read_exact(&mut bytes)).await.unwrap();
        let answer = Header::decode(&bytes).unwrap();
        let mut body = vec![0; answer.len];
        within(liar.stream.read_exact(&mut body)).await.unwrap();
        if answer.kind == Kind::Err {
            assert_eq!(answer.flags, frame::TO_SENDER);
            break;
        }
    }
    assert_eq!(there.live_peers(), 1);
}

#[tokio::test]
async fn parked_channels_are_bounded() {
    let there = exchange().await;
    let mut liar = Liar::dial(there.local_addr()).await;
    let wanted = u32::try_from(crate::PARKED_MAX).unwrap();
    for n in 0..wanted + 10 {
        let body = frame::encode_id(&id(n, 0));
        let channel = u16::try_from(n).unwrap();
        liar.raw(&Header { len: body.len(), ..header(Kind::Open, channel, n) }.encode()).await;
        liar.raw(&body).await;
    }
    let mut bytes = [0; HEADER_BYTES];
    within(liar.stream.read_exact(&mut bytes)).await.unwrap();
    let answer = Header::decode(&bytes).unwrap();
    assert_eq!((answer.kind, answer.opening), (Kind::Err, wanted));
    assert_eq!(there.registry().sizes().1, crate::PARKED_MAX);
}

//! Senders on real sockets, and a platform in memory.

use std::{sync::Arc, time::Duration};

use testkit::eventually;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};
use wire::Problem;

use super::*;
use crate::{
    config::Config,
    fake::{Fake, FakeGrants, door, tls::Certificates},
    metrics::SYSLOG,
};

/// Long enough for anything that does not hang.
const PATIENCE: Duration = Duration::from_secs(10);

struct World {
    fake: Arc<Fake>,
    door: Door,
    tasks: TaskTracker,
    udp: SocketAddr,
    tcp: SocketAddr,
}

impl World {
    async fn new(token: Option<&str>) -> Self {
        let (fake, grants) = (Arc::new(Fake::default()), Arc::new(FakeGrants::default()));
        let mut door = door(&fake, &grants);
        let any = || "127.0.0.1:0".to_owned();
        let config = Config { syslog_udp_address: any(), syslog_tcp_address: any(), ..Config::clone(&door.config) };
        door.config = Arc::new(config);
        let tasks = TaskTracker::new();
        let bound = open(&door, token.map(str::to_owned), None, &tasks).await.unwrap();
        Self { fake, door, tasks, udp: bound[0], tcp: bound[1] }
    }

    fn stored(&self) -> Vec<String> {
        let all = self.fake.segments.events();
        let mut texts: Vec<_> =
            all.values().flatten().map(|event| String::from_utf8_lossy(&event.payload).into_owned()).collect();
        texts.sort();
        texts
    }

    async fn holds(&self, expected: &[&str]) {
        eventually(PATIENCE, async || self.stored().len() >= expected.len()).await;
        assert_eq!(self.stored(), expected);
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.tcp).await.unwrap()
    }

    /// Everything that was begun ends.
    async fn end(self) {
        self.door.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(PATIENCE, self.tasks.wait()).await.unwrap();
    }
}

/// A message with the token of `shop`, and how it is kept.
fn with_token(text: &str) -> (String, String) {
    let message = |data| format!("<11>1 2026-01-02T03:04:05Z host app 7 - {data} {text}");
    (message("[logboom@32473 token=\"writer\"]"), message("-"))
}

#[actix_web::test]
async fn messages_go_where_their_token_says() {
    let world = World::new(None).await;
    let (mut tcp, udp) = (world.connect().await, UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let [(a, kept_a), (b, kept_b), (c, kept_c)] = ["a", "b", "c"].map(with_token);
    tcp.write_all(format!("{} {a}\n{} {b}", a.len() + 1, b.len()).as_bytes()).await.unwrap();
    udp.send_to(c.as_bytes(), world.udp).await.unwrap();
    world.holds(&[&kept_a, &kept_b, &kept_c]).await;
    // Without one they are refused, which a connection is told by its end.
    let before = SYSLOG.with("refused").get();
    udp.send_to(b"<14>nobody", world.udp).await.unwrap();
    tcp.write_all(b"10 <14>nobody").await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut rest)).await.unwrap().unwrap();
    eventually(PATIENCE, async || SYSLOG.with("refused").get() >= before + 2).await;
    assert_eq!(world.stored().len(), 3);
    world.end().await;
}

#[actix_web::test]
async fn all_pieces_of_a_long_message_go_where_its_token_says() {
    let world = World::new(None).await;
    let (long, kept) = with_token(&"x".repeat(600 << 10));
    let (next, kept_next) = with_token("next");
    let mut counted = world.connect().await;
    counted.write_all(format!("{} {long}{} {next}", long.len(), next.len()).as_bytes()).await.unwrap();
    let mut ended = world.connect().await;
    ended.write_all(format!("{long}\n{next}\n").as_bytes()).await.unwrap();
    eventually(PATIENCE, async || world.stored().len() >= 8).await;
    let stored = world.stored();
    assert_eq!(stored.iter().map(String::len).sum::<usize>(), 2 * (kept.len() + kept_next.len()));
    assert!(!stored.iter().any(|text| text.contains("logboom@32473")), "no token is stored");
    // What comes next on the connection has no token of its own.
    ended.write_all(b"<14>nobody\n").await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, ended.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(world.stored().len(), 8);
    drop(counted);
    world.end().await;
}

#[actix_web::test]
async fn what_is_refused_takes_nothing_else_with_it() {
    let world = World::new(Some("owner")).await;
    let (good, kept) = with_token("good");
    let (bad, unreadable) = (good.replace("writer", "nobody"), good.replace("\"writer\"", "\"writer\" x=\"1\""));
    for refused in [bad, unreadable] {
        let before = world.stored().len();
        let mut tcp = world.connect().await;
        tcp.write_all(format!("{refused}\n{good}\n<14>by the setting\n").as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut rest)).await.unwrap().unwrap();
        assert_eq!(world.stored().len(), before + 2, "{refused}");
    }
    assert_eq!(world.stored(), [kept.as_str(), &kept, "<14>by the setting", "<14>by the setting"]);
    world.end().await;
}

#[actix_web::test]
async fn the_setting_serves_what_carries_no_token() {
    let world = World::new(Some("writer")).await;
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for datagram in [&b"<14>python\0"[..], b"<13>Jan  2 03:04:05 host logger: text\n", b"\n"] {
        udp.send_to(datagram, world.udp).await.unwrap();
    }
    // What has no end is a message all the same when the connection ends.
    let mut tcp = world.connect().await;
    tcp.write_all(b"<13>one\n<13>two\r\n<13>three").await.unwrap();
    tcp.shutdown().await.unwrap();
    let expected = ["<13>Jan  2 03:04:05 host logger: text", "<13>one", "<13>three", "<13>two", "<14>python"];
    world.holds(&expected).await;
    world.end().await;
}

#[actix_web::test]
async fn a_connection_waits_while_nothing_can_be_stored() {
    let world = World::new(Some("writer")).await;
    *world.fake.broken.lock() = Some(Problem::unavailable("NoResponders", "nobody there").unknown());
    let mut tcp = world.connect().await;
    tcp.write_all(b"<13>first\n").await.unwrap();
    // The sender is held up as soon as the buffers between are full.
    let line = format!("<13>{}\n", "x".repeat(8_000));
    let flood = async {
        let mut sent = 0;
        while sent < 64 << 20 {
            tcp.write_all(line.as_bytes()).await.unwrap();
            sent += line.len();
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(2), flood).await.is_err(), "the sender feels nothing");
    assert!(world.stored().is_empty());
    *world.fake.broken.lock() = None;
    eventually(PATIENCE, async || world.stored().len() > 100).await;
    assert_eq!(world.stored().iter().filter(|text| *text == "<13>first").count(), 1);
    drop(tcp);
    world.end().await;
}

#[actix_web::test]
async fn a_stop_ends_what_waits() {
    let world = World::new(Some("writer")).await;
    *world.fake.broken.lock() = Some(Problem::unavailable("NoResponders", "nobody there"));
    let (mut tcp, udp) = (world.connect().await, UdpSocket::bind("127.0.0.1:0").await.unwrap());
    tcp.write_all(b"<13>one\n").await.unwrap();
    udp.send_to(b"<13>two", world.udp).await.unwrap();
    let (_idle, mut unfinished) = (world.connect().await, world.connect().await);
    unfinished.write_all(b"99 <13>").await.unwrap();
    // Two listeners and three connections.
    eventually(PATIENCE, async || world.tasks.len() == 5).await;
    world.end().await;
}

#[actix_web::test]
async fn messages_come_inside_tls() {
    let files = Certificates::new();
    let (fake, grants) = (Arc::new(Fake::default()), Arc::new(FakeGrants::default()));
    let mut door = door(&fake, &grants);
    let config = Config { syslog_tls_address: "127.0.0.1:0".to_owned(), ..Config::clone(&door.config) };
    door.config = Arc::new(config);
    let tasks = TaskTracker::new();
    let bound = open(&door, Some("writer".to_owned()), files.server.server(), &tasks).await.unwrap();
    let [tcp, udp] = [bound[0]; 2];
    let world = World { fake, door, tasks, udp, tcp };
    // A sender that does not speak TLS keeps nobody else out.
    world.connect().await.write_all(b"<13>plain\n").await.unwrap();
    let mut socket = files.connect(world.tcp).await;
    socket.write_all(b"10 <13>secret9 <13>other").await.unwrap();
    world.holds(&["<13>other", "<13>secret"]).await;
    drop(socket);
    world.end().await;
}

#[actix_web::test]
async fn tls_needs_a_certificate_and_addresses_must_be_free() {
    let world = World::new(None).await;
    let open_with = async |config: Config| {
        let door = Door { config: Arc::new(config), ..world.door.clone() };
        open(&door, None, None, &world.tasks).await.map(|_| ()).unwrap_err().to_string()
    };
    let plain = Config {
        syslog_udp_address: String::new(),
        syslog_tcp_address: String::new(),
        ..Config::clone(&world.door.config)
    };
    let refused = open_with(Config { syslog_tls_address: "127.0.0.1:0".to_owned(), ..plain.clone() }).await;
    assert!(refused.contains("gateway.syslog_tls_address") && refused.contains("common.tls_certificate"), "{refused}");
    let taken = open_with(Config { syslog_udp_address: world.udp.to_string(), ..plain.clone() }).await;
    assert!(taken.contains("in use"), "{taken}");
    open_with(Config { syslog_tcp_address: "no.such.name.invalid:1".to_owned(), ..plain }).await;
    world.end().await;
}

//! Calls over real sockets, and a platform in memory.

use std::sync::Arc;

use h2::client::SendRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::*;
use crate::{
    config::Config,
    doors::http::testing::otlp_request,
    fake::{Fake, FakeGrants, door, tls::Certificates},
};

struct World {
    fake: Arc<Fake>,
    door: Door,
    tasks: TaskTracker,
    calls: SendRequest<Bytes>,
}

impl World {
    async fn new(certificates: Option<&Certificates>) -> Self {
        let (fake, grants) = (Arc::new(Fake::default()), Arc::new(FakeGrants::default()));
        let mut door = door(&fake, &grants);
        let config = Config { otlp_grpc_address: "127.0.0.1:0".to_owned(), ..Config::clone(&door.config) };
        door.config = Arc::new(config);
        let tasks = TaskTracker::new();
        let tls = certificates.and_then(|files| files.server.server());
        let bound = open(&door, tls, &tasks).await.unwrap().unwrap();
        let socket: Box<dyn Socket> = match certificates {
            Some(files) => {
                let socket = files.connect_speaking(bound, vec![b"h2".to_vec()]).await;
                assert_eq!(socket.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                Box::new(socket)
            }
            None => Box::new(TcpStream::connect(bound).await.unwrap()),
        };
        let (calls, connection) = h2::client::handshake(socket).await.unwrap();
        tasks.spawn_local(async move { connection.await.unwrap() });
        Self { fake, door, tasks, calls }
    }

    /// The outcome of a call, what is said about it, and its answer.
    async fn call(&self, path: &str, headers: &[(&'static str, &str)], body: Vec<u8>) -> (u64, String, Vec<u8>) {
        let mut request = Request::post(format!("http://localhost{path}")).header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut calls = self.calls.clone().ready().await.unwrap();
        let (answer, mut sending) = calls.send_request(request.body(()).unwrap(), false).unwrap();
        // Whoever is refused at once takes no body.
        drop(sending.send_data(body.into(), true));
        let (head, mut body) = answer.await.unwrap().into_parts();
        assert_eq!((head.status.as_u16(), header(&head.headers, "content-type")), (200, Some("application/grpc")));
        let mut message = Vec::new();
        while let Some(part) = body.data().await {
            message.extend_from_slice(&part.unwrap());
        }
        let trailers = body.trailers().await.unwrap().unwrap_or_else(|| head.headers.clone());
        let status = header(&trailers, "grpc-status").unwrap().parse().unwrap();
        (status, header(&trailers, "grpc-message").unwrap_or_default().to_owned(), message)
    }

    async fn end(self) {
        self.door.stop.cancel();
        drop(self.calls);
        self.tasks.close();
        tokio::time::timeout(crate::fake::PATIENCE, self.tasks.wait()).await.unwrap();
    }

    fn stored(&self) -> usize {
        self.fake.segments.events().values().map(Vec::len).sum()
    }
}

fn framed(is_packed: bool, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[u8::from(is_packed)][..], &length, message].concat()
}

fn zstd(message: &[u8]) -> Vec<u8> {
    zstd::encode_all(message, 1).unwrap()
}

const WRITER: (&str, &str) = ("authorization", "Bearer writer");

#[actix_web::test]
async fn records_are_stored() {
    let world = World::new(None).await;
    let plain = framed(false, &otlp_request(1, "plain"));
    for _ in 0..2 {
        assert_eq!(world.call(EXPORT, &[WRITER], plain.clone()).await, (0, String::new(), vec![0; HEAD_BYTES]));
    }
    assert_eq!(world.stored(), 1, "what is sent again is stored once");
    let packed = framed(true, &zstd(&otlp_request(2, "packed")));
    assert_eq!(world.call(EXPORT, &[WRITER, ("grpc-encoding", "zstd")], packed).await.0, 0);
    // An encoding may be agreed on and not be used.
    let unpacked = framed(false, &otlp_request(3, "unpacked"));
    assert_eq!(world.call(EXPORT, &[WRITER, ("grpc-encoding", "gzip")], unpacked).await.0, 0);
    assert_eq!(world.stored(), 3);
    let (status, _, message) =
        world.call(EXPORT, &[WRITER], framed(false, &otlp_request(4, &"x".repeat(40_000)))).await;
    assert_eq!((status, message), (0, vec![0; HEAD_BYTES]), "a message of several parts");
    world.end().await;
}

#[actix_web::test]
async fn refusals_say_whether_to_come_again() {
    let world = World::new(None).await;
    let good = framed(false, &otlp_request(1, "x"));
    let bomb = framed(true, &zstd(&vec![0; 1 << 20]));
    let zipped = [WRITER, ("grpc-encoding", "zstd")];
    // A call, its metadata and body, how it is refused, and in which words.
    type Case<'c> = (&'c str, &'c [(&'static str, &'c str)], Vec<u8>, u64, &'c str);
    let cases: &[Case<'_>] = &[
        (EXPORT, &[], good.clone(), 16, "authorization"),
        (EXPORT, &[("authorization", "Bearer nobody")], good.clone(), 16, "not known"),
        (EXPORT, &[("authorization", "Bearer reader")], good.clone(), 7, "RoleTooWeak"),
        (EXPORT, &[("authorization", "Bearer root")], good.clone(), 5, "UnknownIndex"),
        ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", &[WRITER], good.clone(), 12, "logs go to"),
        (EXPORT, &[WRITER], Vec::new(), 3, "no message"),
        (EXPORT, &[WRITER], b"no message".to_vec(), 3, "as one of gRPC"),
        (EXPORT, &[WRITER], framed(false, b"\xff"), 3, "MalformedBody"),
        (EXPORT, &[WRITER, ("grpc-encoding", "br")], framed(true, b"x"), 12, "is not supported"),
        (EXPORT, &zipped, framed(true, b"x"), 3, "not zstd"),
        (EXPORT, &zipped, bomb, 3, "larger than 65536 bytes"),
        (EXPORT, &[WRITER], good[..good.len() - 1].to_vec(), 14, "1 bytes of the message are missing"),
        (EXPORT, &[WRITER], [good.as_slice(), b"x"].concat(), 14, "more than one message"),
    ];
    for (path, headers, body, status, says) in cases {
        let (found, message, _) = world.call(path, headers, body.clone()).await;
        assert_eq!(found, *status, "{headers:?}: {message}");
        assert!(message.contains(says), "{message}");
    }
    assert_eq!(world.stored(), 0);
    *world.fake.broken.lock() = Some(wire::Problem::unavailable("NoResponders", "nobody there").unknown());
    assert_eq!(world.call(EXPORT, &[WRITER], good.clone()).await.0, 14);
    *world.fake.broken.lock() = None;
    let places: Vec<_> = std::iter::from_fn(|| world.door.ingests.take(None)).collect();
    assert_eq!(world.call(EXPORT, &[WRITER], good).await.0, 14, "exporters repeat nothing else");
    drop(places);
    world.end().await;
}

#[actix_web::test]
async fn calls_come_inside_tls() {
    let world = World::new(Some(&Certificates::new())).await;
    assert_eq!(world.call(EXPORT, &[WRITER], framed(false, &otlp_request(1, "x"))).await.0, 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_arrive_may_come_again() {
    let late = message(stream::pending::<Result<Bytes, String>>()).await.err().unwrap();
    assert!(late.code == 14 && late.message.contains("did not arrive"), "{late:?}");
    let broken = message(stream::iter([Err::<Bytes, _>("reset")])).await.err().unwrap();
    assert!(broken.code == 14 && broken.message.contains("reset"), "{broken:?}");
}

/// A connection in memory, where time passes by itself.
fn connected() -> (tokio::io::DuplexStream, TaskTracker, Door) {
    tokio::time::pause();
    let door = door(&Arc::new(Fake::default()), &Arc::new(FakeGrants::default()));
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let tasks = TaskTracker::new();
    tasks.close();
    tasks.spawn_local(serve(door.clone(), Box::new(ours), tasks.clone()));
    (theirs, tasks, door)
}

#[actix_web::test]
async fn a_connection_without_calls_gives_its_place_back() {
    let (mut socket, tasks, _door) = connected();
    let begun = Instant::now();
    // A client that has said who it is, with no settings, and then answers nothing.
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut heard = Vec::new();
    timeout(10 * IDLE_MAX, socket.read_to_end(&mut heard)).await.expect("it is cut off").unwrap();
    tasks.wait().await;
    let held = begun.elapsed();
    assert!(held >= IDLE_MAX + BEGIN_WITHIN && held < IDLE_MAX + 2 * BEGIN_WITHIN, "{held:?}");
}

#[actix_web::test]
async fn an_open_call_keeps_its_connection() {
    let (socket, tasks, _door) = connected();
    let begun = Instant::now();
    let (calls, connection) = h2::client::handshake(socket).await.unwrap();
    // A message that says its length and does not come: it is waited for longer than its head.
    let request = Request::post(format!("http://localhost{EXPORT}")).header("content-type", "application/grpc");
    let called = async {
        let mut ready = calls.ready().await.unwrap();
        let request = request.header(WRITER.0, WRITER.1).body(()).unwrap();
        let (answer, mut sending) = ready.send_request(request, false).unwrap();
        sending.send_data(framed(false, b"x")[..HEAD_BYTES].to_vec().into(), false).unwrap();
        let (head, _) = answer.await.unwrap().into_parts();
        assert_eq!(header(&head.headers, "grpc-status"), Some("14"));
        (begun.elapsed(), ready)
    };
    let ended = async {
        drop(connection.await);
        begun.elapsed()
    };
    let ((answered, _ready), ended) = timeout(10 * IDLE_MAX, async { tokio::join!(called, ended) }).await.unwrap();
    tasks.wait().await;
    assert!(answered > 2 * BEGIN_WITHIN, "{answered:?}");
    assert!(ended >= answered + IDLE_MAX && ended < answered + IDLE_MAX + 2 * BEGIN_WITHIN, "{ended:?}");
}

#[test]
fn messages_are_plain_text() {
    assert_eq!(percent("a b%\n\u{e4}"), "a b%25%0A%C3%A4");
    assert!(percent(&"x".repeat(5_000)).len() <= MESSAGE_BYTES_MAX);
}

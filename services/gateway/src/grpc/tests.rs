//! Calls over real sockets, and a platform in memory.

use std::io::Write;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceResponse, logs_service_client::LogsServiceClient,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tonic::{Code, Status, codec::CompressionEncoding, transport::Endpoint};

use super::{
    connection::{BEGIN_WITHIN, IDLE_MAX, serve},
    *,
};
use crate::{
    config::Config,
    doors::http::testing::{export_request, otlp_request},
    fake::{Fake, FakeGrants, PATIENCE, door, tls::Certificates},
    sockets::Socket,
};

const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
/// What stands in front of a message: whether it is packed, and its length.
const HEAD_BYTES: usize = 5;

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

struct World {
    fake: Arc<Fake>,
    door: Door,
    bound: SocketAddr,
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
        let bound = open(&door, tls, &tasks, Handle::current()).await.unwrap().unwrap();
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
        Self { fake, door, bound, tasks, calls }
    }

    /// The outcome of a call, what is said about it, and its answer.
    async fn call(&self, path: &str, headers: &[(&'static str, &str)], body: Vec<u8>) -> (Status, Vec<u8>) {
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
        (Status::from_header_map(&trailers).unwrap(), message)
    }

    async fn end(self) {
        self.door.stop.cancel();
        drop(self.calls);
        self.tasks.close();
        timeout(PATIENCE, self.tasks.wait()).await.unwrap();
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

fn deflate(message: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(message).unwrap();
    packer.finish().unwrap()
}

fn snappy(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).unwrap()
}

/// As zstd does it, in a frame that asks for a window of 128 MiB.
fn zstd_wide(message: &[u8]) -> Vec<u8> {
    let mut packer = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    packer.window_log(27).unwrap();
    packer.include_contentsize(false).unwrap();
    packer.write_all(message).unwrap();
    packer.finish().unwrap()
}

const WRITER: (&str, &str) = ("authorization", "Bearer writer");

#[actix_web::test]
async fn records_are_stored() {
    let world = World::new(None).await;
    let plain = framed(false, &otlp_request(1, "plain"));
    for _ in 0..2 {
        let (status, message) = world.call(EXPORT, &[WRITER], plain.clone()).await;
        assert_eq!((status.code(), message), (Code::Ok, vec![0; HEAD_BYTES]));
    }
    assert_eq!(world.stored(), 1, "what is sent again is stored once");
    let packed = framed(true, &zstd(&otlp_request(2, "packed")));
    assert_eq!(world.call(EXPORT, &[WRITER, ("grpc-encoding", "zstd")], packed).await.0.code(), Code::Ok);
    // An encoding may be agreed on and not be used.
    let unpacked = framed(false, &otlp_request(3, "unpacked"));
    assert_eq!(world.call(EXPORT, &[WRITER, ("grpc-encoding", "gzip")], unpacked).await.0.code(), Code::Ok);
    let packed = [("deflate", deflate(&otlp_request(5, "deflate"))), ("snappy", snappy(&otlp_request(6, "snappy")))];
    for (name, packed) in packed {
        let packed = framed(true, &packed);
        assert_eq!(world.call(EXPORT, &[WRITER, ("grpc-encoding", name)], packed).await.0.code(), Code::Ok, "{name}");
    }
    assert_eq!(world.stored(), 5);
    let (status, message) = world.call(EXPORT, &[WRITER], framed(false, &otlp_request(4, &"x".repeat(40_000)))).await;
    assert_eq!((status.code(), message), (Code::Ok, vec![0; HEAD_BYTES]), "a message of several parts");
    world.end().await;
}

#[actix_web::test]
async fn the_official_client_is_understood() {
    let world = World::new(None).await;
    let channel = Endpoint::from_shared(format!("http://{}", world.bound)).unwrap().connect().await.unwrap();
    let mut client = LogsServiceClient::new(channel).send_compressed(CompressionEncoding::Gzip);
    let mut export = async |token: &str, text: &str| {
        let mut request = tonic::Request::new(export_request(1, text));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        client.export(request).await.map(tonic::Response::into_inner)
    };
    assert_eq!(export("writer", "one").await.unwrap(), ExportLogsServiceResponse::default());
    assert_eq!(export("nobody", "one").await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(world.stored(), 1);
    drop(client);
    world.end().await;
}

#[actix_web::test]
async fn refusals_say_whether_to_come_again() {
    let world = World::new(None).await;
    let good = framed(false, &otlp_request(1, "x"));
    let bomb = framed(true, &zstd(&vec![0; 1 << 20]));
    let wide = framed(true, &zstd_wide(&otlp_request(1, "x")));
    let zipped = [WRITER, ("grpc-encoding", "zstd")];
    // A call, its metadata and body, how it is refused, and in which words.
    type Case<'c> = (&'c str, &'c [(&'static str, &'c str)], Vec<u8>, i32, &'c str);
    let cases: &[Case<'_>] = &[
        (EXPORT, &[], good.clone(), 16, "authorization"),
        (EXPORT, &[("authorization", "Bearer nobody")], good.clone(), 16, "not known"),
        (EXPORT, &[("authorization", "Bearer reader")], good.clone(), 7, "RoleTooWeak"),
        (EXPORT, &[("authorization", "Bearer root")], good.clone(), 5, "UnknownIndex"),
        ("/opentelemetry.proto.collector.logs.v1.LogsService/Import", &[WRITER], good.clone(), 12, "logs go to"),
        ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", &[WRITER], good.clone(), 12, ""),
        (EXPORT, &[WRITER], Vec::new(), 3, "no message"),
        (EXPORT, &[WRITER], b"no message".to_vec(), 3, "as one of gRPC"),
        (EXPORT, &[WRITER], framed(false, b"\xff"), 3, "MalformedBody"),
        (EXPORT, &[WRITER, ("grpc-encoding", "br")], framed(true, b"x"), 12, "is not supported"),
        (EXPORT, &zipped, framed(true, b"x"), 3, "not zstd"),
        (EXPORT, &zipped, bomb, 3, "larger than 65536 bytes"),
        (EXPORT, &[WRITER], framed(false, &vec![0; 65_537]), 3, "larger than 65536 bytes"),
        (EXPORT, &zipped, wide, 3, "not zstd"),
        (EXPORT, &[WRITER], good[..good.len() - 1].to_vec(), 14, "1 bytes of the message are missing"),
        (EXPORT, &[WRITER], good[..HEAD_BYTES - 1].to_vec(), 14, "broke off"),
        (EXPORT, &[WRITER], good.repeat(2), 3, "more than one message"),
    ];
    for (path, headers, body, code, says) in cases {
        let (status, _) = world.call(path, headers, body.clone()).await;
        assert_eq!(status.code() as i32, *code, "{headers:?}: {status}");
        assert!(status.message().contains(says), "{status}");
        assert_eq!(status.details().is_empty(), *code != 14, "when to come again: {status}");
    }
    assert_eq!(world.stored(), 0);
    *world.fake.broken.lock() = Some(wire::Problem::unavailable("NoResponders", "nobody there").unknown());
    assert_eq!(world.call(EXPORT, &[WRITER], good.clone()).await.0.code(), Code::Unavailable);
    *world.fake.broken.lock() = None;
    let places: Vec<_> = std::iter::from_fn(|| world.door.ingests.take(None)).collect();
    let (status, _) = world.call(EXPORT, &[WRITER], good).await;
    assert_eq!(status.code(), Code::Unavailable, "not all exporters repeat anything else");
    assert!(!status.details().is_empty(), "when to come again");
    drop(places);
    world.end().await;
}

#[actix_web::test]
async fn calls_come_inside_tls() {
    let world = World::new(Some(&Certificates::new())).await;
    assert_eq!(world.call(EXPORT, &[WRITER], framed(false, &otlp_request(1, "x"))).await.0.code(), Code::Ok);
    world.end().await;
}

/// A connection in memory, where time passes by itself.
fn connected(room: usize) -> (tokio::io::DuplexStream, TaskTracker, Door) {
    tokio::time::pause();
    let door = door(&Arc::new(Fake::default()), &Arc::new(FakeGrants::default()));
    let (ours, theirs) = tokio::io::duplex(room);
    let tasks = TaskTracker::new();
    tasks.close();
    tasks.spawn(serve(services(&door), call_within(&door), Box::new(ours), door.stop.clone()));
    (theirs, tasks, door)
}

#[actix_web::test]
async fn a_connection_that_says_nothing_gives_its_place_back() {
    let (mut socket, tasks, _door) = connected(64 << 10);
    let begun = Instant::now();
    let mut heard = Vec::new();
    timeout(10 * IDLE_MAX, socket.read_to_end(&mut heard)).await.expect("it is cut off").unwrap();
    tasks.wait().await;
    assert!(begun.elapsed() < 3 * BEGIN_WITHIN, "{:?}", begun.elapsed());
}

#[actix_web::test]
async fn a_connection_without_calls_gives_its_place_back() {
    let (mut socket, tasks, _door) = connected(64 << 10);
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
async fn a_connection_that_reads_nothing_gives_its_place_back() {
    let (mut socket, tasks, _door) = connected(1 << 10);
    let begun = Instant::now();
    let pings = b"\0\0\x08\x06\0\0\0\0\0\0\0\0\0\0\0\0\0".repeat(10_000);
    let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    // More than both sides keep: what is answered has no room from some time on, and is waited for before anything is read.
    let speak = async {
        socket.write_all(settings).await.unwrap();
        socket.write_all(&pings).await.unwrap_err()
    };
    timeout(10 * IDLE_MAX, async { tokio::join!(speak, tasks.wait()) }).await.expect("it is cut off");
    let held = begun.elapsed();
    assert!(held >= IDLE_MAX + BEGIN_WITHIN && held < IDLE_MAX + 2 * BEGIN_WITHIN, "{held:?}");
}

#[actix_web::test]
async fn an_open_call_keeps_its_connection() {
    let (socket, tasks, _door) = connected(64 << 10);
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

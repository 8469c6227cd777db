//! Traces go to a collector inside TLS: a real one on loopback, and the exporter in a process of its own, because it is global.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also outside of its test functions")]
#![allow(clippy::disallowed_methods, reason = "a test tells its child through the environment")]

use std::{
    io::{BufRead, Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::pin,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use telemetry::{Options, TlsSource, init, span_from};
use testkit::{
    Certificates,
    tls::{Files, Tls},
};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    time::{interval, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

const CHILD: &str = "TELEMETRY_TLS_CHILD";
/// What the exporter's batch waits for more; its own default is five seconds.
const DELAY: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "20");
const ARRIVES_WITHIN: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(100);
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Sends a span for each line that comes in.
fn child(endpoint: &str, dir: &Path) {
    let at = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
    let files = Files { certificate: at("certificate.pem"), key: at("key.pem"), ca: at("ca.pem") };
    let tls = Tls::open(files).unwrap();
    let source = TlsSource::new(move || {
        tls.reload().unwrap();
        tls.outward()
    });
    let options = Options { otlp_endpoint: Some(endpoint.to_owned()), otlp_tls: Some(source), ..Options::new("test") };
    let _guard = init(options).unwrap();
    for line in std::io::stdin().lock().lines() {
        span_from(None, "work").in_scope(|| tracing::info!(line = line.unwrap(), "worked"));
    }
}

fn exporter(test: &str, endpoint: &str, dir: PathBuf) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, format!("{endpoint} {}", dir.display()));
    command.env(DELAY.0, DELAY.1).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn work(child: &mut Child) {
    child.stdin.as_mut().unwrap().write_all(b"once\n").unwrap();
}

/// Ends the exporter; what it logged.
fn ended(mut child: Child) -> String {
    drop(child.stdin.take());
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    text
}

fn is_child() -> bool {
    let Ok(told) = std::env::var(CHILD) else { return false };
    let (endpoint, dir) = told.split_once(' ').unwrap();
    child(endpoint, Path::new(dir));
    true
}

struct Collector {
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl Collector {
    /// Speaks HTTP/2 inside TLS, as collectors do.
    async fn open(address: &str, config: &ServerConfig) -> (Self, SocketAddr) {
        let mut config = config.clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let bound = listener.local_addr().unwrap();
        (Self { listener, tls: TlsAcceptor::from(Arc::new(config)) }, bound)
    }

    /// Takes one export of one connection, which ends then; whether the client showed a certificate.
    async fn take(&self) -> bool {
        let stream = loop {
            let (stream, _) = self.listener.accept().await.unwrap();
            // A connection that was begun with former files.
            if let Ok(stream) = self.tls.accept(stream).await {
                break stream;
            }
        };
        let showed = stream.get_ref().1.peer_certificates().is_some();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut answer) = connection.accept().await.unwrap().unwrap();
        assert_eq!((request.uri().path(), request.uri().scheme_str()), (EXPORT, Some("https")));
        let mut body = request.into_body();
        let reading = async {
            let mut bytes = Vec::new();
            while let Some(part) = body.data().await {
                bytes.extend_from_slice(&part.unwrap());
            }
            bytes
        };
        let bytes = tokio::select! {
            bytes = reading => bytes,
            _ = connection.accept() => panic!("the connection ended in the middle of a request"),
        };
        assert!(bytes.windows(4).any(|name| name == b"work"), "the span has its name");
        answer.send_reset(h2::Reason::REFUSED_STREAM);
        showed
    }
}

/// Lets the exporter work until an export has come in: what it sends on a connection that just ended is lost.
async fn arrives(child: &mut Child, collector: &Collector) -> bool {
    let mut ticks = interval(TICK);
    let mut taking = pin!(collector.take());
    let working = async {
        loop {
            tokio::select! {
                showed = &mut taking => return showed,
                _ = ticks.tick() => work(child),
            }
        }
    };
    timeout(ARRIVES_WITHIN, working).await.expect("no export has come")
}

#[test]
fn traces_leave_inside_tls_and_new_connections_take_new_files() {
    if !is_child() {
        Runtime::new().unwrap().block_on(traces_leave());
    }
}

async fn traces_leave() {
    let certificates = Certificates::make().unwrap();
    // A collector that demands a certificate.
    let config = certificates.tls().unwrap().peers().unwrap().server;
    let (collector, bound) = Collector::open("127.0.0.1", &config).await;
    let own = tempfile::tempdir().unwrap();
    let copy = |from: &Certificates| {
        for name in ["key.pem", "certificate.pem", "ca.pem"] {
            std::fs::copy(from.path(name), own.path().join(name)).unwrap();
        }
    };
    copy(&certificates);
    let test = "traces_leave_inside_tls_and_new_connections_take_new_files";
    let mut child = exporter(test, &format!("https://localhost:{}", bound.port()), own.path().to_owned());
    assert!(arrives(&mut child, &collector).await, "the exporter shows its certificate");
    // Another authority altogether, on both sides.
    let renewed = Certificates::make().unwrap();
    let mut config = (*renewed.tls().unwrap().peers().unwrap().server).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let collector = Collector { tls: TlsAcceptor::from(Arc::new(config)), ..collector };
    copy(&renewed);
    assert!(arrives(&mut child, &collector).await);
    drop(collector);
    ended(child);
}

#[test]
fn a_collector_that_is_not_believed_gets_nothing_and_the_log_says_why() {
    if !is_child() {
        Runtime::new().unwrap().block_on(nothing_is_got());
    }
}

async fn nothing_is_got() {
    let (ours, foreign) = (Certificates::make().unwrap(), Certificates::make().unwrap());
    let test = "a_collector_that_is_not_believed_gets_nothing_and_the_log_says_why";
    for (address, server, words) in
        [("127.0.0.1", &foreign, "neither one of the system's nor in"), ("127.0.0.2", &ours, "it is not for 127.0.0.2")]
    {
        let config = server.tls().unwrap().server().unwrap();
        let (collector, bound) = Collector::open(address, &config).await;
        let mut child = exporter(test, &format!("https://{bound}"), ours.path(""));
        work(&mut child);
        let (stream, _) = timeout(ARRIVES_WITHIN, collector.listener.accept()).await.unwrap().unwrap();
        assert!(collector.tls.accept(stream).await.is_err(), "{words}");
        drop(collector);
        let log = ended(child);
        assert!(log.contains("collector is not reached") && log.contains(words), "{log}");
    }
}

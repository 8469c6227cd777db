//! Figures of the exchange between two processes of this machine; asserts nothing.
//!
//! `cargo run --release -p exchange --example figures -- [unix|tcp|tls …] [--gb N] [--rows N]`: for each way the CPU
//! seconds of both ends per GB, the memory of both ends while the receiver takes nothing, and how soon a stopped
//! receiver is noticed. One figure a line: name, value and unit with tabs between.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench prints, stops at what it cannot do, and measures in wall time"
)]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use exchange::{ChannelId, Exchange, Message, Options, Secure, Sender};
use testkit::{
    Certificates,
    tls::{Files, Tls},
};
use tokio::task::JoinHandle;

/// As in the installed program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECRET: &str = "a secret of the figures";
const WAYS: [&str; 3] = ["unix", "tcp", "tls"];
/// How long the receiver takes nothing.
const REST: Duration = Duration::from_secs(2);
/// The kernel's unit of CPU time.
const TICKS_PER_S: f64 = 100.0;

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let number = |name: &str, usual: usize| {
        let at = words.iter().position(|word| word == name);
        at.map_or(usual, |at| words[at + 1].parse().unwrap())
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    if words.first().is_some_and(|word| word == "drain") {
        return runtime.block_on(drain(&words[1], Path::new(&words[2])));
    }
    let (bytes, rows) = (number("--gb", 1) * 1_000_000_000, number("--rows", 8_192));
    let certificates = Certificates::make().unwrap();
    let directory = certificates.path("ca.pem").parent().unwrap().to_owned();
    let named: Vec<&str> = WAYS.into_iter().filter(|way| words.iter().any(|word| word == way)).collect();
    for way in WAYS.into_iter().filter(|way| named.is_empty() || named.contains(way)) {
        runtime.block_on(measure(way, &directory, u64::try_from(bytes).unwrap(), rows));
    }
}

async fn bind(way: &str, directory: &Path) -> Exchange {
    let secure = (way == "tls").then(|| {
        let at = |name: &str| Some(directory.join(name));
        let files = Files { certificate: at("certificate.pem"), key: at("key.pem"), ca: at("ca.pem") };
        let peers = Tls::open(files).unwrap().peers().unwrap();
        Secure { server: peers.server, client: peers.client }
    });
    let options = Options { secure, unix: way == "unix", ..Options::default() };
    Exchange::bind_with("127.0.0.1:0".parse().unwrap(), SECRET, options).await.unwrap()
}

fn channel(to: u32) -> ChannelId {
    ChannelId { job: "figures".parse().unwrap(), attempt: 1, edge: 0, from: 0, to }
}

/// The receiving process: takes all of channel 0, rests before it takes anything of channel 1, then waits to be stopped.
async fn drain(way: &str, directory: &Path) {
    let exchange = bind(way, directory).await;
    println!("{}", exchange.local_addr());
    let mut first = exchange.receiver(channel(0)).unwrap();
    let mut rows = 0;
    while let Some(message) = first.recv().await.unwrap() {
        if let Message::Data(batch) = message {
            rows += batch.num_rows();
        }
    }
    println!("{rows}");
    let mut second = exchange.receiver(channel(1)).unwrap();
    tokio::time::sleep(REST).await;
    println!("{}", second.waiting_bytes());
    while second.recv().await.is_ok_and(|message| message.is_some()) {}
}

async fn measure(way: &str, directory: &Path, bytes: u64, rows: usize) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["drain", way])
        .arg(directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let there: SocketAddr = said.next().unwrap().parse().unwrap();
    let here = bind(way, directory).await;
    let batches: Vec<RecordBatch> = (0..8).map(|n| batch(n, rows)).collect();

    let mut sender = here.sender(there, channel(0)).await.unwrap();
    let (began, own, other) = (Instant::now(), cpu("self"), cpu(&child.id().to_string()));
    let mut sent = 0;
    while sender.sent_bytes() < bytes {
        for batch in &batches {
            sender.send(Message::Data(batch.clone())).await.unwrap();
            sent += batch.num_rows();
        }
    }
    sender.send(Message::Eos).await.unwrap();
    let received: usize = said.next().unwrap().parse().unwrap();
    assert_eq!(received, sent);
    let (wall, gb) = (began.elapsed().as_secs_f64(), sender.sent_bytes() as f64 / 1e9);
    let (own, other) = ((cpu("self") - own) / gb, (cpu(&child.id().to_string()) - other) / gb);
    show(format!("{way}, {rows} rows a batch, both ends"), own + other, "CPU s/GB");
    show(format!("{way}, {rows} rows a batch, sender"), own, "CPU s/GB");
    show(format!("{way}, {rows} rows a batch, receiver"), other, "CPU s/GB");
    show(format!("{way}, {rows} rows a batch"), gb / wall, "GB/s");
    stopped(way, here.sender(there, channel(1)).await.unwrap(), &batches, &mut child, &mut said).await;
}

async fn stopped(
    way: &str,
    mut sender: Sender,
    batches: &[RecordBatch],
    child: &mut Child,
    said: &mut impl Iterator<Item = String>,
) {
    let pid = child.id().to_string();
    let before = (resident("self"), resident(&pid));
    let endless: Vec<RecordBatch> = batches.to_vec();
    let sending: JoinHandle<Result<(), exchange::Error>> = tokio::spawn(async move {
        loop {
            for batch in &endless {
                sender.send(Message::Data(batch.clone())).await?;
            }
        }
    });
    tokio::time::sleep(REST * 3 / 4).await;
    let after = (resident("self"), resident(&pid));
    let waiting: u64 = said.next().unwrap().parse().unwrap();
    show(format!("{way}, receiver takes nothing, waiting there"), waiting as f64 / 1024.0, "KiB");
    show(format!("{way}, receiver takes nothing, sender grows by"), after.0 - before.0, "KiB");
    show(format!("{way}, receiver takes nothing, receiver grows by"), after.1 - before.1, "KiB");
    tokio::time::sleep(Duration::from_millis(200)).await;
    Command::new("kill").args(["-STOP", &pid]).status().unwrap();
    let began = Instant::now();
    sending.await.unwrap().unwrap_err();
    show(format!("{way}, stopped receiver noticed after"), began.elapsed().as_secs_f64(), "s");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn show(name: String, value: f64, unit: &str) {
    println!("{name}\t{value:.3}\t{unit}");
}

/// Time, key and two numbers, as a stream of events has them.
fn batch(seed: i64, rows: usize) -> RecordBatch {
    let numbers: Vec<i64> = (0..i64::try_from(rows).unwrap()).map(|i| seed * 1_000_003 + i * 7_919).collect();
    let keys = numbers.iter().map(|n| format!("user-{:06}", n.rem_euclid(100_000)));
    RecordBatch::try_from_iter([
        ("time", Arc::new(TimestampNanosecondArray::from(numbers.clone())) as ArrayRef),
        ("key", Arc::new(StringArray::from_iter_values(keys))),
        ("amount", Arc::new(Float64Array::from_iter_values(numbers.iter().map(|n| (n % 9_973) as f64 / 100.0)))),
        ("count", Arc::new(Int64Array::from(numbers))),
    ])
    .unwrap()
}

/// CPU seconds of a process so far, user and system.
fn cpu(pid: &str) -> f64 {
    let stat = fs::read_to_string(PathBuf::from("/proc").join(pid).join("stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS_PER_S
}

/// KiB resident.
fn resident(pid: &str) -> f64 {
    let status = fs::read_to_string(PathBuf::from("/proc").join(pid).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

//! Real sockets of this machine.

mod channels;
mod hostile;
mod inputs;
mod neighbours;
mod secure;
mod silent;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;

use crate::{ChannelId, Error, Exchange, Message, Options, Receiver};

const SECRET: &str = "sixteen bytes and more";

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn exchange() -> Exchange {
    Exchange::bind(any(), SECRET).await.unwrap()
}

async fn with(options: Options) -> Exchange {
    Exchange::bind_with(any(), SECRET, options).await.unwrap()
}

/// The ways from one end to the other.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Tcp,
    Unix,
    Local,
}

const WAYS: [Way; 3] = [Way::Tcp, Way::Unix, Way::Local];

impl Way {
    /// Two exchanges, or the same twice, with that way between them.
    async fn ends(self, options: Options) -> (Exchange, Exchange) {
        let options = Options { unix: self != Self::Tcp, ..options };
        let here = with(options.clone()).await;
        let there = if self == Self::Local { here.clone() } else { with(options).await };
        (here, there)
    }
}

fn id(from: u32, to: u32) -> ChannelId {
    ChannelId { job: "job-1".parse().unwrap(), attempt: 1, edge: 0, from, to }
}

/// Rows numbered from `first`, each with that many bytes of text.
fn batch(first: i64, rows: i64, bytes: usize) -> RecordBatch {
    let text = "x".repeat(bytes);
    RecordBatch::try_from_iter([
        ("n", Arc::new((first..first + rows).collect::<Int64Array>()) as ArrayRef),
        ("text", Arc::new(StringArray::from_iter_values((0..rows).map(|_| &text)))),
    ])
    .unwrap()
}

fn numbers(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

/// Nothing in these tests takes long, so whatever does is a hang.
const LONG: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    let began = std::time::Instant::now();
    let out = tokio::time::timeout(LONG, future).await.expect("a hang");
    // At the deadline the future is polled once more, which would hide a missing wake-up.
    assert!(began.elapsed() < LONG, "a hang that the deadline woke");
    out
}

/// Lets the other tasks run until the condition holds.
async fn eventually(mut holds: impl FnMut() -> bool) {
    within(async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// All rows up to the end of the stream.
async fn drain(receiver: &mut Receiver) -> Result<Vec<i64>, Error> {
    let mut rows = Vec::new();
    while let Some(message) = within(receiver.recv()).await? {
        if let Message::Data(batch) = message {
            rows.extend(numbers(&batch));
        }
    }
    Ok(rows)
}

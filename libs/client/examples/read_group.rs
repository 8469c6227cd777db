//! Reads an index with a reader group: start it several times, and each process gets its share.
//!
//! Needs a running installation: its NATS address, the credentials of the platform account, its object storage, an index, and a
//! name for this reader:
//! `cargo run -p client --example read_group -- nats://127.0.0.1:4222 platform.creds file:///data/objects shop worker-1`.
#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::time::Duration;

use anyhow::{Context, Result};
use client::{Client, Delivered, GroupOptions};
use types::{IndexName, ReaderId};
use wire::coordinator::{CutKind, GroupConfig, GroupRetention};

/// How long nothing may come before the example ends.
const PATIENCE: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Result<()> {
    run(&std::env::args().skip(1).collect::<Vec<_>>()).await.map(drop)
}

/// Answers how many events it was given.
pub(crate) async fn run(arguments: &[String]) -> Result<usize> {
    let [url, creds, objects, index, reader] = arguments else {
        println!("usage: read_group NATS-URL CREDENTIALS-FILE OBJECTS-URL INDEX READER");
        return Ok(0);
    };
    let creds = Some(std::fs::read_to_string(creds).with_context(|| format!("read {creds}"))?);
    let bus = bus::Bus::connect(bus::BusOptions { url: url.clone(), creds, ..Default::default() }).await?;
    let client = Client::new(bus, store::Objects::open(objects)?);

    let index: IndexName = index.parse()?;
    // A group belongs to the tenant whose streams it reads.
    let scope = client.stream(&index).await?.scope.clone();
    let config = GroupConfig {
        group: format!("example-{index}").parse()?,
        scope,
        from: [(index, CutKind::Unbounded)].into(),
        to: Default::default(),
        checkpoint_ms: 30_000,
        retention: GroupRetention::None,
    };
    let group = client.create_group(&config).await?;
    let reader: ReaderId = reader.parse()?;
    // A reader of this name that died without closing is in the way.
    if group.reader_offline(&reader, None).await? {
        println!("took over from an earlier {reader}");
    }
    let mut reader = group.reader(reader, GroupOptions::default()).await?;
    let mut count = 0;
    while let Some(delivered) = reader.next(PATIENCE).await? {
        match delivered {
            Delivered::Events { segment, first, batch, .. } => {
                count += batch.num_rows();
                println!("segment {segment} from {first}: {} events", batch.num_rows());
            }
            // Here the results so far are to be made durable; the next call says that they are.
            Delivered::Checkpoint(name) => println!("checkpoint {name} after {count} events"),
            Delivered::Rebalanced { gained, released } => println!("gained {gained:?}, released {released:?}"),
            Delivered::Truncated { index, resumes } => {
                println!("{index} begins later: at {}", client::cut_to_text(&resumes));
            }
            Delivered::EndOfData => break,
            _ => {}
        }
    }
    println!("{count} events; about {} bytes are left for others", group.unread_bytes().await?);
    reader.close().await?;
    Ok(count)
}

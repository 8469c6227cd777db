//! Writes numbered events to an index, each exactly once, and says how fast.
//!
//! Needs a running installation, for example `logboom standalone`: its NATS address, the credentials of the platform account,
//! its object storage, and an index:
//! `cargo run -p client --example write -- nats://127.0.0.1:4222 platform.creds file:///data/objects shop 100000`.
#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::time::Instant;

use anyhow::{Context, Result};
use client::{Client, WriterOptions};
use types::{IndexName, RoutingKey};

/// Keys among which the events are spread.
const KEYS: usize = 100;
/// Events of one batch.
const BATCH: usize = 1_000;

#[tokio::main]
async fn main() -> Result<()> {
    run(&std::env::args().skip(1).collect::<Vec<_>>()).await
}

pub(crate) async fn run(arguments: &[String]) -> Result<()> {
    let [url, creds, objects, index, count] = arguments else {
        println!("usage: write NATS-URL CREDENTIALS-FILE OBJECTS-URL INDEX COUNT");
        return Ok(());
    };
    let creds = Some(std::fs::read_to_string(creds).with_context(|| format!("read {creds}"))?);
    let bus = bus::Bus::connect(bus::BusOptions { url: url.clone(), creds, ..Default::default() }).await?;
    let client = Client::new(bus, store::Objects::open(objects)?);
    let (index, count): (IndexName, usize) = (index.parse()?, count.parse()?);

    // The process id makes a name that no other living writer of this machine has.
    let options = WriterOptions::new(format!("example-{}", std::process::id()).parse()?);
    let writer = client.event_writer(index, options).await?;
    let keys: Vec<RoutingKey> = (0..KEYS).map(|n| RoutingKey::new(&format!("cart-{n}"))).collect::<Result<_, _>>()?;

    // One event whose place is wanted.
    let receipt = writer.write(Some(&keys[0]), r#"{"_msg":"first"}"#.into()).await?;
    match receipt.await? {
        Some(position) => println!("the first event is at offset {} of segment {}", position.offset, position.segment),
        None => println!("the first event is stored; its first acknowledgement was lost"),
    }

    // Many events: batches, and one wait at the end.
    let begun = Instant::now();
    for from in (0..count).step_by(BATCH) {
        let numbers = from..(from + BATCH).min(count);
        let events = numbers.map(|n| (Some(&keys[n % KEYS]), format!(r#"{{"_msg":"event {n}","n":{n}}}"#)));
        drop(writer.write_batch(events).await?);
    }
    writer.close().await?;
    let seconds = begun.elapsed().as_secs_f64();
    println!("{count} events are durable after {seconds:.2} s");
    Ok(())
}

//! Moves an amount between two accounts: both events become visible, or none.
//!
//! Needs a running installation, for example `logboom standalone`: its NATS address, the credentials of the platform account,
//! its object storage, and an index:
//! `cargo run -p client --example transaction -- nats://127.0.0.1:4222 platform.creds file:///data/objects shop commit`.
#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::time::Duration;

use anyhow::{Context, Result};
use client::{Client, WriteCause};
use types::{IndexName, RoutingKey};

/// How long the transaction lives if this process dies.
const LEASE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<()> {
    run(&std::env::args().skip(1).collect::<Vec<_>>()).await
}

pub(crate) async fn run(arguments: &[String]) -> Result<()> {
    let [url, creds, objects, index, how] = arguments else {
        println!("usage: transaction NATS-URL CREDENTIALS-FILE OBJECTS-URL INDEX commit|abort");
        return Ok(());
    };
    let creds = Some(std::fs::read_to_string(creds).with_context(|| format!("read {creds}"))?);
    let bus = bus::Bus::connect(bus::BusOptions { url: url.clone(), creds, ..Default::default() }).await?;
    let client = Client::new(bus, store::Objects::open(objects)?);
    let index: IndexName = index.parse()?;

    let transaction = client.begin_transaction(index.clone(), LEASE).await?;
    let id = transaction.id();
    for (account, amount) in [("account-1", -10), ("account-2", 10)] {
        let event = format!(r#"{{"_msg":"transfer","account":"{account}","amount":{amount}}}"#);
        let receipt = transaction.write(Some(&RoutingKey::new(account)?), event.into()).await?;
        receipt.await?;
        println!("{account} {amount:+}: durable, and not visible yet");
    }
    let ended = match how.as_str() {
        "commit" => transaction.commit().await,
        _ => transaction.abort().await,
    };
    match ended {
        Ok(()) => println!("transaction {id} is {:?}", client.transaction_phase(index, id).await?),
        // Another process may take the money back, or simply begin again: nothing of this one is visible.
        Err(error) if matches!(error.cause, WriteCause::TransactionOver { .. }) => println!("{error}"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

//! Two buyers, one pair of shoes: the table sells it once. Starts a nats-server of its own.
//!
//! Run it with `cargo run -p client --example table`.
#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use anyhow::{Context, Result};
use client::{Client, RowChange, RowCondition};
use types::Token;

#[tokio::main]
pub(crate) async fn main() -> Result<()> {
    let world = testkit::World::start().await?;
    let creds = Some(world.nats.platform_creds()?);
    let bus = bus::Bus::connect(bus::BusOptions { url: world.nats.url(), creds, ..Default::default() }).await?;
    let client = Client::new(bus, store::Objects::open(&world.objects_url())?);
    let stock = client.table(&"example".parse()?, &Token::new("stock")?).await?;

    stock.change(b"shoes", &[RowChange::put("left", "1"), RowChange::put("sold", "0")]).await?;

    // Both buyers look, and see the same.
    let seen = stock.get(b"shoes", b"left").await?.context("just written")?;
    for buyer in ["ann", "bob"] {
        // What is left, what is sold and who has it change together, and only if nobody bought meanwhile.
        let bought = stock
            .change(
                b"shoes",
                &[
                    RowChange::put("left", "0").on(RowCondition::Version(seen.version)),
                    RowChange::put("sold", "1"),
                    RowChange::put("buyer", buyer),
                ],
            )
            .await;
        match bought {
            Ok(_) => println!("{buyer} has the shoes"),
            Err(problem) => println!("{buyer} came too late: {problem}"),
        }
    }
    for entry in stock.iterate(b"shoes", b"", None, 10).await?.entries {
        println!("{:?} = {:?} at version {}", entry.secondary, entry.value, entry.version.0);
    }
    let buyer = stock.get(b"shoes", b"buyer").await?.context("somebody bought")?;
    assert_eq!(buyer.value, "ann");
    Ok(())
}

//! Four tasks count to a hundred together; each has a replica of the count. Starts a nats-server of its own.
//!
//! Run it with `cargo run -p client --example synchronizer`.
#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use anyhow::Result;
use client::{Apply, Client, StateSynchronizer};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use types::Token;

/// How far the tasks have counted, and who counted how often.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Count {
    total: u64,
    shares: [u64; 4],
}

/// One task counts on by one.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Counted {
    task: usize,
}

impl Apply<Counted> for Count {
    fn apply(&mut self, counted: &Counted) {
        self.total += 1;
        self.shares[counted.task] += 1;
    }
}

#[tokio::main]
pub(crate) async fn main() -> Result<()> {
    let world = testkit::World::start().await?;
    let creds = Some(world.nats.platform_creds()?);
    let bus = bus::Bus::connect(bus::BusOptions { url: world.nats.url(), creds, ..Default::default() }).await?;
    let client = Client::new(bus, store::Objects::open(&world.objects_url())?);

    let mut tasks = JoinSet::new();
    for task in 0..4 {
        let client = client.clone();
        tasks.spawn(async move {
            let mut count: StateSynchronizer<Count, Counted> =
                client.synchronizer(&"example".parse()?, &Token::new("count")?, Count::default()).await?;
            // The decision sees everything that was decided before it: the total never exceeds a hundred.
            while count.update(|count| (count.total < 100).then(|| vec![Counted { task }])).await? {}
            Ok::<_, anyhow::Error>(count.state().clone())
        });
    }
    while let Some(done) = tasks.join_next().await {
        let count = done??;
        println!("counted to {} by {:?}", count.total, count.shares);
        assert_eq!((count.total, count.shares.iter().sum::<u64>()), (100, 100));
    }
    Ok(())
}

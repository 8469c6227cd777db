//! Kills: one process after the other, in an order and at moments that the seed decides, each while another one is stopped.

use std::time::Duration;

use anyhow::{Context, Result};
use logboom_tests::Cluster;
use rand::{
    Rng, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};
use tokio::time::{Instant, sleep};

const NATS: &str = "nats-server";

/// Kills every process at least once, and goes on until the time is over; answers the number of kills.
pub(crate) async fn run(cluster: &mut Cluster, seed: u64, how_long: Duration) -> Result<usize> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut pause = |from: u64, to: u64| Duration::from_millis(random.random_range(from..to));
    let (first, begun) = (pause(1_500, 3_000), Instant::now());
    sleep(first).await;
    let mut kills = 0;
    let mut order = StdRng::seed_from_u64(seed ^ 1);
    loop {
        let mut victims = cluster.replicas();
        victims.push(NATS.to_owned());
        victims.shuffle(&mut order);
        for victim in victims {
            if begun.elapsed() > how_long && kills > cluster.replicas().len() {
                return Ok(kills);
            }
            let (down, up) = (pause(500, 1_500), pause(1_000, 4_000));
            let others: Vec<_> = cluster.replicas().into_iter().filter(|name| *name != victim).collect();
            let stopped = others.choose(&mut order).context("there is another process")?;
            kill_and_restart(cluster, &victim, stopped, down)
                .await
                .with_context(|| format!("kill {kills}: {victim}"))?;
            kills += 1;
            sleep(up).await;
            // A death that nobody caused is a defect, also when Kubernetes would cover it up.
            cluster.check().with_context(|| format!("after kill {kills}: {victim}"))?;
        }
    }
}

async fn kill_and_restart(cluster: &mut Cluster, victim: &str, stopped: &str, down: Duration) -> Result<()> {
    let begun = Instant::now();
    cluster.pause(stopped)?;
    if victim == NATS {
        cluster.nats.kill(0)?;
    } else {
        cluster.kill9(victim)?;
    }
    sleep(down).await;
    cluster.resume(stopped)?;
    if victim == NATS {
        cluster.nats.restart(0).await?;
    } else {
        cluster.restart(victim).await?;
    }
    println!("chaos: {victim} was away for {} ms, {stopped} was stopped meanwhile", begun.elapsed().as_millis());
    Ok(())
}

//! Real servers and a small world for tests.
//!
//! Owns the start and end of a real nats-server child with keys of its own ([`Nats`]), of several that keep every stream on three
//! disks, with the ways in which they fail ([`NatsCluster`]), network links and a bucket that fail when they are told to ([`Link`],
//! [`Proxy`], [`Bucket`]), an account of AWS with buckets, users and policies ([`S3Server`]), directories that are put back to what
//! they were ([`Backup`]), bytes that must be read for ever ([`Golden`]), a world around a server with settings, secrets,
//! certificates ([`Certificates`]) and object storage in a directory that goes away ([`World`]), a real API server of Kubernetes
//! ([`KubernetesApi`]), and waiting without sleeping ([`eventually`]).
//! Deliberately does not know: any service, and any fake of ours; what a test sees here is what production sees.
//!
//! The server's binary is `LB_NATS_SERVER`, else `.tools/bin/nats-server` in this or an upper directory, else `nats-server` on `PATH`.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! let mut world = testkit::World::start().await?;
//! let creds = Some(world.nats.platform_creds()?);
//! let bus = bus::Bus::connect(bus::BusOptions { url: world.nats.url(), creds, ..Default::default() }).await?;
//! world.nats.kill()?;
//! testkit::eventually(Duration::from_secs(5), async || !bus.is_connected()).await;
//! world.nats.restart().await?;
//! testkit::eventually(Duration::from_secs(5), async || bus.is_connected()).await;
//! # Ok(())
//! # }
//! ```

mod bucket;
mod certificates;
mod cluster;
mod damage;
mod golden;
mod kubernetes;
mod links;
mod nats;
mod port;
mod proxy;
mod question;
mod s3;
mod secrets;
mod server;
mod world;

use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use bucket::{Bucket, BucketFaults};
pub use certificates::Certificates;
pub use cluster::{NatsCluster, NatsOptions};
pub use damage::Backup;
pub use golden::Golden;
pub use kubernetes::KubernetesApi;
pub use links::Link;
pub use nats::Nats;
pub use port::free_port;
pub use proxy::{Proxy, Way};
pub use s3::{S3Faults, S3Server, StoredBucket, StoredVersion};
pub use server::server_path;
pub use tls;
pub use world::World;

/// How often [`eventually`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until `check` holds.
///
/// # Panics
/// If it does not within the time given.
pub async fn eventually(within: Duration, mut check: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !check().await {
        assert!(begun.elapsed() < within, "what was awaited did not come true within {within:?}");
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn eventually_ends_when_the_check_holds() {
        let mut looks = 0;
        eventually(Duration::from_secs(5), async || {
            looks += 1;
            looks == 3
        })
        .await;
        assert_eq!(looks, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "did not come true")]
    async fn eventually_gives_up() {
        eventually(Duration::from_millis(20), async || false).await;
    }
}

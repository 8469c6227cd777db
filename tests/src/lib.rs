//! What is tested across crates: the rules of the house, the manifests, the main job end to end.
//!
//! Owns the targets beside this folder (`tidy`, `kube`, `kubernetes`, `scenario`, `segments`, `operators`, `stream`, `clients`, `broker`, `bad_input`, `chaos`, `console`, `bench`)
//! and what they share: an installation of real processes ([`Cluster`], [`Standalone`]), its public doors ([`Api`], [`Binding`]), its
//! streams as no client shows them ([`Streams`], [`Walker`]), seeded events and files of events ([`waves`], [`event_files`], [`nexmark`]) and what a
//! continuous query must make of them ([`recompute`]), a provisioner that does as it is told ([`StandIn`]), a disk that may be filled ([`Tmpfs`]), and a receiver of webhooks
//! ([`Webhook`]).
//! Deliberately does not know the inside of a service: every test here goes through files, public doors or a process, and this crate
//! links neither the services nor the engine, only what a program of a user links: the client and what it stands on. One target, `operators`,
//! judges the operators of `flow` by themselves.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let mut cluster = logboom_tests::Cluster::start().await?;
//! cluster.api.provision("shop", 4).await?;
//! let binding = cluster.api.bind("shop", "admin").await?;
//! let publisher = binding.publisher().await?;
//! publisher.until_acked("logs.shop", "order-1", "{\"msg\":\"paid\"}").await?;
//! cluster.kill9("segment-store/a")?;
//! assert_eq!(cluster.api.count("SELECT count(*) AS n FROM shop").await?, 1);
//! # Ok(())
//! # }
//! ```
#![allow(clippy::disallowed_methods, reason = "tests start processes, read the environment and measure in wall time")]

mod api;
mod binding;
mod cluster;
mod event;
pub mod event_files;
mod flood;
pub mod nexmark;
mod options;
mod process;
mod program;
mod publisher;
pub mod recompute;
mod resources;
pub mod seeded;
mod stand_in;
mod standalone;
mod stream;
mod table;
mod tmpfs;
mod walker;
pub mod waves;
mod webhook;
mod workdir;

use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use api::{Answer, Api, instance_path};
pub use binding::Binding;
pub use cluster::Cluster;
pub use event::{event, jiff_text, sql_time};
pub use flood::Flood;
pub use options::Options;
pub use process::Process;
pub use program::{logboom, root, search_path, tools};
pub use publisher::{Publisher, RETRY_WITHIN};
pub use resources::{Usage, children, usage};
pub use stand_in::{Made, StandIn};
pub use standalone::Standalone;
pub use stream::{Streams, neighbours, patiently};
pub use table::Table;
pub use testkit::{Backup, Bucket, BucketFaults, Link, NatsCluster, Way, free_port, server_path as nats_server};
pub use tmpfs::Tmpfs;
pub use walker::{Seen, Walker};
pub use webhook::{Delivery, Webhook};
pub use workdir::Workdir;

/// How often [`eventually`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `look` gives a value; the last reason why not is the error.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(error) if begun.elapsed() >= within => {
                return Err(error.context(format!("{what}: not within {within:?}")));
            }
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

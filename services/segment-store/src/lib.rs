//! Keeps the events.
//!
//! Owns: segment containers - their durable log (Tier 1), the tail in memory, the storage writer that moves events to
//! object storage (Tier 2), recovery - and the front-door lanes that turn plain NATS publishes into appends.
//!
//! Doors, of each owned container: `AppendEvents`, `ReadSegment`; `CreateSegment`, `SealSegment`, `TruncateSegment`,
//! `MergeSegment`, `DeleteSegment`; `DescribeSegment`, `DescribeWriter`, `DescribeWriters`, `DescribeContainer`,
//! `ListContainerSegments`, `FlushContainer`; `DescribeRows`, `RunFragment`, `ReadFragment`; the lane of the same number in
//! the tenants' account. It tells
//! `ContainerLoaded`.
//!
//! State: follows from each container's log, is snapshotted to object storage, and is nowhere else.
//!
//! Deliberately does not know: which containers it should own (the coordinator's placement says), what a stream is beyond
//! its segments' key ranges, queries beyond the fragments that it is given, and who may read.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = settings::Settings::load(settings::Layers::default())?;
//! host::run::<segment_store::SegmentStore>(settings, None)?;
//! # Ok(())
//! # }
//! ```

mod actor;
mod api;
mod archives;
mod config;
pub mod container;
pub mod crash;
mod error;
mod lane;
mod metrics;
mod queries;
mod readiness;
mod tenure;

use actix::Actor;
use bus::Gatekeeper;
use host::{Host, Quotas, Running, Service, StartError};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use wire::views::{ARCHIVES, Member, VIEWS};

pub use config::{ArchiveConfig, Config};
pub use container::adopt::ADOPTED_MAX;
pub use error::{Damage, Error};
pub use readiness::{CONTAINERS, LOG_SPACE};

use crate::{
    actor::Store,
    archives::Archives,
    container::Limits,
    lane::streams::Streams,
    queries::{Queries, Threads},
    readiness::Readiness,
    tenure::Owned,
};

/// The service.
pub struct SegmentStore;

impl Service for SegmentStore {
    const NAME: wire::Service = wire::Service::SegmentStore;
    type Config = Config;

    async fn start(config: Config, host: Host) -> Result<Running, StartError> {
        metrics::register_all();
        crash::arm(&config.crash_point);
        let tenants = host.tenants().await?;
        let views = host.bus.bucket(VIEWS, None, host.common.journal_replicas).await?;
        let streams = Streams::default();
        let (known, mut all_known) = watch::channel(false);
        background(&host, "streams", streams.clone().follow(views.clone(), known));
        // A lane that does not know the streams yet would refuse what it should take.
        all_known.wait_for(|known| *known).await.map_err(StartError::other)?;

        let quotas = Quotas::open(&host).await?;
        let keeper = Gatekeeper::open(&host.bus, &tenants, host.common.journal_replicas).await?;
        let client = client::Client::new(host.bus.clone(), host.objects.clone());
        let owned = Owned::default();
        let threads = Threads::new().map_err(StartError::other)?;
        let queries = Queries::new(&config, host.objects.clone(), owned.clone(), &threads);
        let lanes = lane::Context { host: host.clone(), tenants, owned, streams, quotas, client };
        let limits = Limits::of(&config, host.common.snapshot_interval.0);
        let tenures = TaskTracker::new();
        let readiness = Readiness::new(&host);
        background(&host, "readiness", readiness.clone().watch());
        let archives = Archives::open(&config.archive, &host)?;
        let view = host.bus.bucket(ARCHIVES, None, host.common.journal_replicas).await?;
        background(&host, "archives", archives.clone().follow(view, host.clone()));
        let shared = tenure::Shared::new(host.clone(), limits, lanes, keeper, (readiness, archives), queries);
        let store = Store::new(shared, tenures.clone()).start();
        background(&host, "placement", actor::follow_placement(views, store));

        let (service, replica, started) = (Self::NAME, host.replica.clone(), host.started());
        let member = Member { service, replica, started, exchange_address: None, slots: 0, unready: <_>::default() };
        let announcement = host.announce(member).await?;
        Ok(Running::new(async move {
            tenures.close();
            tenures.wait().await;
            drop(threads);
            // Only now: whoever takes the containers over finds snapshots and no owner that still writes.
            announcement.withdraw().await;
        }))
    }
}

/// Runs a task that goes on until the service stops.
fn background(host: &Host, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    let stop = host.stop.clone();
    host.spawn(name, async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = task => {}
        }
    });
}

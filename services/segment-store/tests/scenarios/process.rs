//! A store in a process of its own: it may die, and it may have an environment of its own.

use std::{
    io::Read,
    process::{Child, Command, ExitStatus, Stdio},
};

use host::start_in_process;
use segment_store::SegmentStore;
use settings::{Layers, Settings};
use testkit::{World, eventually};

use crate::{bucket::Bucket, stage::LONG};

/// The child's settings, one a line.
const CHILD_SETTINGS: &str = "LB_TEST_CHILD_SETTINGS";
/// Everything goes to Tier 2 at once, is compacted, collected and snapshotted.
pub(crate) const LIVELY: &[&str] = &[
    "segment_store.flush_interval=100ms",
    "segment_store.garbage_delay=100ms",
    "segment_store.snapshot_frames=5",
    "common.snapshot_interval=1s",
    "common.lease_ttl=1s",
];

/// Not a test: the process that others start. It lives until its standard input ends.
#[actix::test]
#[ignore = "the process that tests start"]
#[allow(clippy::disallowed_methods, reason = "how the parent tells the child its settings")]
async fn child() {
    let set = std::env::var(CHILD_SETTINGS).unwrap().lines().map(str::to_owned).collect();
    let settings = Settings::load(Layers { set, ..Layers::default() }).unwrap();
    let store = start_in_process::<SegmentStore>(&settings, None).await.unwrap();
    tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await.unwrap().unwrap();
    store.stop().await.unwrap();
}

/// A child; it ends with this value at the latest.
pub(crate) struct Process(Child);

impl Process {
    #[allow(clippy::disallowed_methods, reason = "a test starts the process that is to die")]
    pub(crate) fn start(world: &World, replica: &str, set: &[String], env: &[(&str, &str)]) -> Self {
        let secret = |name: &str| format!("file:{}", world.nats.secret_path(name).display());
        let mut all = vec![
            format!("common.nats_url={}", world.nats.url()),
            format!("common.nats_creds={}", secret("platform.creds")),
            format!("common.tenants_creds={}", secret("tenants.creds")),
            format!("common.replica={replica}"),
            format!("common.data_dir={}", world.data_dir().display()),
            format!("common.object_store_url={}", world.objects_url()),
        ];
        all.extend(LIVELY.iter().map(|&one| one.to_owned()));
        all.extend(set.iter().cloned());
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::child", "--ignored", "--nocapture"])
            .env(CHILD_SETTINGS, all.join("\n"))
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// The same with a bucket as object storage.
    pub(crate) fn on(bucket: &Bucket, world: &World, replica: &str) -> Self {
        Self::start(world, replica, &[format!("common.object_store_url={}", Bucket::url())], &bucket.environment())
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually(LONG, async || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have died already, as it should.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

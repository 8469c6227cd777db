//! What goes wrong, one thing at a time.

use std::fmt;

use logboom_tests::Way;

/// Who is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Coordinator(u8),
    Store(u8),
    Nats(u8),
    TaskWorker(u8),
    JobManager(u8),
    /// The publishers, writers and readers of the trial itself.
    Clients,
}

impl Victim {
    /// The replica's name in the installation; `None` for what is no service.
    pub(crate) fn replica(self) -> Option<String> {
        let name = |service: &str, n: u8| Some(format!("{service}/{}", char::from(b'a' + n)));
        match self {
            Self::Coordinator(n) => name("coordinator", n),
            Self::Store(n) => name("segment-store", n),
            Self::TaskWorker(n) => name("task-worker", n),
            Self::JobManager(n) => name("job-manager", n),
            Self::Nats(_) | Self::Clients => None,
        }
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nats(n) => write!(f, "nats-server {n}"),
            Self::Clients => f.write_str("clients"),
            other => f.write_str(&other.replica().unwrap_or_default()),
        }
    }
}

/// What happens to a network link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// Its connections end and none is made.
    Cut,
    /// Nothing passes and nobody is told; what was sent meanwhile arrives late.
    Silent,
    /// The same in one direction.
    OneWay(Way),
    /// What was answered for a while never arrives; then its connections end.
    LoseAnswers,
    /// Everything takes so much longer.
    Slow { ms: u64 },
}

/// What happens to the directory of a coordinator's local state while the coordinator is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    Deleted,
    /// Every file has other bytes in the middle.
    Corrupt,
    /// It is what it was before, as after a loss of power.
    Older,
    /// A disk on which there is no room.
    Full,
    ReadOnly,
}

/// How the bucket fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// 503 to every request.
    Busy,
    /// 403 to every put.
    ReadOnly,
    /// Every other put is stored and not answered.
    Silent,
    /// Every request waits.
    Slow,
    /// Listings come in pages of two keys, some of them as a 503.
    Pages,
}

/// Who is restarted in order, one replica after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fleet {
    Coordinators,
    Stores,
    Nats,
    TaskWorkers,
    JobManagers,
}

/// One thing that goes wrong, or that is asked for in the middle of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// kill -9, and a start after a while.
    Kill { victim: Victim, down_ms: u64 },
    /// kill -9 of all nats-servers, or of all but one.
    KillServers { but: Option<u8>, down_ms: u64 },
    /// Stopped for less than any lease.
    Pause { victim: Victim, for_ms: u64 },
    /// Stopped until others have taken over, then resumed with whatever it was doing.
    Zombie { victim: Victim, for_ms: u64 },
    /// Stopped and resumed again and again: every write to disk takes half a second, and so does everything else.
    Stutter { victim: Victim, for_ms: u64 },
    /// A segment-store dies by itself at a step of its work; see its setting `crash_point`.
    Crash { store: u8, point: &'static str, passing: u8 },
    /// A segment-store dies, and who takes over loses its connections in the middle of it.
    CutInRecovery { store: u8, after_ms: u64 },
    /// Every replica of a service is asked to end and started again, one after another.
    Roll { fleet: Fleet },
    /// A network link between somebody and the nats-servers.
    Link { victim: Victim, how: Break, for_ms: u64 },
    /// The leader of a container's log and the other nats-servers; both ways if none is named.
    Part { container: u16, way: Option<Way>, for_ms: u64 },
    /// A stream's leader gives its place away.
    StepDown { container: u16 },
    /// A nats-server forgets what it wrote of late: alone, only what nobody was told of; of three, anything.
    PowerLoss { node: u8, lost_ms: u64 },
    /// A nats-server comes back with an empty disk.
    LoseDisk { node: u8 },
    /// A nats-server comes back with a damaged block of a container's log, or with half of one.
    DamageBlock { node: u8, container: u16, short: bool },
    /// A nats-server's disk is full; every stream stops at the write that fails, until the server is started again.
    JetStreamFull { for_ms: u64 },
    /// So many requests to JetStream's API that a nats-server drops all that wait.
    FloodApi { node: u8 },
    /// The nats-servers are given the tenants' account again, with the mappings to lanes, as every revocation does.
    Reload,
    /// A coordinator's local state.
    Local { coordinator: u8, harm: Harm, for_ms: u64 },
    /// A clock is wrong by minutes for a while.
    Clock { victim: Victim, seconds: i32, for_ms: u64 },
    /// Object storage in a directory refuses every write.
    ObjectsReadOnly { for_ms: u64 },
    /// Object storage in a directory is full.
    ObjectsFull { for_ms: u64 },
    /// Object storage in a bucket.
    Bucket { how: Outage, for_ms: u64 },
    /// A segment is split in two.
    Split { pick: usize },
    /// Two segments are merged.
    Merge { pick: usize },
    /// The stream is cut off where the witness stands.
    Truncate,
}

impl Fault {
    /// Its row in the summary, and in the guide.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Kill { victim: Victim::Store(_), .. } => "kill segment-store",
            Self::Kill { victim: Victim::Coordinator(_), .. } => "kill coordinator",
            Self::Kill { victim: Victim::TaskWorker(_), .. } => "kill task-worker",
            Self::Kill { victim: Victim::JobManager(_), .. } => "kill job-manager",
            Self::Kill { .. } => "kill nats-server",
            Self::KillServers { but: Some(_), .. } => "kill all nats-servers but one",
            Self::KillServers { but: None, .. } => "kill all nats-servers",
            Self::Pause { .. } => "pause",
            Self::Zombie { victim: Victim::Nats(_), .. } => "zombie nats-server",
            Self::Zombie { .. } => "zombie owner",
            Self::Stutter { .. } => "stutter",
            Self::Crash { .. } => "crash at a step",
            Self::CutInRecovery { .. } => "cut in recovery",
            Self::Roll { fleet: Fleet::Nats } => "rolling restart of nats-servers",
            Self::Roll { .. } => "rolling restart",
            Self::Link { how: Break::Cut, .. } => "link cut",
            Self::Link { how: Break::Silent, .. } => "link silent",
            Self::Link { how: Break::OneWay(_), .. } => "link one-way",
            Self::Link { how: Break::LoseAnswers, .. } => "answers lost",
            Self::Link { how: Break::Slow { .. }, .. } => "link slow",
            Self::Part { way: None, .. } => "leader parted",
            Self::Part { .. } => "leader parted one-way",
            Self::StepDown { .. } => "leader step-down",
            Self::PowerLoss { .. } => "power loss",
            Self::LoseDisk { .. } => "lost disk",
            Self::DamageBlock { short: false, .. } => "damaged block",
            Self::DamageBlock { .. } => "short block",
            Self::JetStreamFull { .. } => "JetStream full",
            Self::FloodApi { .. } => "API flood",
            Self::Reload => "account reload",
            Self::Local { harm: Harm::Deleted, .. } => "local state deleted",
            Self::Local { harm: Harm::Corrupt, .. } => "local state corrupt",
            Self::Local { harm: Harm::Older, .. } => "local state older",
            Self::Local { harm: Harm::Full, .. } => "local disk full",
            Self::Local { harm: Harm::ReadOnly, .. } => "local disk read-only",
            Self::Clock { .. } => "clock jump",
            Self::ObjectsReadOnly { .. } => "objects read-only",
            Self::ObjectsFull { .. } => "objects full",
            Self::Bucket { how: Outage::Busy, .. } => "bucket busy",
            Self::Bucket { how: Outage::ReadOnly, .. } => "bucket read-only",
            Self::Bucket { how: Outage::Silent, .. } => "bucket silent",
            Self::Bucket { how: Outage::Slow, .. } => "bucket slow",
            Self::Bucket { how: Outage::Pages, .. } => "bucket pages",
            Self::Split { .. } => "split",
            Self::Merge { .. } => "merge",
            Self::Truncate => "truncate",
        }
    }
}

//! What goes wrong in one trial, and when: a pure function of the seed.

use std::{fmt, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use types::hash64;

/// Every so many seeds the trial is of three nats-servers; elections make it slow.
const REPLICATED_EVERY: u64 = 4;
/// Replicas of coordinator and segment-store in a trial.
pub(crate) const REPLICAS: u8 = 2;
/// Containers of an installation with default settings.
const CONTAINERS: u16 = 8;

/// Who is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Coordinator(u8),
    Store(u8),
    Nats(u8),
}

impl Victim {
    /// The replica's name in the installation; `None` for a nats-server.
    pub(crate) fn replica(self) -> Option<String> {
        let name = |service: &str, n: u8| Some(format!("{service}/{}", char::from(b'a' + n)));
        match self {
            Self::Coordinator(n) => name("coordinator", n),
            Self::Store(n) => name("segment-store", n),
            Self::Nats(_) => None,
        }
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nats(n) => write!(f, "nats-server {n}"),
            other => f.write_str(&other.replica().unwrap_or_default()),
        }
    }
}

/// One thing that goes wrong, or that is asked for in the middle of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// kill -9, and a start after a while.
    Kill { victim: Victim, down_ms: u64 },
    /// Stopped for less than any lease.
    Pause { victim: Victim, for_ms: u64 },
    /// Stopped until others have taken over, then resumed with whatever it was doing.
    Zombie { victim: Victim, for_ms: u64 },
    /// A segment-store dies by itself at a step of its work; see its setting `crash_point`.
    Crash { store: u8, point: &'static str, passing: u8 },
    /// A stream's leader gives its place away.
    StepDown { container: u16 },
    /// A nats-server comes back with an empty disk.
    LoseDisk { node: u8 },
    /// A nats-server comes back with a damaged block of a container's log.
    DamageBlock { node: u8, container: u16 },
    /// Object storage refuses every write.
    ObjectsReadOnly { for_ms: u64 },
    /// Object storage is full.
    ObjectsFull { for_ms: u64 },
    /// A segment is split in two.
    Split { pick: usize },
    /// Two segments are merged.
    Merge { pick: usize },
    /// The stream is cut off where the witness stands.
    Truncate,
}

impl Fault {
    /// Its row in the summary.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Kill { victim: Victim::Nats(_), .. } => "kill nats-server",
            Self::Kill { victim: Victim::Store(_), .. } => "kill segment-store",
            Self::Kill { victim: Victim::Coordinator(_), .. } => "kill coordinator",
            Self::Pause { .. } => "pause",
            Self::Zombie { .. } => "zombie owner",
            Self::Crash { .. } => "crash at a step",
            Self::StepDown { .. } => "leader step-down",
            Self::LoseDisk { .. } => "lost disk",
            Self::DamageBlock { .. } => "damaged block",
            Self::ObjectsReadOnly { .. } => "objects read-only",
            Self::ObjectsFull { .. } => "objects full",
            Self::Split { .. } => "split",
            Self::Merge { .. } => "merge",
            Self::Truncate => "truncate",
        }
    }
}

/// A fault and the pause before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) after: Duration,
    pub(crate) fault: Fault,
}

/// One trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) nats_count: u8,
    pub(crate) steps: Vec<Step>,
}

impl Schedule {
    /// The schedule of a seed, for ever the same.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let nats_count = if seed.is_multiple_of(REPLICATED_EVERY) { 3 } else { 1 };
        let count = random.random_range(4..=6);
        let mut step = || {
            let after = Duration::from_millis(random.random_range(100..700));
            Step { after, fault: fault(&mut random, nats_count) }
        };
        let steps = (0..count).map(|_| step()).collect();
        Self { seed, nats_count, steps }
    }

    /// Names the schedule: two equal ones have the same, two different ones hardly ever.
    pub(crate) fn hash(&self) -> u64 {
        hash64(format!("{self:?}").as_bytes())
    }
}

/// Steps of a segment-store that a trial passes often enough to die there.
const POINTS: [&str; 10] = [
    "after_frame_append",
    "after_apply",
    "before_ack",
    "after_chunk_put",
    "after_chunk_committed",
    "after_snapshot_part",
    "before_manifest",
    "after_manifest",
    "before_purge",
    "after_purge",
];

fn fault(random: &mut StdRng, nats_count: u8) -> Fault {
    let replicated = nats_count > 1;
    let container = random.random_range(0..CONTAINERS);
    let node = random.random_range(0..nats_count);
    let pick = random.random_range(0..64usize);
    let (short, down_ms) = (random.random_range(100..600), random.random_range(50..800));
    let replica = random.random_range(0..REPLICAS);
    let (point, often, seldom) = (POINTS[pick % POINTS.len()], random.random_range(1..20), random.random_range(1..4));
    // Every frame passes the first three, a chunk or a snapshot the others.
    let passing = if POINTS[..3].contains(&point) { often } else { seldom };
    let any = [Victim::Store(replica), Victim::Coordinator(replica), Victim::Nats(node)];
    let kill = |victim| Fault::Kill { victim, down_ms };
    let zombie = |victim| Fault::Zombie { victim, for_ms: 2_500 + short };
    match random.random_range(0..if replicated { 22u8 } else { 17 }) {
        0 | 1 => kill(Victim::Store(replica)),
        2 | 3 => kill(Victim::Coordinator(replica)),
        4 => kill(Victim::Nats(node)),
        5 => Fault::Pause { victim: any[pick % any.len()], for_ms: short },
        6 => zombie(Victim::Store(replica)),
        7 => zombie(Victim::Coordinator(replica)),
        8 => Fault::ObjectsReadOnly { for_ms: 800 + short },
        9 => Fault::ObjectsFull { for_ms: 800 + short },
        10 | 11 => Fault::Split { pick },
        12 => Fault::Merge { pick },
        13 => Fault::Truncate,
        14..=16 => Fault::Crash { store: replica, point, passing },
        17 | 18 => Fault::StepDown { container },
        19 => kill(Victim::Nats(node)),
        20 => Fault::LoseDisk { node },
        _ => Fault::DamageBlock { node, container },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Kinds of faults.
    const KINDS: usize = 14;

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_others_give_others() {
        let mut hashes = BTreeSet::new();
        for seed in 0..500 {
            let schedule = Schedule::of(seed);
            assert_eq!(schedule, Schedule::of(seed));
            assert_eq!(schedule.hash(), Schedule::of(seed).hash());
            hashes.insert(schedule.hash());
        }
        assert_eq!(hashes.len(), 500);
    }

    #[test]
    fn a_printed_seed_means_the_same_tomorrow() {
        // A change of the generator makes every seed that was ever noted down worthless: do not change it lightly.
        let hashes = (Schedule::of(1).hash(), Schedule::of(4).hash());
        assert_eq!(hashes, (0xca9f_611d_2902_e429, 0xdcba_03e7_9fbb_62ba), "{hashes:x?}");
    }

    #[test]
    fn every_kind_comes_and_what_needs_copies_only_where_there_are_some() {
        let (mut single, mut replicated) = (BTreeSet::new(), BTreeSet::new());
        for schedule in (0..400).map(Schedule::of) {
            let kinds = if schedule.nats_count == 1 { &mut single } else { &mut replicated };
            kinds.extend(schedule.steps.iter().map(|step| step.fault.kind()));
        }
        let copies = ["leader step-down", "lost disk", "damaged block"];
        assert!(copies.iter().all(|kind| replicated.contains(kind) && !single.contains(kind)));
        assert_eq!((single.len(), replicated.len()), (11, KINDS));
    }

    #[test]
    fn the_seeds_that_are_always_run_have_every_kind() {
        let kinds = |seed| Schedule::of(seed).steps.iter().map(|step| step.fault.kind()).collect::<Vec<_>>();
        let all: BTreeSet<_> = crate::SEEDS.into_iter().flat_map(kinds).collect();
        // To choose others by, after a change of the generator.
        (0..80).for_each(|seed| println!("{seed}: {:?}", kinds(seed)));
        assert_eq!(all.len(), KINDS, "{all:?}");
    }
}

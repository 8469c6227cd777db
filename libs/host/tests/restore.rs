//! Where a state comes back from, and when it must not.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails where it should")]

mod tally;

use std::{fs, path::PathBuf, time::Duration};

use host::{ControlState, StartError};
use tally::{Process, Tally};
use testkit::{World, eventually};

/// A snapshot after every tenth entry.
const SNAPSHOT: &str = "common.snapshot_events=10";

fn files(dir: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir];
    while let Some(dir) = dirs.pop() {
        // Absent before the first file, and while others are deleted.
        for entry in fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
            if entry.path().is_dir() { dirs.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    found
}

fn snapshots(world: &World, name: &str) -> Vec<PathBuf> {
    let dir = PathBuf::from(world.objects_url().strip_prefix("file://").unwrap()).join("snap/alerter");
    files(dir).into_iter().filter(|path| path.ends_with(name)).collect()
}

/// A leader that has written `count` snapshots of ten entries each, and purged what they replace.
async fn with_snapshots(world: &World, replica: &str, count: usize) -> Process {
    let process = Process::leader(world, replica, &[SNAPSHOT]).await;
    for round in 1..=count {
        for n in 1..=10 {
            process.add(n).await;
        }
        let newest = format!("{round:020}/manifest.lb");
        eventually(Duration::from_secs(5), async || !snapshots(world, &newest).is_empty()).await;
    }
    process
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuilt_state_equals_the_one_that_never_stopped() {
    let world = World::start().await.unwrap();
    let a = with_snapshots(&world, "a", 5).await;
    let journal = a.host.bus.journal(Tally::SERVICE, 1).await.unwrap();
    eventually(Duration::from_secs(5), async || journal.first_seq().await.unwrap() == 31).await;
    assert_eq!(journal.last_seq().await.unwrap(), 50);
    eventually(Duration::from_secs(5), async || snapshots(&world, "manifest.lb").len() == 3).await;
    a.add(9).await;
    // From a snapshot and the rest of the journal: there is no local state.
    let b = Process::start(&world, "b", &[]).await.unwrap();
    assert_eq!((b.state(), b.seq()), (a.state(), 51));
    let bytes = |process: &Process| rmp_serde::to_vec_named(&process.state()).unwrap();
    assert!(bytes(&a) == bytes(&b));
    // From the local state alone: the objects are gone, and nothing of them is needed.
    b.kill();
    fs::remove_dir_all(PathBuf::from(world.objects_url().strip_prefix("file://").unwrap()).join("snap")).unwrap();
    let b = Process::start(&world, "b", &[]).await.unwrap();
    assert!(bytes(&a) == bytes(&b));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_state_that_is_damaged_or_foreign_is_rebuilt() {
    let world = World::start().await.unwrap();
    let a = with_snapshots(&world, "a", 3).await;
    a.add(4).await;
    let expected = a.state();
    let dir = a.host.data_dir();
    a.drain().await;
    // Damaged: every byte of every file.
    for path in files(dir.clone()) {
        let mut bytes = fs::read(&path).unwrap();
        bytes.iter_mut().for_each(|b| *b ^= 0x5A);
        fs::write(&path, bytes).unwrap();
    }
    let a = Process::start(&world, "a", &[]).await.unwrap();
    assert_eq!(a.state(), expected);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "the damaged one is kept for a look");
    a.drain().await;

    // Foreign: the state of the same service in another world, which stands further.
    let other = World::start().await.unwrap();
    let foreign = Process::leader(&other, "a", &[]).await;
    for n in 1..=20 {
        foreign.add(n).await;
    }
    let theirs = foreign.host.data_dir();
    foreign.drain().await;
    let copy = |from: &PathBuf, to: &PathBuf| {
        fs::remove_dir_all(to).unwrap();
        for path in files(from.clone()) {
            let target = to.join(path.strip_prefix(from).unwrap());
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(path, target).unwrap();
        }
    };
    copy(&theirs, &dir);
    let a = Process::leader(&world, "a", &[]).await;
    assert_eq!(a.state(), expected);
    a.add(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_newest_snapshot_is_survived() {
    let world = World::start().await.unwrap();
    let a = with_snapshots(&world, "a", 4).await;
    let journal = a.host.bus.journal(Tally::SERVICE, 1).await.unwrap();
    eventually(Duration::from_secs(5), async || journal.first_seq().await.unwrap() == 21).await;
    let manifests = snapshots(&world, "manifest.lb");
    let part = snapshots(&world, "part-0000.lb").pop().unwrap();
    assert!(part.display().to_string().contains("00004/"), "{part:?}");
    let mut bytes = fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&part, bytes).unwrap();
    // Half a snapshot of somebody who died while writing it.
    let half = PathBuf::from(part.display().to_string().replace("00004/", "00009/"));
    fs::create_dir_all(half.parent().unwrap()).unwrap();
    fs::write(half, b"half").unwrap();
    let b = Process::start(&world, "b", &[]).await.unwrap();
    assert_eq!((b.state(), b.seq()), (a.state(), 40));
    b.kill();
    // A second one: its manifest this time.
    fs::write(&manifests[1], b"LBSM").unwrap();
    let b = Process::start(&world, "b", &[]).await.unwrap();
    assert_eq!((b.state(), b.seq()), (a.state(), 40));
}

async fn refusal(world: &World) -> String {
    match Process::start(world, "z", &[]).await {
        Err(error @ StartError::Refused { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(process) => panic!("it started with {:?}", process.state()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_refused_loudly() {
    let mut world = World::start().await.unwrap();
    let a = with_snapshots(&world, "a", 3).await;
    let expected = a.state();
    // One that looks on: a leader may still be cleaning up behind its last snapshot, and would purge by what is damaged below.
    let b = Process::start(&world, "b", &[]).await.unwrap();
    let journal = b.host.bus.journal(Tally::SERVICE, 1).await.unwrap();
    a.drain().await;
    eventually(Duration::from_secs(5), async || journal.first_seq().await.unwrap() == 11).await;
    // The journal was purged past the newest usable snapshot.
    let parts = snapshots(&world, "part-0000.lb");
    let kept: Vec<_> = parts.iter().map(|path| fs::read(path).unwrap()).collect();
    for path in &parts {
        fs::write(path, b"damaged").unwrap();
    }
    let reason = refusal(&world).await;
    assert!(reason.contains("first entry is 11") && reason.contains("no usable snapshot"), "{reason}");
    fs::write(&parts[0], &kept[0]).unwrap();
    journal.purge_below(21).await.unwrap();
    let reason = refusal(&world).await;
    assert!(reason.contains("first entry is 21") && reason.contains("stands at 10"), "{reason}");
    for (path, bytes) in parts.iter().zip(&kept) {
        fs::write(path, bytes).unwrap();
    }
    let z = Process::start(&world, "z", &[]).await.unwrap();
    assert_eq!(z.state(), expected);
    z.kill();
    b.kill();

    // The journal itself was lost: an empty one would silently begin anew.
    world.nats.wipe().unwrap();
    world.nats.restart().await.unwrap();
    let reason = refusal(&world).await;
    assert!(reason.contains("journal entries were lost") && reason.contains("snap/alerter/"), "{reason}");
}

/// Everything that NATS had is lost, and object storage is there.
async fn lose_nats(world: &mut World) {
    world.nats.wipe().unwrap();
    world.nats.restart().await.unwrap();
}

const RECOVER: &str = "common.recover_from_snapshot=true";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_journal_goes_on_from_the_newest_snapshot_where_that_is_allowed() {
    let mut world = World::start().await.unwrap();
    let a = with_snapshots(&world, "a", 2).await;
    let kept = a.state();
    // Behind the snapshot, and in a local copy that outlives the loss.
    a.add(7).await;
    a.kill();
    lose_nats(&mut world).await;
    let reason = refusal(&world).await;
    assert!(reason.contains("recover_from_snapshot"), "{reason}");

    // Two that start together agree.
    let (a, b) = tokio::join!(Process::start(&world, "a", &[RECOVER]), Process::start(&world, "b", &[RECOVER]));
    let (a, b) = (a.unwrap(), b.unwrap());
    let journal = a.host.bus.journal(Tally::SERVICE, 1).await.unwrap();
    assert_eq!((journal.first_seq().await.unwrap(), journal.last_seq().await.unwrap()), (21, 21));
    assert_eq!((a.state(), a.seq(), b.state(), b.seq()), (kept.clone(), 21, kept.clone(), 21));
    eventually(Duration::from_secs(5), async || a.ledger.is_leader() || b.ledger.is_leader()).await;
    let (leader, other) = if a.ledger.is_leader() { (a, b) } else { (b, a) };
    leader.add(100).await;
    other.reaches(22).await;
    assert_eq!(other.state(), leader.state());

    // From now on it is a journal like any other: without the setting, from the snapshot, and from snapshots of its own.
    let c = Process::start(&world, "c", &[]).await.unwrap();
    assert_eq!((c.state(), c.seq()), (leader.state(), 22));
    c.kill();
    other.drain().await;
    leader.drain().await;
    let d = Process::leader(&world, "d", &[RECOVER, SNAPSHOT]).await;
    assert_eq!((d.state().sum, d.seq()), (kept.sum + 100, 22), "the setting changes nothing where there are entries");
    for round in 4..=6 {
        for n in 1..=10 {
            d.add(n).await;
        }
        let newest = format!("{round:020}/manifest.lb");
        eventually(Duration::from_secs(5), async || !snapshots(&world, &newest).is_empty()).await;
    }
    let journal = d.host.bus.journal(Tally::SERVICE, 1).await.unwrap();
    eventually(Duration::from_secs(5), async || journal.first_seq().await.unwrap() > 22).await;
    let e = Process::start(&world, "e", &[]).await.unwrap();
    assert_eq!((e.state(), e.seq()), (d.state(), 52));
    // And it can be lost again.
    e.kill();
    d.drain().await;
    lose_nats(&mut world).await;
    let f = Process::leader(&world, "f", &[RECOVER]).await;
    assert_eq!((f.state().sum, f.seq()), (kept.sum + 100 + 3 * 55, 53));
}

/// Whoever dies between two steps of a recovery is followed by whoever starts next; meanwhile nobody starts without being told to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_was_cut_short_is_ended_by_the_next() {
    let mut world = World::start().await.unwrap();
    let a = with_snapshots(&world, "a", 1).await;
    let kept = a.state();
    a.kill();
    lose_nats(&mut world).await;
    let helper = host::Host::connect(Tally::SERVICE, world.common("helper", &[]).unwrap()).await.unwrap();
    let journal = helper.bus.journal(Tally::SERVICE, 1).await.unwrap();
    // As after its second step: behind the snapshot, and empty.
    journal.begin_behind(10).await.unwrap();
    assert_eq!((journal.first_seq().await.unwrap(), journal.last_seq().await.unwrap()), (11, 10));
    refusal(&world).await;
    let b = Process::start(&world, "b", &[RECOVER]).await.unwrap();
    assert_eq!((b.state(), b.seq()), (kept.clone(), 11));
    b.kill();
    let c = Process::leader(&world, "c", &[]).await;
    assert_eq!((c.state(), c.seq()), (kept, 11));
    c.add(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_older_than_the_newest_snapshot_is_taken_for_a_lost_journal() {
    let mut world = World::start().await.unwrap();
    let a = with_snapshots(&world, "a", 3).await;
    a.drain().await;
    lose_nats(&mut world).await;
    let refused = async |world: &World| match Process::start(world, "z", &[RECOVER]).await {
        Err(error @ StartError::Refused { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(process) => panic!("it started with {:?}", process.state()),
    };
    for name in ["part-0000.lb", "manifest.lb"] {
        let newest = snapshots(&world, name).pop().unwrap();
        let bytes = fs::read(&newest).unwrap();
        fs::write(&newest, b"damaged").unwrap();
        let reason = refused(&world).await;
        assert!(reason.contains("newest snapshot 3") && reason.contains("is damaged"), "{reason}");
        fs::write(&newest, bytes).unwrap();
    }
    // A journal that has entries of its own is never replaced.
    let helper = host::Host::connect(Tally::SERVICE, world.common("helper", &[]).unwrap()).await.unwrap();
    let journal = helper.bus.journal(Tally::SERVICE, 1).await.unwrap();
    journal.begin_behind(25).await.unwrap();
    let reason = refused(&world).await;
    assert!(reason.contains("ends at 25") && reason.contains("stands at 30"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_cut_off_for_long_goes_on_from_a_snapshot() {
    let world = World::start().await.unwrap();
    let a = Process::leader(&world, "a", &[SNAPSHOT]).await;
    a.add(1).await;
    let b = Process::start(&world, "b", &[]).await.unwrap();
    b.reaches(1).await;
    // What it holds is as old as that of a replica whose machine slept: the journal is purged far beyond it.
    let dir = b.host.data_dir();
    b.drain().await;
    for round in 1..=4 {
        for n in 1..=10 {
            a.add(n).await;
        }
        let newest = format!("{round:020}/manifest.lb");
        eventually(Duration::from_secs(5), async || !snapshots(&world, &newest).is_empty()).await;
    }
    let journal = a.host.bus.journal(Tally::SERVICE, 1).await.unwrap();
    eventually(Duration::from_secs(5), async || journal.first_seq().await.unwrap() > 20).await;
    assert!(!files(dir).is_empty());
    let b = Process::start(&world, "b", &[]).await.unwrap();
    assert_eq!((b.state(), b.seq()), (a.state(), a.seq()));
    a.add(3).await;
    b.reaches(a.seq()).await;
    assert_eq!(b.state(), a.state());
}

/// A replica that stood still: what it missed was purged meanwhile, and its connection is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_follower_is_taken_over_the_gap_by_a_snapshot() {
    let mut world = World::start().await.unwrap();
    let a = Process::leader(&world, "a", &[SNAPSHOT]).await;
    a.add(1).await;
    let b = Process::start(&world, "b", &[]).await.unwrap();
    b.reaches(1).await;
    let go_on = b.pause();
    world.nats.restart().await.unwrap();
    let journal = a.host.bus.journal(Tally::SERVICE, 1).await.unwrap();
    for round in 1..=4 {
        for n in 1..=10 {
            a.leads().await;
            a.add(n).await;
        }
        let newest = format!("{round:020}/manifest.lb");
        eventually(Duration::from_secs(5), async || !snapshots(&world, &newest).is_empty()).await;
    }
    eventually(Duration::from_secs(5), async || journal.first_seq().await.unwrap() > 20).await;
    assert_eq!(b.seq(), 1);
    drop(go_on);
    b.reaches(a.seq()).await;
    assert_eq!(b.state(), a.state());
    a.add(3).await;
    b.reaches(a.seq()).await;
    assert_eq!(b.state(), a.state());
}

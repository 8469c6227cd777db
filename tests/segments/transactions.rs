//! Transactions: all or nothing, through scales, failures and silence.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use client::Client;
use logboom_tests::{Cluster, Options, Seen, Streams, eventually};
use tokio::time::sleep;
use types::IndexName;
use wire::{Outcome, coordinator::TransactionPhase};

use crate::{
    numbered::{Counts, LONG, Numbered, assert_exact, event, in_order, key, read, witness},
    shared::{HASTE, Stage, on},
};

const LEASE: Duration = Duration::from_secs(30);

/// One transaction of `count` events over three keys of its own; false if it was aborted.
async fn transact(client: &Client, index: &IndexName, name: &str, count: u64, commit: bool) -> bool {
    let transaction = client.begin_transaction(index.clone(), LEASE).await.unwrap();
    for number in 0..count {
        let of = format!("{name}.{}", number % 3);
        let written = transaction.write(Some(&key(&of)), event(&format!("{of} {}", number / 3))).await.unwrap();
        drop(written);
    }
    transaction.flush().await.unwrap();
    if commit {
        transaction.commit().await.unwrap()
    } else {
        transaction.abort().await.unwrap()
    }
    commit
}

/// What the committed ones must have.
fn counts(names: &[String], count: u64) -> Counts {
    let keys = names.iter().flat_map(|name| (0..3).map(move |key| (format!("{name}.{key}"), count / 3)));
    keys.collect()
}

/// The events of each transaction lie side by side in each segment.
fn assert_contiguous(seen: &[Seen], names: &[String]) {
    for name in names {
        let mut places: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        for one in seen.iter().filter(|one| one.text.starts_with(&format!("{name}."))) {
            places.entry(one.segment).or_default().push(one.offset);
        }
        for (segment, offsets) in places {
            assert!(offsets.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{name} in {segment}: {offsets:?}");
        }
    }
}

#[tokio::test]
async fn nothing_is_read_before_the_commit_and_everything_after_it() {
    let stage = Stage::new("commits", 2).await;
    let index = &stage.streams.index;
    let mut reader = stage.client.stream_reader(index, None, None).await.unwrap();
    let transaction = stage.client.begin_transaction(index.clone(), LEASE).await.unwrap();
    for number in 0..8 {
        drop(transaction.write(Some(&key("t")), event(&format!("t {number}"))).await.unwrap());
    }
    transaction.flush().await.unwrap();
    assert!(transaction.status().await.unwrap() == TransactionPhase::Open);
    assert!(reader.next(Duration::from_millis(500)).await.unwrap().is_none(), "an open transaction is invisible");
    transaction.commit().await.unwrap();
    let seen = read(&mut reader, 8).await;
    assert_exact(&seen, &Counts::from([("t".to_owned(), 8)]));
    transact(&stage.client, index, "gone", 9, false).await;
    assert!(reader.next(Duration::from_millis(500)).await.unwrap().is_none(), "an aborted one is never seen");
}

/// pravega #4147: a transaction that ran out said nothing to its writer.
#[tokio::test]
async fn a_writer_is_told_that_its_lease_ran_out() {
    let stage = Stage::new("expired", 1).await;
    let index = &stage.streams.index;
    let begun = stage.client.begin_transaction(index.clone(), Duration::from_secs(1)).await.unwrap();
    drop(begun.write(None, event("t 0")).await.unwrap());
    begun.flush().await.unwrap();
    let id = begun.id();
    // Its process is gone: nobody pings.
    drop(begun);
    let phase = logboom_tests::eventually("it runs out", LONG, async || {
        let phase = stage.client.transaction_phase(index.clone(), id).await?;
        anyhow::ensure!(phase == TransactionPhase::Aborted, "it is {phase:?}");
        Ok(phase)
    })
    .await
    .unwrap();
    assert_eq!(phase, TransactionPhase::Aborted);
    let refused = logboom_tests::patiently::<wire::coordinator::CommitTransaction>(
        &stage.streams.bus,
        &(),
        &wire::coordinator::TransactionName { index: index.clone(), transaction: id },
    )
    .await
    .unwrap_err();
    assert_eq!((refused.kind.as_str(), refused.outcome), ("TransactionOver", Outcome::NotApplied));
    assert!(refused.message.contains("lease"), "it says why: {refused}");
    assert!(witness(&stage.client, &stage.streams).await.is_empty());
}

#[tokio::test]
async fn s04_commits_while_the_stream_scales() {
    let stage = Stage::new("rolling", 2).await;
    let index = &stage.streams.index;
    let mut committed = Vec::new();
    for round in 0..6usize {
        // Opened in one epoch, committed in another: the transaction is rolled.
        let name = format!("r{round}");
        let transaction = stage.client.begin_transaction(index.clone(), LEASE).await.unwrap();
        for number in 0..9u64 {
            let of = format!("{name}.{}", number % 3);
            drop(transaction.write(Some(&key(&of)), event(&format!("{of} {}", number / 3))).await.unwrap());
        }
        transaction.flush().await.unwrap();
        let (client, scaled) = (stage.client.clone(), stage.streams.clone());
        let scaling =
            tokio::spawn(
                async move { if round % 3 == 2 { scaled.merge(round).await } else { scaled.split(round).await } },
            );
        if round % 2 == 0 {
            // Certainly behind the scale; the other rounds race with it.
            scaling.await.unwrap().unwrap();
            transaction.commit().await.unwrap();
        } else {
            transaction.commit().await.unwrap();
            scaling.await.unwrap().unwrap();
        }
        committed.push(name);
        let other = format!("o{round}");
        if transact(&client, index, &other, 6, false).await {
            committed.push(other);
        }
    }
    let seen = witness(&stage.client, &stage.streams).await;
    assert_exact(&seen, &counts(&committed, 9));
    assert_contiguous(&seen, &committed);
    stage.streams.check_epochs().await.unwrap();
}

async fn through(done: &AtomicUsize, enough: usize) {
    let counted = eventually("transactions", LONG, async || {
        let count = done.load(Ordering::Relaxed);
        ensure!(count >= enough, "{count} of {enough}");
        Ok(())
    });
    counted.await.unwrap();
}

/// Two of everything; each process dies once while transactions go on and the stream scales.
#[tokio::test]
async fn s02_transactions_through_failovers() {
    let mut cluster = Cluster::start_with(Options::storage(2, 2).set(HASTE)).await.unwrap();
    let (client, streams) = on(&cluster, "failing", 2).await;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let mut writers = Vec::new();
    for writer in 0..3 {
        let (client, index, stop, done) = (client.clone(), streams.index.clone(), stop.clone(), done.clone());
        writers.push(tokio::spawn(async move {
            let mut committed = Vec::new();
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return committed;
                }
                let name = format!("w{writer}-{number}");
                if transact(&client, &index, &name, 6, number % 4 != 3).await {
                    committed.push(name);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
            committed
        }));
    }
    for (round, victim) in
        ["segment-store/a", "coordinator/a", "segment-store/b", "coordinator/b"].into_iter().enumerate()
    {
        // Some of them go through between any two deaths.
        through(&done, 3 * round).await;
        sleep(Duration::from_millis(400)).await;
        cluster.kill9(victim).unwrap();
        let scaled = if round % 2 == 0 { streams.split(round).await } else { streams.merge(round).await };
        scaled.unwrap();
        cluster.restart(victim).await.unwrap();
    }
    through(&done, 12).await;
    stop.store(true, Ordering::Relaxed);
    let mut committed = Vec::new();
    for writer in writers {
        committed.extend(writer.await.unwrap());
    }
    let seen = witness(&client, &streams).await;
    assert_exact(&seen, &counts(&committed, 6));
    assert_contiguous(&seen, &committed);
    cluster.check().unwrap();
}

/// The coordinator dies in the middle of a scale that meets an open transaction; the next one finishes both.
#[tokio::test]
async fn s08_a_scale_with_an_open_transaction_is_finished_by_another_coordinator() {
    let mut cluster = Cluster::start_with(Options::storage(2, 1).set(HASTE)).await.unwrap();
    let (client, streams) = on(&cluster, "blocked", 2).await;
    let mut numbered = Numbered::open(&client, &streams, "writer").await;
    numbered.write("k", 6, 5).await;
    for victim in ["coordinator/a", "coordinator/b"] {
        let transaction = client.begin_transaction(streams.index.clone(), LEASE).await.unwrap();
        let of = format!("t-{}", victim.rsplit('/').next().unwrap());
        for number in 0..4 {
            drop(transaction.write(Some(&key(&of)), event(&format!("{of} {number}"))).await.unwrap());
        }
        transaction.flush().await.unwrap();
        let before = streams.describe().await.unwrap().epoch;
        let scaling: tokio::task::JoinHandle<anyhow::Result<_>> = tokio::spawn({
            let streams: Streams = streams.clone();
            async move { streams.split(0).await }
        });
        // Somewhere between the first journal event and the last.
        sleep(Duration::from_millis(20)).await;
        cluster.kill9(victim).unwrap();
        let commit = tokio::spawn(transaction.commit());
        scaling.await.unwrap().unwrap();
        commit.await.unwrap().unwrap();
        cluster.restart(victim).await.unwrap();
        let after = streams.describe().await.unwrap().epoch;
        assert!(after > before, "epoch {before} -> {after}");
        numbered.write("k", 6, 5).await;
        numbered.counts.insert(of, 4);
    }
    let seen = witness(&client, &streams).await;
    assert_eq!(in_order(&seen), numbered.counts);
    streams.check_epochs().await.unwrap();
    cluster.check().unwrap();
}

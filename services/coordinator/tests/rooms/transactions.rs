//! Transactions: all or nothing, whoever dies, and an answer for whoever comes too late.

use anyhow::Result;
use host::Host;
use testkit::{World, eventually};
use types::{KeyRange, TransactionId};
use wire::{
    Code, Outcome, Problem,
    coordinator::{
        AbortTransaction, BeginTransaction, CommitTransaction, DeleteStream, DescribeTransaction, ListTransactions,
        NewTransaction, PingTransaction, SealStream, StreamName, Transaction, TransactionName, TransactionPhase,
        TransactionPing, TransactionsOf,
    },
};

use crate::stage::{SOON, Shared, caller, coordinator, create, described, index, new, split_first, store_doors};

async fn begin(host: &Host, name: &str, lease_ms: u32) -> Result<Transaction, Problem> {
    host.bus.call_within::<BeginTransaction>(&(), &NewTransaction { index: index(name), lease_ms }, SOON).await
}

async fn commit(host: &Host, name: &str, transaction: TransactionId) -> Result<Transaction, Problem> {
    let named = TransactionName { index: index(name), transaction };
    host.bus.call_within::<CommitTransaction>(&(), &named, SOON).await
}

async fn abort(host: &Host, name: &str, transaction: TransactionId) -> Result<Transaction, Problem> {
    let named = TransactionName { index: index(name), transaction };
    host.bus.call_within::<AbortTransaction>(&(), &named, SOON).await
}

async fn ping(host: &Host, name: &str, transaction: TransactionId, lease_ms: u32) -> Result<Transaction, Problem> {
    let ping = TransactionPing { index: index(name), transaction, lease_ms };
    host.bus.call_within::<PingTransaction>(&(), &ping, SOON).await
}

async fn phase(host: &Host, name: &str, transaction: TransactionId) -> Result<TransactionPhase, Problem> {
    let named = TransactionName { index: index(name), transaction };
    Ok(host.bus.call_within::<DescribeTransaction>(&(), &named, SOON).await?.phase)
}

/// Two events into every part.
fn write(store: &Shared, transaction: &Transaction) {
    let mut store = store.lock().unwrap();
    for (place, share) in transaction.shares.iter().enumerate() {
        assert_eq!(store.segments[&share.shadow].container, store.segments[&share.segment].container);
        store.append(share.shadow, &format!("{place}a"));
        store.append(share.shadow, &format!("{place}b"));
    }
}

/// How often an event of this name stands in a segment that can be read.
fn seen(store: &Shared, stream: u32, event: &str) -> usize {
    let store = store.lock().unwrap();
    let visible = store.segments.iter().filter(|(id, there)| id.stream == stream && !there.new.transactional);
    visible.map(|(_, there)| there.events.iter().filter(|e| *e == event).count()).sum()
}

#[actix_rt::test]
async fn a_transaction_is_seen_whole_when_it_is_committed_and_never_when_it_is_aborted() -> Result<()> {
    let world = World::start().await?;
    let leader = coordinator(&world, "a", &[]).await?;
    let host = caller(&world).await?;
    let (store, _doors) = store_doors(&host).await?;
    let stream = create(&host, &new("shop", 3)).await?;
    let (first, second) = (begin(&host, "shop", 60_000).await?, begin(&host, "shop", 60_000).await?);
    assert_eq!((first.phase, first.epoch, first.shares.len()), (TransactionPhase::Open, 0, 3));
    let ranges: Vec<_> = first.shares.iter().map(|share| share.range).collect();
    assert!(KeyRange::cover_once(&ranges));
    write(&store, &first);
    write(&store, &second);
    store.lock().unwrap().append(stream.segments[0].segment, "plain");
    assert_eq!(seen(&store, stream.stream, "0a"), 0, "nobody sees what is not committed");

    let committed = commit(&host, "shop", first.transaction).await?;
    assert_eq!((committed.phase, committed.shares.len()), (TransactionPhase::Committed, 0));
    let events = store.lock().unwrap().segments[&stream.segments[0].segment].events.clone();
    assert_eq!(events, ["plain", "0a", "0b"], "in order, behind what was there");
    assert_eq!(commit(&host, "shop", first.transaction).await?, committed, "a repeat");
    let aborted = abort(&host, "shop", second.transaction).await?;
    assert_eq!((aborted.phase, aborted.reason.as_deref()), (TransactionPhase::Aborted, Some("asked for")));
    assert_eq!((seen(&store, stream.stream, "2b"), store.lock().unwrap().shadows()), (1, 0));
    for (answer, kind) in [
        (commit(&host, "shop", second.transaction).await, "TransactionOver"),
        (abort(&host, "shop", first.transaction).await, "TransactionOver"),
        (commit(&host, "shop", TransactionId(77)).await, "UnknownTransaction"),
        (begin(&host, "shop", 1).await, "LeaseOutOfRange"),
        (begin(&host, "ghost", 60_000).await, "UnknownIndex"),
    ] {
        assert_eq!(answer.unwrap_err().kind, kind);
    }

    // A stream that is sealed or deleted leaves nothing behind.
    let third = begin(&host, "shop", 60_000).await?;
    let name = StreamName { index: index("shop") };
    host.bus.call_within::<SealStream>(&(), &name, SOON).await?;
    let over = commit(&host, "shop", third.transaction).await.unwrap_err();
    assert!(over.kind == "TransactionOver" && over.message.contains("stream sealed"), "{over}");
    assert_eq!(begin(&host, "shop", 60_000).await.unwrap_err().kind, "StreamSealed");
    let listed = host.bus.call::<ListTransactions>(&(), &TransactionsOf::all(index("shop"))).await?.transactions;
    let phases: Vec<_> = listed.iter().map(|t| (t.transaction.0, t.phase)).collect();
    let (committed, aborted) = (TransactionPhase::Committed, TransactionPhase::Aborted);
    assert_eq!(phases, [(2, aborted), (1, aborted), (0, committed)]);
    assert_eq!(store.lock().unwrap().shadows(), 0);
    create(&host, &new("gone", 2)).await?;
    begin(&host, "gone", 60_000).await?;
    assert_eq!(store.lock().unwrap().shadows(), 2);
    host.bus.call_within::<DeleteStream>(&(), &StreamName { index: index("gone") }, SOON).await?;
    assert_eq!(store.lock().unwrap().shadows(), 0);
    leader.stop().await?;
    Ok(())
}

/// The complaint of Pravega's users: a transaction is aborted without a word.
#[actix_rt::test]
async fn a_lease_that_ends_aborts_and_the_writer_learns_it() -> Result<()> {
    let world = World::start().await?;
    let leader = coordinator(&world, "a", &[]).await?;
    let host = caller(&world).await?;
    let (store, _doors) = store_doors(&host).await?;
    let stream = create(&host, &new("shop", 2)).await?;
    let (idle, pinged) = (begin(&host, "shop", 1_000).await?, begin(&host, "shop", 1_000).await?);
    write(&store, &idle);
    write(&store, &pinged);
    let idle = idle.transaction;
    eventually(SOON, async || {
        ping(&host, "shop", pinged.transaction, 5_000).await.unwrap();
        phase(&host, "shop", idle).await.unwrap() == TransactionPhase::Aborted
    })
    .await;
    for answer in [commit(&host, "shop", idle).await, ping(&host, "shop", idle, 1_000).await] {
        let over = answer.unwrap_err();
        assert_eq!(
            (over.code, over.outcome, over.kind.as_str()),
            (Code::Conflict, Outcome::NotApplied, "TransactionOver")
        );
        assert!(over.message.contains("lease expired"), "{over}");
    }
    assert_eq!(store.lock().unwrap().shadows(), 2, "its segments are gone");

    // Nobody leads for longer than the lease: whoever comes next gives it one more.
    let expires = ping(&host, "shop", pinged.transaction, 1_000).await?.expires;
    leader.stop().await?;
    eventually(SOON, async || host.clock.now() > expires).await;
    let next = coordinator(&world, "b", &[]).await?;
    assert_eq!(commit(&host, "shop", pinged.transaction).await?.phase, TransactionPhase::Committed);
    assert_eq!(seen(&store, stream.stream, "1b"), 1, "only what was committed");
    next.stop().await?;
    Ok(())
}

/// The leader ends after every single effect of a commit over sealed segments; the next one brings it to its end.
#[actix_rt::test]
async fn a_commit_after_a_scale_is_ended_wherever_a_leader_ended() -> Result<()> {
    let world = World::start().await?;
    let mut leader = coordinator(&world, "r0", &[]).await?;
    let host = caller(&world).await?;
    let (store, _doors) = store_doors(&host).await?;
    let mut effects = 0;
    loop {
        let name = format!("s{effects}");
        let stream = create(&host, &new(&name, 2)).await?;
        let transaction = begin(&host, &name, 60_000).await?;
        write(&store, &transaction);
        let before = split_first(&host, &stream).await?;
        store.lock().unwrap().append(before.segments[0].segment, "later");
        {
            let mut store = store.lock().unwrap();
            (store.patience, store.refused, store.effects) = (Some(effects), 0, 0);
        }
        let answer = commit(&host, &name, transaction.transaction).await;
        let done = store.lock().unwrap().refused == 0;
        if let Err(problem) = &answer {
            assert_eq!((problem.kind.as_str(), problem.outcome), ("Broken", Outcome::Unknown), "it was decided");
            let scaled = split_first(&host, &before).await.unwrap_err();
            assert!(
                ["Broken", "InvalidScale"].contains(&scaled.kind.as_str()),
                "a scale waits for the commit: {scaled}"
            );
            let next = coordinator(&world, &format!("r{}", effects + 1), &[]).await?;
            leader.stop().await?;
            leader = next;
        }
        store.lock().unwrap().patience = None;
        // Nobody asks again: the next leader goes on by itself.
        eventually(SOON, async || {
            matches!(phase(&host, &name, transaction.transaction).await, Ok(TransactionPhase::Committed))
        })
        .await;
        for event in ["0a", "0b", "1a", "1b", "later"] {
            assert_eq!(seen(&store, stream.stream, event), 1, "{event} after {effects} effects");
        }
        let after = described(&host, &name).await?;
        let ranges =
            |stream: &wire::coordinator::StreamDescription| stream.segments.iter().map(|s| s.range).collect::<Vec<_>>();
        assert_eq!((after.epoch, ranges(&after)), (3, ranges(&before)), "after {effects} effects");
        assert_eq!(store.lock().unwrap().shadows(), 0);
        if done {
            break;
        }
        effects += 1;
    }
    // Two seals, one creation, two merges, one seal, two creations.
    assert_eq!(store.lock().unwrap().effects, 8);
    leader.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn commits_of_one_stream_come_one_after_the_other() -> Result<()> {
    let world = World::start().await?;
    let leader = coordinator(&world, "a", &[]).await?;
    let host = caller(&world).await?;
    let (store, _doors) = store_doors(&host).await?;
    let stream = create(&host, &new("shop", 1)).await?;
    let mut all = Vec::new();
    for _ in 0..10 {
        let transaction = begin(&host, "shop", 60_000).await?;
        write(&store, &transaction);
        all.push(transaction.transaction);
    }
    let scale = split_first(&host, &stream);
    let commits = futures::future::join_all(all.iter().map(|transaction| commit(&host, "shop", *transaction)));
    let (scaled, committed) = futures::future::join(scale, commits).await;
    scaled?;
    for answer in committed {
        assert_eq!(answer?.phase, TransactionPhase::Committed);
    }
    assert_eq!(seen(&store, stream.stream, "0a"), 10);
    let segments = described(&host, "shop").await?.segments;
    assert_eq!(segments.len(), 2, "what was scaled stays scaled");
    // Whole transactions in a row, wherever they went.
    {
        let store = store.lock().unwrap();
        for there in store.segments.values().filter(|there| !there.new.transactional) {
            assert!(there.events.chunks(2).all(|pair| pair == ["0a", "0b"]), "{:?}", there.events);
        }
    }
    leader.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn a_transaction_begins_behind_a_scale_that_is_on_its_way() -> Result<()> {
    let world = World::start().await?;
    let leader = coordinator(&world, "a", &[]).await?;
    let host = caller(&world).await?;
    let (store, _doors) = store_doors(&host).await?;
    let stream = create(&host, &new("shop", 1)).await?;
    store.lock().unwrap().patience = Some(1);
    assert_eq!(split_first(&host, &stream).await.unwrap_err().kind, "Broken");
    let waits = begin(&host, "shop", 60_000).await.unwrap_err();
    assert_eq!((waits.kind.as_str(), store.lock().unwrap().shadows()), ("Broken", 0), "the scale comes first");
    store.lock().unwrap().patience = None;
    let begun = begin(&host, "shop", 60_000).await?;
    assert_eq!((begun.epoch, begun.shares.len()), (1, 2));
    let listed = host.bus.call::<ListTransactions>(&(), &TransactionsOf::all(index("shop"))).await?.transactions;
    assert_eq!(listed, vec![begun], "what could not begin was never begun");

    // A transaction whose segments cannot be created is taken back at once.
    store.lock().unwrap().patience = Some(1);
    assert_eq!(begin(&host, "shop", 60_000).await.unwrap_err().kind, "Broken");
    store.lock().unwrap().patience = None;
    eventually(SOON, async || matches!(phase(&host, "shop", TransactionId(1)).await, Ok(TransactionPhase::Aborted)))
        .await;
    assert_eq!(store.lock().unwrap().shadows(), 2);
    leader.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn a_lost_part_is_told_and_holds_back_everything_but_the_deletion() -> Result<()> {
    let world = World::start().await?;
    let leader = coordinator(&world, "a", &[]).await?;
    let host = caller(&world).await?;
    let (store, _doors) = store_doors(&host).await?;
    let stream = create(&host, &new("shop", 2)).await?;
    let begun = begin(&host, "shop", 60_000).await?;
    let shadow = begun.shares[0].shadow;
    let lost = store.lock().unwrap().segments.remove(&shadow).unwrap();
    let told = commit(&host, "shop", begun.transaction).await.unwrap_err();
    assert_eq!(
        (told.kind.as_str(), told.code, told.outcome),
        ("TransactionPartLost", Code::Conflict, Outcome::Unknown)
    );
    let name = StreamName { index: index("shop") };
    assert_eq!(split_first(&host, &stream).await.unwrap_err().kind, "TransactionPartLost");
    assert_eq!(host.bus.call_within::<SealStream>(&(), &name, SOON).await.unwrap_err().kind, "TransactionPartLost");
    // The container's log is put back: the leader goes on by itself.
    store.lock().unwrap().segments.insert(shadow, lost);
    eventually(SOON, async || matches!(phase(&host, "shop", begun.transaction).await, Ok(TransactionPhase::Committed)))
        .await;
    assert_eq!(split_first(&host, &stream).await?.segments.len(), 3);

    // Or it is lost for good.
    let begun = begin(&host, "shop", 60_000).await?;
    store.lock().unwrap().segments.remove(&begun.shares[1].shadow);
    assert_eq!(commit(&host, "shop", begun.transaction).await.unwrap_err().kind, "TransactionPartLost");
    host.bus.call_within::<DeleteStream>(&(), &name, SOON).await?;
    assert!(store.lock().unwrap().segments.is_empty());
    leader.stop().await?;
    Ok(())
}

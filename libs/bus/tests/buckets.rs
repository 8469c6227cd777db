//! Buckets, watches and leases on a real server.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::time::Duration;

use bus::{BucketError, Change, Lease};
use support::{Server, eventually, soon};

fn told(change: &Change) -> String {
    match change {
        Change::Ready => "ready".to_owned(),
        Change::Key { key, entry } => {
            format!("{key}={}", entry.as_ref().map_or("-", |e| std::str::from_utf8(&e.value).unwrap()))
        }
    }
}

#[tokio::test]
async fn values_change_by_compare_and_set() {
    let server = Server::open();
    let bucket = server.bus("a").await.bucket("lb_test", None, 1).await.unwrap();
    assert_eq!(bucket.get("k").await.unwrap(), None);
    let first = bucket.create("k", "1").await.unwrap();
    assert!(matches!(bucket.create("k", "2").await, Err(BucketError::Exists { .. })));
    let second = bucket.update("k", "2", first).await.unwrap();
    assert!(matches!(bucket.update("k", "3", first).await, Err(BucketError::Conflict { .. })));
    assert!(matches!(bucket.delete_at("k", first).await, Err(BucketError::Conflict { .. })));
    assert_eq!(bucket.get("k").await.unwrap().unwrap().revision, second);
    bucket.delete_at("k", second).await.unwrap();
    assert_eq!(bucket.get("k").await.unwrap(), None);
    let third = bucket.create("k", "4").await.unwrap();
    assert!(third > second);
    bucket.delete("k").await.unwrap();
    // A version is of every change, removals too; only what was never written to has none.
    assert_eq!(bucket.version("other").await.unwrap(), (0, None));
    bucket.delete("never-there").await.unwrap();
    let (removed, nothing) = bucket.version("never-there").await.unwrap();
    assert!(removed > third && nothing.is_none());
    assert!(matches!(bucket.update("never-there", "1", 0).await, Err(BucketError::Conflict { .. })));
    let written = bucket.update("never-there", "1", removed).await.unwrap();
    assert_eq!(bucket.version("never-there").await.unwrap(), (written, Some("1".into())));
    bucket.delete("never-there").await.unwrap();
    for bad in ["", ".a", "a.", "a..b", "a*", "a b", ">"] {
        assert!(matches!(bucket.put(bad, "x").await, Err(BucketError::Bus(_))), "{bad:?}");
    }
    // Large values and many keys.
    for n in 0..600 {
        bucket.put(&format!("m.{n:03}"), vec![b'x'; 1000]).await.unwrap();
    }
    bucket.put("mm", vec![b'y'; 5 << 20]).await.unwrap();
    assert_eq!(bucket.list("m.").await.unwrap().len(), 600);
    assert_eq!(bucket.list("m.01").await.unwrap().len(), 10);
    assert_eq!(bucket.list("").await.unwrap().len(), 601);
    assert!(bucket.list("none").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_bucket_opened_with_another_lifetime_takes_it() {
    let server = Server::open();
    let bus = server.bus("a").await;
    bus.bucket("lb_test", Some(Duration::from_secs(60)), 1).await.unwrap().put("k", "v").await.unwrap();
    let bucket = bus.bucket("lb_test", Some(Duration::from_secs(1)), 1).await.unwrap();
    eventually("expiry", async || bucket.get("k").await.unwrap().is_none()).await;
}

#[tokio::test]
async fn a_watch_tells_what_is_there_then_ready_then_changes_and_expiry() {
    let server = Server::open();
    let bus = server.bus("a").await;
    let bucket = bus.bucket("lb_test", Some(Duration::from_secs(1)), 1).await.unwrap();
    bucket.put("s.a", "1").await.unwrap();
    bucket.put("s.b", "1").await.unwrap();
    bucket.put("other", "1").await.unwrap();
    bucket.delete("s.b").await.unwrap();
    let mut watch = bucket.watch("s.");
    let mut next = async || told(&soon("a change", watch.next()).await);
    assert_eq!(next().await, "s.a=1");
    assert_eq!(next().await, "ready");
    bucket.put("s.c", "2").await.unwrap();
    assert_eq!(next().await, "s.c=2");
    bucket.delete("s.c").await.unwrap();
    assert_eq!(next().await, "s.c=-");
    // Nobody renews it.
    assert_eq!(next().await, "s.a=-");
    // The other key was written a moment later, so it is gone a moment later.
    eventually("an empty bucket", async || bucket.list("").await.unwrap().is_empty()).await;

    let mut empty = bucket.watch("nothing.");
    assert_eq!(soon("ready", empty.next()).await, Change::Ready);
}

#[tokio::test]
async fn a_lease_moves_when_its_holder_falls_silent_or_gives_it_back() {
    let server = Server::open();
    let ttl = Duration::from_secs(1);
    let (one, two) = (server.bus("a").await, server.bus("b").await);
    let bucket = one.bucket("lb_test", Some(ttl), 1).await.unwrap();
    let other = two.bucket("lb_test", Some(ttl), 1).await.unwrap();
    let mut first = Lease::new(bucket.clone(), "coordinator", "a".parse().unwrap(), ttl);
    let mut second = Lease::new(other.clone(), "coordinator", "b".parse().unwrap(), ttl);
    assert!(first.try_acquire().await.unwrap());
    for _ in 0..15 {
        assert!(!second.try_acquire().await.unwrap());
        assert!(first.renew().await.unwrap());
        tokio::time::sleep(ttl / 10).await;
    }
    assert_eq!(Lease::holder_of(&other, "coordinator").await.unwrap(), Some("a".parse().unwrap()));

    first.release().await.unwrap();
    assert!(second.try_acquire().await.unwrap());
    assert!(!first.renew().await.unwrap());
    assert!(!first.try_acquire().await.unwrap());

    // The second falls silent.
    let silent = tokio::time::Instant::now();
    while !first.try_acquire().await.unwrap() {
        assert!(silent.elapsed() < 3 * ttl);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(silent.elapsed() > ttl / 2);
    assert!(!second.renew().await.unwrap(), "who was replaced hears of it");
    assert_eq!(Lease::holder_of(&other, "coordinator").await.unwrap(), Some("a".parse().unwrap()));
}

#[tokio::test]
async fn a_silent_holder_is_replaced_even_where_nothing_expires() {
    let server = Server::open();
    let bucket = server.bus("a").await.bucket("lb_forever", None, 1).await.unwrap();
    let ttl = Duration::from_millis(300);
    let mut first = Lease::new(bucket.clone(), "k", "a".parse().unwrap(), ttl);
    let mut second = Lease::new(bucket.clone(), "k", "b".parse().unwrap(), ttl);
    assert!(first.try_acquire().await.unwrap());
    eventually("the lease moves", async || second.try_acquire().await.unwrap()).await;
    assert!(!first.renew().await.unwrap());
}

#[tokio::test]
async fn whoever_joins_a_bucket_changes_nothing_of_it() {
    let server = Server::open();
    let bus = server.bus("owner").await;
    let owned = bus.bucket("kept", Some(Duration::from_secs(1)), 1).await.unwrap();
    let joined = server.bus("guest").await.join_bucket("kept", 1).await.unwrap();
    joined.put("key", "value").await.unwrap();
    // The owner's lifetime still holds.
    eventually("the entry expires", async || owned.get("key").await.unwrap().is_none()).await;
    let made = server.bus("guest").await.join_bucket("made", 1).await.unwrap();
    made.put("key", "value").await.unwrap();
    assert_eq!(&made.get("key").await.unwrap().unwrap().value[..], b"value");
}

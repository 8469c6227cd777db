//! What the front door refuses because the plan of an index does not allow it.

use std::time::Instant;

use bytes::Bytes;
use futures::future::join_all;
use testkit::eventually;
use types::IndexName;
use wire::views::{QUOTAS, Quota, USAGE, Usages};

use crate::stage::{LONG, Stage, TAIL_ONLY, counter};

const REFUSED: &str = "lb_segment_store_lane_refused_total{reason=\"quota\"}";

async fn limit(stage: &Stage, index: &str, quota: Quota) {
    let bucket = stage.bus.bucket(QUOTAS, None, 1).await.unwrap();
    bucket.put(index, wire::encode(&quota)).await.unwrap();
}

/// Answers of so many publishes at once: how many were taken, and what the others were told.
async fn publish(producer: &bus::Bus, index: &IndexName, what: &str, count: usize) -> (usize, Vec<String>) {
    let all = (0..count).map(|n| {
        let (subject, id) = (format!("logs.{index}.k{}", n % 7), format!("{what}-{n}"));
        async move { producer.publish_record(&subject, &id, Bytes::from_static(b"0123456789")).await }
    });
    let (taken, refused): (Vec<_>, Vec<_>) = join_all(all).await.into_iter().partition(Result::is_ok);
    (taken.len(), refused.into_iter().map(|answer| answer.unwrap_err().message).collect())
}

async fn stored(stage: &Stage, index: &IndexName) -> u64 {
    stage.client.tails(index).await.unwrap().0.values().sum()
}

#[actix::test]
async fn publishers_are_told_which_quota_is_used_up_and_how_long_to_wait() {
    let mut stage = Stage::empty().await;
    limit(&stage, "shop", Quota { events_per_second: Some(1), ..Quota::default() }).await;
    limit(&stage, "small", Quota { bytes_per_day: Some(105), ..Quota::default() }).await;
    stage.start("a", TAIL_ONLY).await;
    stage.place(|_| ("a".into(), 1)).await;
    let [shop, small, free] = ["shop", "small", "free"].map(|name| name.parse::<IndexName>().unwrap());
    for (number, index) in [(1, &shop), (2, &small), (3, &free)] {
        stage.stream(index.as_str(), number, 2).await;
    }
    let producers = [stage.producer(&shop).await, stage.producer(&small).await, stage.producer(&free).await];

    // A burst of two, and one for each second that passed meanwhile.
    let (begun, before) = (Instant::now(), counter(REFUSED));
    let (taken, refused) = publish(&producers[0], &shop, "burst", 200).await;
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!((2..=3 + seconds).contains(&taken), "{taken} of 200 in {seconds} s at 1 a second");
    for told in &refused {
        assert!(told.contains("QuotaRate: log index shop takes 1 events a second: try again in "), "{told}");
    }
    assert_eq!(counter(REFUSED) - before, u64::try_from(refused.len()).unwrap());
    assert_eq!(stored(&stage, &shop).await, u64::try_from(taken).unwrap(), "what was refused is not there");

    // Ten events of ten bytes, and not half an event more.
    let (taken, refused) = publish(&producers[1], &small, "day", 60).await;
    assert_eq!((taken, refused.len()), (10, 50));
    assert!(
        refused[0].contains("QuotaBytes: log index small takes 105 bytes on a day of UTC: try again in "),
        "{refused:?}"
    );
    // The index without a quota was none the wiser.
    assert_eq!(publish(&producers[2], &free, "free", 200).await.0, 200);

    // Silence makes room again, and so does a better plan.
    eventually(LONG, async || publish(&producers[0], &shop, &format!("{:?}", begun.elapsed()), 1).await.0 == 1).await;
    limit(&stage, "small", Quota { bytes_per_day: Some(115), ..Quota::default() }).await;
    eventually(LONG, async || publish(&producers[1], &small, "more", 1).await.0 == 1).await;
    // What is there already takes nothing of the day: of 125 bytes there is room for one event, again and again.
    limit(&stage, "small", Quota { bytes_per_day: Some(125), ..Quota::default() }).await;
    eventually(LONG, async || publish(&producers[1], &small, "more", 1).await.0 == 1).await;
    for _ in 0..3 {
        assert_eq!(publish(&producers[1], &small, "more", 1).await.0, 1);
    }
    assert_eq!(stored(&stage, &small).await, 11);
}

#[actix::test]
async fn a_day_goes_on_at_the_next_owner_and_after_a_restart() {
    let mut stage = Stage::empty().await;
    limit(&stage, "shop", Quota { bytes_per_day: Some(205), ..Quota::default() }).await;
    for replica in ["a", "b"] {
        stage.start(replica, TAIL_ONLY).await;
    }
    stage.place(|_| ("a".into(), 1)).await;
    let shop: IndexName = "shop".parse().unwrap();
    stage.stream("shop", 1, 2).await;
    let producer = stage.producer(&shop).await;
    let (taken, _) = publish(&producer, &shop, "first", 15).await;
    assert_eq!(taken, 15);
    // More than the day has does not pass by changing the owner, once it was told.
    let usage = stage.bus.join_bucket(USAGE, 1).await.unwrap();
    eventually(LONG, async || {
        let told = usage.list("segment-store.a.").await.unwrap();
        let told = told.iter().map(|(_, entry)| wire::decode::<Usages>(&entry.value).unwrap());
        told.filter_map(|part| part.indexes.get(&shop).copied()).any(|usage| usage.bytes == 150)
    })
    .await;
    stage.place(|_| ("b".into(), 2)).await;
    let mut taken = taken;
    eventually(LONG, async || {
        let (more, refused) = publish(&producer, &shop, &format!("b-{taken}"), 3).await;
        taken += more;
        refused.iter().any(|told| told.contains("QuotaBytes"))
    })
    .await;
    // Until the lane has moved, the first owner may let in the five that are left, of which the second hears a second later.
    assert!(stored(&stage, &shop).await <= 25);
    // Nor by starting every process anew.
    for replica in ["a", "b"] {
        stage.stop(replica).await;
        stage.start(replica, TAIL_ONLY).await;
    }
    stage.place(|_| ("a".into(), 3)).await;
    eventually(LONG, async || {
        let (more, refused) = publish(&producer, &shop, "again", 1).await;
        assert_eq!(more, 0, "the day begins anew with a restart");
        refused.iter().any(|told| told.contains("QuotaBytes"))
    })
    .await;
}

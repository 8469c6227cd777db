//! What the doors are answered, alone and with others.

use settings::Settings;
use testkit::{World, eventually};
use types::{ManualClock, Timestamp};
use wire::Outcome;

use super::*;

const LONG: Duration = Duration::from_secs(20);

fn index(name: &str) -> IndexName {
    name.parse().unwrap()
}

fn quota(bytes: u64, events: u32, queries: u16) -> Quota {
    Quota { bytes_per_day: Some(bytes), events_per_second: Some(events), queries: Some(queries), streams: None }
}

#[test]
fn a_refusal_names_the_quota_and_the_time_to_wait() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(86_400_000 - 90_000)));
    let quotas = Quotas::without(Arc::clone(&clock) as Arc<dyn Clock>);
    let shop = index("shop");
    assert!(quotas.take(&shop, 1 << 40, 1 << 40).is_ok(), "without a quota there is no limit");
    quotas.set(&shop, Some(quota(100, 4, 1)));
    assert!(quotas.take(&shop, 8, 60).is_ok());
    let permit = quotas.query(&shop, 0).unwrap();
    for (refused, kind, wait, message) in [
        (
            quotas.take(&shop, 1, 41).unwrap_err(),
            "QuotaBytes",
            Some(90_001),
            "log index shop takes 100 bytes on a day of UTC: try again in 91 s",
        ),
        (
            quotas.take(&shop, 1, 1).unwrap_err(),
            "QuotaRate",
            Some(251),
            "log index shop takes 4 events a second: try again in 251 ms",
        ),
        (
            quotas.query(&shop, 0).err().unwrap(),
            "QuotaQueries",
            Some(1_001),
            "log index shop answers 1 queries at the same time: wait for one to end, or change the plan",
        ),
        (
            quotas.take(&shop, 1, 101).unwrap_err(),
            "QuotaBytes",
            None,
            "log index shop takes 100 bytes on a day of UTC, and these are 101: send less at once, or change the plan",
        ),
    ] {
        let problem = Problem::from(refused);
        assert_eq!((problem.kind.as_str(), problem.retry_after_ms), (kind, wait));
        assert_eq!(problem.message, message);
        assert_eq!((problem.code.status(), problem.outcome), (429, Outcome::NotApplied));
        assert!(wire::KINDS.iter().any(|known| known.name == kind), "{kind}");
    }
    drop(permit);
    assert!(quotas.query(&shop, 0).is_ok());
    assert!(quotas.query(&shop, 1).is_err(), "a continuous query counts");
    quotas.give_back(&shop, [(8, 60, clock.now())]);
    assert!(quotas.take(&shop, 8, 100).is_ok());
    quotas.set(&shop, None);
    assert!(quotas.take(&shop, 1 << 40, 1 << 40).is_ok());
}

/// Whether so many bytes would pass.
fn fits(quotas: &Quotas, bytes: u64) -> bool {
    let shop = index("shop");
    let passed = quotas.take(&shop, 0, bytes);
    if let Ok(taken) = passed {
        quotas.give_back(&shop, [(0, bytes, taken)]);
    }
    passed.is_ok()
}

async fn connect(world: &World, service: wire::Service, replica: &str) -> Host {
    let settings: Settings = world.settings(replica, &[]).unwrap();
    Host::connect(service, settings.section().unwrap()).await.unwrap()
}

#[tokio::test]
async fn replicas_share_a_quota_and_a_restart_goes_on_with_it() {
    let world = World::start().await.unwrap();
    let host = connect(&world, wire::Service::Gateway, "a").await;
    let bucket = host.bus.bucket(QUOTAS, None, 1).await.unwrap();
    bucket.put("shop", wire::encode(&quota(1_000, 1_000, 2))).await.unwrap();
    bucket.put("full", b"rubbish".to_vec()).await.unwrap();
    let other = connect(&world, wire::Service::SegmentStore, "a").await;
    let (here, there) = (Quotas::open(&host).await.unwrap(), Quotas::open(&other).await.unwrap());
    let shop = index("shop");

    // What one lets in the other counts, and so do its open queries.
    assert!(here.take(&shop, 1, 600).is_ok());
    let open = here.query(&shop, 1).unwrap();
    eventually(LONG, async || !fits(&there, 401)).await;
    eventually(LONG, async || there.query(&shop, 1).is_err()).await;
    drop(open);
    eventually(LONG, async || there.query(&shop, 1).is_ok()).await;
    assert!(there.take(&shop, 1, 300).is_ok());

    // Whoever starts anew under the name goes on with the day; the end of a process tells what the last second had.
    assert!(here.take(&shop, 1, 50).is_ok());
    host.drain().await;
    other.drain().await;
    drop((here, there));
    let host = connect(&world, wire::Service::Gateway, "a").await;
    let again = Quotas::open(&host).await.unwrap();
    assert_eq!(again.take(&shop, 1, 51).unwrap_err().kind(), "QuotaBytes");
    assert!(again.take(&shop, 1, 50).is_ok());

    // A better plan helps at once, also one that has no limits.
    bucket.put("shop", wire::encode(&quota(1_100, 1_000, 2))).await.unwrap();
    eventually(LONG, async || again.take(&shop, 1, 100).is_ok()).await;
    bucket.delete("shop").await.unwrap();
    eventually(LONG, async || again.take(&shop, 1, 1 << 40).is_ok()).await;
    host.drain().await;
}

//! A lane whose segments are in another replica's hands, when that replica dies.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bus::{Bus, BusOptions, Door, Doors};
use bytes::Bytes;
use testkit::eventually;
use types::{ContainerId, Generation, IndexName};
use wire::{
    Service,
    coordinator::ContainerMoved,
    segment_store::AppendEvents,
    views::{Assignment, Placement},
};

use crate::stage::{LONG, Stage, TAIL_ONLY, read};

/// Within this a producer must be answered once the container has an owner again: far below the time of an attempt.
const SOON: Duration = Duration::from_millis(1_500);

/// A replica that takes appends of a container and never answers, as one that is killed a moment later.
async fn dying(stage: &Stage, container: ContainerId) -> (Bus, Door, Arc<AtomicU64>) {
    let creds = Some(stage.world.nats.platform_creds().unwrap());
    let options = BusOptions { url: stage.world.nats.url(), creds, name: "test/dying".into(), ..BusOptions::default() };
    let bus = Bus::connect(options).await.unwrap();
    let doors = Doors::new(&bus, Service::SegmentStore, &"dying".parse().unwrap());
    let taken = Arc::new(AtomicU64::new(0));
    let counted = taken.clone();
    let door = doors.serve::<AppendEvents, _, _>(Some(&container), move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::pending()
    });
    (bus.clone(), door.await.unwrap(), taken)
}

/// The lane is alive, the segment's owner is not: whoever publishes waits for the next owner and no longer.
#[actix::test]
async fn a_lane_follows_a_container_whose_owner_died() {
    for told in [true, false] {
        let mut stage = Stage::with_store(TAIL_ONLY).await;
        let index: IndexName = "shop".parse().unwrap();
        let segment = stage.stream("shop", 1, 1).await.segments[0];
        let producer = stage.producer(&index).await;
        let lane = stage.lane_of(&producer, "logs.shop").await;
        let container = segment.container;
        // A key whose lane is not the one that its segment's container would serve.
        let subject = (0..64).map(|n| format!("logs.shop.k{n}"));
        let mut found = (lane != container.0).then(|| "logs.shop".to_owned());
        for subject in subject {
            if found.is_none() && stage.lane_of(&producer, &subject).await != container.0 {
                found = Some(subject);
            }
        }
        let subject = found.unwrap();
        let publish = async |id: &str| producer.publish_record(&subject, id, Bytes::from(id.to_owned())).await;
        publish("before").await.unwrap();
        // The container goes to a replica that dies with what it is asked.
        stage.place(|n| (if ContainerId(n) == container { "dying" } else { "a" }.into(), 2)).await;
        let gone = async || stage.client.describe(segment).await.is_err_and(|problem| problem.kind == "NoResponders");
        eventually(LONG, gone).await;
        let (bus, door, taken) = dying(&stage, container).await;
        let waiting = publish("during");
        tokio::pin!(waiting);
        tokio::select! {
            acked = &mut waiting => panic!("answered by nobody: {acked:?}"),
            () = eventually(LONG, async || taken.load(Ordering::Relaxed) > 0) => {}
        }
        drop(door);
        drop(bus);
        stage.place(|_| ("a".into(), 3)).await;
        if told {
            let assignment = Assignment { container, replica: "a".parse().unwrap(), generation: Generation(3) };
            let placement = Placement { version: 99, container_count: 8, assignments: vec![assignment] };
            stage.bus.tell::<ContainerMoved>(&container, &placement).await;
        }
        let mut served = None;
        let answered = async {
            eventually(LONG, async || stage.client.describe(segment).await.is_ok()).await;
            served = Some(Instant::now());
            std::future::pending::<()>().await
        };
        tokio::select! {
            acked = &mut waiting => drop(acked.unwrap()),
            () = answered => {}
        }
        let waited = served.map_or(Duration::ZERO, |served| served.elapsed());
        let allowed = if told { SOON } else { SOON + Duration::from_millis(2_500) };
        assert!(waited < allowed, "told {told}: waited {waited:?} for an owner that was there");
        let count = stage.client.tails(&index).await.unwrap().offset(segment.segment);
        let seen = read(&mut stage.client.reader(segment, 0), count).await;
        for once in ["before", "during"] {
            assert_eq!(seen.iter().filter(|(_, text)| text == once).count(), 1, "{once}: {seen:?}");
        }
    }
}

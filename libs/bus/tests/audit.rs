//! The audit on a real server.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::time::Duration;

use support::Server;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn the_audit_is_read_from_any_point_and_by_subject() {
    let server = Server::open();
    let bus = server.bus("a").await;
    assert!(bus.audit("lb.v1.audit.>", |_| false).await.is_err(), "there is none yet");
    bus.ensure_audit(1, DAY, 1 << 20).await.unwrap();
    bus.ensure_audit(1, DAY * 2, 1 << 20).await.unwrap();
    let mut empty = bus.audit("lb.v1.audit.>", |_| true).await.unwrap();
    assert!(empty.read().await.unwrap().is_empty());
    for n in 0..200_u8 {
        let subject = format!("lb.v1.audit.broker.{}", if n % 3 == 0 { "three" } else { "others" });
        bus.publish_record(&subject, &format!("id-{n}"), vec![n].into()).await.unwrap();
        // A repeat is stored once.
        bus.publish_record(&subject, &format!("id-{n}"), vec![n].into()).await.unwrap();
    }
    for first in [0, 1, 99, 100, 198, 199] {
        let mut reader = bus.audit("lb.v1.audit.>", |payload| payload[0] < first).await.unwrap();
        let mut found = Vec::new();
        loop {
            let some = reader.read().await.unwrap();
            if some.is_empty() {
                break;
            }
            found.extend(some.iter().map(|record| record.payload[0]));
        }
        assert_eq!(found, (first..200).collect::<Vec<_>>());
    }
    let mut reader = bus.audit("lb.v1.audit.broker.three", |payload| payload[0] < 100).await.unwrap();
    let found: Vec<u8> = reader.read().await.unwrap().iter().map(|record| record.payload[0]).collect();
    assert_eq!(found, (102..200).step_by(3).collect::<Vec<_>>());
}

//! Streams of others on a real server.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::time::Duration;

use support::Server;

#[tokio::test]
async fn a_stream_is_read_from_any_message_with_and_without_a_subject() {
    let server = Server::open();
    let bus = server.bus("a").await;
    assert!(bus.first_of_stream("AUDIT").await.is_err(), "there is none yet");
    assert!(bus.first_of_stream("AUDIT.X").await.is_err() && bus.read_stream("A>", "", 0).is_err());
    bus.ensure_audit(1, Duration::from_secs(3_600), 1 << 20).await.unwrap();
    assert_eq!(bus.first_of_stream("AUDIT").await.unwrap(), 1);
    for n in 0..20_u8 {
        let subject = format!("lb.v1.audit.broker.{}", if n % 3 == 0 { "three" } else { "others" });
        bus.publish_record(&subject, &format!("id-{n}"), vec![n].into()).await.unwrap();
    }
    for (subject, after, wanted) in [
        ("", 0, (0..20).collect::<Vec<u8>>()),
        ("", 7, (7..20).collect()),
        ("lb.v1.audit.*.three", 0, (0..20).step_by(3).collect()),
        ("lb.v1.audit.broker.three", 1, (3..20).step_by(3).collect()),
    ] {
        let mut reader = bus.read_stream("AUDIT", subject, after).unwrap();
        for value in wanted {
            let message = reader.next().await.unwrap();
            assert_eq!((message.seq, message.payload[0]), (u64::from(value) + 1, value), "{subject} after {after}");
        }
        let more = tokio::time::timeout(Duration::from_millis(50), reader.next()).await;
        assert!(more.is_err(), "{subject} after {after}: {more:?}");
    }
}

//! Our own client with a binding's credentials: exactly once, all or none, and read back, from outside the platform.

use std::{collections::BTreeMap, time::Duration};

use arrow::array::AsArray;
use async_nats::HeaderMap;
use bus::BusOptions;
use bytes::Bytes;
use client::{BindingCredentials, Client, WriterOptions};
use logboom_tests::{Binding, Standalone, eventually};
use types::{ContainerId, IndexName, RoutingKey};
use wire::{
    Outcome, Problem,
    coordinator::{DescribeStream, GrantDelegation, StreamName},
    decode,
    delegation::{Bearer, Granted},
    encode,
    segment_store::{AppendEvents, ReadSegment},
    views::Role,
};

use super::{CUT_OFF_WITHIN, complains, watched};

const LONG: Duration = Duration::from_secs(30);

fn index(name: &str) -> IndexName {
    name.parse().unwrap()
}

fn credentials(binding: &Binding, role: Role) -> BindingCredentials {
    BindingCredentials {
        nats_url: binding.nats_url.clone(),
        nats_creds: binding.creds.clone(),
        index: index(&binding.index),
        role,
        inbox_prefix: binding.inbox_prefix.clone(),
    }
}

async fn connect(binding: &Binding, role: Role) -> Client {
    let options = BusOptions { name: "tests/outside".to_owned(), ..BusOptions::default() };
    Client::connect_with_binding(&credentials(binding, role), options).await.unwrap()
}

/// What a reader from the head to the present end sees, by the event's text; fails on anything that is seen twice.
async fn read_all(client: &Client, index: &IndexName) -> BTreeMap<String, u64> {
    let end = client.tails(index).await.unwrap();
    let mut reader = client.stream_reader(index, None, Some(end)).await.unwrap();
    let mut seen = BTreeMap::new();
    while let Some((_, batch)) = reader.next(LONG).await.unwrap() {
        for text in batch.column_by_name("_msg").unwrap().as_string::<i32>() {
            *seen.entry(text.unwrap().to_owned()).or_default() += 1;
        }
    }
    assert!(reader.is_finished());
    seen
}

#[tokio::test]
async fn a_program_outside_writes_exactly_once_and_reads_it_back() {
    let eager = ["segment_store.flush_interval=100ms", "segment_store.flush_bytes=64KiB"];
    let up = Standalone::start_with(&eager).await.unwrap();
    up.api.provision("mine", 3).await.unwrap();
    let binding = up.api.bind("mine", "admin").await.unwrap();
    let (client, mine) = (connect(&binding, Role::Admin).await, index("mine"));
    let mut expected = BTreeMap::new();

    let options = WriterOptions::new("importer-1".parse().unwrap());
    let writer = client.event_writer(mine.clone(), options).await.unwrap();
    for n in 0..3_000 {
        let (key, text) = (RoutingKey::new(&format!("cart-{}", n % 50)).unwrap(), format!("event {n}"));
        let _receipt = writer.write(Some(&key), text.clone().into()).await.unwrap();
        expected.insert(text, 1);
    }
    writer.close().await.unwrap();

    // A block whose answer was lost is sent again under the same numbers.
    let block = client.writer(mine.clone(), "importer-2".parse().unwrap());
    let segment = block.route(None).await.unwrap();
    for duplicates in [0, 2] {
        let events = [Bytes::from_static(b"numbered 1"), Bytes::from_static(b"numbered 2")];
        assert_eq!(block.append(segment, 1, &events).await.unwrap().duplicate_count, duplicates);
    }
    assert_eq!(block.resume(segment).await.unwrap(), 2);
    expected.extend([("numbered 1".to_owned(), 1), ("numbered 2".to_owned(), 1)]);

    for (texts, commits) in [(["paid", "shipped"], true), (["never", "seen"], false)] {
        let transaction = client.begin_transaction(mine.clone(), LONG).await.unwrap();
        let key = RoutingKey::new("cart-7").unwrap();
        transaction.write_batch([(Some(&key), texts[0]), (None, texts[1])]).await.unwrap().await.unwrap();
        if commits {
            transaction.commit().await.unwrap();
            expected.extend(texts.map(|text| (text.to_owned(), 1)));
        } else {
            transaction.abort().await.unwrap();
        }
    }
    assert_eq!(read_all(&client, &mine).await, expected);

    // The same when all of it lies in object storage, which the program cannot reach.
    eventually("everything is in Tier 2", LONG, async || {
        for segment in &client.stream(&mine).await?.segments {
            let info = client.describe(*segment).await?;
            anyhow::ensure!(info.tail_from == info.end && !info.chunks.is_empty(), "{info:?}");
        }
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(read_all(&client, &mine).await, expected);
    let count = i64::try_from(expected.len()).unwrap();
    assert_eq!(up.api.count("SELECT count(*) AS n FROM mine").await.unwrap(), count);
}

#[tokio::test]
async fn a_program_outside_is_confined_to_its_index_and_role() {
    let (up, binding) = super::two_tenants().await;
    let (theirs, mine) = (index("theirs"), index("mine"));
    let other = up.api.bind("theirs", "admin").await.unwrap();
    let client = connect(&binding, Role::Admin).await;

    // Its own delegation does not open another index, by name or by segment.
    let problem = client.stream(&theirs).await.unwrap_err();
    assert_eq!((problem.kind.as_str(), problem.outcome), ("DelegationForeign", Outcome::NotApplied));
    let foreign = connect(&other, Role::Admin).await.stream(&theirs).await.unwrap().segments[0];
    assert_eq!(client.describe(foreign).await.unwrap_err().kind, "DelegationForeign");
    let refused = client.writer(mine.clone(), "w".parse().unwrap()).append(foreign, 1, &["x".into()]).await;
    assert_eq!(refused.unwrap_err().kind, "DelegationForeign");
    assert_eq!(client.reader(foreign, 0).next(Duration::ZERO).await.unwrap_err().kind, "DelegationForeign");

    // Roles.
    let writer = connect(&up.api.bind("mine", "write").await.unwrap(), Role::Write).await;
    let reader = connect(&up.api.bind("mine", "read").await.unwrap(), Role::Read).await;
    let own = client.stream(&mine).await.unwrap().segments[0];
    let append = async |by: &Client| {
        let done = by.writer(mine.clone(), "w".parse().unwrap()).append(own, 1, &["x".into()]).await;
        done.map(|_| ()).map_err(|problem| problem.kind)
    };
    let read =
        async |by: &Client| by.reader(own, 0).next(Duration::ZERO).await.map(|_| ()).map_err(|problem| problem.kind);
    assert_eq!((append(&writer).await, append(&reader).await), (Ok(()), Err("DelegationTooWeak".to_owned())));
    assert_eq!((read(&reader).await, read(&writer).await), (Ok(()), Err("DelegationTooWeak".to_owned())));

    // A delegation that leaked is of no use on another connection, and NATS lets nobody speak under another's subject.
    let bearer = |binding: &Binding| Bearer {
        index: index(&binding.index),
        binding: binding.id.parse().unwrap(),
        role: Role::Admin,
    };
    let (tenant, intruder) = (other.connect().await.unwrap(), watched(&binding).await);
    let subject = bearer(&other).subject_of::<GrantDelegation>(&());
    let answer = tenant.request(subject, encode(&wire::Empty {}).into()).await.unwrap();
    let leaked: Granted = decode(&answer.payload).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(wire::header::DELEGATION, leaked.token.as_str());
    let body = Bytes::from(encode(&StreamName { index: theirs.clone() }));
    let own_subject = bearer(&binding).subject_of::<DescribeStream>(&());
    let answer = intruder.0.request_with_headers(own_subject, headers.clone(), body.clone()).await.unwrap();
    assert_eq!(decode::<Problem>(&answer.payload).unwrap().kind, "DelegationForeign");
    for subject in [
        bearer(&other).subject_of::<DescribeStream>(&()),
        bearer(&other).subject_of::<ReadSegment>(&ContainerId(0)),
        bearer(&other).subject_of::<AppendEvents>(&ContainerId(0)),
        wire::subject_of::<DescribeStream>(&()),
    ] {
        intruder.0.publish_with_headers(subject.clone(), headers.clone(), body.clone()).await.unwrap();
        complains(&intruder.1, &["Permissions Violation for Publish", &subject]).await;
    }
    assert_eq!(up.api.count("SELECT count(*) AS n FROM theirs").await.unwrap(), 0);
}

#[tokio::test]
async fn a_program_outside_is_cut_off_when_it_is_unbound() {
    let (up, binding) = super::two_tenants().await;
    let client = connect(&binding, Role::Admin).await;
    let writer = client.writer(index("mine"), "w".parse().unwrap());
    let segment = writer.route(None).await.unwrap();
    writer.append(segment, 1, &["before".into()]).await.unwrap();
    up.api.unbind(&binding).await.unwrap();
    // Its delegation would hold for another ten minutes.
    eventually("it is cut off", CUT_OFF_WITHIN, async || {
        let mut reader = client.reader(segment, 0);
        let read = tokio::time::timeout(Duration::from_millis(200), reader.next(Duration::ZERO)).await;
        anyhow::ensure!(!matches!(read, Ok(Ok(_))), "it still reads");
        Ok(())
    })
    .await
    .unwrap();
    let options = BusOptions { name: "tests/outside".to_owned(), ..BusOptions::default() };
    let again = Client::connect_with_binding(&credentials(&binding, Role::Admin), options).await;
    assert!(again.err().unwrap().to_string().contains("revoked"));
    assert_eq!(up.api.count("SELECT count(*) AS n FROM mine").await.unwrap(), 1);
}

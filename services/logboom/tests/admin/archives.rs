//! From a bucket of the provisioner to an index that comes back from it: `archive_to`, end to end.

use std::time::Duration;

use testkit::{S3Server, eventually};
use wire::index_provisioner::{
    CreateIndex, DeleteIndex, IndexChange, IndexOptions, InstanceName, NewIndex, UpdateIndex,
};

use super::installation::{Installation, sum};

const LONG: Duration = Duration::from_secs(60);
const REGION: &str = "eu-central-1";

fn new(instance: &str, name: &str, backend: &str, options: IndexOptions) -> NewIndex {
    NewIndex {
        instance: instance.parse().unwrap(),
        scope: "team".parse().unwrap(),
        index: Some(name.parse().unwrap()),
        backend: backend.into(),
        segment_count: 2,
        retention_days: None,
        options,
        order: 0,
    }
}

fn into(archive: &str) -> IndexOptions {
    IndexOptions { archive_to: Some(archive.parse().unwrap()), ..IndexOptions::default() }
}

/// Events that the copies of an index hold.
fn archived(server: &S3Server, index: &str) -> u64 {
    let home = format!("chunks/{index}/");
    let objects = server.bucket("logboom-cold").map(|bucket| bucket.objects).unwrap_or_default();
    let ranges = objects.keys().filter(|key| key.starts_with(&home)).filter_map(|key| chunk::copied_range(key));
    ranges.map(|(from, to)| to - from).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archived_index_comes_back_from_its_bucket() {
    let server = S3Server::serve(REGION).await.unwrap();
    let secrets = tempfile::tempdir().unwrap();
    let (id, secret) = server.admin();
    let file = |name: &str, text: &str| {
        let path = secrets.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("file:{}", path.display())
    };
    let (id_file, secret_file) = (file("s3.id", id), file("s3.secret", secret));
    let sealing = format!("k1:{}", data_encoding::BASE64.encode(&[7; 32]));
    let set = vec![
        format!("index_provisioner.sealing_keys={}", file("sealing.keys", &sealing)),
        format!("index_provisioner.s3.endpoint={}", server.endpoint()),
        format!("index_provisioner.s3.region={REGION}"),
        format!("index_provisioner.s3.access_key_id={id_file}"),
        format!("index_provisioner.s3.access_secret={secret_file}"),
        "segment_store.archive.interval=100ms".to_owned(),
        format!("segment_store.archive.access_key_id={id_file}"),
        format!("segment_store.archive.access_secret={secret_file}"),
    ];
    let environment = vec![
        ("AWS_ENDPOINT_URL", server.endpoint().to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", id.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
    ];
    let mut there = Installation::start_with(set, environment).await;
    let bus = there.bus().await;
    let refused = bus.call_within::<CreateIndex>(&(), &new("i", "shop", "own", into("cold")), LONG).await.unwrap_err();
    assert!(refused.kind == "NoArchive" && refused.message.contains("scope team has no bucket cold"), "{refused}");
    bus.call_within::<CreateIndex>(&(), &new("a", "cold", "s3", IndexOptions::default()), LONG).await.unwrap();
    bus.call_within::<CreateIndex>(&(), &new("i", "shop", "own", into("cold")), LONG).await.unwrap();
    there.write("shop", "w1", 0..200).await;
    there.admin(&["scale", "shop", "--ranges", "split"]);
    there.write("shop", "w1", 200..400).await;
    there.admin(&["flush", "--all"]);
    let truth = there.events("shop").await;
    assert_eq!(sum(&truth), 400);
    eventually(LONG, async || archived(&server, "shop") == 400).await;

    let name = |instance: &str| InstanceName { instance: instance.parse().unwrap(), order: 0 };
    let in_use = bus.call_within::<DeleteIndex>(&(), &name("a"), LONG).await.unwrap_err();
    assert!(in_use.kind == "ArchiveInUse" && in_use.message.contains("shop"), "{in_use}");
    let from = ["restore", "shop", "--from-chunks", "--from", "s3://logboom-cold", "--as", "copy"];
    let restored = there.admin(&from);
    assert_eq!((restored["events"].as_u64(), restored["lost"].as_u64()), (Some(400), Some(0)), "{restored}");
    let messages = |events: super::installation::Events| events.into_values().collect::<Vec<_>>();
    assert_eq!(messages(there.events("copy").await), messages(truth), "every event at its offset");
    there.assert_key_order("copy", 400).await;
    // Taken away, nothing more lands there, and the bucket may go.
    let change = IndexChange {
        instance: "i".parse().unwrap(),
        retention_days: None,
        options: IndexOptions::default(),
        order: 0,
    };
    bus.call_within::<UpdateIndex>(&(), &change, LONG).await.unwrap();
    bus.call_within::<DeleteIndex>(&(), &name("a"), LONG).await.unwrap();
    assert!(server.buckets().is_empty());
    there.stop().await;
}

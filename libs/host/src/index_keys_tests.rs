use settings::SecretRef;
use testkit::World;
use wire::Service;

use super::*;
use crate::Host;

const NOW: Timestamp = Timestamp::from_nanos(1_790_000_000_000_000_000);
const CHUNK: &str = "chunks/shop/7-0-0/00000000000000000000-G1-a.parquet.sealed";

/// Processes that share a bucket, each with its own memory, and a file of master keys.
struct Stage {
    host: Host,
    file: tempfile::NamedTempFile,
    _world: World,
}

impl Stage {
    fn process(&self) -> IndexKeyring {
        let path = self.file.path().display().to_string();
        IndexKeyring::new(self.host.bus.clone(), 1, Secret::at(SecretRef::File(path)))
    }

    fn masters(&self, ids: &[(&str, u8)]) {
        let line = |(id, byte): &(&str, u8)| format!("{id}:{}\n", data_encoding::BASE64.encode(&[*byte; 32]));
        std::fs::write(self.file.path(), ids.iter().map(line).collect::<String>()).unwrap();
    }
}

async fn bytes_of(keys: &IndexKeyring, version: Option<u32>) -> Result<Arc<DataKey>, KeyError> {
    keys.key(CHUNK, version).await
}

#[test]
fn an_object_says_whose_it_is() {
    for (object, stream) in [
        (CHUNK, Some(7)),
        ("quarantine/chunks/shop/7-0-0/a.parquet.sealed", Some(7)),
        ("quarantine/damaged-0a/chunks/shop/12-3-4/a.parquet.sealed", Some(12)),
        ("chunks/chunks/7-0-0/a.parquet.sealed", Some(7)),
        ("chunks/shop/seven/a.sealed", None),
        ("snap/coordinator/a.sealed", None),
        ("", None),
    ] {
        assert_eq!(stream_of(object), stream, "{object}");
    }
}

#[tokio::test]
async fn keys_are_made_rotated_wrapped_anew_and_destroyed() {
    let world = World::start().await.unwrap();
    let host = Host::connect(Service::Coordinator, world.common("a", &[]).unwrap()).await.unwrap();
    let stage = Stage { host, file: tempfile::NamedTempFile::new().unwrap(), _world: world };
    let keys = stage.process();
    assert_eq!((keys.master().unwrap(), keys.create(7, NOW).await.unwrap_err().kind.as_str()), (None, "EncryptionOff"));
    stage.masters(&[("k1", 1)]);
    assert!(matches!(bytes_of(&keys, None).await, Err(KeyError::Gone(_))), "it has none yet");
    assert_eq!(keys.rotate(7, NOW).await.unwrap_err().kind, "NotEncrypted");
    keys.create(7, NOW).await.unwrap();
    let first = bytes_of(&keys, None).await.unwrap();
    keys.create(7, NOW).await.unwrap();
    assert_eq!(bytes_of(&stage.process(), Some(1)).await.unwrap(), first, "a repeat changes nothing");

    // Another process is told of the next version as soon as it meets an object of it.
    let other = stage.process();
    assert_eq!(bytes_of(&other, None).await.unwrap().version(), 1);
    assert_eq!(keys.rotate(7, NOW).await.unwrap().keys.len(), 2);
    let second = bytes_of(&keys, None).await.unwrap();
    assert!(second.version() == 2 && second != first);
    assert_eq!(bytes_of(&other, Some(2)).await.unwrap(), second);
    assert_eq!(bytes_of(&other, Some(1)).await.unwrap(), first);
    assert!(matches!(bytes_of(&other, Some(3)).await, Err(KeyError::Gone(_))));

    // The master key is exchanged.
    stage.masters(&[("k2", 2), ("k1", 1)]);
    assert_eq!(keys.rewrap().await.unwrap(), Rewrapped { streams: 1, ..Rewrapped::default() });
    assert_eq!(keys.rewrap().await.unwrap(), Rewrapped::default());
    stage.masters(&[("k2", 2)]);
    assert_eq!(bytes_of(&stage.process(), Some(1)).await.unwrap(), first);
    stage.masters(&[("k3", 3)]);
    let lost = bytes_of(&stage.process(), Some(1)).await.unwrap_err().to_string();
    assert!(lost.contains("\"k2\"") && lost.contains("common.encryption_keys"), "{lost}");
    assert_eq!(keys.rewrap().await.unwrap(), Rewrapped { unopened: 1, ..Rewrapped::default() });
    stage.masters(&[("k2", 2)]);

    keys.destroy(7).await.unwrap();
    for process in [&keys, &stage.process()] {
        assert!(matches!(bytes_of(process, Some(1)).await, Err(KeyError::Gone(_))));
        assert_eq!(process.rotate(7, NOW).await.unwrap_err().kind, "IndexKeyDestroyed");
    }
    let left = stage.process().bucket().await.unwrap().get("7").await.unwrap().unwrap().value;
    assert_eq!(wire::decode::<IndexKeys>(&left).unwrap(), IndexKeys { keys: Vec::new(), destroyed: 2 });
    // A restore brings the stream back, and not what its former keys have sealed.
    keys.create(7, NOW).await.unwrap();
    let third = bytes_of(&keys, None).await.unwrap();
    assert!(third.version() == 3 && third != first && third != second);
    assert!(matches!(bytes_of(&keys, Some(1)).await, Err(KeyError::Gone(_))));
}

//! Keys of encrypted streams: made before their segments, rotated, wrapped anew, destroyed with them.

use anyhow::Result;
use testkit::{World, eventually};
use wire::{
    coordinator::{
        DeleteStream, DescribeIndexKeys, IndexKeyList, NewStream, Reservation, ReserveStream, RotateIndexKey,
        StreamName,
    },
    views::{INDEX_KEYS, IndexKeys},
};

use crate::stage::{SOON, caller, coordinator, create, index, new, store_doors};

fn masters(path: &std::path::Path, ids: &[(&str, u8)]) {
    let line = |(id, byte): &(&str, u8)| format!("{id}:{}\n", data_encoding::BASE64.encode(&[*byte; 32]));
    std::fs::write(path, ids.iter().map(line).collect::<String>()).unwrap();
}

fn shown(keys: &IndexKeyList) -> Vec<(u32, &str)> {
    keys.versions.iter().map(|key| (key.version, key.master.as_str())).collect()
}

#[actix_rt::test]
async fn an_encrypted_stream_has_a_key_as_long_as_it_is() -> Result<()> {
    let world = World::start().await?;
    let file = tempfile::NamedTempFile::new()?;
    let set = format!("common.encryption_keys=file:{}", file.path().display());
    let leader = coordinator(&world, "a", &[&set]).await?;
    let host = caller(&world).await?;
    let (store, _doors) = store_doors(&host).await?;
    let vault = NewStream { encrypted: true, ..new("vault", 2) };
    assert_eq!(create(&host, &vault).await.unwrap_err().kind, "EncryptionOff", "there is no master key");
    masters(file.path(), &[("k1", 1)]);
    let stream = create(&host, &vault).await?;
    assert!(stream.encrypted && create(&host, &vault).await? == stream);
    let told = store.lock().unwrap().segments.values().all(|s| s.new.origin.as_ref().is_some_and(|o| o.encrypted));
    assert!(told, "containers are told to seal");
    create(&host, &new("shelf", 1)).await?;

    let name = |name: &str| StreamName { index: index(name) };
    let of_shelf = host.bus.call::<DescribeIndexKeys>(&(), &name("shelf")).await;
    assert_eq!(of_shelf.unwrap_err().kind, "NotEncrypted");
    let keys = host.bus.call::<RotateIndexKey>(&(), &name("vault")).await?;
    assert_eq!((keys.stream, shown(&keys)), (stream.stream, vec![(1, "k1"), (2, "k1")]));
    masters(file.path(), &[("k2", 2), ("k1", 1)]);
    eventually(SOON, async || {
        let keys = host.bus.call::<DescribeIndexKeys>(&(), &name("vault")).await;
        keys.is_ok_and(|keys| shown(&keys) == [(1, "k2"), (2, "k2")])
    })
    .await;

    host.bus.call::<DeleteStream>(&(), &name("vault")).await?;
    let bucket = host.bus.join_bucket(INDEX_KEYS, 1).await?;
    let left: IndexKeys = wire::decode(&bucket.get(&stream.stream.to_string()).await?.unwrap().value)?;
    assert_eq!(left, IndexKeys { keys: Vec::new(), destroyed: 2 });
    // A restore takes the number again, and gets a key behind those that are gone.
    let wanted = Reservation { stream: Some(stream.stream), encrypted: true };
    assert_eq!(host.bus.call::<ReserveStream>(&(), &wanted).await?, wanted);
    let left: IndexKeys = wire::decode(&bucket.get(&stream.stream.to_string()).await?.unwrap().value)?;
    assert_eq!(left.keys.iter().map(|key| key.version).collect::<Vec<_>>(), [3]);
    leader.stop().await?;
    Ok(())
}

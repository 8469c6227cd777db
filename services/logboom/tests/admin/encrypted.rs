//! An encrypted index is exported, mended, brought back from its chunks, and restored elsewhere.

use std::fs;

use super::installation::{Installation, lose_jetstream_and_local_state, text};

fn create(there: &Installation, index: &str) {
    let output = there.tool(&["index", "create", index, "--segments", "2", "--encrypted"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

async fn all_sealed(there: &Installation) -> bool {
    let keys = there.chunk_keys("vault").await;
    let sealed = |key: &String| {
        key.ends_with(".sealed") && !fs::read(there.objects_dir().join(key)).unwrap().starts_with(b"PAR1")
    };
    !keys.is_empty() && keys.iter().all(sealed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_index_is_kept_like_any_other() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    let (export, saved) = (path("vault"), path("saved.keys"));
    let mut there = Installation::start().await;
    create(&there, "vault");
    there.write("vault", "w1", 0..200).await;
    there.admin(&["export", "vault", "--to", &export]);
    assert!(all_sealed(&there).await);
    assert!(there.admin(&["repair", "--all", "--deep"]).as_array().unwrap().is_empty(), "nothing is wrong");

    let torn = there.chunk_keys("vault").await.remove(0);
    let file = there.objects_dir().join(&torn);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let deep = there.refused(1, &["repair", "--all", "--deep"]);
    assert!(deep.contains("\"damaged\"") && deep.contains(&torn) && deep.contains("block 0"), "{deep}");
    there.admin(&["repair", "--all", "--deep", "--apply", "--from", &export]);
    assert!(there.admin(&["repair", "--all", "--deep"]).as_array().unwrap().is_empty(), "all is well");
    assert!(all_sealed(&there).await);
    assert_eq!(there.count("vault"), 200);

    // JetStream is lost, and with it the keys.
    there.admin(&["save-keys", "--to", &saved]);
    there.stop().await;
    lose_jetstream_and_local_state(&there.data());
    there.admin(&["set-aside-snapshots", "--yes", "--nats-is-gone"]);
    there.run().await;
    let without = there.refused(1, &["restore", "vault", "--from-chunks"]);
    assert!(without.contains("the key of its index is gone"), "{without}");
    assert_eq!(there.admin(&["load-keys", "--from", &saved])["loaded"], 1);
    assert_eq!(there.admin(&["load-keys", "--from", &saved])["loaded"], 0, "they are there");
    there.admin(&["restore", "vault", "--from-chunks"]);
    assert_eq!(there.count("vault"), 200);
    there.write("vault", "w2", 200..300).await;
    there.admin(&["flush", "--all"]);
    assert!(all_sealed(&there).await, "and goes on as it was");
    assert_eq!(there.count("vault"), 300);
    there.stop().await;
    drop(there);

    // An export is plain; what is restored of it is sealed with a key of its own.
    let mut after = Installation::start().await;
    after.admin(&["restore", "--from", &export]);
    assert!(all_sealed(&after).await);
    assert_eq!(after.count("vault"), 200);
    create(&after, "vault");
    assert_eq!(after.admin(&["keys", "vault"])[0]["version"], 1);
    after.stop().await;
}

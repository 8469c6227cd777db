//! What does not fit together is found, and mended where that is safe.

use std::fs;

use super::installation::Installation;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_orphans_and_lost_chunks_are_found_and_mended() {
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("shop").display().to_string();
    let mut there = Installation::start().await;
    there.create("shop");
    there.write("shop", "w1", 0..200).await;
    there.admin(&["export", "shop", "--to", &to]);
    let truth = there.events("shop").await;
    assert!(there.admin(&["repair", "--all", "--deep"]).as_array().unwrap().is_empty(), "nothing is wrong");

    let objects = there.objects_dir();
    let chunks = there.chunk_keys("shop").await;
    let folder = chunks[0].rsplit_once('/').unwrap().0;
    // Generation 0 was before every owner.
    let orphan = format!("{folder}/00000000000000000000-G0-planted.parquet");
    fs::copy(objects.join(&chunks[0]), objects.join(&orphan)).unwrap();
    let (gone, torn) = (&chunks[0], &chunks[1]);
    fs::remove_file(objects.join(gone)).unwrap();
    let mut bytes = fs::read(objects.join(torn)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(objects.join(torn), &bytes).unwrap();

    let quick = there.refused(1, &["repair", "--all"]);
    assert!(quick.contains("\"orphan\"") && quick.contains(&orphan), "{quick}");
    assert!(quick.contains("\"missing\"") && quick.contains(gone.as_str()), "{quick}");
    assert!(!quick.contains("\"damaged\""), "only a deep look reads chunks");
    assert!(objects.join(&orphan).is_file(), "a look changes nothing");
    let deep = there.refused(1, &["repair", "--all", "--deep"]);
    assert!(deep.contains("\"damaged\"") && deep.contains(torn.as_str()), "{deep}");
    let alone = there.refused(1, &["repair", "--all", "--deep", "--apply"]);
    assert!(alone.contains("nothing has the same chunk"), "{alone}");
    assert!(!objects.join(&orphan).exists());
    assert!(objects.join("quarantine").join(&orphan).is_file(), "what is taken away is kept");

    let mended = there.admin(&["repair", "--all", "--deep", "--apply", "--from", &to]).to_string();
    assert!(mended.contains(gone.as_str()) && mended.contains(torn.as_str()), "{mended}");
    assert!(there.admin(&["repair", "--all", "--deep", "--log"]).as_array().unwrap().is_empty(), "all is well");
    assert_eq!(there.events("shop").await, truth);
    let kept = there.objects().list("quarantine/", 100).await.unwrap();
    assert!(kept.iter().any(|object| object.key.ends_with(torn.as_str())), "the damaged one too: {kept:?}");
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_small_looks_answer() {
    let mut there = Installation::start().await;
    there.create("shop");
    there.write("shop", "w1", 0..40).await;
    let nodes = there.admin(&["nodes"]).to_string();
    assert!(nodes.contains("\"segment-store\"") && nodes.contains("\"coordinator\""), "{nodes}");
    let described = there.admin(&["describe", "shop"]);
    assert_eq!(described["stream"]["index"], "shop");
    assert_eq!(described["epochs"].as_array().unwrap().len(), 1);
    let segments = there.admin(&["segments", "shop"]);
    let full = segments.as_array().unwrap().iter().find(|row| row["end"].as_u64() > Some(5)).unwrap();
    let segment = full["segment"].as_str().unwrap();
    let read = there.admin(&["read", "shop", "--segment", segment, "--from", "2", "--count", "3"]);
    let offsets: Vec<_> =
        read.as_array().unwrap().iter().map(|row| row["_offset"].as_str().unwrap().to_owned()).collect();
    assert_eq!(offsets, ["2", "3", "4"]);
    assert!(there.refused(1, &["read", "shop", "--segment", "99-0-0"]).contains("no segment 99-0-0"));
    there.stop().await;
}

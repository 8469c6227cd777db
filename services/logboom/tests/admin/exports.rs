//! Export, the loss of everything, restore.

use std::fs;

use super::installation::{Installation, sum};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_exported_comes_back_event_by_event() {
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("shop").display().to_string();
    let mut before = Installation::start().await;
    before.create("shop");
    before.write("shop", "w1", 0..400).await;
    before.admin(&["scale", "shop", "--ranges", "split"]);
    before.write("shop", "w1", 400..800).await;
    let exported = before.admin(&["export", "shop", "--to", &to]);
    assert_eq!((exported["events"].as_u64(), exported["state"].as_str()), (Some(800), Some("exported")));
    let truth = before.events("shop").await;
    assert_eq!(sum(&truth), 800);
    before.write("shop", "w1", 800..900).await;
    let again = before.admin(&["export", "shop", "--to", &to]);
    assert_eq!(again["state"], "was complete and is whole", "the cut is the first one");
    assert!(before.refused(1, &["export", "other", "--to", &to]).contains("export of index shop"));

    // As an interruption leaves it.
    let manifest = place.path().join("shop/manifest.json");
    let complete = fs::read(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();
    assert!(before.refused(1, &["restore", "--from", &to]).contains("half an export"));
    let files = files(&place.path().join("shop/chunks"));
    fs::remove_file(&files[0]).unwrap();
    assert_eq!(before.admin(&["export", "shop", "--to", &to])["state"], "completed");
    assert_eq!(fs::read(&manifest).unwrap(), complete, "it goes on with the same cut");
    before.stop().await;
    drop(before);

    let mut after = Installation::start().await;
    let restored = after.admin(&["restore", "--from", &to]);
    assert_eq!((restored["events"].as_u64(), restored["lost"].as_u64()), (Some(800), Some(0)));
    assert_eq!(after.events("shop").await, truth, "every event at its offset");
    after.assert_key_order("shop", 800).await;
    after.create("shop");
    assert_eq!(after.count("shop"), 800);
    assert_eq!(after.admin(&["restore", "--from", &to])["state"], "was there");
    after.write("shop", "w2", 800..900).await;
    after.admin(&["scale", "shop", "--ranges", "merge"]);
    after.write("shop", "w2", 900..1_000).await;
    after.assert_key_order("shop", 1_000).await;
    assert_eq!(after.count("shop"), 1_000, "the stream goes on");
    let copy = after.admin(&["restore", "--from", &to, "--as", "copy"]);
    assert_ne!(copy["stream"], restored["stream"], "the number is taken");
    let messages = |events: super::installation::Events| events.into_values().collect::<Vec<_>>();
    assert_eq!(messages(after.events("copy").await), messages(truth));
    after.admin(&["flush", "--all"]);
    after.stop().await;
    after.run().await;
    assert_eq!(after.count("shop"), 1_000, "and outlives a restart");
    assert!(after.admin(&["repair", "--all", "--deep", "--log"]).as_array().unwrap().is_empty());
    after.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_export_is_named_and_nothing_comes_of_it() {
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("shop").display().to_string();
    let mut there = Installation::start().await;
    there.create("shop");
    there.write("shop", "w1", 0..100).await;
    there.admin(&["export", "shop", "--to", &to]);
    let said = there.refused(3, &["restore", "--from", &to]);
    assert!(said.contains("exists in scope") && said.contains("LB-"), "what is there is never replaced: {said}");
    let damaged = files(&place.path().join("shop/chunks")).remove(0);
    let mut bytes = fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let name = damaged.file_name().unwrap().to_str().unwrap();
    let said = there.refused(1, &["restore", "--from", &to, "--as", "copy"]);
    assert!(said.contains(name) && said.contains("is damaged"), "{said}");
    assert!(there.refused(3, &["segments", "copy"]).contains("no index copy"));
    let said = there.refused(1, &["export", "shop", "--to", &to]);
    assert!(said.contains(name), "{said}");
    there.stop().await;
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

//! An encrypted index from its provisioning to its end: what lies on the disk, who reads it, and who never does again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use data_encoding::BASE64;
use logboom_tests::{Api, Standalone, Workdir, eventually, instance_path, logboom};
use reqwest::Method;
use serde_json::{Value, json};
use wire::views::{INDEX_KEYS, IndexKeys};

const SOON: Duration = Duration::from_secs(60);
const LINES: u32 = 500;
/// What stands in every line, and in no file of the encrypted index.
const SECRET: &str = "pomegranate";

/// A command line of the installation.
fn tool(data: &Path, args: &[&str]) -> Output {
    Command::new(logboom().unwrap()).arg("--data").arg(data).args(["--json", "admin"]).args(args).output().unwrap()
}

fn admin(data: &Path, args: &[&str]) -> Value {
    let output = tool(data, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

async fn provision(api: &Api, index: &str, encryption: bool) -> (u16, String) {
    let body = api.provision_body(json!({ "index": index, "segments": 1, "encryption": encryption })).await.unwrap();
    let answer = api.osb(Method::PUT, &instance_path(index), Some(&body)).await.unwrap();
    (answer.status, answer.text)
}

/// Lines whose words do not repeat, so that no dictionary hides them.
async fn ingest(api: &Api, index: &str, round: u32) {
    let line = |n: u32| json!({ "message": format!("{SECRET} {round}"), "order": format!("{SECRET}-{:x}", n * 7_919) });
    let lines: Vec<String> = (0..LINES).map(|n| line(n).to_string()).collect();
    api.ingest(index, &api.admin_token, lines.join("\n")).await.unwrap().ok().unwrap();
}

async fn count(api: &Api, index: &str) -> anyhow::Result<i64> {
    let sql = format!("SELECT count(*) AS n FROM {index} WHERE \"order\" LIKE '{SECRET}-%'");
    api.count(&sql).await
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let each = entries.map(|entry| entry.unwrap().path());
    each.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn holds(bytes: &[u8], words: &str) -> bool {
    bytes.windows(words.len()).any(|part| part == words.as_bytes())
}

fn masters(data: &Path, ids: &[(&str, u8)]) {
    let line = |(id, byte): &(&str, u8)| format!("{id}:{}\n", BASE64.encode(&[*byte; 32]));
    fs::write(data.join("keys/encryption.keys"), ids.iter().map(line).collect::<String>()).unwrap();
}

async fn keys_of(up: &Standalone, stream: u64) -> IndexKeys {
    let bucket = up.bus("tests/keys").await.unwrap().join_bucket(INDEX_KEYS, 1).await.unwrap();
    wire::decode(&bucket.get(&stream.to_string()).await.unwrap().unwrap().value).unwrap()
}

fn chunks(data: &Path, index: &str) -> Vec<PathBuf> {
    files(&data.join(format!("state/objects/chunks/{index}")))
}

/// What lies there says nothing; that of an index beside it says all.
fn check_disk(data: &Path) {
    let sealed = chunks(data, "vault");
    assert!(!sealed.is_empty());
    for file in sealed {
        let bytes = fs::read(&file).unwrap();
        assert!(file.to_str().unwrap().ends_with(".parquet.sealed") && bytes.ends_with(b"LBSEALED"), "{file:?}");
        for words in [SECRET, "PAR1", "_msg", "order", "logboom."] {
            assert!(!holds(&bytes, words), "{file:?} holds {words}");
        }
    }
    let open = chunks(data, "shelf");
    assert!(open.iter().any(|file| holds(&fs::read(file).unwrap(), SECRET)), "the words would be found");
    // Whatever else is in object storage, snapshots for example.
    for file in files(&data.join("state/objects")).iter().filter(|file| !open.contains(file)) {
        assert!(!holds(&fs::read(file).unwrap(), SECRET), "{file:?}");
    }
}

/// What a tool makes of a chunk for a reader without keys.
fn check_open(data: &Path, sealed: &Path) {
    let key = sealed.strip_prefix(data.join("state/objects")).unwrap().to_str().unwrap();
    let plain = data.join("plain.parquet");
    admin(data, &["open", key, "--to", plain.to_str().unwrap()]);
    let bytes = bytes::Bytes::from(fs::read(&plain).unwrap());
    let rows: usize = chunk::read(bytes).unwrap().iter().map(arrow::array::RecordBatch::num_rows).sum();
    assert!(rows > 0);
    assert!(!tool(data, &["open", key, "--to", plain.to_str().unwrap()]).status.success(), "it is not written over");
}

#[tokio::test]
async fn an_encrypted_index_is_read_with_its_key_and_gone_without() {
    let dir = Workdir::new("encrypted").unwrap();
    let data = dir.path();
    let up = Standalone::start_on(data, &[]).await.unwrap();
    for (index, encryption) in [("vault", true), ("shelf", false)] {
        let (status, text) = provision(&up.api, index, encryption).await;
        assert!(matches!(status, 200 | 201), "{status}: {text}");
        ingest(&up.api, index, 1).await;
    }
    assert_eq!(provision(&up.api, "vault", false).await.0, 409, "it is decided for good");
    admin(data, &["flush", "--all"]);
    check_disk(data);
    for index in ["vault", "shelf"] {
        assert_eq!(count(&up.api, index).await.unwrap(), i64::from(LINES));
    }
    check_open(data, &chunks(data, "vault")[0]);

    let saved = data.join("saved.keys");
    admin(data, &["save-keys", "--to", saved.to_str().unwrap()]);
    assert!(holds(&fs::read(&saved).unwrap(), "k1:"));

    // The next version of its key, and another master key.
    let stream = admin(data, &["rotate-key", "vault"])[0]["stream"].as_u64().unwrap();
    assert_eq!(keys_of(&up, stream).await.keys.len(), 2);
    let first = fs::read_to_string(data.join("keys/encryption.keys")).unwrap();
    masters(data, &[("k2", 2)]);
    let second = fs::read_to_string(data.join("keys/encryption.keys")).unwrap();
    fs::write(data.join("keys/encryption.keys"), second + &first).unwrap();
    eventually("keys that k2 wraps", SOON, async || {
        let all = keys_of(&up, stream).await.keys;
        anyhow::ensure!(all.iter().all(|key| key.wrapped.starts_with("k2:")), "{all:?}");
        Ok(())
    })
    .await
    .unwrap();
    ingest(&up.api, "vault", 2).await;
    admin(data, &["flush", "--all"]);
    check_disk(data);
    up.stop().await.unwrap();

    // A process that has another master key answers everything else, and says what it lacks.
    masters(data, &[("k3", 3)]);
    let up = Standalone::start_on(data, &[]).await.unwrap();
    assert_eq!(count(&up.api, "shelf").await.unwrap(), i64::from(LINES));
    let refused = up.api.try_sql("SELECT \"order\" FROM vault LIMIT 5").await.unwrap();
    assert_eq!((refused.status, refused.kind()), (503, "IndexKeyUnavailable"), "{}", refused.text);
    assert!(refused.text.contains("k2"), "{}", refused.text);
    masters(data, &[("k3", 3), ("k2", 2)]);
    assert_eq!(count(&up.api, "vault").await.unwrap(), 2 * i64::from(LINES));

    // It is deleted, and a copy of its chunks is worth nothing.
    let copy = chunks(data, "vault").remove(0);
    let bytes = fs::read(&copy).unwrap();
    let (service, plan) = up.api.plan().await.unwrap();
    let path = format!("{}?service_id={service}&plan_id={plan}", instance_path("vault"));
    up.api.osb(Method::DELETE, &path, None).await.unwrap().ok().unwrap();
    assert_eq!(keys_of(&up, stream).await, IndexKeys { keys: Vec::new(), destroyed: 2 });
    admin(data, &["load-keys", "--from", saved.to_str().unwrap()]);
    assert_eq!(keys_of(&up, stream).await.keys, [], "what was destroyed does not come back");
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::write(&copy, bytes).unwrap();
    let key = copy.strip_prefix(data.join("state/objects")).unwrap().to_str().unwrap();
    let gone = tool(data, &["open", key, "--to", data.join("gone.parquet").to_str().unwrap()]);
    let said = String::from_utf8_lossy(&gone.stderr).into_owned() + &String::from_utf8_lossy(&gone.stdout);
    assert!(!gone.status.success() && said.contains("destroyed"), "{said}");
    up.stop().await.unwrap();
}

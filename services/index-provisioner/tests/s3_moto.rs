//! The back-end `s3` against moto, a server of others that enforces signatures and the policies of IAM.
//!
//! It runs where moto is (`tools/install-moto`), or where `LOGBOOM_MOTO=1` asks to bring it; elsewhere it says that it is skipped.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, says what it skips, and starts processes"
)]

#[path = "s3/stage.rs"]
mod stage;

use std::{
    env,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use stage::{Stage, binding, index, named, of, open};
use store::Put;
use testkit::{eventually, free_port};
use wire::{
    index_provisioner::{CreateIndex, DeleteIndex, IssueCredentials, RevokeCredentials},
    views::Role,
};

/// Python needs some seconds to load what moto is made of.
const START_MAX: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(30);

/// The server; it ends with this value.
struct Moto {
    child: Child,
    endpoint: String,
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The Python of moto's environment.
fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    let home = env::var_os("LOGBOOM_TOOLS").map_or_else(|| root.join(".tools"), PathBuf::from).join("moto");
    if env::var("LOGBOOM_MOTO").is_ok_and(|wanted| wanted == "1") {
        let status = Command::new(root.join("tools/install-moto")).status().unwrap();
        assert!(status.success(), "LOGBOOM_MOTO=1 asks for moto, and tools/install-moto does not bring it");
    }
    home.join("version").exists().then(|| home.join("bin/python"))
}

impl Moto {
    async fn start(python: &Path) -> Self {
        let port = free_port().unwrap();
        let child = Command::new(python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            // As many requests are free: those that make the administrator. All others are checked.
            .env("INITIAL_NO_AUTH_ACTION_COUNT", "3")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self { child, endpoint: format!("http://127.0.0.1:{port}") };
        eventually(START_MAX, async || TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
        moto
    }

    /// Makes a user who may do everything; returns the user's key.
    async fn administrator(&self) -> Result<(String, String)> {
        // Nobody else of this process has chosen one yet.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::builder().no_proxy().build()?;
        let mut key = String::new();
        let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
        for (action, more) in [
            ("CreateUser", Vec::new()),
            ("PutUserPolicy", vec![("PolicyName", "all"), ("PolicyDocument", policy)]),
            ("CreateAccessKey", Vec::new()),
        ] {
            let mut url = reqwest::Url::parse(&self.endpoint)?;
            let fields = [("Action", action), ("Version", "2010-05-08"), ("UserName", "root")];
            url.query_pairs_mut().extend_pairs(fields).extend_pairs(more);
            let form = url.query().unwrap_or("").to_owned();
            let scope = "Credential=x/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=x";
            let request = client.post(&self.endpoint).header("authorization", format!("AWS4-HMAC-SHA256 {scope}"));
            let request = request.header("content-type", "application/x-www-form-urlencoded");
            let answer = request.body(form).send().await?;
            let status = answer.status();
            key = answer.text().await?;
            ensure!(status.is_success(), "{action}: {status} {key}");
        }
        let field = |name: &str| {
            let rest = key.split_once(&format!("<{name}>"))?.1;
            rest.split_once("</").map(|(value, _)| value.to_owned())
        };
        let id = field("AccessKeyId").context("the answer names the key")?;
        Ok((id, field("SecretAccessKey").context("the answer has the secret")?))
    }
}

#[actix_rt::test]
async fn moto_takes_our_buckets_users_and_policies_and_enforces_them() -> Result<()> {
    let Some(python) = python() else {
        println!("SKIPPED the test against moto: it is not installed; LOGBOOM_MOTO=1 or tools/install-moto brings it");
        return Ok(());
    };
    let moto = Moto::start(&python).await;
    let (id, secret) = moto.administrator().await?;
    let stage = Stage::begin(&moto.endpoint, (&id, &secret), &[]).await?;
    for (instance, name) in [("i", "shop"), ("j", "other")] {
        let made = stage.call::<CreateIndex>(&index(instance, name)).await?;
        assert_eq!(stage.call::<CreateIndex>(&index(instance, name)).await?, made);
    }
    let issue = async |name: &str, role: Role| {
        let issued = stage.call::<IssueCredentials>(&binding("i", name, role)).await?;
        assert_eq!(stage.call::<IssueCredentials>(&binding("i", name, role)).await?, issued);
        anyhow::Ok(issued.values)
    };
    let (writer, reader) = (issue("w", Role::Write).await?, issue("r", Role::Read).await?);
    let (write, read) = (open(&writer, "logboom-shop"), open(&reader, "logboom-shop"));
    assert_eq!(write.put_if_absent("a/1", vec![1].into()).await?, Put::Stored);
    assert_eq!(&read.get("a/1").await?[..], [1]);
    assert_eq!(read.list("a/", 9).await?.len(), 1);
    assert!(read.put_if_absent("a/2", vec![2].into()).await.is_err(), "a reader must not write");
    assert!(write.get("a/1").await.is_err(), "a writer must not read");
    let foreign = open(&writer, "logboom-other");
    assert!(foreign.put_if_absent("a/1", vec![1].into()).await.is_err(), "nobody writes into a foreign bucket");
    stage.call::<RevokeCredentials>(&of("w")).await?;
    assert!(write.put_if_absent("a/3", vec![3].into()).await.is_err(), "a revoked key must not write");
    // With the reader's key still out, and an object in it: both go with the index.
    stage.call::<DeleteIndex>(&named("i")).await?;
    assert!(read.get("a/1").await.is_err());
    let strangers = stage.refused::<IssueCredentials>(&binding("i", "late", Role::Read)).await;
    assert_eq!(strangers.kind, "UnknownInstance");
    eventually(SOON, async || stage.call::<DeleteIndex>(&named("j")).await.is_ok()).await;
    stage.end().await
}

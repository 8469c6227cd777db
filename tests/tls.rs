//! TLS on every connection of a real installation: one process with everything, and the servers as Kubernetes starts them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in what its functions call")]
#![allow(clippy::disallowed_methods, reason = "tests start processes and measure in wall time")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bus::{Bus, BusOptions};
use logboom_tests::{Process, Workdir, children, eventually, free_port, logboom, nats_server, root};
use serde_json::Value;
use testkit::{
    Certificates,
    tls::{Files, Tls},
};
use tokio::time::{Instant, sleep};

/// A start replays nothing here, but the machine may be busy.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The whole main job, on a machine that may be busy.
const WALKED_WITHIN: Duration = Duration::from_secs(300);
/// New files are looked for ten times a second.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// A client that trusts what is in a file, with a fresh connection for each request.
fn client(ca: &Path) -> reqwest::Client {
    let tls = Tls::open(Files { ca: Some(ca.to_owned()), ..Files::default() }).unwrap().client().unwrap();
    let builder = reqwest::Client::builder().no_proxy().tls_info(true).pool_max_idle_per_host(0);
    builder.tls_backend_preconfigured(rustls::ClientConfig::clone(&tls)).build().unwrap()
}

/// The certificate that an address shows.
async fn shown(client: &reqwest::Client, url: &str) -> Result<Vec<u8>> {
    let answer = client.get(url).send().await?;
    let info = answer.extensions().get::<reqwest::tls::TlsInfo>().context("not inside TLS")?;
    Ok(info.peer_certificate().context("no certificate was shown")?.to_vec())
}

fn tool(data: &Path, args: &[&str]) -> Output {
    Command::new(logboom().unwrap()).args(args).arg("--data").arg(data).output().unwrap()
}

fn done(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// A standalone that speaks nothing but TLS.
struct Secured {
    // First: it ends before its directory goes.
    process: Process,
    dir: Workdir,
    run: Value,
    rest: String,
    probes: String,
}

impl Secured {
    async fn start() -> Result<Self> {
        let dir = Workdir::new("tls")?;
        let data = dir.path();
        let free = || free_port().map(|port| format!("127.0.0.1:{port}"));
        let (gateway, broker, rest, probes) = (free()?, free()?, free()?, free()?);
        let mut command = Command::new(logboom()?);
        command.args(["standalone", "--tls", "--data"]).arg(data).current_dir(data);
        for set in [
            "nats.port=0".to_owned(),
            format!("nats.server_path={}", nats_server()?.display()),
            format!("gateway.address={gateway}"),
            format!("gateway.probe_address={probes}"),
            format!("broker.address={broker}"),
            format!("coordinator.rest_address={rest}"),
            "common.tls_reload_interval=100ms".to_owned(),
        ] {
            command.args(["--set", &set]);
        }
        let process = Process::spawn("standalone", &mut command, &data.join("standalone.log"))?;
        let mut started = Self {
            process,
            run: Value::Null,
            rest: format!("https://{rest}"),
            probes: format!("https://{probes}"),
            dir,
        };
        let run = started.data().join("run.json");
        let begun = Instant::now();
        while !run.exists() {
            started.process.check()?;
            ensure!(begun.elapsed() < READY_WITHIN, "not ready: {}", started.process.last_words());
            sleep(Duration::from_millis(5)).await;
        }
        started.run = serde_json::from_slice(&fs::read(run)?)?;
        Ok(started)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    fn url(&self, key: &str) -> &str {
        self.run[key].as_str().unwrap()
    }

    /// Every address that speaks HTTP.
    fn doors(&self) -> [String; 4] {
        let probes = format!("{}/readyz", self.probes);
        [self.url("gateway_url").to_owned(), self.url("broker_url").to_owned(), format!("{}/ping", self.rest), probes]
    }

    async fn nats(&self, ca: &Path) -> Result<Bus> {
        let tls = Tls::open(Files { ca: Some(ca.to_owned()), ..Files::default() })?.client();
        let creds = Some(fs::read_to_string(self.data().join("keys/platform.creds"))?);
        let (url, name) = (self.url("nats_url").to_owned(), "test/tls".to_owned());
        Ok(Bus::connect(BusOptions { url, creds, name, tls, ..BusOptions::default() }).await?)
    }
}

impl Drop for Secured {
    /// A standalone that is killed because its test failed leaves its nats-server behind.
    fn drop(&mut self) {
        if self.process.check().is_err() {
            return;
        }
        for server in children(self.process.pid()).unwrap_or_default() {
            // A server that has ended by itself is as good.
            let _ended = Command::new("sh").args(["-c", "kill -KILL \"$0\"", &server.to_string()]).output();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standalone_speaks_tls_on_every_connection_and_takes_a_new_certificate() {
    let mut up = Secured::start().await.unwrap();
    let (data, ca) = (up.data(), up.data().join("keys/tls/ca.pem"));
    assert_eq!(Path::new(up.url("ca")), ca);
    assert!(up.url("nats_url").starts_with("tls://"));
    let trusting = client(&ca);
    let mut before = Vec::new();
    for url in up.doors() {
        before.push(shown(&trusting, &url).await.with_context(|| url.clone()).unwrap());
        assert!(trusting.get(url.replace("https", "http")).send().await.is_err(), "{url} answers in plain text");
    }
    // The tools find authority and addresses by themselves; the services talk to each other over NATS.
    done(tool(&data, &["index", "create", "shop"]));
    let lines: String = (0..100).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    fs::write(data.join("lines"), lines).unwrap();
    done(tool(&data, &["publish", "shop", &data.join("lines").display().to_string()]));
    let counted = || done(tool(&data, &["query", "--format", "csv", "SELECT count(*) AS n FROM shop"]));
    assert!(counted().contains("100"));
    let foreign = Certificates::make().unwrap();
    let refused = tool(&data, &["status", "--ca", &foreign.path("ca.pem").display().to_string()]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(4) && text.contains("--ca") && text.contains("is not accepted"), "{text}");
    let text = up.nats(&foreign.path("ca.pem")).await.unwrap_err().to_string();
    assert!(text.contains("is not accepted"), "{text}");
    up.nats(&ca).await.unwrap();

    // Another authority altogether: who trusts only the former is out, on every connection, without a restart.
    let kept = data.join("former.pem");
    fs::copy(&ca, &kept).unwrap();
    for name in ["ca.pem", "ca.key"] {
        fs::remove_file(data.join("keys/tls").join(name)).unwrap();
    }
    let made = done(tool(&data, &["keys", "tls", "--dir", &data.join("keys/tls").display().to_string()]));
    assert!(made.contains("a new authority"), "{made}");
    let trusting = client(&ca);
    for (url, before) in up.doors().iter().zip(before) {
        let taken = async || {
            ensure!(shown(&trusting, url).await? != before);
            Ok(())
        };
        eventually(url, TAKEN_WITHIN, taken).await.unwrap();
        assert!(shown(&client(&kept), url).await.is_err(), "{url}");
    }
    let taken = async || up.nats(&ca).await.map(drop);
    eventually("nats-server takes its new certificate", TAKEN_WITHIN, taken).await.unwrap();
    assert!(counted().contains("100"), "everything goes on");
    up.process.terminate(Duration::from_secs(30)).await.unwrap();
}

/// The walk goes through public doors only: broker, NATS with credentials of bindings, HTTP with their tokens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_main_job_is_walked_inside_tls() {
    let dir = Workdir::new("tls-walk").unwrap();
    let mut command = Command::new(logboom().unwrap());
    command.args(["walk", "--tls", "--events", "3000"]).current_dir(dir.path());
    command.env("LOGBOOM__NATS__SERVER_PATH", nats_server().unwrap()).env("TMPDIR", dir.path());
    let mut walk = Process::spawn("walk", &mut command, &dir.path().join("walk.log")).unwrap();
    let status = walk.wait(WALKED_WITHIN).await.unwrap();
    assert!(status.success() && walk.log().contains(" 0 wrong"), "{}", walk.log());
}

/// The files that a pod of NATS has, below another root and on other ports.
fn mounted(dir: &Path, client_port: u16, monitor_port: u16, keys: &Path) {
    let moved = |text: &str| {
        text.replace("/etc/nats", &dir.display().to_string())
            .replace("store_dir: /data", &format!("store_dir: {}/data", dir.display()))
            .replace("dir: /data", &format!("dir: {}/data", dir.display()))
            .replace("host: 0.0.0.0", "host: 127.0.0.1")
            .replace("port: 4222", &format!("port: {client_port}"))
            .replace("0.0.0.0:8222", &format!("127.0.0.1:{monitor_port}"))
    };
    fs::create_dir_all(dir.join("keys")).unwrap();
    fs::copy(keys.join("nats.conf"), dir.join("keys/nats.conf")).unwrap();
    for name in ["base/nats/nats.conf", "components/tls/transport.conf", "components/tls/serve.sh"] {
        let from = root().join("k8s").join(name);
        fs::write(dir.join(from.file_name().unwrap()), moved(&fs::read_to_string(&from).unwrap())).unwrap();
    }
}

/// What the kubelet does with a secret: a directory of its own, and one link that is replaced by a rename.
fn swap_in(dir: &Path, version: &str, from: &Path) {
    let tls = dir.join("tls");
    fs::create_dir_all(tls.join(version)).unwrap();
    for (key, name) in [("tls.crt", "certificate.pem"), ("tls.key", "key.pem"), ("ca.crt", "ca.pem")] {
        fs::copy(from.join(name), tls.join(version).join(key)).unwrap();
        if fs::symlink_metadata(tls.join(key)).is_err() {
            std::os::unix::fs::symlink(format!("..data/{key}"), tls.join(key)).unwrap();
        }
    }
    std::os::unix::fs::symlink(version, tls.join("..new")).unwrap();
    fs::rename(tls.join("..new"), tls.join("..data")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_as_kubernetes_starts_it_takes_a_new_secret() {
    let dir = Workdir::new("nats-tls").unwrap();
    let keys = dir.path().join("made");
    let made = keys.display().to_string();
    done(tool(dir.path(), &["keys", "init", "--address", "127.0.0.9", "--port", "1", "--dir", &made]));
    let tls = dir.path().join("authority");
    let at = tls.display().to_string();
    done(tool(dir.path(), &["keys", "tls", "--dir", &at]));
    let (client_port, monitor_port) = (free_port().unwrap(), free_port().unwrap());
    let etc = dir.path().join("etc");
    mounted(&etc, client_port, monitor_port, &keys);
    swap_in(&etc, "..v1", &tls);
    let server = nats_server().unwrap();
    let path = format!("{}:{}", server.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.arg(etc.join("serve.sh")).arg(&etc).arg("0.1").env("PATH", path).env("POD_NAME", "nats-0");
    let mut nats = Process::spawn("nats", &mut command, &dir.path().join("nats.log")).unwrap();
    let monitor = format!("https://localhost:{monitor_port}/healthz");
    let first = eventually("the server", READY_WITHIN, async || {
        nats.check()?;
        shown(&client(&tls.join("ca.pem")), &monitor).await
    })
    .await
    .unwrap();
    let creds = Some(fs::read_to_string(keys.join("platform.creds")).unwrap());
    let connect = async |ca: PathBuf| {
        let tls = Tls::open(Files { ca: Some(ca), ..Files::default() })?.client();
        let url = format!("tls://localhost:{client_port}");
        anyhow::Ok(Bus::connect(BusOptions { url, creds: creds.clone(), tls, ..BusOptions::default() }).await?)
    };
    let bus = connect(tls.join("ca.pem")).await.unwrap();
    let bucket = bus.bucket("kept", None, 1).await.unwrap();
    bucket.put("key", "value").await.unwrap();
    // Another authority, as the harshest change there is.
    fs::remove_dir_all(&tls).unwrap();
    done(tool(dir.path(), &["keys", "tls", "--dir", &at]));
    swap_in(&etc, "..v2", &tls);
    eventually("the monitor shows the new certificate", TAKEN_WITHIN, async || {
        ensure!(shown(&client(&tls.join("ca.pem")), &monitor).await? != first);
        Ok(())
    })
    .await
    .unwrap();
    connect(tls.join("ca.pem")).await.unwrap();
    assert!(bus.is_connected(), "open connections stay");
    assert_eq!(bucket.get("key").await.unwrap().unwrap().value, "value");
    // The server ends as a pod ends, and the loop beside it sees that nobody is left to tell.
    let beside = children(nats.pid()).unwrap();
    assert_eq!(beside.len(), 1);
    nats.terminate(Duration::from_secs(30)).await.unwrap();
    eventually("the loop ends", TAKEN_WITHIN, async || {
        ensure!(!Path::new(&format!("/proc/{}", beside[0])).exists());
        Ok(())
    })
    .await
    .unwrap();
}

#[test]
fn the_servers_of_a_cluster_take_their_configuration() {
    let dir = Workdir::new("nats-conf").unwrap();
    let keys = dir.path().join("made");
    done(tool(dir.path(), &["keys", "init", "--dir", &keys.display().to_string()]));
    let tls = dir.path().join("authority");
    done(tool(dir.path(), &["keys", "tls", "--dir", &tls.display().to_string()]));
    for (conf, transport) in
        [("base/nats", "base/nats"), ("overlays/prod", "components/tls"), ("base/nats", "components/tls")]
    {
        let etc = dir.path().join(format!("{conf}-{transport}").replace('/', "-"));
        fs::create_dir_all(etc.join("keys")).unwrap();
        fs::copy(keys.join("nats.conf"), etc.join("keys/nats.conf")).unwrap();
        swap_in(&etc, "..v1", &tls);
        for (folder, name) in
            [(conf, "nats.conf"), (transport, "transport.conf"), (transport, "cluster-transport.conf")]
        {
            let text = fs::read_to_string(root().join("k8s").join(folder).join(name)).unwrap();
            let text = text
                .replace("/etc/nats", &etc.display().to_string())
                .replace("/data", &format!("{}/data", etc.display()));
            fs::write(etc.join(name), text).unwrap();
        }
        let checked = Command::new(nats_server().unwrap())
            .args(["-t", "--config"])
            .arg(etc.join("nats.conf"))
            .env("POD_NAME", "nats-0")
            .envs([("ROUTE_USER", "routes"), ("ROUTE_PASSWORD", "a-password")])
            .envs([0, 1, 2].map(|n| (format!("ROUTE_{n}"), format!("nats://routes:a-password@nats-{n}:6222"))))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(checked.status.success() && text.contains("is valid"), "{conf} with {transport}: {text}");
    }
}

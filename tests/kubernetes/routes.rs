//! The servers of NATS as the overlay `prod` starts them: whoever has the password of the routes is one of them, and nobody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    time::Duration,
};

use logboom_tests::{Process, Workdir, eventually, free_port, logboom, nats_server};
use serde_json::Value;
use testkit::Certificates;

use crate::built::built;

const SOON: Duration = Duration::from_secs(20);
/// The third one is no server of ours, though it has a certificate of the authority.
const SERVERS: usize = 3;
const IMPOSTOR: usize = 2;

/// What all pods are made from.
struct Pods {
    dir: Workdir,
    /// The files of the ConfigMap.
    files: BTreeMap<String, String>,
    /// The environment of the container, as the manifest has it.
    env: Vec<Value>,
    certificates: Certificates,
    /// Of routes and of monitors, by server.
    ports: Vec<(u16, u16)>,
}

impl Pods {
    async fn of_prod() -> Option<Self> {
        let all = built("k8s/overlays/prod", &[]).await?;
        let find = |kind: &str, name: &str| {
            let named = |one: &&Value| one["metadata"]["name"].as_str().unwrap().starts_with(name);
            all.iter().filter(|one| one["kind"] == kind).find(named).unwrap()
        };
        let files = find("ConfigMap", "nats-config")["data"].as_object().unwrap().iter();
        let files = files.map(|(name, text)| (name.clone(), text.as_str().unwrap().to_owned())).collect();
        let env = &find("StatefulSet", "nats")["spec"]["template"]["spec"]["containers"][0]["env"];
        let dir = Workdir::new("routes").unwrap();
        let mut made = Command::new(logboom().unwrap());
        made.args(["keys", "init", "--dir"]).arg(dir.path().join("keys"));
        let made = made.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let ports = (0..SERVERS).map(|_| (free_port().unwrap(), free_port().unwrap())).collect();
        let env = env.as_array().unwrap().clone();
        Some(Self { dir, files, env, certificates: Certificates::make().unwrap(), ports })
    }

    /// The environment as a kubelet fills it in, with addresses of this machine.
    fn environment(&self, number: usize, password: &str) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        for entry in &self.env {
            let from = &entry["valueFrom"];
            let value = match (from["secretKeyRef"]["key"].as_str(), from["fieldRef"]["fieldPath"].as_str()) {
                (Some("username"), _) => "route".to_owned(),
                (Some("password"), _) => password.to_owned(),
                (None, Some("metadata.name")) => format!("nats-{number}"),
                _ => entry["value"].as_str().unwrap_or_else(|| panic!("{entry}")).to_owned(),
            };
            let filled = env
                .iter()
                .fold(value, |value, (known, with): (&String, &String)| value.replace(&format!("$({known})"), with));
            env.insert(entry["name"].as_str().unwrap().to_owned(), filled);
        }
        for value in env.values_mut() {
            for (n, (route, _)) in self.ports.iter().enumerate() {
                *value =
                    value.replace(&format!("nats-{n}.nats-headless.logboom.svc:6222"), &format!("localhost:{route}"));
            }
        }
        env
    }

    /// Starts a server on the files that its pod has mounted.
    fn start(&self, number: usize, password: &str) -> Process {
        let (route, monitor) = self.ports[number];
        let etc = self.dir.path().join(format!("nats-{number}"));
        fs::create_dir_all(etc.join("keys")).unwrap();
        fs::create_dir_all(etc.join("tls")).unwrap();
        fs::copy(self.dir.path().join("keys/nats.conf"), etc.join("keys/nats.conf")).unwrap();
        for (key, name) in [("tls.crt", "certificate.pem"), ("tls.key", "key.pem"), ("ca.crt", "ca.pem")] {
            fs::copy(self.certificates.path(name), etc.join("tls").join(key)).unwrap();
        }
        for (name, text) in &self.files {
            let text = text
                .replace("/etc/nats", &etc.display().to_string())
                .replace("dir: /data", &format!("dir: {}/data", etc.display()))
                .replace("host: 0.0.0.0", "host: 127.0.0.1")
                .replace("port: 4222", "port: -1")
                .replace("0.0.0.0:8222", &format!("127.0.0.1:{monitor}"))
                .replace("0.0.0.0:6222", &format!("127.0.0.1:{route}"));
            fs::write(etc.join(name), text).unwrap();
        }
        let mut command = Command::new(nats_server().unwrap());
        command.arg("--config").arg(etc.join("nats.conf")).envs(self.environment(number, password));
        Process::spawn("nats", &mut command, &log(&etc)).unwrap()
    }

    /// The servers to which one has a route.
    async fn routes(&self, http: &reqwest::Client, number: usize) -> anyhow::Result<BTreeSet<String>> {
        let url = format!("https://localhost:{}/routez", self.ports[number].1);
        let told: Value = http.get(url).send().await?.json().await?;
        let routes = told["routes"].as_array().into_iter().flatten();
        Ok(routes.filter_map(|route| route["remote_name"].as_str()).map(str::to_owned).collect())
    }
}

fn log(etc: &Path) -> std::path::PathBuf {
    etc.join("nats.log")
}

#[tokio::test]
async fn a_certificate_alone_makes_no_server() {
    let Some(pods) = Pods::of_prod().await else { return };
    let mut servers: Vec<_> = (0..SERVERS)
        .map(|number| pods.start(number, if number == IMPOSTOR { "r-guessed" } else { "r0123456789e5" }))
        .collect();
    let tls = (*pods.certificates.visitor().unwrap()).clone();
    let http = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().unwrap();
    let ours = ["nats-0", "nats-1"].map(str::to_owned);
    eventually("the routes, and a refusal", SOON, async || {
        servers.iter_mut().try_for_each(Process::check)?;
        for number in [0, 1] {
            let routes = pods.routes(&http, number).await?;
            anyhow::ensure!(routes.contains(&ours[1 - number]), "{number} has {routes:?}");
            anyhow::ensure!(!routes.contains("nats-2"), "{number} has {routes:?}");
        }
        let log = servers[IMPOSTOR].log();
        anyhow::ensure!(log.contains("Authorization Violation") || log.contains("authentication error"), "{log}");
        let routes = pods.routes(&http, IMPOSTOR).await?;
        anyhow::ensure!(routes.is_empty(), "the impostor has {routes:?}");
        Ok(())
    })
    .await
    .unwrap();
}

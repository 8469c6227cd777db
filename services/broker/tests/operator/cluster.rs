//! An API server with the operator's manifests applied, a namespace of a team, and brokers with the rights of their ServiceAccount.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use broker::Broker;
use bus::Door;
use data_encoding::BASE64;
use host::{Host, InProcess, start_in_process};
use reqwest::Method;
use serde_json::{Value, json};
use testkit::{KubernetesApi, World, eventually};
use wire::Service;

use crate::behind::{self, Backend};

pub(crate) const SOON: Duration = Duration::from_secs(40);
pub(crate) const INDEXES: (&str, &str) = ("/apis/logboom.io/v1alpha1/namespaces/shop/logindexes", "LogIndex");
pub(crate) const BINDINGS: (&str, &str) = ("/apis/logboom.io/v1alpha1/namespaces/shop/logbindings", "LogBinding");
pub(crate) const SECRETS: (&str, &str) = ("/api/v1/namespaces/shop/secrets", "Secret");
const MANIFESTS: [&str; 5] = ["logindexes", "logbindings", "role", "rolebinding", "secrets"];
/// How long credentials work on after others have taken their place.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// What whoever owns the namespace does, as the guide says.
const ALLOW: [&str; 7] = [
    "--namespace",
    "shop",
    "create",
    "rolebinding",
    "logboom",
    "--clusterrole=logboom-operator-secrets",
    "--serviceaccount=logboom:broker",
];

type Kind = (&'static str, &'static str);

pub(crate) struct Bed {
    pub(crate) api: KubernetesApi,
    pub(crate) backend: Arc<Mutex<Backend>>,
    kubeconfig: PathBuf,
    replicas: Vec<InProcess>,
    world: World,
    _host: Host,
    _doors: Vec<Door>,
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn manifest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../k8s/components/operator/{name}.yaml"))
}

impl Bed {
    /// `None` where no API server can be had.
    pub(crate) async fn start() -> Option<Self> {
        // A second test finds it installed already.
        rustls::crypto::ring::default_provider().install_default().ok();
        let api = KubernetesApi::start().await.unwrap()?;
        for namespace in ["logboom", "shop"] {
            let wish = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
            api.create("/api/v1/namespaces", &wish).await.unwrap();
        }
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "broker"}});
        api.create("/api/v1/namespaces/logboom/serviceaccounts", &account).await.unwrap();
        let mut apply = api.kubectl(api.admin()).unwrap();
        apply.args(["apply", "--validate=strict"]);
        run(apply.args(MANIFESTS.map(|name| format!("--filename={}", manifest(name).display()))));
        run(api.kubectl(api.admin()).unwrap().args(ALLOW));
        for kind in ["logindexes", "logbindings"] {
            let path = format!("/apis/logboom.io/v1alpha1/{kind}");
            eventually(SOON, async || api.get(&path).await.is_ok()).await;
        }
        let token = api.token("logboom", "broker").await.unwrap();
        let kubeconfig = api.kubeconfig(&token).unwrap();
        let world = World::start().await.unwrap();
        let host = Host::connect(Service::IndexProvisioner, world.common("test", &[]).unwrap()).await.unwrap();
        let backend = Arc::<Mutex<Backend>>::default();
        let doors = behind::doors(&host, &backend).await.unwrap();
        Some(Self { api, backend, kubeconfig, replicas: Vec::new(), world, _host: host, _doors: doors })
    }

    pub(crate) async fn add_replica(&mut self, name: &str) {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("broker.address=127.0.0.1:{port}");
        let kubeconfig = format!("broker.operator_kubeconfig={}", self.kubeconfig.display());
        let grace = format!("broker.operator_grace={}s", GRACE.as_secs());
        let operator = ["broker.operator=true", "broker.operator_ttl_min=1s", &kubeconfig, &grace];
        let set = ["common.lease_ttl=1s", &address].into_iter().chain(operator).collect::<Vec<_>>();
        let settings = self.world.settings(name, &set).unwrap();
        self.replicas.push(start_in_process::<Broker>(&settings, None).await.unwrap());
    }

    pub(crate) async fn stop_first(&mut self) {
        self.replicas.remove(0).stop().await.unwrap();
    }

    pub(crate) async fn stop(mut self) {
        while !self.replicas.is_empty() {
            self.stop_first().await;
        }
    }

    fn kubectl(&self, words: &[&str]) {
        run(self.api.kubectl(self.api.admin()).unwrap().args(words));
    }

    /// Applies manifests in the namespace of the team.
    pub(crate) fn apply(&self, manifests: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), manifests).unwrap();
        let path = file.path().display().to_string();
        self.kubectl(&["--namespace", "shop", "apply", "--validate=strict", "--filename", &path]);
    }

    pub(crate) fn allow_secrets(&self) {
        self.kubectl(&ALLOW);
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let (status, answer) = self.api.ask(method, path, self.api.admin(), body).await.unwrap();
        (status.as_u16(), answer)
    }

    pub(crate) async fn try_create(&self, (path, kind): Kind, metadata: Value, spec: Value) -> (u16, Value) {
        let object = json!({"apiVersion": "logboom.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
        self.ask(Method::POST, path, Some(&object)).await
    }

    /// Makes an object of ours and answers with its uid.
    pub(crate) async fn create(&self, kind: Kind, metadata: Value, spec: Value) -> String {
        let (status, answer) = self.try_create(kind, metadata, spec).await;
        assert_eq!(status, 201, "{answer}");
        answer["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn get(&self, (path, _): Kind, name: &str) -> Option<Value> {
        let (status, answer) = self.ask(Method::GET, &format!("{path}/{name}"), None).await;
        assert!([200, 404].contains(&status), "{answer}");
        (status == 200).then_some(answer)
    }

    pub(crate) async fn delete(&self, (path, _): Kind, name: &str) {
        let (status, answer) = self.ask(Method::DELETE, &format!("{path}/{name}"), None).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Changes an object until nobody else does so at the same time.
    pub(crate) async fn patch(&self, kind: Kind, name: &str, patch: Value) {
        let (program, text) = (kind.1.to_lowercase(), patch.to_string());
        self.kubectl(&["--namespace", "shop", "patch", &program, name, "--type", "merge", "--patch", &text]);
    }

    /// A change that means nothing, so that the operator looks now and not in minutes.
    pub(crate) async fn nudge(&self, kind: Kind, name: &str) {
        let nudge = json!({"metadata": {"annotations": {"example.org/nudge": jiff::Timestamp::now().to_string()}}});
        self.patch(kind, name, nudge).await;
    }

    /// Waits until an object says so, and answers with it.
    pub(crate) async fn wait_for(&self, kind: Kind, name: &str, reason: &str) -> Value {
        let mut seen = Value::Null;
        let begun = std::time::Instant::now();
        eventually(SOON + Duration::from_secs(1), async || {
            seen = self.get(kind, name).await.unwrap_or_default();
            assert!(begun.elapsed() < SOON, "{name} is not {reason} but {}", seen["status"]);
            seen["status"]["conditions"][0]["reason"] == reason
        })
        .await;
        seen
    }

    pub(crate) async fn wait_until_gone(&self, kind: Kind, name: &str) {
        eventually(SOON, async || self.get(kind, name).await.is_none()).await;
    }

    /// Since when the Secret of a binding holds other credentials than its first; waits until that is remembered.
    pub(crate) async fn replaced_at(&self, name: &str) -> jiff::Timestamp {
        let mut at = None;
        eventually(SOON, async || {
            let object = self.get(BINDINGS, name).await.unwrap();
            at = object["status"]["bindings"][0]["replacedAt"].as_str().map(|at| at.parse().unwrap());
            at.is_some()
        })
        .await;
        at.unwrap()
    }

    /// Waits until the provisioner was asked for something.
    pub(crate) async fn wait_until_done(&self, what: &str) {
        eventually(SOON, async || self.backend.lock().unwrap().history.iter().any(|done| done == what)).await;
    }

    pub(crate) async fn wait_for_token(&self, name: &str, token: &str) {
        let encoded = BASE64.encode(token.as_bytes());
        eventually(SOON, async || {
            self.get(SECRETS, name).await.is_some_and(|secret| secret["data"]["token"] == encoded)
        })
        .await;
    }

    /// Takes the right to the Secrets of the namespace away.
    pub(crate) async fn forbid_secrets(&self) {
        let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings/logboom";
        let (status, answer) = self.ask(Method::DELETE, path, None).await;
        assert_eq!(status, 200, "{answer}");
    }
}

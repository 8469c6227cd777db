//! A real API server of Kubernetes as a child of the test, with etcd behind it and no kubelet, scheduler or controller.

mod child;
mod programs;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use self::child::Child;
use crate::{Certificates, free_port};

/// How long the API server may take until it is ready: seconds on an idle machine.
const START_MAX: Duration = Duration::from_secs(120);
/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often other ports are taken because another process had the first ones.
const ATTEMPTS_MAX: u32 = 3;
/// Token of [`KubernetesApi::admin`], who may do everything.
const ADMIN: &str = "the-token-of-the-admin-of-one-test";
/// Lifetime of a token of a ServiceAccount: longer than any test.
const TOKEN_SECONDS: u32 = 3_600;

/// etcd and kube-apiserver on loopback in a directory of their own, with RBAC; they end with this value.
///
/// Objects are checked, stored, watched and refused as in a cluster. Nothing acts on them: no pod runs, no Deployment makes pods, and a
/// namespace that is deleted stays `Terminating`.
pub struct KubernetesApi {
    server: Child,
    // After the server, which complains while etcd is gone.
    etcd: Child,
    port: u16,
    bin: PathBuf,
    http: Client,
    certificates: Certificates,
    // Last: the directory goes after the processes.
    dir: TempDir,
}

impl KubernetesApi {
    /// Starts one, or says why there is none to be had on this machine; a test then ends as skipped, or fails where
    /// `LOGBOOM_REQUIRE_KUBERNETES=1` is set.
    ///
    /// `tools/install-kubernetes` builds the programs when they are not there yet, which takes minutes once.
    pub async fn start() -> Result<Option<Self>> {
        let Some(bin) = programs::find().await? else { return Ok(None) };
        let mut attempt = 1;
        loop {
            match Self::start_from(&bin).await {
                // Whoever took the port in between is named in the log.
                Err(error) if attempt < ATTEMPTS_MAX && format!("{error:#}").contains("address already in use") => {
                    attempt += 1;
                }
                started => return started.map(Some),
            }
        }
    }

    async fn start_from(bin: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("lb-kubernetes-").tempdir()?;
        let certificates = Certificates::make()?;
        let etcd_url = format!("http://127.0.0.1:{}", free_port()?);
        let etcd = start_etcd(bin, dir.path(), &etcd_url)?;
        fs::write(dir.path().join("tokens.csv"), format!("{ADMIN},admin,admin,system:masters\n"))?;
        let port = free_port()?;
        let server = start_server(bin, dir.path(), &certificates, port, &etcd_url)?;
        let tls = (*certificates.visitor()?).clone();
        let http = Client::builder().no_proxy().timeout(ANSWER_MAX).tls_backend_preconfigured(tls).build()?;
        let mut api = Self { server, etcd, port, bin: bin.to_owned(), http, certificates, dir };
        api.ready().await?;
        Ok(api)
    }

    async fn ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let asked = self.http.get(format!("{}/readyz", self.url())).bearer_auth(ADMIN).send().await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            self.etcd.check()?;
            self.server.check()?;
            ensure!(begun.elapsed() < START_MAX, "kube-apiserver is not ready after {START_MAX:?}:\n{}", self.log());
            sleep(LOOK_EVERY).await;
        }
    }

    /// `kubectl` for what needs no server, such as `kustomize`; as [`KubernetesApi::start`] where it cannot be had.
    pub async fn offline_kubectl() -> Result<Option<Command>> {
        let bin = programs::find().await?;
        Ok(bin.map(|bin| {
            let mut command = Command::new(bin.join("kubectl"));
            command.env("KUBECONFIG", "/dev/null").stdin(Stdio::null());
            command
        }))
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The authority behind its certificate, as PEM.
    pub fn ca(&self) -> PathBuf {
        self.certificates.path("ca.pem")
    }

    /// Token of somebody who may do everything.
    pub fn admin(&self) -> &str {
        ADMIN
    }

    /// A token of a ServiceAccount that is there, as a pod of it would have.
    pub async fn token(&self, namespace: &str, account: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let wish = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": TOKEN_SECONDS},
        });
        let answer = self.create(&path, &wish).await?;
        let token = answer["status"]["token"].as_str().context("the answer has no token")?;
        Ok(token.to_owned())
    }

    /// The directory that a pod of this ServiceAccount finds at `/var/run/secrets/kubernetes.io/serviceaccount`.
    pub async fn mount(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let at = self.dir.path().join("mounts").join(namespace).join(account);
        fs::create_dir_all(&at)?;
        fs::copy(self.ca(), at.join("ca.crt"))?;
        fs::write(at.join("namespace"), namespace)?;
        // In one step, as a kubelet does: another pod of the account may be reading it.
        let mut token = tempfile::NamedTempFile::new_in(&at)?;
        token.write_all(self.token(namespace, account).await?.as_bytes())?;
        token.persist(at.join("token"))?;
        Ok(at)
    }

    /// A kubeconfig for the bearer of a token.
    pub fn kubeconfig(&self, token: &str) -> Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url(), "certificate-authority": self.ca()}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        let file = tempfile::Builder::new().prefix("kubeconfig-").tempfile_in(self.dir.path())?;
        fs::write(file.path(), config.to_string())?;
        Ok(file.into_temp_path().keep()?)
    }

    /// `kubectl` as the bearer of a token, of the same release and with nothing of the user's own.
    pub fn kubectl(&self, token: &str) -> Result<Command> {
        let mut command = Command::new(self.bin.join("kubectl"));
        command.env("KUBECONFIG", self.kubeconfig(token)?).env("HOME", self.dir.path()).stdin(Stdio::null());
        Ok(command)
    }

    /// Asks for something as the bearer of a token; any status is an answer.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value)> {
        let mut request = self.http.request(method, format!("{}{path}", self.url())).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(|| format!("{path}:\n{}", self.log()))?;
        let status = answer.status();
        let text = answer.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Reads as the admin.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let (status, answer) = self.ask(Method::GET, path, ADMIN, None).await?;
        ensure!(status.is_success(), "{path}: {status} {answer}");
        Ok(answer)
    }

    /// Creates as the admin.
    pub async fn create(&self, path: &str, body: &Value) -> Result<Value> {
        let (status, answer) = self.ask(Method::POST, path, ADMIN, Some(body)).await?;
        ensure!(status.is_success(), "{path}: {status} {answer}");
        Ok(answer)
    }

    /// What kube-apiserver has written so far.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// The ids of etcd and kube-apiserver.
    pub fn pids(&self) -> [u32; 2] {
        [self.etcd.pid(), self.server.pid()]
    }
}

fn start_etcd(bin: &Path, dir: &Path, url: &str) -> Result<Child> {
    let peers = format!("http://127.0.0.1:{}", free_port()?);
    let mut command = Command::new(bin.join("etcd"));
    command
        .arg("--data-dir")
        .arg(dir.join("etcd"))
        .args(["--listen-client-urls", url, "--advertise-client-urls", url])
        .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
        .args(["--initial-cluster", &format!("default={peers}")])
        // Tests kill processes, they do not cut the power.
        .args(["--unsafe-no-fsync", "--log-level", "warn"]);
    Child::spawn("etcd", &mut command, dir.join("etcd.log"))
}

fn start_server(bin: &Path, dir: &Path, certificates: &Certificates, port: u16, etcd: &str) -> Result<Child> {
    let file = |flag: &str, path: PathBuf| format!("--{flag}={}", path.display());
    let mut command = Command::new(bin.join("kube-apiserver"));
    command
        .args([format!("--secure-port={port}"), format!("--etcd-servers={etcd}")])
        .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"])
        .args([file("cert-dir", dir.join("certs")), file("token-auth-file", dir.join("tokens.csv"))])
        .arg(file("tls-cert-file", certificates.path("certificate.pem")))
        .arg(file("tls-private-key-file", certificates.path("key.pem")))
        .arg("--authorization-mode=RBAC")
        // It signs the tokens of ServiceAccounts with the key that it has anyway.
        .arg(file("service-account-signing-key-file", certificates.path("key.pem")))
        .arg(file("service-account-key-file", certificates.path("certificate.pem")))
        .args(["--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.0.0.0/24"]);
    Child::spawn("kube-apiserver", &mut command, dir.join("kube-apiserver.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_knows_its_accounts_and_refuses_what_they_may_not() {
        let Some(api) = KubernetesApi::start().await.unwrap() else { return };
        let version = api.get("/version").await.unwrap();
        assert_eq!(version["major"], "1", "{version}");
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody"}});
        api.create("/api/v1/namespaces/default/serviceaccounts", &account).await.unwrap();
        let nobody = api.token("default", "nobody").await.unwrap();
        let who = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let (status, me) = api.ask(Method::POST, path, &nobody, Some(&who)).await.unwrap();
        assert!(status.is_success(), "{me}");
        assert_eq!(me["status"]["userInfo"]["username"], "system:serviceaccount:default:nobody");
        let secrets = "/api/v1/namespaces/default/secrets";
        for (token, expected) in [(api.admin(), 200), (nobody.as_str(), 403), ("made up", 401)] {
            let (status, answer) = api.ask(Method::GET, secrets, token, None).await.unwrap();
            assert_eq!(status, expected, "{answer}");
        }
        let output = api.kubectl(&nobody).unwrap().args(["auth", "whoami", "--output=name"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let pids = api.pids();
        drop(api);
        for pid in pids {
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} outlived its test");
        }
    }
}

//! An API server with everything applied, and a way to say things to it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use logboom_tests::root;
use serde_json::Value;
use tempfile::TempDir;
use testkit::KubernetesApi;

/// Where everything is applied.
pub(crate) const NAMESPACE: &str = "logboom";

/// An API server that knows the kinds of the service catalog and of the Prometheus operator.
pub(crate) struct Bed {
    pub(crate) api: KubernetesApi,
    dir: TempDir,
}

impl Bed {
    /// `None` where no API server can be had.
    pub(crate) async fn start() -> Option<Self> {
        let api = KubernetesApi::start().await.unwrap()?;
        let bed = Self { api, dir: tempfile::tempdir().unwrap() };
        bed.kubectl("apply --filename tests/kubernetes/crds");
        bed.kubectl("wait --for=condition=Established --timeout=60s crd --all");
        Some(bed)
    }

    /// A kustomization with the base and every component there is; with TLS at the end, which changes what others bring.
    pub(crate) fn everything(&self) -> PathBuf {
        let mut components = components();
        components.sort_by_key(|name| name == "tls");
        overlay(self.dir.path(), "k8s/base", &components);
        self.dir.path().to_owned()
    }

    /// Applies a kustomization with strict validation, and once more where it brought definitions that its own objects need.
    pub(crate) fn settle(&self, folder: &Path) -> String {
        let apply = || self.run(self.command().args(["apply", "--validate=strict", "--kustomize"]).arg(folder));
        let first = apply();
        if first.contains("customresourcedefinition") {
            self.kubectl("wait --for=condition=Established --timeout=60s crd --all");
        }
        first
    }

    /// `kubectl` as the admin, in the repository.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.api.kubectl(self.api.admin()).unwrap();
        command.current_dir(root());
        command
    }

    /// Runs `kubectl` with these words, which must succeed.
    pub(crate) fn kubectl(&self, words: &str) -> String {
        self.run(self.command().args(words.split_whitespace()))
    }

    /// Runs a command, which must succeed.
    pub(crate) fn run(&self, command: &mut Command) -> String {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command:?}\n{out}\n{err}");
        out.into_owned()
    }

    /// Everything of one kind in the namespace, for example `apis/apps/v1`, `deployments`.
    pub(crate) async fn list(&self, group: &str, kind: &str) -> Vec<Value> {
        let answer = self.api.get(&format!("/{group}/namespaces/{NAMESPACE}/{kind}")).await.unwrap();
        answer["items"].as_array().unwrap().clone()
    }

    /// Everything that makes pods.
    pub(crate) async fn workloads(&self) -> Vec<Value> {
        let mut all = self.list("apis/apps/v1", "deployments").await;
        all.extend(self.list("apis/apps/v1", "statefulsets").await);
        all.extend(self.list("apis/batch/v1", "jobs").await);
        all
    }
}

/// Writes a kustomization of something in the repository with components.
pub(crate) fn overlay(dir: &Path, of: &str, components: &[String]) {
    let up = "../".repeat(dir.components().count() - 1);
    let to = |path: &str| format!("  - {up}{}\n", root().join(path).strip_prefix("/").unwrap().display());
    let components: String = components.iter().map(|name| to(&format!("k8s/components/{name}"))).collect();
    let text = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: {NAMESPACE}\n\
         resources:\n{}components:\n{components}",
        to(of)
    );
    fs::write(dir.join("kustomization.yaml"), text).unwrap();
}

/// The names of the components.
pub(crate) fn components() -> Vec<String> {
    let folders = fs::read_dir(root().join("k8s/components")).unwrap().map(Result::unwrap);
    let mut names: Vec<_> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

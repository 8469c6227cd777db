//! What kustomize makes of an overlay, without a server.

use std::collections::BTreeSet;

use serde_json::Value;
use testkit::KubernetesApi;

use crate::bed::{components, overlay};

/// The manifests of an overlay with further components; `None` where kubectl cannot be had.
pub(crate) async fn built(of: &str, components: &[&str]) -> Option<Vec<Value>> {
    let mut kubectl = KubernetesApi::offline_kubectl().await.unwrap()?;
    let dir = tempfile::tempdir().unwrap();
    let components: Vec<_> = components.iter().map(ToString::to_string).collect();
    overlay(dir.path(), of, &components);
    let output = kubectl.arg("kustomize").arg(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.split("\n---\n").map(manifest).collect())
}

fn manifest(text: &str) -> Value {
    let source = config::File::from_str(text, config::FileFormat::Yaml);
    let parsed = config::Config::builder().add_source(source).build().and_then(|all| all.try_deserialize());
    parsed.unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

/// The pod of a workload, or of the Jobs of a CronJob.
fn pod(one: &Value) -> Option<&Value> {
    ["/spec/template/spec", "/spec/jobTemplate/spec/template/spec"].iter().find_map(|place| one.pointer(place))
}

#[tokio::test]
async fn all_pods_have_the_image_of_the_overlay() {
    for component in components() {
        // It has them.
        if ["network", "tls"].contains(&component.as_str()) {
            continue;
        }
        let Some(all) = built("k8s/overlays/prod", &[&component]).await else { return };
        let containers = all.iter().filter_map(pod).flat_map(|pod| pod["containers"].as_array().unwrap());
        let mut images: BTreeSet<_> = containers.map(|container| container["image"].as_str().unwrap()).collect();
        images.retain(|image| !image.starts_with("nats:"));
        assert_eq!(images.len(), 1, "{component}: {images:?}");
    }
}

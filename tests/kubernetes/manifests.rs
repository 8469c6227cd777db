//! Every manifest is taken by the API server, field by field, and every pod by its admission.

use std::fs;

use logboom_tests::root;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bed::{Bed, NAMESPACE, components};

/// The pod that a Deployment, StatefulSet or Job would make.
fn pod(workload: &Value) -> Value {
    let template = &workload["spec"]["template"];
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
        "metadata": {"generateName": "one-", "labels": template["metadata"]["labels"]},
    });
    let claims = workload["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
    for claim in claims.map(|claim| &claim["metadata"]["name"]) {
        let volume = json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}});
        pod["spec"]["volumes"].as_array_mut().unwrap().push(volume);
    }
    pod
}

/// Whether the API server would take a pod, and what it says.
async fn admitted(bed: &Bed, pod: &Value) -> (bool, String) {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All&fieldValidation=Strict");
    let (status, answer) = bed.api.ask(Method::POST, &path, bed.api.admin(), Some(pod)).await.unwrap();
    (status.is_success(), answer.to_string())
}

/// Every workload's pod passes the namespace's `restricted` level.
async fn every_pod_is_admitted(bed: &Bed, what: &str) {
    let workloads = bed.workloads().await;
    assert!(workloads.len() >= 10, "{what}: {}", workloads.len());
    for workload in workloads {
        let (taken, answer) = admitted(bed, &pod(&workload)).await;
        assert!(taken, "{what}: {}: {answer}", workload["metadata"]["name"]);
    }
}

/// The overlay `dev` is there; at the end the base is, with every component.
pub(crate) async fn everything_is_taken_and_a_second_time_changes_nothing(bed: &Bed) {
    every_pod_is_admitted(bed, "dev").await;
    // It cannot be changed; a minute after its end its controller takes it away, and there is none here.
    let take_job_away = || bed.kubectl("--namespace logboom delete job keys --cascade=background");
    take_job_away();
    let prod = root().join("k8s/overlays/prod");
    bed.settle(&prod);
    every_pod_is_admitted(bed, "prod").await;
    // It fails where another apply would change anything.
    bed.run(bed.command().args(["diff", "--kustomize"]).arg(&prod));
    take_job_away();
    bed.settle(&bed.everything());
    every_pod_is_admitted(bed, &format!("base with {:?}", components())).await;
    what_is_wrong_is_refused(bed).await;
    bed.settle(&root().join("k8s/catalog"));
    // A team's namespace is restricted too.
    bed.kubectl("create namespace team");
    bed.kubectl("label namespace team pod-security.kubernetes.io/enforce=restricted");
    // A controller would have made it.
    bed.kubectl("--namespace team create serviceaccount default");
    let mut examples = 0;
    for entry in fs::read_dir(root().join("k8s/catalog")).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with("kustomization.yaml") && path.is_file() {
            let namespace: &[&str] = if path.ends_with("broker.yaml") { &[] } else { &["--namespace=team"] };
            bed.run(bed.command().args(["apply", "--validate=strict", "--filename"]).arg(path).args(namespace));
            examples += 1;
        }
    }
    assert!(examples >= 4);
}

/// That the server looks at all is seen where it refuses.
async fn what_is_wrong_is_refused(bed: &Bed) {
    let gateway =
        bed.list("apis/apps/v1", "deployments").await.into_iter().find(|d| d["metadata"]["name"] == "gateway");
    let mut broken = pod(&gateway.unwrap());
    broken["spec"]["containers"][0]["argz"] = json!(["gateway"]);
    let (taken, answer) = admitted(bed, &broken).await;
    assert!(!taken && answer.contains("unknown field"), "{answer}");
    broken["spec"]["containers"][0].as_object_mut().unwrap().remove("argz");
    broken["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
    let (taken, answer) = admitted(bed, &broken).await;
    assert!(!taken && answer.contains("violates PodSecurity"), "{answer}");
    let manifest = fs::read_to_string(root().join("k8s/catalog/instance.yaml")).unwrap() + "  planName: small\n";
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    fs::write(file.path(), manifest).unwrap();
    let refused =
        bed.command().args(["create", "--dry-run=server", "--validate=strict", "-f"]).arg(file.path()).output();
    let refused = refused.unwrap();
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && words.contains("planName"), "{words}");
}

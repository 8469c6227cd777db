//! The Job that makes the Secrets, run as its ServiceAccount; a kubelet would start it.

use std::{
    path::Path,
    process::{Command, Output},
};

use data_encoding::BASE64;
use logboom_tests::logboom;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bed::{Bed, NAMESPACE};

/// The value of a key of a Secret.
pub(crate) async fn secret(bed: &Bed, name: &str, key: &str) -> String {
    let found = bed.api.get(&format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}")).await.unwrap();
    let value = found["data"][key].as_str().unwrap_or_else(|| panic!("{name} has no {key}"));
    String::from_utf8(BASE64.decode(value.as_bytes()).unwrap()).unwrap()
}

/// The command of a Job's container with its volume at `dir`, and what a kubelet mounts and sets for the ServiceAccount.
pub(crate) async fn command(bed: &Bed, job: &str, account: &str, dir: &Path) -> Command {
    let made = bed.api.get(&format!("/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{job}")).await.unwrap();
    let pod = &made["spec"]["template"]["spec"];
    assert_eq!((&pod["serviceAccountName"], &pod["automountServiceAccountToken"]), (&json!(job), &json!(true)));
    let container = &pod["containers"][0];
    let mounted = container["volumeMounts"][0]["mountPath"].as_str().unwrap();
    let args = container["args"].as_array().unwrap().iter().map(|arg| match arg.as_str().unwrap() {
        arg if arg == mounted => dir.display().to_string(),
        arg => arg.to_owned(),
    });
    let url = bed.api.url();
    let (host, port) = url.strip_prefix("https://").unwrap().split_once(':').unwrap();
    let mut command = Command::new(logboom().unwrap());
    command.args(args).arg("--service-account").arg(bed.api.mount(NAMESPACE, account).await.unwrap());
    command.env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", port);
    command
}

async fn run(bed: &Bed, account: &str) -> Output {
    run_job(bed, "keys", account).await
}

/// Runs the command of a Job as an account.
pub(crate) async fn run_job(bed: &Bed, job: &str, account: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(bed, job, account, dir.path()).await;
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Every Secret there is, with its data.
async fn kept(bed: &Bed) -> Vec<(Value, Value)> {
    let all = bed.list("api/v1", "secrets").await;
    all.into_iter().map(|secret| (secret["metadata"]["name"].clone(), secret["data"].clone())).collect()
}

pub(crate) async fn delete(bed: &Bed, name: &str) {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}");
    let (status, answer) = bed.api.ask(Method::DELETE, &path, bed.api.admin(), None).await.unwrap();
    assert!(status.is_success(), "{answer}");
}

pub(crate) fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) async fn the_job_makes_the_secrets_once_however_often_it_runs(bed: &Bed) {
    let all = bed.list("api/v1", "secrets").await;
    for secret in &all {
        delete(bed, secret["metadata"]["name"].as_str().unwrap()).await;
    }
    // Two pods of one Job at once: a node that was thought lost comes back.
    let (one, other) = tokio::join!(run(bed, "keys"), run(bed, "keys"));
    succeeded(&one);
    succeeded(&other);
    let first = kept(bed).await;
    let names: Vec<_> = first.iter().map(|(name, _)| name.as_str().unwrap()).collect();
    assert_eq!(names, ["logboom-broker", "logboom-encryption", "logboom-keyring", "logboom-keys", "logboom-routes"]);
    let password = secret(bed, "logboom-keys", "broker.password").await;
    assert_eq!(secret(bed, "logboom-broker", "password").await, password.trim());
    assert_eq!(secret(bed, "logboom-broker", "username").await, "admin");
    let ring: Value = serde_json::from_str(&secret(bed, "logboom-keyring", "keyring.json").await).unwrap();
    assert_eq!(secret(bed, "logboom-keys", "operator.seed").await, ring["operator_seed"].as_str().unwrap());
    every_mounted_key_is_there(bed).await;

    succeeded(&run(bed, "keys").await);
    assert_eq!(kept(bed).await, first, "a later run keeps everything");

    // A run that was cut short after the first Secret: the next one goes on with the same root of trust.
    delete(bed, "logboom-keys").await;
    delete(bed, "logboom-broker").await;
    succeeded(&run(bed, "keys").await);
    assert_eq!(secret(bed, "logboom-keys", "operator.seed").await, ring["operator_seed"].as_str().unwrap());
    assert_eq!(secret(bed, "logboom-keys", "tenants.seed").await, ring["tenants_seed"].as_str().unwrap());

    // Keys that somebody made by hand stay, and no other key ring comes beside them.
    delete(bed, "logboom-keyring").await;
    delete(bed, "logboom-broker").await;
    succeeded(&run(bed, "keys").await);
    let names: Vec<_> = kept(bed).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["logboom-broker", "logboom-encryption", "logboom-keys", "logboom-routes"]);

    // Another account is told what it lacks.
    let refused = run(bed, "gateway").await;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{words}");
    assert!(words.contains("system:serviceaccount:logboom:gateway") && words.contains("forbidden"), "{words}");
}

/// What workloads mount of the Secrets that the Job makes is in them.
async fn every_mounted_key_is_there(bed: &Bed) {
    let mut seen = 0;
    for workload in bed.workloads().await {
        let volumes = workload["spec"]["template"]["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        let sources = volumes.iter().filter_map(|volume| volume["projected"]["sources"].as_array()).flatten();
        for source in sources.map(|source| &source["secret"]).filter(|secret| secret["name"] == "logboom-keys") {
            for item in source["items"].as_array().unwrap() {
                assert!(!secret(bed, "logboom-keys", item["key"].as_str().unwrap()).await.is_empty());
                seen += 1;
            }
        }
    }
    assert!(seen > 10, "{seen}");
}

//! The Job that makes and renews the certificates, run as its ServiceAccount, and what a service catalog is told of them.

use std::{
    env, fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use data_encoding::BASE64;
use logboom_tests::root;
use serde_json::{Value, json};
use testkit::tls::{Authority, Files, Tls};
use types::Timestamp;

use crate::{
    bed::{Bed, NAMESPACE},
    keys::{delete, run_job, secret, succeeded},
};

const HOSTS: [&str; 2] = ["*.logboom.svc", "*.nats-headless.logboom.svc"];
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

/// The object of a Secret.
async fn object(bed: &Bed, name: &str) -> Value {
    bed.api.get(&format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}")).await.unwrap()
}

async fn authority(bed: &Bed) -> Authority {
    Authority::from_pem(&secret(bed, "logboom-ca", "ca.pem").await, &secret(bed, "logboom-ca", "ca.key").await).unwrap()
}

/// Whether the certificate that pods mount is of the authority, for all its hosts, and good for so many days.
async fn is_good_for(bed: &Bed, days: u32) -> bool {
    let hosts = HOSTS.map(str::to_owned);
    authority(bed).await.vouches(&secret(bed, "logboom-tls", "tls.crt").await, &hosts, now() + days * DAY)
}

/// The base is there with every component.
pub(crate) async fn the_job_makes_certificates_and_renews_them(bed: &Bed) {
    // Two pods of one Job at once: one at least comes through, and they agree.
    let (one, other) =
        tokio::join!(run_job(bed, "certificates", "certificates"), run_job(bed, "certificates", "certificates"));
    assert!(one.status.success() || other.status.success(), "{one:?} {other:?}");
    succeeded(&run_job(bed, "certificates", "certificates").await);
    assert!(is_good_for(bed, 80).await);
    a_process_can_use_it(bed).await;

    let first = [object(bed, "logboom-ca").await, object(bed, "logboom-tls").await];
    succeeded(&run_job(bed, "certificates", "certificates").await);
    assert_eq!([object(bed, "logboom-ca").await, object(bed, "logboom-tls").await], first, "what is good is kept");

    // One of which less than a third is left.
    let issued = authority(bed).await.issue(&HOSTS.map(str::to_owned), now(), 29).unwrap();
    let mut old = object(bed, "logboom-tls").await;
    old["data"]["tls.crt"] = json!(BASE64.encode(issued.certificate.as_bytes()));
    old["data"]["tls.key"] = json!(BASE64.encode(issued.key.as_bytes()));
    old["metadata"]["annotations"] = json!({"example.org/theirs": "stays"});
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/logboom-tls");
    let (status, answer) = bed.api.ask(reqwest::Method::PUT, &path, bed.api.admin(), Some(&old)).await.unwrap();
    assert!(status.is_success(), "{answer}");
    assert!(!is_good_for(bed, 80).await);
    succeeded(&run_job(bed, "certificates", "certificates").await);
    assert!(is_good_for(bed, 80).await);
    let renewed = object(bed, "logboom-tls").await;
    assert_eq!(renewed["metadata"]["annotations"], json!({"example.org/theirs": "stays"}));
    assert_eq!(object(bed, "logboom-ca").await["data"]["ca.key"], first[0]["data"]["ca.key"], "of the same authority");
    the_catalog_is_told(bed).await;

    let refused = run_job(bed, "certificates", "gateway").await;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("system:serviceaccount:logboom:gateway"), "{words}");
    // A certificate of somebody else is not written over.
    delete(bed, "logboom-ca").await;
    let refused = run_job(bed, "certificates", "certificates").await;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("it was made elsewhere"), "{words}");
    assert_eq!(object(bed, "logboom-tls").await, renewed);
}

/// The files as pods have them.
async fn a_process_can_use_it(bed: &Bed) {
    let dir = tempfile::tempdir().unwrap();
    for key in ["tls.crt", "tls.key", "ca.crt"] {
        fs::write(dir.path().join(key), secret(bed, "logboom-tls", key).await).unwrap();
    }
    let at = |name: &str| Some(dir.path().join(name));
    let tls = Tls::open(Files { certificate: at("tls.crt"), key: at("tls.key"), ca: at("ca.crt") }).unwrap();
    assert!(tls.server().is_some() && tls.client().is_some());
}

/// The command of the guide gives the service catalog the authority.
async fn the_catalog_is_told(bed: &Bed) {
    let guide = fs::read_to_string(root().join("docs/guide/kubernetes.md")).unwrap();
    let shown = guide.split("```console\n").map(|rest| rest.split("```").next().unwrap());
    let block = shown.into_iter().find(|block| block.contains("caBundle")).expect("the guide has it");
    let commands: String = block.lines().map(|line| format!("{}\n", line.trim_start_matches("$ "))).collect();
    let kubectl = bed.command();
    let programs = Path::new(kubectl.get_program()).parent().unwrap().to_owned();
    let path = env::join_paths([programs].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap()))).unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", &commands]).current_dir(root()).env("PATH", path);
    bash.env("KUBECONFIG", bed.api.kubeconfig(bed.api.admin()).unwrap());
    bed.run(&mut bash);
    let broker = bed.api.get("/apis/servicecatalog.k8s.io/v1beta1/clusterservicebrokers/logboom").await.unwrap();
    assert_eq!(broker["spec"]["url"], "https://broker.logboom.svc:7701");
    assert_eq!(broker["spec"]["caBundle"], object(bed, "logboom-tls").await["data"]["ca.crt"]);
}

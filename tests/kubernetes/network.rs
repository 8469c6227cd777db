//! Who may open a connection to whom, computed from the NetworkPolicies as Kubernetes would.

use std::{collections::BTreeSet, fs};

use logboom_tests::root;
use serde_json::Value;

use crate::bed::Bed;

/// A pod, or the place where one would be.
struct Peer {
    name: String,
    namespace: &'static str,
    /// Labels of the namespace besides its name.
    namespace_labels: Vec<(&'static str, &'static str)>,
    /// Its named ports.
    ports: Vec<(String, u64)>,
}

impl Peer {
    fn elsewhere(namespace: &'static str, labels: &[(&'static str, &'static str)]) -> Self {
        Self { name: namespace.to_owned(), namespace, namespace_labels: labels.to_vec(), ports: Vec::new() }
    }

    fn label(&self, key: &str) -> Option<&str> {
        let ours = self.namespace == "logboom";
        match key {
            "app.kubernetes.io/name" => Some(&self.name),
            "app.kubernetes.io/part-of" if ours => Some("logboom"),
            _ => None,
        }
    }

    fn namespace_label(&self, key: &str) -> Option<&str> {
        match key {
            "kubernetes.io/metadata.name" => Some(self.namespace),
            key => self.namespace_labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value),
        }
    }
}

/// Whether a label selector takes what has these labels.
fn selects<'a>(selector: &Value, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let in_list = selector["matchExpressions"].as_array().into_iter().flatten();
    equal.into_iter().all(|(key, value)| label(key) == value.as_str())
        && in_list.into_iter().all(|rule| {
            assert_eq!(rule["operator"], "In", "{rule}");
            let found = label(rule["key"].as_str().unwrap());
            rule["values"].as_array().unwrap().iter().any(|value| value.as_str() == found)
        })
}

/// Whether one entry of `from` or `to` means this peer. A block of addresses means pods nowhere: networks differ in that.
fn means(entry: &Value, peer: &Peer) -> bool {
    let pod = entry.get("podSelector").is_none_or(|selector| selects(selector, |key| peer.label(key)));
    match (entry.get("namespaceSelector"), entry.get("ipBlock")) {
        (_, Some(_)) => false,
        (Some(namespace), None) => pod && selects(namespace, |key| peer.namespace_label(key)),
        (None, None) => pod && peer.namespace == "logboom",
    }
}

/// Whether the policies of one pod allow a connection in one direction; those of other namespaces are not ours to say.
fn allows(policies: &[Value], direction: &str, pod: &Peer, other: &Peer, to: &Peer, port: u64) -> bool {
    if pod.namespace != "logboom" {
        return true;
    }
    let (kind, list) = if direction == "ingress" { ("Ingress", "from") } else { ("Egress", "to") };
    let mine = policies.iter().map(|policy| &policy["spec"]).filter(|spec| {
        spec["policyTypes"].as_array().unwrap().iter().any(|one| one == kind)
            && selects(&spec["podSelector"], |key| pod.label(key))
    });
    let mut mine = mine.peekable();
    if mine.peek().is_none() {
        return true;
    }
    let named = |value: &Value| match value.as_str() {
        Some(name) => to.ports.iter().any(|(own, number)| own == name && *number == port),
        None => value.as_u64() == Some(port),
    };
    mine.flat_map(|spec| spec[direction].as_array().into_iter().flatten()).any(|rule| {
        let peers = rule[list].as_array();
        let ports = rule["ports"].as_array();
        peers.is_none_or(|peers| peers.iter().any(|entry| means(entry, other)))
            && ports.is_none_or(|ports| ports.iter().any(|rule| named(&rule["port"])))
    })
}

/// The pods of the workloads, and those of others around them.
async fn peers(bed: &Bed) -> Vec<Peer> {
    let mut peers = vec![
        Peer::elsewhere("team", &[]),
        Peer::elsewhere("monitoring", &[]),
        Peer::elsewhere("catalog", &[("logboom.io/platform", "true")]),
    ];
    for workload in bed.workloads().await {
        let container = &workload["spec"]["template"]["spec"]["containers"][0];
        let ports = container["ports"].as_array().into_iter().flatten();
        let ports =
            ports.map(|port| (port["name"].as_str().unwrap().to_owned(), port["containerPort"].as_u64().unwrap()));
        peers.push(Peer {
            name: workload["metadata"]["name"].as_str().unwrap().to_owned(),
            namespace: "logboom",
            namespace_labels: Vec::new(),
            ports: ports.collect(),
        });
    }
    peers
}

#[tokio::test]
async fn only_the_needed_connections_are_open() {
    let Some(bed) = Bed::start().await else { return };
    bed.settle(&root().join("k8s/overlays/prod"));
    let policies = bed.list("apis/networking.k8s.io/v1", "networkpolicies").await;
    let files = fs::read_dir(root().join("k8s/components/network")).unwrap().count();
    assert_eq!(policies.len(), files - 1, "a policy in each file but the kustomization");
    let peers = peers(&bed).await;
    let mut open = BTreeSet::new();
    for from in &peers {
        for to in &peers {
            for (name, port) in &to.ports {
                if allows(&policies, "egress", from, to, to, *port) && allows(&policies, "ingress", to, from, to, *port)
                {
                    open.insert(format!("{} -> {}:{name}", from.name, to.name));
                }
            }
        }
    }
    let services = wire::Service::ALL.map(wire::Service::as_str);
    let mut needed: BTreeSet<_> = services.iter().map(|service| format!("{service} -> nats:client")).collect();
    needed.extend(services.iter().map(|service| format!("monitoring -> {service}:probes")));
    let others = ["team", "monitoring", "catalog"];
    needed.extend(
        others.iter().flat_map(|other| [format!("{other} -> nats:client"), format!("{other} -> gateway:http")]),
    );
    for one in ["nats -> nats:cluster", "task-worker -> task-worker:exchange", "catalog -> broker:osb"] {
        needed.insert(one.to_owned());
    }
    assert_eq!(open, needed);
}

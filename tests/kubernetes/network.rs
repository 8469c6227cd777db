//! Who may open a connection to whom, computed from the NetworkPolicies as Kubernetes would.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
};

use logboom_tests::root;
use serde_json::Value;

use crate::built::built;

/// A pod, or the place where one would be.
struct Peer {
    name: String,
    namespace: &'static str,
    labels: BTreeMap<String, String>,
    /// Labels of the namespace besides its name.
    namespace_labels: Vec<(&'static str, &'static str)>,
    /// Its named ports.
    ports: Vec<(String, u64)>,
}

impl Peer {
    fn elsewhere(namespace: &'static str, labels: &[(&'static str, &'static str)]) -> Self {
        let (name, labels) = (namespace.to_owned(), labels.to_vec());
        Self { name, namespace, labels: BTreeMap::new(), namespace_labels: labels, ports: Vec::new() }
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
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

/// Whether one entry of `from` or `to` means this peer. A block of addresses means pods nowhere: they have private ones.
fn means(entry: &Value, peer: &Peer) -> bool {
    let pod = entry.get("podSelector").is_none_or(|selector| selects(selector, |key| peer.label(key)));
    match (entry.get("namespaceSelector"), entry.get("ipBlock")) {
        (_, Some(_)) => false,
        (Some(namespace), None) => pod && selects(namespace, |key| peer.namespace_label(key)),
        (None, None) => pod && peer.namespace == "logboom",
    }
}

/// The policies that are asked about a pod in one direction.
fn asked<'a>(policies: &'a [Value], kind: &'a str, pod: &'a Peer) -> impl Iterator<Item = &'a Value> {
    policies.iter().map(|policy| &policy["spec"]).filter(move |spec| {
        spec["policyTypes"].as_array().unwrap().iter().any(|one| one == kind)
            && selects(&spec["podSelector"], |key| pod.label(key))
    })
}

/// Whether the policies of one pod allow a connection in one direction; those of other namespaces are not ours to say.
fn allows(policies: &[Value], direction: &str, pod: &Peer, other: &Peer, to: &Peer, port: u64) -> bool {
    if pod.namespace != "logboom" {
        return true;
    }
    let (kind, list) = if direction == "ingress" { ("Ingress", "from") } else { ("Egress", "to") };
    let mut mine = asked(policies, kind, pod).peekable();
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

/// Whether a block such as `10.0.0.0/8` has an address.
fn holds(block: &Value, address: IpAddr) -> bool {
    let (network, bits) = block.as_str().unwrap().split_once('/').unwrap();
    let value = |address: IpAddr| match address {
        IpAddr::V4(v4) => (32_u32, u128::from(u32::from(v4))),
        IpAddr::V6(v6) => (128, u128::from(v6)),
    };
    let ((width, network), (own, address)) = (value(network.parse().unwrap()), value(address));
    let rest = width - bits.parse::<u32>().unwrap();
    width == own && network.checked_shr(rest).unwrap_or(0) == address.checked_shr(rest).unwrap_or(0)
}

/// Whether a pod may open a connection to an address that is no pod's of ours.
fn reaches(policies: &[Value], pod: &Peer, address: &str, port: u64) -> bool {
    let address = address.parse().unwrap();
    let has = |block: &Value| {
        let mut except = block["except"].as_array().into_iter().flatten();
        holds(&block["cidr"], address) && !except.any(|block| holds(block, address))
    };
    let within = |rule: &Value| {
        let first = rule["port"].as_u64();
        first.is_some_and(|first| (first..=rule["endPort"].as_u64().unwrap_or(first)).contains(&port))
    };
    asked(policies, "Egress", pod).flat_map(|spec| spec["egress"].as_array().into_iter().flatten()).any(|rule| {
        let to = rule["to"].as_array().into_iter().flatten().filter_map(|entry| entry.get("ipBlock"));
        to.into_iter().any(has) && rule["ports"].as_array().unwrap().iter().any(within)
    })
}

/// The pods of the workloads, and those of others around them.
fn peers(all: &[Value]) -> Vec<Peer> {
    let mut peers = vec![
        Peer::elsewhere("team", &[]),
        Peer::elsewhere("monitoring", &[]),
        Peer::elsewhere("catalog", &[("logboom.io/platform", "true")]),
    ];
    for workload in all.iter().filter(|one| one["spec"]["template"].is_object()) {
        let template = &workload["spec"]["template"];
        let ports = template["spec"]["containers"][0]["ports"].as_array().into_iter().flatten();
        let ports =
            ports.map(|port| (port["name"].as_str().unwrap().to_owned(), port["containerPort"].as_u64().unwrap()));
        let labels = template["metadata"]["labels"].as_object().unwrap().iter();
        peers.push(Peer {
            name: workload["metadata"]["name"].as_str().unwrap().to_owned(),
            namespace: "logboom",
            labels: labels.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect(),
            namespace_labels: Vec::new(),
            ports: ports.collect(),
        });
    }
    peers
}

fn policies(all: &[Value]) -> Vec<Value> {
    all.iter().filter(|one| one["kind"] == "NetworkPolicy").cloned().collect()
}

/// Every connection between two of them that the policies allow.
fn open(all: &[Value]) -> BTreeSet<String> {
    let (policies, peers) = (policies(all), peers(all));
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
    open
}

#[tokio::test]
async fn only_the_needed_connections_are_open() {
    let Some(all) = built("k8s/overlays/prod", &[]).await else { return };
    let files = fs::read_dir(root().join("k8s/components/network")).unwrap().count();
    assert_eq!(policies(&all).len(), files - 1, "a policy in each file but the kustomization");
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
    assert_eq!(open(&all), needed);
    // The further doors of the gateway are open to whom its first one is.
    let Some(all) = built("k8s/overlays/prod", &["doors"]).await else { return };
    let doors = ["grpc", "syslog-udp", "syslog-tcp", "syslog-tls"];
    needed.extend(others.iter().flat_map(|other| doors.map(|door| format!("{other} -> gateway:{door}"))));
    assert_eq!(open(&all), needed);
    the_service_has_every_port(&all);
}

/// Of the gateway.
fn the_service_has_every_port(all: &[Value]) {
    let gateway =
        |kind: &str| all.iter().find(|one| one["kind"] == kind && one["metadata"]["name"] == "gateway").unwrap();
    let names = |ports: &Value, key: &str| -> BTreeSet<String> {
        ports.as_array().unwrap().iter().map(|port| port[key].as_str().unwrap().to_owned()).collect()
    };
    let container = names(&gateway("Deployment")["spec"]["template"]["spec"]["containers"][0]["ports"], "name");
    assert_eq!(names(&gateway("Service")["spec"]["ports"], "targetPort"), container);
}

/// Addresses that only the hosts, the clusters and the clouds of whoever runs us have; the last one of each kind first.
const PRIVATE: [&str; 36] = [
    "10.255.255.255",
    "10.0.0.0",
    "172.31.255.255",
    "172.16.0.0",
    "192.168.255.255",
    "192.168.0.0",
    "100.127.255.255",
    "100.64.0.0",
    "127.0.0.1",
    "0.0.0.0",
    "169.254.169.254",
    "::1",
    "::",
    "fdff:ffff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "64:ff9b:1::a9fe:a9fe",
    "192.0.0.192",
    "198.19.255.255",
    "198.18.0.0",
    "255.255.255.255",
    "240.0.0.0",
    // As a gateway of NAT64 writes them.
    "64:ff9b::10.255.255.255",
    "64:ff9b::10.0.0.0",
    "64:ff9b::172.31.255.255",
    "64:ff9b::172.16.0.0",
    "64:ff9b::192.168.255.255",
    "64:ff9b::100.127.255.255",
    "64:ff9b::127.0.0.1",
    "64:ff9b::0.0.0.0",
    "64:ff9b::169.254.169.254",
    "64:ff9b::192.0.0.192",
    "64:ff9b::198.19.255.255",
    "64:ff9b::255.255.255.255",
    "64:ff9b::240.0.0.0",
];
/// Those beside them.
const PUBLIC: [&str; 17] = [
    "9.255.255.255",
    "11.0.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "100.128.0.0",
    "169.253.0.1",
    "2606:4700::1",
    "fbff::1",
    "192.0.1.0",
    "198.17.255.255",
    "198.20.0.0",
    "64:ff9b::9.255.255.255",
    "64:ff9b::172.32.0.0",
    "64:ff9b::192.0.1.0",
    "64:ff9b::100.128.0.0",
];
/// Where clouds tell a host's secrets.
const METADATA: [&str; 4] = ["169.254.169.254", "64:ff9b::169.254.169.254", "fd00:ec2::254", "fe80::1"];
const API_SERVER: [&str; 3] = ["10.0.0.1", "10.1.2.3", "fd12::1"];

#[tokio::test]
async fn nobody_reaches_private_addresses_who_must_not() {
    let Some(all) = built("k8s/overlays/prod", &[]).await else { return };
    let (policies, peers) = (policies(&all), peers(&all));
    let pod = |name: &str| peers.iter().find(|peer| peer.name == name).unwrap();
    let check = |name: &str, address: &str, port: u64, expected: bool| {
        assert_eq!(reaches(&policies, pod(name), address, port), expected, "{name} -> {address}:{port}");
    };
    for service in wire::Service::ALL.map(wire::Service::as_str) {
        for address in PUBLIC {
            check(service, address, 443, true);
            check(service, address, 6443, service == "alerter");
        }
        API_SERVER.iter().for_each(|address| check(service, address, 6443, false));
        // Object storage may be near; not so for the alerter, whose receivers tenants name.
        for (address, port) in [("10.0.0.0", 443), ("192.168.0.0", 9_000), ("fc00::1", 9_000)] {
            check(service, address, port, service != "alerter");
        }
        for port in [443, 9_000] {
            METADATA.iter().for_each(|address| check(service, address, port, false));
        }
    }
    for port in [80, 443, 4222, 7780, 8080, 8089, 9_000, 65_535] {
        check("alerter", "11.0.0.0", port, true);
        PRIVATE.iter().for_each(|address| check("alerter", address, port, false));
    }
    check("alerter", "11.0.0.0", 25, false);
    // Its own back-ends may be near, but never where a cloud tells its secrets.
    for (name, port) in [("index-provisioner", 8_089), ("keys", 443)] {
        check(name, "10.0.0.0", port, true);
        METADATA.iter().for_each(|address| check(name, address, port, false));
    }
    PUBLIC.iter().for_each(|address| check("nats", address, 443, false));
}

#[tokio::test]
async fn the_api_server_is_asked_by_those_who_need_it() {
    for (component, asking) in [("operator", "broker"), ("elastic", "job-manager")] {
        let Some(all) = built("k8s/overlays/prod", &[component]).await else { return };
        let policies = policies(&all);
        for peer in peers(&all).iter().filter(|peer| peer.namespace == "logboom") {
            // On 443 there may be object storage, too.
            for address in API_SERVER {
                let expected = [asking, "keys"].contains(&peer.name.as_str());
                assert_eq!(reaches(&policies, peer, address, 6443), expected, "{} -> {address}", peer.name);
            }
        }
    }
}

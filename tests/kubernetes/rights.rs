//! What each ServiceAccount may do: what its service needs, and nothing more.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::bed::{Bed, NAMESPACE};

/// One right: who, in which namespace (`*` is all), verb, resource (`statefulsets.apps/scale`), and the name if it is bound to one.
type Right = (&'static str, &'static str, &'static str, &'static str, &'static str);

/// Everything that any account of ours may do. Whoever adds a rule to a Role adds a line, and says so to whoever reads it.
const RIGHTS: &[Right] = &[
    ("keys", NAMESPACE, "create", "secrets", ""),
    ("keys", NAMESPACE, "get", "secrets", "logboom-broker"),
    ("keys", NAMESPACE, "get", "secrets", "logboom-encryption"),
    ("keys", NAMESPACE, "get", "secrets", "logboom-keyring"),
    ("keys", NAMESPACE, "get", "secrets", "logboom-keys"),
    ("keys", NAMESPACE, "get", "secrets", "logboom-routes"),
    // With components/certificates.
    ("certificates", NAMESPACE, "create", "secrets", ""),
    ("certificates", NAMESPACE, "get", "secrets", "logboom-ca"),
    ("certificates", NAMESPACE, "get", "secrets", "logboom-tls"),
    ("certificates", NAMESPACE, "update", "secrets", "logboom-ca"),
    ("certificates", NAMESPACE, "update", "secrets", "logboom-tls"),
    // With components/elastic.
    ("job-manager", NAMESPACE, "get", "statefulsets.apps/scale", "task-worker"),
    ("job-manager", NAMESPACE, "patch", "statefulsets.apps/scale", "task-worker"),
    // With components/operator; a team gives it the Secrets of its own namespace.
    ("broker", "*", "get", "logindexes.logboom.io", ""),
    ("broker", "*", "list", "logindexes.logboom.io", ""),
    ("broker", "*", "watch", "logindexes.logboom.io", ""),
    ("broker", "*", "patch", "logindexes.logboom.io", ""),
    ("broker", "*", "update", "logindexes.logboom.io/status", ""),
    ("broker", "*", "get", "logbindings.logboom.io", ""),
    ("broker", "*", "list", "logbindings.logboom.io", ""),
    ("broker", "*", "watch", "logbindings.logboom.io", ""),
    ("broker", "*", "patch", "logbindings.logboom.io", ""),
    ("broker", "*", "update", "logbindings.logboom.io/status", ""),
    ("broker", "*", "create", "events.events.k8s.io", ""),
    ("broker", "*", "patch", "events.events.k8s.io", ""),
    ("broker", "*", "get", "namespaces", ""),
];

/// What a cluster lets everybody do who is known to it: ask who he is and what he may, and read what the API offers.
const EVERYBODY: [&str; 3] = ["system:basic-user", "system:discovery", "system:public-info-viewer"];

/// Rules of Roles and ClusterRoles as single rights, by the bindings that name the account.
async fn granted(bed: &Bed) -> BTreeSet<(String, String, String, String, String)> {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let mut rights = BTreeSet::new();
    for kind in ["rolebindings", "clusterrolebindings"] {
        let bindings = bed.api.get(&format!("{rbac}/{kind}")).await.unwrap();
        for binding in bindings["items"].as_array().unwrap() {
            let namespace = binding["metadata"]["namespace"].as_str().unwrap_or("*").to_owned();
            let reference = &binding["roleRef"];
            let role = reference["name"].as_str().unwrap();
            let path = match reference["kind"].as_str().unwrap() {
                "Role" => format!("{rbac}/namespaces/{namespace}/roles/{role}"),
                _ => format!("{rbac}/clusterroles/{role}"),
            };
            for subject in binding["subjects"].as_array().into_iter().flatten() {
                let name = subject["name"].as_str().unwrap();
                let wide = ["system:serviceaccounts", "system:authenticated", "system:unauthenticated"];
                if subject["kind"] == "Group" && wide.iter().any(|group| name.starts_with(group)) {
                    // Those that Kubernetes brings give accounts nothing that we would name.
                    let known = EVERYBODY.contains(&role) || role == "system:service-account-issuer-discovery";
                    assert!(known, "{role} is given to {name}");
                }
                if subject["kind"] == "ServiceAccount" && subject["namespace"] == NAMESPACE {
                    let rules = bed.api.get(&path).await.unwrap()["rules"].as_array().unwrap().clone();
                    rights.extend(rules.iter().flat_map(|rule| single(name, &namespace, rule)));
                }
            }
        }
    }
    rights
}

/// A rule names lists; a right is one of each.
fn single(account: &str, namespace: &str, rule: &Value) -> Vec<(String, String, String, String, String)> {
    let list = |key: &str| -> Vec<String> {
        rule[key].as_array().into_iter().flatten().map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    assert!(list("nonResourceURLs").is_empty(), "{rule}");
    let mut names = list("resourceNames");
    if names.is_empty() {
        names.push(String::new());
    }
    let mut all = Vec::new();
    for (group, resource) in list("apiGroups").iter().flat_map(|g| list("resources").into_iter().map(move |r| (g, r))) {
        let (kind, sub) = resource
            .split_once('/')
            .map_or((resource.as_str(), String::new()), |(kind, sub)| (kind, format!("/{sub}")));
        let resource = if group.is_empty() { resource.clone() } else { format!("{kind}.{group}{sub}") };
        for (verb, name) in list("verbs").iter().flat_map(|v| names.iter().map(move |n| (v, n))) {
            all.push((account.to_owned(), namespace.to_owned(), verb.clone(), resource.clone(), name.clone()));
        }
    }
    all
}

/// Asks as the account itself, with a token as its pod has.
async fn may(bed: &Bed, token: &str, (_, namespace, verb, resource, name): Right) -> bool {
    let (kind, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (resource, group) = kind.split_once('.').unwrap_or((kind, ""));
    let namespace = if namespace == "*" { "" } else { namespace };
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {
            "namespace": namespace, "verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name,
        }},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let (status, answer) = bed.api.ask(Method::POST, path, token, Some(&review)).await.unwrap();
    assert!(status.is_success(), "{answer}");
    answer["status"]["allowed"].as_bool().unwrap()
}

/// What nobody of ours may ever do, but for a right of its own above.
const NEVER: [(&str, &str, &str, &str); 13] = [
    (NAMESPACE, "list", "secrets", ""),
    (NAMESPACE, "watch", "secrets", ""),
    (NAMESPACE, "get", "secrets", "logboom-tls"),
    (NAMESPACE, "get", "secrets", "logboom-ca"),
    (NAMESPACE, "delete", "secrets", "logboom-keys"),
    (NAMESPACE, "update", "secrets", "logboom-keys"),
    ("kube-system", "get", "secrets", "any"),
    (NAMESPACE, "create", "pods", ""),
    (NAMESPACE, "create", "pods/exec", ""),
    (NAMESPACE, "create", "serviceaccounts/token", ""),
    (NAMESPACE, "bind", "roles.rbac.authorization.k8s.io", ""),
    (NAMESPACE, "patch", "deployments.apps", "gateway"),
    ("*", "list", "namespaces", ""),
];

/// The base is there with every component.
pub(crate) async fn each_account_may_do_what_its_service_needs_and_nothing_more(bed: &Bed) {
    let owned = |(a, b, c, d, e): Right| [a, b, c, d, e].map(str::to_owned);
    let expected: BTreeSet<_> = RIGHTS.iter().copied().map(owned).map(<(_, _, _, _, _)>::from).collect();
    let granted = granted(bed).await;
    let surplus: Vec<_> = granted.difference(&expected).collect();
    let missing: Vec<_> = expected.difference(&granted).collect();
    assert!(
        surplus.is_empty() && missing.is_empty(),
        "given and not in RIGHTS: {surplus:#?}\nin RIGHTS and not given: {missing:#?}"
    );

    let mut used = BTreeSet::new();
    for workload in bed.workloads().await {
        let pod = &workload["spec"]["template"]["spec"];
        let account = pod["serviceAccountName"].as_str().unwrap().to_owned();
        // A token lies only where somebody needs it.
        let needs = RIGHTS.iter().any(|right| right.0 == account);
        assert_eq!(pod["automountServiceAccountToken"], needs, "{account}");
        used.insert(account);
    }
    for account in bed.list("api/v1", "serviceaccounts").await {
        let name = account["metadata"]["name"].as_str().unwrap();
        assert!(used.contains(name), "{name} is the account of no pod");
        let token = bed.api.token(NAMESPACE, name).await.unwrap();
        for right in RIGHTS {
            // The rights of another account are not its own, unless it has the same.
            let expected = RIGHTS.iter().any(|own| own.0 == name && covers(*own, *right));
            assert_eq!(may(bed, &token, *right).await, expected, "{name}: {right:?}");
        }
        for (namespace, verb, resource, object) in NEVER {
            let never = ("", namespace, verb, resource, object);
            let own = RIGHTS.iter().any(|own| own.0 == name && covers(*own, never));
            assert_eq!(may(bed, &token, never).await, own, "{name}: {verb} {resource} {object} in {namespace}");
        }
    }
}

/// Whether the first right gives the second.
fn covers(own: Right, other: Right) -> bool {
    (own.1 == "*" || own.1 == other.1) && own.2 == other.2 && own.3 == other.3 && (own.4.is_empty() || own.4 == other.4)
}

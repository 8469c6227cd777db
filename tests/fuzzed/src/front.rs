//! The front of the Open Service Broker API without sockets.

use std::{collections::BTreeMap, sync::LazyLock};

use bytes::Bytes;
use serde_json::Value;

use crate::{
    alerts::default_rules,
    catalog::{BUILT_IN, Catalog, Chosen},
    osb::{Answer, Body, HEADERS, Identity, Request, Version, canonical, gate, own_id, route},
    wanted::wanted,
};

/// A plan of the built-in catalog.
static PLAN: LazyLock<Chosen> = LazyLock::new(|| {
    let catalog = Catalog::parse(BUILT_IN).expect("the built-in catalog is right");
    let plan = catalog.find("0d5a6b1e-6c0e-4d5f-9a53-7f0f6a3c1e10", "5f0a3c52-3a1b-4a86-8e0c-2b8f3f1d7a01");
    plan.expect("the built-in catalog has the small plan")
});

/// A refusal that every client can read, and never a failure of ours.
fn check(refusal: &Answer) {
    assert!((400..500).contains(&refusal.status), "{}: {}", refusal.status, refusal.body);
    let body: Value = serde_json::from_str(&refusal.body).expect("a refusal is JSON");
    for key in ["error", "description"] {
        let text = body[key].as_str().unwrap_or_default();
        assert!(!text.is_empty() && text.chars().count() <= 255, "{}", refusal.body);
    }
}

fn checked<T>(read: Result<T, Answer>) -> Option<T> {
    read.inspect_err(check).ok()
}

/// The head of a request: method, path, query and headers, one a line.
pub fn osb_path(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n').map(str::to_owned);
    let mut next = || lines.next().unwrap_or_default();
    let (method, path, query) = (next(), next(), next());
    let headers: BTreeMap<_, _> = HEADERS.iter().map(|name| ((*name).to_owned(), next())).collect();
    let request = Request { method, path, query, headers, body: Bytes::new(), ..Request::default() };

    for field in ["operation", "service_id", "plan_id", "version"] {
        drop(request.query(field));
    }
    checked(request.accepts_incomplete());
    request.knows("\"a\"");
    checked(Version::of(&request)).inspect(|version| assert!(version.minor >= 11));
    checked(Identity::of(&request)).flatten().inspect(|identity| assert!(!identity.platform.is_empty()));
    checked(route(&request.method, &request.path));
    // A path with an empty id is none.
    if !request.path.is_empty() {
        let id = own_id(&request.path);
        assert!(types::Token::new(&id).is_ok(), "{id:?} stands for an id and is no token");
    }
    let again: Request = wire::decode(&wire::encode(&request)).expect("a replica forwards it to the leader");
    assert!(again == request, "a forwarded request is the same");
}

/// The body of a request, read as each request reads it.
pub fn osb_body(data: &[u8]) {
    let Some(body) = checked(Body::parse(data)) else { return };
    for key in ["service_id", "plan_id", "organization_guid", "space_guid", "app_guid"] {
        checked(body.required(key));
    }
    for key in ["context", "bind_resource", "previous_values", "maintenance_info"] {
        checked(body.object(key));
    }
    checked(body.names_app());
    let Some(parameters) = checked(body.parameters()) else { return };
    let text = canonical(&parameters);
    let read: Value = serde_json::from_str(&text).expect("canonical JSON is JSON");
    assert_eq!(canonical(&read), text, "canonical is canonical");

    let plan = &*PLAN;
    for fits in [plan.check_provision(&parameters), plan.check_update(&parameters), plan.check_bind(&parameters)] {
        if let Err(complaint) = fits {
            assert!(complaint.starts_with("parameters"), "{complaint}");
            check(&Answer::bad_request(complaint));
        }
    }
    match wanted(&plan.plan.defaults, &parameters) {
        Ok(shape) => {
            let again = wire::decode(&wire::encode(&shape)).expect("what is wanted goes into the journal");
            assert_eq!(shape, again);
            let rules = default_rules(&shape.alerts, &"a-b".parse().expect("it is the name of an index"));
            if let Err(unfit) = rules {
                check(&Answer::bad_request(unfit.to_string()));
            }
        }
        Err(unfit) => check(&Answer::bad_request(unfit.to_string())),
    }
    drop((plan.redact_instance(&parameters), plan.redact_binding(&parameters)));
    for minor in [11, 14, 17] {
        let answer = gate(Answer::of(200, &serde_json::json!({ "parameters": parameters })), Version { minor });
        assert!(serde_json::from_str::<Value>(&answer.body).is_ok_and(|body| body.is_object()));
    }
}

//! What accounts and users may do, as claims.

use serde_json::{Map, Value, json};
use types::{BindingId, IndexName, Timestamp};
use wire::{
    delegation::{Bearer, OUTER_FILTER},
    subjects,
    views::Role,
};

use super::jwt::{seconds, sign};
use crate::BusError;

/// Where new versions of accounts are told to the servers, and heard of by whoever else listens.
pub const CLAIMS_UPDATES: &str = "$SYS.REQ.CLAIMS.UPDATE";

/// The version of the claims' form.
const VERSION: u8 = 2;

/// What an account is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountSpec {
    /// For people.
    pub name: String,
    /// Its public key.
    pub public_key: String,
    /// Whether it may use JetStream, then without limits. Never for the system account: the server would not start.
    pub jetstream: bool,
    /// Subject mappings: from, to.
    pub mappings: Vec<(String, String)>,
    /// Users that are no longer let in: public key, and the instant up to which their tokens are void.
    pub revocations: Vec<(String, Timestamp)>,
}

impl AccountSpec {
    /// The system account.
    pub fn system(public_key: String) -> Self {
        Self { name: "SYS".to_owned(), public_key, jetstream: false, mappings: Vec::new(), revocations: Vec::new() }
    }

    /// The account in which the services talk.
    pub fn platform(public_key: String) -> Self {
        Self { name: "PLATFORM".to_owned(), public_key, jetstream: true, mappings: Vec::new(), revocations: Vec::new() }
    }

    /// The tenants' account, with the mappings to its lanes.
    pub fn tenants(public_key: String, lane_count: u16, revocations: Vec<(String, Timestamp)>) -> Self {
        let mappings = subjects::lane_mappings(lane_count).into();
        Self { name: "TENANTS".to_owned(), public_key, jetstream: true, mappings, revocations }
    }
}

/// Signs an account; of two versions a server keeps the one issued later.
pub fn account_jwt(spec: &AccountSpec, operator_seed: &str, issued: Timestamp) -> Result<String, BusError> {
    let mut limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    });
    if spec.jetstream {
        for name in ["mem_storage", "disk_storage", "streams", "consumer"] {
            limits[name] = json!(-1);
        }
    }
    let mut nats = json!({
        "type": "account", "version": VERSION, "limits": limits, "default_permissions": { "pub": {}, "sub": {} },
    });
    if !spec.mappings.is_empty() {
        let mappings: Map<String, Value> =
            spec.mappings.iter().map(|(from, to)| (from.clone(), json!([{ "subject": to, "weight": 100 }]))).collect();
        nats["mappings"] = Value::Object(mappings);
    }
    if !spec.revocations.is_empty() {
        let revocations: Map<String, Value> =
            spec.revocations.iter().map(|(user, at)| (user.clone(), json!(seconds(*at)))).collect();
        nats["revocations"] = Value::Object(revocations);
    }
    sign(&spec.public_key, &spec.name, nats, operator_seed, issued, None)
}

/// What a user is.
///
/// An empty list of what is allowed means no restriction; to allow nothing, deny `>`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserSpec {
    /// For people.
    pub name: String,
    /// Its public key.
    pub public_key: String,
    /// Subjects that it may publish to.
    pub pub_allow: Vec<String>,
    /// Subjects that it may not publish to.
    pub pub_deny: Vec<String>,
    /// Subjects that it may subscribe to.
    pub sub_allow: Vec<String>,
    /// Subjects that it may not subscribe to.
    pub sub_deny: Vec<String>,
    /// When it ends by itself.
    pub expires: Option<Timestamp>,
}

impl UserSpec {
    /// A service in the platform's account.
    pub fn platform(name: &str, public_key: String) -> Self {
        Self { name: name.to_owned(), public_key, ..Self::default() }
    }

    /// Whoever pushes account claims, in the system account.
    pub fn system(name: &str, public_key: String) -> Self {
        Self {
            name: name.to_owned(),
            public_key,
            pub_allow: words(&["$SYS.REQ.CLAIMS.>", "$SYS.REQ.ACCOUNT.>", "$SYS.REQ.SERVER.>", "_INBOX.>"]),
            // It hears what others push, so that a version with an old list of revocations does not stay.
            sub_allow: words(&[CLAIMS_UPDATES, "_INBOX.>"]),
            ..Self::default()
        }
    }

    /// The services' user in the tenants' account: receives lanes and calls from outside, answers both, publishes alerts.
    pub fn front_door(name: &str, public_key: String) -> Self {
        Self {
            name: name.to_owned(),
            public_key,
            pub_allow: words(&["_INBOX.>", "alerts.>", "$JS.API.>", "$JS.ACK.>"]),
            sub_allow: words(&["lane.>", OUTER_FILTER, "_INBOX.>"]),
            ..Self::default()
        }
    }

    /// A binding: publishes to its index, hears its index' alerts, as its role allows; calls under subjects that say who it is.
    ///
    /// The server maps `logs.<index>` to a lane first and looks at the permission afterwards, so the lanes of the index
    /// are allowed too. Whoever publishes to a lane directly harms nothing but the order of his own keys. Its client
    /// must set the inbox prefix of [`subjects::inbox_prefix`], else its PubAcks are refused.
    pub fn binding(index: &IndexName, binding: &BindingId, role: Role, public_key: String) -> Self {
        let mut user = Self { name: format!("binding {binding}"), public_key, ..Self::default() };
        user.sub_allow.push(format!("{}.>", subjects::inbox_prefix(binding)));
        user.pub_allow.push(Bearer { index: index.clone(), binding: binding.clone(), role }.subjects());
        if role.may_write() {
            let logs = subjects::logs(index);
            user.pub_allow.extend([format!("{logs}.*"), format!("lane.*.{index}"), format!("lane.*.{index}.*"), logs]);
        }
        if role.may_read() {
            user.sub_allow.push(format!("alerts.{index}.>"));
        }
        user
    }
}

/// Signs a user of the account whose seed is given.
pub fn user_jwt(spec: &UserSpec, account_seed: &str, issued: Timestamp) -> Result<String, BusError> {
    let rights = |allow: &[String], deny: &[String]| {
        let mut rights = Map::new();
        if !allow.is_empty() {
            rights.insert("allow".to_owned(), json!(allow));
        }
        if !deny.is_empty() {
            rights.insert("deny".to_owned(), json!(deny));
        }
        Value::Object(rights)
    };
    let nats = json!({
        "type": "user", "version": VERSION, "subs": -1, "data": -1, "payload": -1,
        "pub": rights(&spec.pub_allow, &spec.pub_deny),
        "sub": rights(&spec.sub_allow, &spec.sub_deny),
    });
    sign(&spec.public_key, &spec.name, nats, account_seed, issued, spec.expires)
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&w| w.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_may_do_what_its_role_says_and_nothing_else() {
        let (index, binding): (IndexName, BindingId) = ("shop".parse().unwrap(), "b1".parse().unwrap());
        let inbox = "_INBOX.b1.>";
        let publish = ["logs.shop.*", "lane.*.shop", "lane.*.shop.*", "logs.shop"];
        for (role, calls, publish, subscribe) in [
            (Role::Write, "ext.v1.shop.b1.write.>", &publish[..], &[inbox][..]),
            (Role::Read, "ext.v1.shop.b1.read.>", &[], &[inbox, "alerts.shop.>"]),
            (Role::Admin, "ext.v1.shop.b1.admin.>", &publish, &[inbox, "alerts.shop.>"]),
        ] {
            let user = UserSpec::binding(&index, &binding, role, "U".to_owned());
            assert_eq!(user.pub_allow, words(&[&[calls], publish].concat()));
            assert_eq!((user.pub_deny, user.sub_allow), (vec![], words(subscribe)));
        }
    }
}

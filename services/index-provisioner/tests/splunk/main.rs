//! The back-end `splunk` through the provisioner's doors, against the stand-in of `standin.rs`.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod cloud;
mod faults;
mod standin;

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use host::{Host, InProcess, start_in_process};
use index_provisioner::IndexProvisioner;
use serde_json::json;
use testkit::{Certificates, World};
use wire::{
    Problem, Service,
    index_provisioner::{
        BindingName, CreateIndex, DeleteIndex, IndexChange, IndexDescription, IndexOptions, IndexesOf, InstanceName,
        IssueCredentials, ListIndexes, NewBinding, NewIndex, Reclaim, RevokeCredentials, UpdateIndex,
    },
    views::Role,
};

use self::standin::{ACS, ADMIN, Splunk, TOKEN};

const SOON: Duration = Duration::from_secs(20);
const IN_VAIN: Duration = Duration::from_millis(1_500);

/// A provisioner with the back-end `splunk`.
struct Stage {
    world: World,
    splunk: Splunk,
    host: Host,
    provisioner: InProcess,
    set: Vec<String>,
}

impl Stage {
    /// As a user with a password, of an indexer.
    async fn enterprise() -> Result<Self> {
        Self::start(Splunk::serve(None)?, vec![format!("username={}", ADMIN.0), "password".into()]).await
    }

    /// With a token, of a stack of Splunk Cloud.
    async fn cloud() -> Result<Self> {
        let splunk = Splunk::serve(None)?;
        let acs = format!("acs_url={}{ACS}", splunk.url);
        Self::start(splunk, vec![acs, "token".into()]).await
    }

    async fn start(splunk: Splunk, set: Vec<String>) -> Result<Self> {
        let world = World::start().await?;
        std::fs::create_dir_all(world.data_dir())?;
        for (name, text) in [("password", ADMIN.1), ("token", TOKEN)] {
            std::fs::write(world.data_dir().join(format!("splunk.{name}")), text)?;
        }
        let secret = |key: &str| format!("{key}=file:{}", world.data_dir().join(format!("splunk.{key}")).display());
        let given = set.into_iter().map(|one| if one.contains('=') { one } else { secret(&one) });
        let all = [format!("url={}/", splunk.url), format!("hec_url={}", splunk.url), "timeout=1s".to_owned()];
        let set: Vec<String> = given.chain(all).map(|one| format!("index_provisioner.splunk.{one}")).collect();
        let host = Host::connect(Service::Gateway, world.common("test", &[])?).await?;
        let provisioner = provisioner(&world, "a", &set).await?;
        let stage = Self { world, splunk, host, provisioner, set };
        // Until a leader serves.
        stage.host.bus.call_within::<ListIndexes>(&(), &IndexesOf::default(), SOON).await?;
        Ok(stage)
    }

    async fn restart(self) -> Result<Self> {
        let Self { world, splunk, host, provisioner, set } = self;
        provisioner.stop().await?;
        let provisioner = self::provisioner(&world, "b", &set).await?;
        host.bus.call_within::<ListIndexes>(&(), &IndexesOf::default(), SOON).await?;
        Ok(Self { world, splunk, host, provisioner, set })
    }

    async fn create(&self, new: NewIndex) -> Result<IndexDescription, Problem> {
        self.host.bus.call_within::<CreateIndex>(&(), &new, SOON).await
    }

    /// What cannot succeed now; the bus repeats for so long what may succeed later.
    async fn create_in_vain(&self, new: NewIndex) {
        let failed = self.host.bus.call_within::<CreateIndex>(&(), &new, IN_VAIN).await.unwrap_err();
        assert!(failed.is_transient(), "{failed}");
    }

    async fn update(&self, days: u32, options: IndexOptions) -> Result<IndexDescription, Problem> {
        let change = IndexChange { instance: "i".parse().unwrap(), retention_days: Some(days), options, order: 0 };
        self.host.bus.call_within::<UpdateIndex>(&(), &change, SOON).await
    }

    async fn delete(&self, instance: &str) -> Result<(), Problem> {
        let name = InstanceName { instance: instance.parse().unwrap(), order: 0 };
        self.host.bus.call_within::<DeleteIndex>(&(), &name, SOON).await.map(drop)
    }

    async fn bind(&self, binding: &str, role: Role) -> Result<BTreeMap<String, String>, Problem> {
        let (instance, binding) = ("i".parse().unwrap(), binding.parse().unwrap());
        let new = NewBinding { instance, binding, role, ttl_seconds: None };
        self.host.bus.call_within::<IssueCredentials>(&(), &new, SOON).await.map(|credentials| credentials.values)
    }

    async fn unbind(&self, binding: &str) -> Result<(), Problem> {
        let name = BindingName { binding: binding.parse().unwrap(), instance: None };
        self.host.bus.call_within::<RevokeCredentials>(&(), &name, SOON).await.map(drop)
    }

    /// Publishes an event as an application does, and answers the status.
    async fn publish(&self, token: &str, index: &str) -> u16 {
        let url = format!("{}/services/collector/event", self.splunk.url);
        let request = reqwest::Client::new().post(url).header("Authorization", format!("Splunk {token}"));
        request.json(&json!({"event": "hello", "index": index})).send().await.unwrap().status().as_u16()
    }

    async fn login(&self, username: &str, password: &str) -> u16 {
        let url = format!("{}/services/auth/login", self.splunk.url);
        let body = format!("username={username}&password={password}");
        reqwest::Client::new().post(url).body(body).send().await.unwrap().status().as_u16()
    }

    async fn end(self) -> Result<()> {
        self.provisioner.stop().await?;
        Ok(())
    }
}

async fn provisioner(world: &World, replica: &str, set: &[String]) -> Result<InProcess> {
    let set: Vec<&str> = set.iter().map(String::as_str).chain(["common.lease_ttl=1s"]).collect();
    Ok(start_in_process::<IndexProvisioner>(&world.settings(replica, &set)?, None).await?)
}

fn index(instance: &str, name: &str, options: IndexOptions) -> NewIndex {
    NewIndex {
        instance: instance.parse().unwrap(),
        scope: "team".parse().unwrap(),
        index: Some(name.parse().unwrap()),
        backend: "splunk".into(),
        segment_count: 0,
        retention_days: Some(7),
        options,
        order: 0,
    }
}

fn shop() -> NewIndex {
    index("i", "shop", IndexOptions::default())
}

fn reclaim(reclaim: Reclaim) -> IndexOptions {
    IndexOptions { reclaim, ..IndexOptions::default() }
}

#[actix_rt::test]
async fn an_index_is_made_once_changed_and_ended_without_trace() -> Result<()> {
    let stage = Stage::enterprise().await?;
    let options = IndexOptions { bytes_max: Some(10 << 20), ..IndexOptions::default() };
    let created = stage.create(index("i", "shop", options.clone())).await?;
    assert_eq!(stage.create(index("i", "shop", options.clone())).await?, created);
    stage.splunk.with(|splunk| {
        assert_eq!((splunk.indexes["shop"].mib, splunk.indexes["shop"].kept), (10, 7 * 86_400));
        let mark = &splunk.roles["lb-index-shop"];
        assert_eq!((mark.filter.as_str(), mark.indexes.as_slice()), ("logboom_instance=i", &["shop".to_owned()][..]));
        assert_eq!(splunk.changes.len(), 2, "a mark and an index, once: {:?}", splunk.changes);
    });
    let changed = stage.update(30, IndexOptions::default()).await?;
    assert_eq!((changed.retention_days, changed.options.bytes_max), (Some(30), None));
    stage
        .splunk
        .with(|splunk| assert_eq!((splunk.indexes["shop"].mib, splunk.indexes["shop"].kept), (500_000, 30 * 86_400)));
    // What cannot be changed, or made, changes nothing.
    let sourcetype =
        |name: &str| IndexOptions { backend: [(name.into(), "x".into())].into(), ..IndexOptions::default() };
    let quota = wire::views::Quota { queries: Some(1), ..Default::default() };
    let changes = stage.splunk.with(|splunk| splunk.changes.len());
    for (refused, kind) in [
        (stage.update(31, sourcetype("sourcetype")).await.unwrap_err(), "NotUpdatable"),
        (stage.update(31, sourcetype("nonsense")).await.unwrap_err(), "BackendRefused"),
        (stage.update(0, IndexOptions::default()).await.unwrap_err(), "InvalidPolicy"),
        (stage.create(index("j", "mykvstore", IndexOptions::default())).await.unwrap_err(), "BackendRefused"),
        (stage.create(index("j", "x", IndexOptions { quota, ..options })).await.unwrap_err(), "BackendRefused"),
        (stage.create(NewIndex { backend: "s3".into(), ..shop() }).await.unwrap_err(), "UnknownBackend"),
    ] {
        assert_eq!(refused.kind, kind, "{refused}");
    }
    assert_eq!(stage.splunk.with(|splunk| splunk.changes.len()), changes);
    let listed = stage.host.bus.call::<ListIndexes>(&(), &IndexesOf::default()).await?.indexes;
    assert_eq!(listed, [changed]);
    stage.delete("i").await?;
    stage.delete("i").await?;
    assert!(stage.splunk.with(|splunk| splunk.is_empty()));
    stage.end().await
}

#[actix_rt::test]
async fn credentials_do_what_their_role_allows_until_they_are_revoked() -> Result<()> {
    let stage = Stage::enterprise().await?;
    let backend = [("sourcetype".into(), "app:json".into())].into();
    stage.create(index("i", "shop", IndexOptions { backend, ..IndexOptions::default() })).await?;
    let write = stage.bind("w", Role::Write).await?;
    let keys: Vec<&str> = write.keys().map(String::as_str).collect();
    assert_eq!(keys, ["hec_token", "hec_url", "index", "role"]);
    let events = || stage.splunk.with(|splunk| splunk.indexes["shop"].events.len());
    assert_eq!(events(), 1, "the token was tried before the answer");
    assert_eq!(stage.bind("w", Role::Write).await?, write);
    assert_eq!(events(), 1, "a repeat tries nothing");
    assert_eq!(stage.publish(&write["hec_token"], "shop").await, 200);
    assert_eq!(stage.publish(&write["hec_token"], "main").await, 400, "no other index");
    assert_eq!(stage.splunk.with(|s| s.tokens.values().next().unwrap().sourcetype.clone()), "app:json");

    let read = stage.bind("r", Role::Read).await?;
    let keys: Vec<&str> = read.keys().map(String::as_str).collect();
    assert_eq!(keys, ["index", "password", "role", "splunk_url", "username"]);
    assert_eq!(stage.login(&read["username"], &read["password"]).await, 200);
    stage.splunk.with(|splunk| {
        let role = &splunk.roles[&read["username"]];
        assert_eq!(
            (role.indexes.as_slice(), role.capabilities.as_slice()),
            (&["shop".to_owned()][..], &["search".to_owned()][..])
        );
        assert!(role.imported.is_empty(), "an heir of `user` searches everything");
        assert_eq!(splunk.users[&read["username"]].roles, [read["username"].clone()]);
    });
    let admin = stage.bind("a", Role::Admin).await?;
    assert!(admin["hec_token"] != write["hec_token"] && admin["password"] != read["password"]);

    for binding in ["w", "w", "r"] {
        stage.unbind(binding).await?;
    }
    assert_eq!(stage.publish(&write["hec_token"], "shop").await, 403);
    assert_eq!(stage.login(&read["username"], &read["password"]).await, 401);
    assert_eq!(stage.publish(&admin["hec_token"], "shop").await, 200, "another binding's");
    stage.splunk.with(|s| assert_eq!((s.tokens.len(), s.users.len(), s.roles.len()), (1, 1, 2)));
    // The same id later is another binding.
    assert_ne!(stage.bind("w", Role::Write).await?["hec_token"], write["hec_token"]);
    stage.delete("i").await?;
    assert!(stage.splunk.with(|splunk| splunk.is_empty()));
    stage.end().await
}

#[actix_rt::test]
async fn what_belongs_to_others_is_left_alone_unless_it_is_to_be_adopted() -> Result<()> {
    let stage = Stage::enterprise().await?;
    let before = standin::Index { mib: 5, kept: 6, events: vec![json!({"event": "old"})] };
    stage.splunk.with(|s| s.indexes.insert("shop".into(), before.clone()));
    let refused = stage.create(shop()).await.unwrap_err();
    assert_eq!(refused.kind, "ForeignResource");
    stage.delete("i").await?;
    stage.splunk.with(|s| assert_eq!((s.indexes["shop"].clone(), s.roles.len()), (before.clone(), 0)));

    let adopt = |reclaim| IndexOptions { adopt: true, reclaim, ..IndexOptions::default() };
    stage.create(index("i", "shop", adopt(Reclaim::Retain))).await?;
    stage.splunk.with(|s| {
        assert_eq!((s.indexes["shop"].kept, s.indexes["shop"].events.len()), (7 * 86_400, 1));
        // Another installation, which does not know of ours.
        s.roles.get_mut("lb-index-shop").unwrap().filter = "logboom_instance=theirs".into();
    });
    assert_eq!(stage.update(9, adopt(Reclaim::Delete)).await.unwrap_err().kind, "ForeignResource");
    stage.delete("i").await?;
    stage.splunk.with(|s| assert!(s.indexes.contains_key("shop") && s.roles.contains_key("lb-index-shop")));
    let refused = stage.create(index("i", "shop", adopt(Reclaim::Delete))).await.unwrap_err();
    assert_eq!(refused.kind, "ForeignResource", "adopting takes what belongs to nobody");

    // A user that was changed behind our back is somebody else's by now.
    stage.splunk.with(|s| drop(s.roles.remove("lb-index-shop")));
    stage.create(index("i", "shop", adopt(Reclaim::Delete))).await?;
    let read = stage.bind("r", Role::Read).await?;
    stage.splunk.with(|s| s.users.get_mut(&read["username"]).unwrap().realname = "Jane".into());
    assert_eq!(stage.bind("r", Role::Read).await.unwrap_err().kind, "ForeignResource");
    stage.unbind("r").await?;
    stage.splunk.with(|s| assert!(s.users.remove(&read["username"]).is_some()));
    stage.delete("i").await?;
    assert!(stage.splunk.with(|splunk| splunk.is_empty()));
    stage.end().await
}

#[actix_rt::test]
async fn events_stay_where_the_reclaim_policy_says_so() -> Result<()> {
    let stage = Stage::enterprise().await?;
    stage.create(index("i", "shop", reclaim(Reclaim::Fail))).await?;
    let write = stage.bind("w", Role::Write).await?;
    stage.publish(&write["hec_token"], "shop").await;
    let refused = stage.delete("i").await.unwrap_err();
    assert!(refused.kind == "NotEmpty" && !refused.is_transient(), "{refused}");
    assert_eq!(stage.publish(&write["hec_token"], "shop").await, 200, "nothing was changed");
    // Only the event with which a token was tried: that is none of the user's.
    stage.splunk.with(|s| s.indexes.get_mut("shop").unwrap().events.truncate(1));
    stage.delete("i").await?;
    assert!(stage.splunk.with(|splunk| splunk.is_empty()));

    stage.create(index("i", "shop", reclaim(Reclaim::Fail))).await?;
    let write = stage.bind("w", Role::Write).await?;
    stage.publish(&write["hec_token"], "shop").await;
    stage.update(7, reclaim(Reclaim::Retain)).await?;
    stage.delete("i").await?;
    stage.splunk.with(|s| assert_eq!((s.indexes.len(), s.tokens.len(), s.roles.len()), (1, 0, 1)));
    // It belongs to nobody now: who takes it must say so, and be of the scope that it was kept for.
    assert_eq!(stage.create(shop()).await.unwrap_err().kind, "ForeignResource");
    let heir = index("heir", "shop", IndexOptions { adopt: true, ..IndexOptions::default() });
    let stranger = NewIndex { scope: "other-team".parse()?, ..heir.clone() };
    assert_eq!(stage.create(stranger).await.unwrap_err().kind, "ForeignResource", "another team's events");
    stage.delete("heir").await?;
    stage.splunk.with(|s| assert_eq!(s.roles["lb-index-shop"].filter, "logboom_retained=team"));
    // An adoption that is refused leaves it to whom it was left.
    stage.splunk.with(|s| s.faults.refuse = Some(("POST", "data/indexes/shop", 403)));
    assert_eq!(stage.create(heir.clone()).await.unwrap_err().kind, "BackendRefused");
    stage.splunk.with(|s| {
        assert_eq!(s.roles["lb-index-shop"].filter, "logboom_retained=team");
        s.faults.refuse = None;
    });
    stage.create(heir).await?;
    stage.splunk.with(|s| assert_eq!(s.roles["lb-index-shop"].filter, "logboom_instance=heir"));
    stage.delete("heir").await?;
    assert!(stage.splunk.with(|splunk| splunk.is_empty()));
    stage.end().await
}

#[actix_rt::test]
async fn connections_are_trusted_by_the_authority_of_the_settings_only() -> Result<()> {
    let certificates = Certificates::make()?;
    let ca = certificates.path("ca.pem");
    let token = |more: &[String]| [&["token".to_owned()][..], more].concat();
    let trusting = token(&[format!("ca={}", ca.display())]);
    let stage = Stage::start(Splunk::serve(Some(&certificates.tls()?))?, trusting).await?;
    stage.create(shop()).await?;
    let admin = stage.bind("b", Role::Admin).await?;
    assert_eq!(admin["ca_cert"], std::fs::read_to_string(ca)?);
    assert!(admin["hec_url"].starts_with("https://") && admin["splunk_url"].starts_with("https://"));
    assert_eq!(stage.splunk.with(|s| s.indexes["shop"].events.len()), 1, "the collector was reached too");
    stage.end().await?;
    let stage = Stage::start(Splunk::serve(Some(&certificates.tls()?))?, token(&[])).await?;
    stage.create_in_vain(shop()).await;
    assert!(stage.splunk.with(|splunk| splunk.is_empty()));
    stage.end().await
}

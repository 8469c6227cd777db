//! The back-end `own` through the provisioner's doors, on a real nats-server in operator mode, with a coordinator of a few lines behind.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod coordinator;
mod options;

use std::time::Duration;

use anyhow::Result;
use bus::{Bucket, Bus, BusOptions};
use host::{Host, InProcess, start_in_process};
use index_provisioner::IndexProvisioner;
use ring::digest;
use testkit::{World, eventually};
use wire::{
    Code, Service, decode,
    index_provisioner::{
        BindingName, BindingsOf, CreateIndex, Credentials, DeleteIndex, IndexOptions, IndexesOf, InstanceName,
        IssueCredentials, ListBindings, ListIndexes, NewBinding, NewIndex, RevokeCredentials,
    },
    views::{Role, TOKENS, TokenGrant},
};

use self::coordinator::Coordinator;

const SOON: Duration = Duration::from_secs(20);

async fn provisioner(world: &World, replica: &str) -> Result<InProcess> {
    let settings = world.settings(replica, &["common.lease_ttl=1s"])?;
    Ok(start_in_process::<IndexProvisioner>(&settings, None).await?)
}

fn index(instance: &str, index: Option<&str>) -> NewIndex {
    NewIndex {
        instance: instance.parse().unwrap(),
        scope: "team".parse().unwrap(),
        index: index.map(|name| name.parse().unwrap()),
        backend: "own".into(),
        segment_count: 0,
        retention_days: Some(7),
        options: IndexOptions::default(),
        order: 0,
    }
}

fn binding(binding: &str, role: Role, ttl_seconds: Option<u64>) -> NewBinding {
    NewBinding { instance: "i".parse().unwrap(), binding: binding.parse().unwrap(), role, ttl_seconds }
}

fn named(binding: &str) -> BindingName {
    BindingName { binding: binding.parse().unwrap(), instance: None }
}

/// Connects as the application that has the credentials.
async fn connect(world: &World, credentials: &Credentials) -> Result<Bus> {
    let options = BusOptions {
        url: world.nats.url(),
        creds: Some(credentials.values["nats_creds"].clone()),
        name: "application".into(),
        inbox_prefix: Some(credentials.values["inbox_prefix"].clone()),
        ..BusOptions::default()
    };
    Ok(Bus::connect(options).await?)
}

async fn tokens(host: &Host) -> Result<Bucket> {
    Ok(host.bus.bucket(TOKENS, None, 1).await?)
}

fn token_key(credentials: &Credentials) -> String {
    let hash = digest::digest(&digest::SHA256, credentials.values["token"].as_bytes());
    data_encoding::HEXLOWER.encode(hash.as_ref())
}

#[actix_rt::test]
async fn an_index_is_created_once_and_a_refusal_leaves_nothing() -> Result<()> {
    let world = World::start().await?;
    let provisioner = provisioner(&world, "a").await?;
    let host = Host::connect(Service::Gateway, world.common("test", &[])?).await?;
    let coordinator = Coordinator::open(&host).await?;
    let created = host.bus.call_within::<CreateIndex>(&(), &index("i", None), SOON).await?;
    assert!(created.index.as_str().starts_with("ix-"));
    assert_eq!((created.segment_count, created.retention_days), (2, Some(7)));
    assert_eq!(host.bus.call::<CreateIndex>(&(), &index("i", None)).await?, created);
    assert_eq!(coordinator.stream(created.index.as_str()).unwrap().segments.len(), 2);
    for (request, kind) in [
        (index("i", Some("other")), "InstanceDiffers"),
        (index("j", Some(created.index.as_str())), "IndexNameTaken"),
        (index("j", Some("taken")), "IndexNameTaken"),
    ] {
        let refused = host.bus.call::<CreateIndex>(&(), &request).await.unwrap_err();
        assert_eq!((refused.code, refused.kind.as_str()), (Code::Conflict, kind));
    }
    // The instance whose name was taken is not there: it may ask for another name.
    host.bus.call::<CreateIndex>(&(), &index("j", Some("free"))).await?;
    assert_eq!(host.bus.call::<ListIndexes>(&(), &IndexesOf::default()).await?.indexes.len(), 2);
    for instance in ["i", "i", "j"] {
        let name = InstanceName { instance: instance.parse().unwrap(), order: 0 };
        host.bus.call::<DeleteIndex>(&(), &name).await?;
    }
    assert!(coordinator.is_empty());
    assert!(host.bus.call::<ListIndexes>(&(), &IndexesOf::default()).await?.indexes.is_empty());
    provisioner.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn credentials_work_until_they_are_revoked() -> Result<()> {
    let world = World::start().await?;
    let provisioner = provisioner(&world, "a").await?;
    let host = Host::connect(Service::Gateway, world.common("test", &[])?).await?;
    let _coordinator = Coordinator::open(&host).await?;
    host.bus.call_within::<CreateIndex>(&(), &index("i", Some("shop")), SOON).await?;
    let issued = host.bus.call::<IssueCredentials>(&(), &binding("b", Role::Write, None)).await?;
    assert_eq!(host.bus.call::<IssueCredentials>(&(), &binding("b", Role::Write, None)).await?, issued);
    let differs = host.bus.call::<IssueCredentials>(&(), &binding("b", Role::Read, None)).await.unwrap_err();
    assert_eq!(differs.kind, "BindingDiffers");

    let tokens = tokens(&host).await?;
    let grant = tokens.get(&token_key(&issued)).await?.expect("the token is known before the answer");
    let grant: TokenGrant = decode(&grant.value)?;
    assert_eq!((grant.index.as_str(), grant.scope.as_str(), grant.role), ("shop", "team", Role::Write));

    // What the application publishes arrives in a lane and is acknowledged to its inbox.
    let tenants = host.tenants().await?;
    let mut lanes = tenants.subscribe_raw("lane.>").await?;
    let application = connect(&world, &issued).await?;
    let published = {
        let application = application.clone();
        actix_rt::spawn(async move { application.publish_record("logs.shop", "m1", "hello".into()).await })
    };
    let message = lanes.next().await.expect("the lane stays open");
    assert!(message.subject.ends_with(".shop"), "{}", message.subject);
    tenants.ack(&message.reply.expect("a JetStream publish has a reply subject"), "LOGS", 7, false).await;
    assert_eq!(published.await??, 7);

    host.bus.call::<RevokeCredentials>(&(), &named("b")).await?;
    eventually(Duration::from_secs(1), async || !application.is_connected()).await;
    assert!(tokens.get(&token_key(&issued)).await?.is_none());
    assert!(connect(&world, &issued).await.is_err(), "a revoked user must not come back");
    host.bus.call::<RevokeCredentials>(&(), &named("b")).await?;

    // The same binding id later is another user.
    let again = host.bus.call::<IssueCredentials>(&(), &binding("b", Role::Write, None)).await?;
    assert_ne!(again.values["nats_jwt"], issued.values["nats_jwt"]);
    assert_ne!(again.values["token"], issued.values["token"]);
    connect(&world, &again).await?;
    provisioner.stop().await?;
    Ok(())
}

/// The servers take whatever version of an account is signed and comes last, also one of a leader whose time is over.
#[actix_rt::test]
async fn an_account_that_a_former_leader_pushed_is_repaired_at_once() -> Result<()> {
    let world = World::start().await?;
    let provisioner = provisioner(&world, "a").await?;
    let host = Host::connect(Service::Gateway, world.common("test", &[])?).await?;
    let _coordinator = Coordinator::open(&host).await?;
    host.bus.call_within::<CreateIndex>(&(), &index("i", Some("shop")), SOON).await?;
    let issued = host.bus.call::<IssueCredentials>(&(), &binding("b", Role::Write, None)).await?;
    host.bus.call::<RevokeCredentials>(&(), &named("b")).await?;
    assert!(connect(&world, &issued).await.is_err());
    // Its list of revocations is from before.
    let keyring = world.nats.keyring();
    let system = host.connect_as(world.nats.system_creds()?).await?;
    let account = bus::keys::public_key(&keyring.tenants_seed)?;
    let former = bus::keys::AccountSpec::tenants(account, u16::try_from(host.common.container_count)?, Vec::new());
    let former = bus::keys::account_jwt(&former, &keyring.operator_seed, host.clock.now())?;
    // A second time: what this leader has said itself once may be repeated by another.
    for _ in 0..2 {
        system.push_account_claims(&former).await.ok();
        eventually(Duration::from_secs(5), async || connect(&world, &issued).await.is_err()).await;
    }
    provisioner.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn deleting_an_index_cuts_its_applications_and_no_other() -> Result<()> {
    let world = World::start().await?;
    let provisioner = provisioner(&world, "a").await?;
    let host = Host::connect(Service::Gateway, world.common("test", &[])?).await?;
    let _coordinator = Coordinator::open(&host).await?;
    for (instance, name) in [("i", "shop"), ("j", "other")] {
        host.bus.call_within::<CreateIndex>(&(), &index(instance, Some(name)), SOON).await?;
    }
    let mine = host.bus.call::<IssueCredentials>(&(), &binding("b", Role::Admin, None)).await?;
    let other = NewBinding { instance: "j".parse()?, ..binding("c", Role::Admin, None) };
    let other = host.bus.call::<IssueCredentials>(&(), &other).await?;
    let (mine, other) = (connect(&world, &mine).await?, connect(&world, &other).await?);
    host.bus.call::<DeleteIndex>(&(), &InstanceName { instance: "i".parse()?, order: 0 }).await?;
    eventually(Duration::from_secs(1), async || !mine.is_connected()).await;
    other.flush().await;
    assert!(other.is_connected());
    let left = host.bus.call::<ListBindings>(&(), &BindingsOf::default()).await?.bindings;
    assert_eq!(left.iter().map(|b| b.binding.as_str()).collect::<Vec<_>>(), ["c"]);
    provisioner.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn a_binding_ends_by_itself() -> Result<()> {
    let world = World::start().await?;
    let provisioner = provisioner(&world, "a").await?;
    let host = Host::connect(Service::Gateway, world.common("test", &[])?).await?;
    let _coordinator = Coordinator::open(&host).await?;
    host.bus.call_within::<CreateIndex>(&(), &index("i", Some("shop")), SOON).await?;
    let issued = host.bus.call::<IssueCredentials>(&(), &binding("b", Role::Read, Some(2))).await?;
    assert!(issued.values["expires_at"].ends_with('Z'));
    let tokens = tokens(&host).await?;
    assert!(tokens.get(&token_key(&issued)).await?.is_some());
    eventually(SOON, async || matches!(tokens.get(&token_key(&issued)).await, Ok(None))).await;
    assert!(connect(&world, &issued).await.is_err());
    provisioner.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn a_new_leader_makes_tokens_and_account_true() -> Result<()> {
    let world = World::start().await?;
    let first = provisioner(&world, "a").await?;
    let host = Host::connect(Service::Gateway, world.common("test", &[])?).await?;
    let _coordinator = Coordinator::open(&host).await?;
    host.bus.call_within::<CreateIndex>(&(), &index("i", Some("shop")), SOON).await?;
    let kept = host.bus.call::<IssueCredentials>(&(), &binding("kept", Role::Admin, None)).await?;
    let revoked = host.bus.call::<IssueCredentials>(&(), &binding("revoked", Role::Admin, None)).await?;
    host.bus.call::<RevokeCredentials>(&(), &named("revoked")).await?;
    first.stop().await?;
    std::fs::remove_dir_all(world.data_dir())?;
    let tokens = tokens(&host).await?;
    tokens.delete(&token_key(&kept)).await?;
    tokens.put("ghost", "x").await?;
    let second = provisioner(&world, "b").await?;
    eventually(SOON, async || {
        let there = matches!(tokens.get(&token_key(&kept)).await, Ok(Some(_)));
        there && matches!(tokens.get("ghost").await, Ok(None))
    })
    .await;
    // Nothing secret was kept anywhere, yet the same binding gets the same credentials.
    let again = host.bus.call_within::<IssueCredentials>(&(), &binding("kept", Role::Admin, None), SOON).await?;
    assert_eq!(again, kept);
    connect(&world, &kept).await?;
    assert!(connect(&world, &revoked).await.is_err());
    second.stop().await?;
    Ok(())
}

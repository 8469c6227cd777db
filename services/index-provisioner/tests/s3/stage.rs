//! A provisioner with the back-end `s3`, and those who use it.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::Result;
use host::{Host, InProcess, start_in_process};
use index_provisioner::IndexProvisioner;
use store::{Objects, S3Options};
use testkit::World;
use wire::{
    Call, Code, Problem, Service,
    index_provisioner::{BindingName, IndexOptions, InstanceName, NewBinding, NewIndex},
    views::Role,
};

/// How long a call may take that begins while nobody leads yet.
const CALL_MAX: Duration = Duration::from_secs(40);
/// How long a call is repeated that cannot succeed.
const ATTEMPT_MAX: Duration = Duration::from_secs(3);
/// How often a reason is asked for.
const REFUSALS: usize = 5;

/// A world in which a provisioner runs.
pub(crate) struct Stage {
    pub(crate) host: Host,
    provisioner: InProcess,
    _world: World,
}

impl Stage {
    /// Starts one whose back-end is at an endpoint, with a key there.
    pub(crate) async fn begin(endpoint: &str, (key_id, secret): (&str, &str), set: &[&str]) -> Result<Self> {
        let world = World::start().await?;
        fs::create_dir_all(world.data_dir())?;
        let file = |name: &str, text: &str| -> Result<String> {
            let path = world.data_dir().join(name);
            fs::write(&path, text)?;
            Ok(format!("file:{}", path.display()))
        };
        let sealing = data_encoding::BASE64.encode(&[7; 32]);
        let mut all = vec![
            "common.lease_ttl=1s".to_owned(),
            format!("index_provisioner.s3.endpoint={endpoint}"),
            "index_provisioner.s3.region=eu-central-1".to_owned(),
            format!("index_provisioner.s3.access_key_id={}", file("s3.id", key_id)?),
            format!("index_provisioner.s3.access_secret={}", file("s3.secret", secret)?),
            format!("index_provisioner.sealing_keys={}", file("sealing.keys", &format!("k1:{sealing}"))?),
        ];
        all.extend(set.iter().map(|&one| one.to_owned()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let provisioner = start_in_process::<IndexProvisioner>(&world.settings("a", &all)?, None).await?;
        let host = Host::connect(Service::Gateway, world.common("test", &[])?).await?;
        Ok(Self { host, provisioner, _world: world })
    }

    pub(crate) async fn call<C: Call<Key = ()>>(&self, request: &C::Request) -> Result<C::Reply, Problem> {
        self.host.bus.call_within::<C>(&(), request, CALL_MAX).await
    }

    /// The same for a call that is not expected to succeed: the provisioner goes on with it afterwards.
    pub(crate) async fn attempt<C: Call<Key = ()>>(&self, request: &C::Request) -> Result<C::Reply, Problem> {
        self.host.bus.call_within::<C>(&(), request, ATTEMPT_MAX).await
    }

    /// Why it does not succeed. The last repeat inside a call may begin too late to be answered, then it is asked again.
    pub(crate) async fn refused<C: Call<Key = ()>>(&self, request: &C::Request) -> Problem {
        for _ in 0..REFUSALS {
            if let Err(problem) = self.attempt::<C>(request).await
                && problem.code != Code::Deadline
            {
                return problem;
            }
        }
        panic!("{} was never refused", C::NAME)
    }

    pub(crate) async fn end(self) -> Result<()> {
        Ok(self.provisioner.stop().await?)
    }
}

/// An index that keeps its objects for a week.
pub(crate) fn index(instance: &str, name: &str) -> NewIndex {
    NewIndex {
        instance: instance.parse().unwrap(),
        scope: "team".parse().unwrap(),
        index: Some(name.parse().unwrap()),
        backend: "s3".into(),
        segment_count: 0,
        retention_days: Some(7),
        options: IndexOptions::default(),
        order: 0,
    }
}

pub(crate) fn named(instance: &str) -> InstanceName {
    InstanceName { instance: instance.parse().unwrap(), order: 0 }
}

pub(crate) fn binding(instance: &str, binding: &str, role: Role) -> NewBinding {
    let (instance, binding) = (instance.parse().unwrap(), binding.parse().unwrap());
    NewBinding { instance, binding, role, ttl_seconds: None }
}

pub(crate) fn of(binding: &str) -> BindingName {
    BindingName { binding: binding.parse().unwrap(), instance: None }
}

/// A bucket as an application opens it with its credentials.
pub(crate) fn open(credentials: &BTreeMap<String, String>, bucket: &str) -> Objects {
    let options = S3Options {
        endpoint: Some(credentials["s3_endpoint"].clone()),
        region: credentials["s3_region"].clone(),
        key_id: credentials["s3_access_key_id"].clone(),
        secret: credentials["s3_secret_access_key"].clone(),
        allow_http: true,
        ..S3Options::default()
    };
    Objects::open_s3(&format!("s3://{bucket}"), options).unwrap()
}

//! Start, probes, drain and end of a service.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails where it should")]

mod tally;

use std::{
    process::Command as Shell,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix::System;
use host::{Host, Ledger, Running, Service, StartError, while_leading};
use serde::Deserialize;
use tally::{Command, Tally};
use testkit::{World, eventually};
use wire::views::{MEMBERS, Member};

/// The order in which things happened; one test at a time uses it.
static ORDER: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
static TURN: Mutex<()> = Mutex::new(());
static STUCK: AtomicBool = AtomicBool::new(false);

fn happened(what: &'static str) {
    ORDER.lock().unwrap().push(what);
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[allow(dead_code, reason = "read by the frame")]
    probe_address: String,
    webhook_attempts_max: u32,
    #[allow(dead_code, reason = "a key of the section")]
    webhook_timeout: String,
    #[allow(dead_code, reason = "a key of the section")]
    webhook_ca: String,
}

impl settings::Section for Config {
    const NAME: &'static str = "alerter";
}

struct Tallier;

impl Service for Tallier {
    const NAME: wire::Service = wire::Service::Alerter;
    type Config = Config;

    async fn start(config: Config, host: Host) -> Result<Running, StartError> {
        if config.webhook_attempts_max == 13 {
            return Err(StartError::other("13 is no number"));
        }
        let ledger = Ledger::<Tally>::start(&host).await?;
        let member = Member {
            service: Self::NAME,
            replica: host.replica.clone(),
            started: host.started(),
            exchange_address: None,
            slots: 0,
            unready: <_>::default(),
        };
        let member = host.announce(member).await?;
        // Not `Send`: what a service begins on its own thread stays there.
        let local = std::rc::Rc::new(std::cell::Cell::new(0));
        let counting = std::rc::Rc::clone(&local);
        let (own, leading) = (host.clone(), ledger.clone());
        host.spawn_local("leading", async move {
            while_leading(&leading, |token| {
                let (leading, own, counting) = (leading.clone(), own.clone(), std::rc::Rc::clone(&counting));
                async move {
                    counting.set(counting.get() + 1);
                    happened("doors open");
                    leading.submit(Command::Add(1)).await.unwrap();
                    token.cancelled().await;
                    // A command in flight while the doors close is still answered.
                    leading.submit(Command::Add(2)).await.unwrap();
                    assert_eq!(own.cpu(|| 6 * 7).await, 42);
                    happened("doors closed");
                }
            })
            .await;
        });
        Ok(Running::new(async move {
            happened("drain begins");
            if STUCK.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            member.withdraw().await;
            drop(local);
        }))
    }
}

fn in_world<T>(test: impl AsyncFnOnce(World) -> T) -> T {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    ORDER.lock().unwrap().clear();
    System::new().block_on(async { test(World::start().await.unwrap()).await })
}

fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn a_service_starts_answers_probes_and_drains_in_order() {
    in_world(async |world| {
        let address = free_address();
        let settings =
            world.settings("a", &[&format!("alerter.probe_address={address}"), "common.lease_ttl=1s"]).unwrap();
        let service = host::start_in_process::<Tallier>(&settings, None).await.unwrap();
        let host = service.host().clone();
        assert_eq!(host.replica.as_str(), "a");
        let ask = async |path: &str| {
            let answer = reqwest::get(format!("http://{address}/{path}")).await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        assert_eq!(ask("livez").await.0, 200);
        assert_eq!(ask("readyz").await, (200, r#"{"ready":true,"reasons":{}}"#.to_owned()));
        host.condition("index", Some("warming up".to_owned()));
        let (status, body) = ask("readyz").await;
        assert_eq!((status, body.as_str()), (503, r#"{"ready":false,"reasons":{"index":"warming up"}}"#));
        host.condition("index", None);
        eventually(Duration::from_secs(5), async || {
            ask("metrics").await.1.contains("lb_host_leader{service=\"alerter\"} 1")
        })
        .await;
        let members = host.bus.bucket(MEMBERS, Some(Duration::from_secs(1)), 1).await.unwrap();
        assert_eq!(members.list("alerter.").await.unwrap().len(), 1);
        // Longer than the entry would live without renewal.
        tokio::time::sleep(Duration::from_millis(1600)).await;
        assert_eq!(members.list("alerter.").await.unwrap().len(), 1);

        eventually(Duration::from_secs(5), async || ORDER.lock().unwrap().contains(&"doors open")).await;
        let objects = host.objects.clone();
        service.stop().await.unwrap();
        let order = ORDER.lock().unwrap().clone();
        assert_eq!(order.len(), 3, "{order:?}");
        assert_eq!(order[0], "doors open");
        assert!(order.contains(&"doors closed"), "{order:?}");
        assert_eq!(objects.list("snap/alerter", 10).await.unwrap().len(), 2, "the drain left a snapshot");
        let other = host::Host::connect(wire::Service::Alerter, world.common("b", &["common.lease_ttl=1s"]).unwrap())
            .await
            .unwrap();
        let ledger = Ledger::<Tally>::start(&other).await.unwrap();
        assert_eq!(ledger.read(|tally| tally.sum), 3, "what was in flight while the doors closed was done");
        eventually(Duration::from_secs(1), async || ledger.is_leader()).await;
        let members = other.bus.bucket(MEMBERS, Some(Duration::from_secs(1)), 1).await.unwrap();
        assert_eq!(members.list("alerter.").await.unwrap(), []);
        other.drain().await;
    });
}

#[test]
fn sigterm_drains_and_ends_without_an_error() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    ORDER.lock().unwrap().clear();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::start()).unwrap();
    let settings = world.settings("ignored", &[]).unwrap();
    let running = std::thread::spawn(move || host::run::<Tallier>(settings, Some("named".parse().unwrap())));
    runtime.block_on(eventually(Duration::from_secs(10), async || ORDER.lock().unwrap().contains(&"doors open")));
    assert!(world.data_dir().join("alerter/named").is_dir());
    let signalled =
        Shell::new("sh").args(["-c", "kill -TERM \"$0\"", &std::process::id().to_string()]).status().unwrap();
    assert!(signalled.success());
    running.join().unwrap().unwrap();
    assert!(ORDER.lock().unwrap().contains(&"doors closed"));
}

#[test]
fn a_service_that_cannot_work_ends_with_its_reason() {
    in_world(async |world| {
        let settings = world.settings("a", &["alerter.webhook_attempts_max=13"]).unwrap();
        let error = host::start_in_process::<Tallier>(&settings, None).await.err().unwrap();
        assert_eq!(error.to_string(), "13 is no number");

        let settings = world.settings("a", &["common.nats_creds=file:/no/such/file"]).unwrap();
        let error = host::start_in_process::<Tallier>(&settings, None).await.err().unwrap();
        assert!(error.to_string().contains("file:/no/such/file"), "{error}");

        let settings = world.settings("a", &["common.lease_ttl=1ms"]).unwrap();
        let error = host::start_in_process::<Tallier>(&settings, None).await.err().unwrap();
        assert!(matches!(error, StartError::Settings(_)), "{error}");

        let settings = world.settings("a", &[]).unwrap();
        let mut service = host::start_in_process::<Tallier>(&settings, None).await.unwrap();
        service.host().fail(StartError::other("the first reason"));
        service.host().fail(StartError::other("a later one"));
        service.ended().await;
        assert_eq!(service.stop().await.unwrap_err().to_string(), "the first reason");
    });
}

#[test]
fn a_drain_that_hangs_is_cut_off() {
    in_world(async |world| {
        let settings = world.settings("a", &[]).unwrap();
        let service = host::start_in_process::<Tallier>(&settings, None).await.unwrap();
        STUCK.store(true, Ordering::Relaxed);
        let begun = std::time::Instant::now();
        let error = service.stop().await.unwrap_err();
        STUCK.store(false, Ordering::Relaxed);
        assert!(matches!(error, StartError::DrainTimeout { .. }), "{error}");
        assert!(begun.elapsed() < host::DRAIN_MAX + Duration::from_secs(2));
    });
}

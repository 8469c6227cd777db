//! A service inside TLS: who gets in, and what happens to it while its certificate changes.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails where it should")]

use std::{
    error::Error,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actix::System;
use host::{Host, InProcess, Running, Service, StartError};
use serde::Deserialize;
use testkit::{Certificates, World, eventually};

/// Metrics belong to the process, so one test at a time has them.
static TURN: Mutex<()> = Mutex::new(());

#[derive(Deserialize)]
struct Config {}

impl settings::Section for Config {
    const NAME: &'static str = "alerter";
}

struct Idle;

impl Service for Idle {
    const NAME: wire::Service = wire::Service::Alerter;
    type Config = Config;

    async fn start(_config: Config, _host: Host) -> Result<Running, StartError> {
        Ok(Running::idle())
    }
}

fn in_world<T>(test: impl AsyncFnOnce(World) -> T) -> T {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    System::new().block_on(async { test(World::start_tls().await.unwrap()).await })
}

/// A client of that authority, with a fresh connection for each request.
fn client(authority: &Certificates) -> reqwest::Client {
    let tls = rustls::ClientConfig::clone(&authority.visitor().unwrap());
    let builder = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).tls_info(true);
    builder.pool_max_idle_per_host(0).build().unwrap()
}

fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// A service with probes, and where they are.
async fn started(world: &World) -> (InProcess, String) {
    let address = format!("127.0.0.1:{}", testkit::free_port().unwrap());
    let settings = world.settings("a", &[&format!("alerter.probe_address={address}")]).unwrap();
    let service = host::start_in_process::<Idle>(&settings, None).await.unwrap();
    (service, format!("https://localhost:{}", address.rsplit_once(':').unwrap().1))
}

#[test]
fn a_certificate_is_replaced_under_live_traffic_and_a_broken_one_is_not_taken() {
    in_world(async |world| {
        let (service, url) = started(&world).await;
        let certificates = world.certificates.as_ref().unwrap();
        let client = client(certificates);
        let ask = async |path: &str| {
            let answer = client.get(format!("{url}/{path}")).send().await.unwrap();
            let shown = answer.extensions().get::<reqwest::tls::TlsInfo>().unwrap();
            let shown = shown.peer_certificate().unwrap().to_vec();
            (shown, answer.text().await.unwrap())
        };
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let traffic = tokio::spawn({
            let (client, url, stop, asked) = (client.clone(), url.clone(), Arc::clone(&stop), Arc::clone(&asked));
            async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.get(format!("{url}/livez")).send().await;
                    assert_eq!(answer.map_err(|e| whole(&e)).unwrap().status(), 200);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let served = async || {
            let before = asked.load(Ordering::Relaxed);
            eventually(Duration::from_secs(5), async || asked.load(Ordering::Relaxed) > before + 5).await;
        };
        let (first, text) = ask("metrics").await;
        assert!(text.contains("lb_host_certificate_days{service=\"alerter\"} 3"), "thirty and a bit: {text}");
        served().await;
        certificates.renew_until(3).unwrap();
        eventually(Duration::from_secs(5), async || ask("livez").await.0 != first).await;
        let second = ask("livez").await.0;
        let days = "lb_host_certificate_days{service=\"alerter\"} 3\n";
        eventually(Duration::from_secs(5), async || ask("metrics").await.1.contains(days)).await;
        served().await;
        certificates.spoil().unwrap();
        eventually(Duration::from_secs(5), async || ask("readyz").await.1.contains("notes")).await;
        let (shown, ready) = ask("readyz").await;
        assert!(ready.contains("\"ready\":true") && ready.contains("certificate.pem"), "{ready}");
        assert_eq!(shown, second, "the former one is still in use");
        assert!(ask("metrics").await.1.contains("lb_host_certificate_changes_total{outcome=\"refused\"} 1"));
        served().await;
        certificates.renew().unwrap();
        eventually(Duration::from_secs(5), async || !ask("readyz").await.1.contains("notes")).await;
        let third = ask("livez").await.0;
        assert!(third != first && third != second);
        served().await;
        stop.store(true, Ordering::Relaxed);
        traffic.await.unwrap();
        service.stop().await.unwrap();
    });
}

#[test]
fn a_foreign_authority_is_refused_in_words_that_help() {
    in_world(async |world| {
        let (service, url) = started(&world).await;
        let (ours, foreign) = (world.certificates.as_ref().unwrap(), Certificates::make().unwrap());
        let refused = client(&foreign).get(format!("{url}/livez")).send().await.unwrap_err();
        let text = whole(&refused);
        assert!(
            text.contains("is not accepted") && text.contains("ca.pem") && text.contains("common.tls_ca"),
            "{text}"
        );
        let other_name = url.replace("localhost", "127.0.0.2");
        let text = whole(&client(ours).get(format!("{other_name}/livez")).send().await.unwrap_err());
        assert!(text.contains("127.0.0.2"), "{text}");
        let plain = reqwest::get(url.replace("https", "http")).await;
        assert!(plain.is_err(), "plain text is not answered");
        service.stop().await.unwrap();
    });
}

#[test]
fn nats_takes_nobody_whose_certificate_or_authority_is_another() {
    in_world(async |world| {
        let foreign = Certificates::make().unwrap();
        let ours = |name: &str| world.certificates.as_ref().unwrap().path(name).display().to_string();
        let theirs = |name: &str| foreign.path(name).display().to_string();
        let refused = async |set: &[String]| {
            let set: Vec<&str> = set.iter().map(String::as_str).collect();
            let begun = Instant::now();
            let common = world.common("b", &set).unwrap();
            let error = Host::connect(wire::Service::Alerter, common).await.err().expect("it was let in");
            (error.to_string(), begun.elapsed())
        };
        let (text, after) = refused(&[format!("common.tls_ca={}", theirs("ca.pem"))]).await;
        assert!(text.contains("is not accepted") && text.contains("common.tls_ca"), "{text}");
        assert!(after < Duration::from_secs(5), "waiting would not help: {after:?}");
        // What the system trusts does not sign for tests.
        let (text, _) = refused(&["common.tls_ca=".to_owned()]).await;
        assert!(text.contains("common.tls_ca"), "{text}");
        let pair = [
            format!("common.tls_certificate={}", theirs("certificate.pem")),
            format!("common.tls_key=file:{}", theirs("key.pem")),
        ];
        let (text, _) = refused(&pair).await;
        assert!(text.contains("common.tls_certificate"), "{text}");
        let (text, _) = refused(&["common.tls_certificate=".to_owned(), "common.tls_key=".to_owned()]).await;
        assert!(text.contains("common.tls_certificate"), "{text}");
        let mixed = [format!("common.tls_key=file:{}", theirs("key.pem"))];
        let (text, _) = refused(&mixed).await;
        assert!(text.contains("does not belong to the first certificate in"), "{text}");
        assert!(text.contains(&theirs("key.pem")) && text.contains(&ours("certificate.pem")), "{text}");
        let host = Host::connect(wire::Service::Alerter, world.common("b", &[]).unwrap()).await.unwrap();
        assert!(host.bus.is_connected() && host.tenants().await.unwrap().is_connected());
    });
}

#[test]
fn a_connection_to_nats_comes_back_with_the_certificate_of_the_moment() {
    in_world(async |mut world| {
        let (service, _) = started(&world).await;
        let bus = service.host().bus.clone();
        assert!(bus.is_connected());
        // Both sides move to another certificate of the same authority; the open connection does not notice.
        world.certificates.as_ref().unwrap().renew().unwrap();
        world.nats.reload().unwrap();
        eventually(Duration::from_secs(5), async || world.nats.log().contains("Reloaded")).await;
        assert!(bus.is_connected());
        world.nats.restart().await.unwrap();
        eventually(Duration::from_secs(8), async || bus.is_connected()).await;
        service.stop().await.unwrap();
    });
}

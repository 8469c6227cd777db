//! A service inside TLS: who gets in, and what happens to it while its certificate changes.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails where it should")]
#![allow(clippy::disallowed_methods, reason = "a test tells its child through the environment")]

use std::{
    error::Error,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actix::System;
use host::{Host, InProcess, Running, Service, StartError};
use serde::Deserialize;
use settings::{Layers, Settings};
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

/// What the page of metrics says of the certificate.
fn days_left(page: &str) -> i64 {
    let line = page.lines().find_map(|line| line.strip_prefix("lb_certificate_expires_seconds{service=\"alerter\"} "));
    line.unwrap().parse::<i64>().unwrap() / (24 * 3_600)
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
        assert!((30..33).contains(&days_left(&text)), "thirty and a bit: {text}");
        served().await;
        certificates.renew_until(3).unwrap();
        eventually(Duration::from_secs(5), async || ask("livez").await.0 != first).await;
        let second = ask("livez").await.0;
        eventually(Duration::from_secs(5), async || (3..6).contains(&days_left(&ask("metrics").await.1))).await;
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
fn the_authorities_of_one_setting_are_followed_like_those_of_the_process() {
    in_world(async |world| {
        let (service, url) = started(&world).await;
        let (ours, foreign) = (world.certificates.as_ref().unwrap(), Certificates::make().unwrap());
        let (host, file) = (service.host(), foreign.path("ca.pem"));
        let same = host.trusting("splunk.ca", "").unwrap();
        assert_eq!(same.files(), host.tls.files(), "nothing is named");
        let wrong = host.trusting("splunk.ca", "/none").unwrap_err().to_string();
        assert!(wrong.contains("splunk.ca") && wrong.contains("/none"), "{wrong}");
        let tls = host.trusting("splunk.ca", &file.display().to_string()).unwrap();
        let outward = rustls::ClientConfig::clone(&tls.outward());
        let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(outward).build().unwrap();
        let ask = async |path: &str| client.get(format!("{url}/{path}")).send().await;
        let text = whole(&ask("livez").await.unwrap_err());
        assert!(text.contains("neither one of the system's nor in"), "{text}");
        std::fs::copy(ours.path("ca.pem"), &file).unwrap();
        eventually(Duration::from_secs(5), async || ask("livez").await.is_ok()).await;
        std::fs::write(&file, "nonsense").unwrap();
        let ready = async || ask("readyz").await.unwrap().text().await.unwrap();
        eventually(Duration::from_secs(5), async || ready().await.contains("splunk.ca")).await;
        service.stop().await.unwrap();
    });
}

/// What tells a child which settings it connects with.
const CHILD: &str = "HOST_TLS_CHILD";

/// The authorities of the system are read once by a process: one of its own has others.
#[test]
fn a_certificate_is_shown_to_nats_also_where_the_system_vouches_for_the_server() {
    if let Ok(told) = std::env::var(CHILD) {
        let set = told.lines().map(str::to_owned).collect();
        let common = Settings::load(Layers { set, ..Layers::default() }).unwrap().section().unwrap();
        let connecting =
            async { Host::connect(wire::Service::Alerter, common).await.map(|host| host.bus.is_connected()) };
        return assert!(System::new().block_on(connecting).map_err(|error| error.to_string()).unwrap());
    }
    in_world(async |world| {
        let certificates = world.certificates.as_ref().unwrap();
        let at = |name: &str| certificates.path(name).display().to_string();
        let plain_scheme = world.nats.url().replacen("tls://", "nats://", 1);
        let shown = [
            format!("common.tls_certificate={}", at("certificate.pem")),
            format!("common.tls_key=file:{}", at("key.pem")),
        ];
        for (url, certificate, connects) in
            [(world.nats.url(), &shown[..], true), (plain_scheme, &shown[..], true), (world.nats.url(), &[][..], false)]
        {
            let mut set = vec![
                format!("common.nats_url={url}"),
                format!("common.nats_creds=file:{}", world.nats.secret_path("platform.creds").display()),
                format!("common.object_store_url={}", world.objects_url()),
            ];
            set.extend_from_slice(certificate);
            let mut child = Command::new(std::env::current_exe().unwrap());
            let test = "a_certificate_is_shown_to_nats_also_where_the_system_vouches_for_the_server";
            child.args(["--exact", test]).env(CHILD, set.join("\n")).env("SSL_CERT_FILE", at("ca.pem"));
            let output = child.output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(output.status.success(), connects, "{url} {certificate:?}: {text}");
            assert!(connects || text.contains("common.tls_certificate"), "{text}");
        }
    });
}

#[test]
fn who_names_authorities_speaks_nothing_but_tls_and_who_has_a_certificate_alone_speaks_both() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    System::new().block_on(async {
        let (world, certificates) = (World::start().await.unwrap(), Certificates::make().unwrap());
        let all = certificates.settings();
        let set: Vec<&str> = all.iter().map(String::as_str).filter(|one| !one.starts_with("common.tls_ca")).collect();
        let host = Host::connect(wire::Service::Alerter, world.common("a", &set).unwrap()).await.unwrap();
        assert!(host.bus.is_connected() && host.tenants().await.unwrap().is_connected());
        let set: Vec<&str> = all.iter().map(String::as_str).collect();
        let refused = Host::connect(wire::Service::Alerter, world.common("b", &set).unwrap()).await;
        let text = refused.err().expect("the server speaks plain text").to_string();
        assert!(text.contains("does not speak TLS") && text.contains("common.tls_ca"), "{text}");
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

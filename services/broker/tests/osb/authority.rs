//! TLS as a service catalog checks it: by the authority in `caBundle`, under the name of the Service.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::Result;
use bus::SystemClock;
use reqwest::Client;
use testkit::{
    eventually,
    tls::{Authority, Files, Tls},
};
use types::Clock;

use crate::{Fixture, SOON};

const SERVICE: &str = "broker.logboom.svc";

/// A client that trusts one authority, and finds every name on loopback.
fn client(ca: &Path, name: &str, address: SocketAddr) -> Client {
    let tls = Tls::open(Files { ca: Some(ca.to_owned()), ..Files::default() }).unwrap().client().unwrap();
    let builder = Client::builder().no_proxy().resolve(name, address).pool_max_idle_per_host(0);
    builder.tls_backend_preconfigured(rustls::ClientConfig::clone(&tls)).build().unwrap()
}

#[actix_rt::test]
async fn the_authority_of_the_bundle_vouches_for_the_name_of_the_service() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name);
    let (ours, other) = (Authority::generate(SystemClock.now())?, Authority::generate(SystemClock.now())?);
    // As `logboom keys tls` is told to in a cluster.
    let issued = ours.issue(&["*.logboom.svc".to_owned()], SystemClock.now(), 30)?;
    fs::write(at("ca.pem"), ours.certificate())?;
    fs::write(at("other.pem"), other.certificate())?;
    fs::write(at("certificate.pem"), issued.certificate)?;
    fs::write(at("key.pem"), issued.key)?;
    let (certificate, key) = (at("certificate.pem").display().to_string(), at("key.pem").display().to_string());
    let set = [format!("common.tls_certificate={certificate}"), format!("common.tls_key=file:{key}")];
    let f = Fixture::start_with(None, &set.each_ref().map(String::as_str)).await?;
    let address: SocketAddr = f.url(0).trim_start_matches("http://").parse()?;
    let ask = async |ca: &str, name: &str| {
        let url = format!("https://{name}:{}/v2/catalog", address.port());
        let request = client(&at(ca), name, address).get(url).basic_auth("admin", Some("open sesame"));
        request.header("X-Broker-API-Version", "2.17").send().await.map(|answer| answer.status().as_u16())
    };
    eventually(SOON, async || ask("ca.pem", SERVICE).await.is_ok()).await;
    assert_eq!(ask("ca.pem", SERVICE).await?, 200);
    // Neither another name nor another authority, and nothing without TLS.
    for (ca, name) in [("ca.pem", "broker.elsewhere.svc"), ("ca.pem", "localhost"), ("other.pem", SERVICE)] {
        assert!(ask(ca, name).await.unwrap_err().is_connect(), "{ca} {name}");
    }
    assert!(f.request(0, "GET", "/v2/catalog").send().await.is_err());
    f.stop().await
}

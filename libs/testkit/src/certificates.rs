//! Certificates of a test: an authority of its own, and files as services read them.

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use bus::{SystemClock, keys::TlsSpec};
use rustls::ClientConfig;
use tempfile::TempDir;
use tls::{Authority, Files, Tls};
use types::Clock;

/// Days that a certificate of a test lives.
const LIFE_DAYS: u32 = 30;

/// A directory with `ca.pem`, `certificate.pem` and `key.pem` for loopback; it goes with this value.
#[derive(Debug)]
pub struct Certificates {
    authority: Authority,
    dir: TempDir,
}

impl Certificates {
    /// A fresh authority and its first certificate.
    pub fn make() -> Result<Self> {
        let authority = Authority::generate(SystemClock.now())?;
        let made = Self { authority, dir: tempfile::Builder::new().prefix("lb-tls-").tempdir()? };
        fs::write(made.path("ca.pem"), made.authority.certificate())?;
        made.renew()?;
        Ok(made)
    }

    /// Writes another certificate of the same authority over the one that is there.
    pub fn renew(&self) -> Result<()> {
        self.renew_until(LIFE_DAYS)
    }

    /// The same for one that lives so many days.
    pub fn renew_until(&self, days: u32) -> Result<()> {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let issued = self.authority.issue(&names, SystemClock.now(), days)?;
        fs::write(self.path("certificate.pem"), issued.certificate)?;
        Ok(fs::write(self.path("key.pem"), issued.key)?)
    }

    /// Puts nonsense in the place of the certificate.
    pub fn spoil(&self) -> Result<()> {
        Ok(fs::write(self.path("certificate.pem"), "not a certificate")?)
    }

    /// One of the files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Certificate, key and authority, as a process holds them.
    pub fn tls(&self) -> Result<Tls> {
        let at = |name: &str| Some(self.path(name));
        Ok(Tls::open(Files { certificate: at("certificate.pem"), key: at("key.pem"), ca: at("ca.pem") })?)
    }

    /// For a client that trusts the authority and has no certificate of its own.
    pub fn visitor(&self) -> Result<Arc<ClientConfig>> {
        let tls = Tls::open(Files { ca: Some(self.path("ca.pem")), ..Files::default() })?;
        tls.client().context("an authority makes a client")
    }

    /// For a nats-server that asks its clients for their certificates.
    pub fn server(&self) -> TlsSpec {
        let at = |name: &str| self.path(name).display().to_string();
        TlsSpec { certificate: at("certificate.pem"), key: at("key.pem"), clients_of: Some(at("ca.pem")) }
    }

    /// As settings, `section.key=value`.
    pub fn settings(&self) -> [String; 4] {
        let at = |name: &str| self.path(name).display().to_string();
        [
            format!("common.tls_certificate={}", at("certificate.pem")),
            format!("common.tls_key=file:{}", at("key.pem")),
            format!("common.tls_ca={}", at("ca.pem")),
            "common.tls_reload_interval=100ms".to_owned(),
        ]
    }
}

//! A private authority: what signs the certificates of development and tests, or of an installation that has no other.

use std::{fmt, time::Duration};

use der::pem::LineEnding;
use jiff::tz::TimeZone;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use types::Timestamp;

use crate::{TlsError, provider, validity::facts};

/// How long an authority lives: longer than anybody keeps a private one.
const AUTHORITY_DAYS: u32 = 3_650;
/// Clocks of the other side may be behind.
const BACKDATED: Duration = Duration::from_secs(24 * 3_600);
/// One name for all: who it is tells its key.
const NAME: &str = "Logboom private authority";

/// An authority of our own; shows nothing of its key.
pub struct Authority {
    certificate: String,
    key: KeyPair,
}

/// A certificate and its key, both as PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Authority {
    /// A fresh one that lives for ten years.
    pub fn generate(now: Timestamp) -> Result<Self, TlsError> {
        let key = KeyPair::generate().map_err(TlsError::make)?;
        let mut params = own_params()?;
        dated(&mut params, now, AUTHORITY_DAYS)?;
        let certificate = params.self_signed(&key).map_err(TlsError::make)?;
        Ok(Self { certificate: pem("CERTIFICATE", certificate.der())?, key })
    }

    /// One that [`Authority::generate`] made; the first certificate of the text counts.
    ///
    /// Errors: `Make` if it is damaged, or another program's.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(TlsError::make)?;
        let key = KeyPair::try_from(&key).map_err(TlsError::make)?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(TlsError::make)?;
        let own = Self { certificate: pem("CERTIFICATE", &der)?, key };
        let probe = own.issue(&["localhost".to_owned()], end_of(&der)? - BACKDATED, 1)?;
        // What it signs must lead back to the certificate that others trust.
        if !own.vouches(&probe.certificate, &["localhost".to_owned()], end_of(&der)? - BACKDATED) {
            return Err(TlsError::make("the authority's certificate and key were not made by this program as a pair"));
        }
        Ok(own)
    }

    /// Its certificate as PEM: what others are told to trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its private key as PEM: whoever has it can be anybody.
    pub fn key(&self) -> Result<String, TlsError> {
        pem("PRIVATE KEY", self.key.serialized_der())
    }

    /// When it ends.
    pub fn expires(&self) -> Result<Timestamp, TlsError> {
        end_of(&CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(TlsError::make)?)
    }

    /// Makes a certificate for both ends of connections under these host names and addresses, for so many days from now on.
    ///
    /// Errors: `Make` for what is no name.
    pub fn issue(&self, names: &[String], now: Timestamp, days: u32) -> Result<Issued, TlsError> {
        if names.is_empty() {
            return Err(TlsError::make("it is for no name: give at least one"));
        }
        let key = KeyPair::generate().map_err(TlsError::make)?;
        let mut params =
            CertificateParams::new(names).map_err(|error| TlsError::make(format!("{names:?}: {error}")))?;
        dated(&mut params, now, days)?;
        params.distinguished_name = named("logboom");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let own = own_params()?;
        let issuer = Issuer::from_params(&own, &self.key);
        let certificate = params.signed_by(&key, &issuer).map_err(TlsError::make)?;
        Ok(Issued {
            certificate: pem("CERTIFICATE", certificate.der())?,
            key: pem("PRIVATE KEY", key.serialized_der())?,
        })
    }

    /// Whether a certificate is ours, for every one of these names, and valid at that time.
    pub fn vouches(&self, certificate: &str, names: &[String], at: Timestamp) -> bool {
        let check = || {
            let own = CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()?;
            let other = CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?;
            let mut roots = RootCertStore::empty();
            roots.add(own).ok()?;
            let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider()).build().ok()?;
            let at = UnixTime::since_unix_epoch(at.since(Timestamp::from_nanos(0)));
            let good = |name: &String| {
                let name = ServerName::try_from(covered(name)).ok()?;
                Some(verifier.verify_server_cert(&other, &[], &name, &[], at).is_ok())
            };
            Some(names.iter().all(|name| good(name) == Some(true)))
        };
        check() == Some(true)
    }
}

/// The name itself, or one that the wildcard covers.
fn covered(name: &str) -> String {
    name.strip_prefix("*.").map_or_else(|| name.to_owned(), |domain| format!("any.{domain}"))
}

fn own_params() -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(Vec::new()).map_err(TlsError::make)?;
    params.distinguished_name = named(NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut all = DistinguishedName::new();
    all.push(DnType::CommonName, name);
    all
}

/// From yesterday to a midnight after so many days: whole days are all that a certificate needs.
fn dated(params: &mut CertificateParams, now: Timestamp, days: u32) -> Result<(), TlsError> {
    let life = Duration::from_secs(u64::from(days) * 24 * 3_600);
    let midnight = |at: Timestamp| {
        let date = jiff::Timestamp::from_millisecond(at.millis()).map_err(TlsError::make)?.to_zoned(TimeZone::UTC);
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        Ok::<_, TlsError>(date_time_ymd(date.year().into(), month, day))
    };
    params.not_before = midnight(now - BACKDATED)?;
    params.not_after = midnight(now + life + BACKDATED)?;
    Ok(())
}

fn end_of(certificate: &[u8]) -> Result<Timestamp, TlsError> {
    Ok(facts(certificate).map_err(TlsError::make)?.validity.ends)
}

fn pem(label: &str, der: &[u8]) -> Result<String, TlsError> {
    der::pem::encode_string(label, LineEnding::LF, der).map_err(TlsError::make)
}

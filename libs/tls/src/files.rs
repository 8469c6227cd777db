//! From the bytes of files to what a handshake uses.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    Error, InconsistentKeys, RootCertStore,
    client::WebPkiServerVerifier,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

use crate::{
    TlsError, Validity,
    outward::Outward,
    provider,
    validity::{Facts, facts},
};

/// The largest file that is read; all authorities of the web together take a quarter of it.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a process finds its certificate chain, key and authorities; a certificate goes with a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// The certificate chain, the process's own certificate first.
    pub certificate: Option<PathBuf>,
    /// The key of the first certificate.
    pub key: Option<PathBuf>,
    /// The authorities that are trusted.
    pub ca: Option<PathBuf>,
}

/// What the files held at one look; compared as a whole, for a file may be another one under the same name and date.
#[derive(PartialEq, Eq)]
pub(crate) struct Contents {
    certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    ca: Option<Vec<u8>>,
}

/// What handshakes use.
#[derive(Clone)]
pub(crate) struct Material {
    pub(crate) identity: Option<Arc<CertifiedKey>>,
    /// Who signed the certificates of the chain.
    pub(crate) issuers: Vec<Vec<u8>>,
    /// Of the certificate in the chain that ends first.
    pub(crate) validity: Option<Validity>,
    pub(crate) trust: Option<Trust>,
    pub(crate) outward: Arc<Outward>,
}

/// Whom we believe.
#[derive(Clone)]
pub(crate) struct Trust {
    pub(crate) servers: Arc<WebPkiServerVerifier>,
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
}

impl Files {
    pub(crate) fn read(&self) -> Result<Contents, TlsError> {
        let read = |path: &Option<PathBuf>| path.as_deref().map(read).transpose();
        Ok(Contents { certificate: read(&self.certificate)?, key: read(&self.key)?, ca: read(&self.ca)? })
    }

    pub(crate) fn parse(&self, contents: &Contents) -> Result<Material, TlsError> {
        let named = match (&self.ca, &contents.ca) {
            (Some(path), Some(ca)) => certificates(path, ca, "certificates of authorities")?,
            _ => Vec::new(),
        };
        let outward = Arc::new(Outward::new(named.clone()));
        let mut material = Material { identity: None, issuers: Vec::new(), validity: None, trust: None, outward };
        if let (Some(path), Some(chain)) = (&self.certificate, &contents.certificate) {
            let key = self.key.as_deref().zip(contents.key.as_deref());
            let (key_path, key) = key.ok_or_else(|| TlsError::setup("a certificate needs its key"))?;
            let chain = certificates(path, chain, "certificate chain")?;
            let chain_facts: Result<Vec<Facts>, _> = chain.iter().map(|one| facts(one)).collect();
            let chain_facts = chain_facts.map_err(|error| malformed(path, error))?;
            material.validity = chain_facts.iter().map(|one| one.validity).min_by_key(|validity| validity.ends);
            material.issuers = chain_facts.into_iter().map(|one| one.issuer).collect();
            material.identity = Some(Arc::new(identity(path, chain, key_path, key)?));
        }
        if let Some(path) = &self.ca {
            material.trust = Some(trust(path, named)?);
        }
        Ok(material)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |reason: String| TlsError::Unreadable { path: path.to_owned(), reason };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(failed(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn malformed(path: &Path, reason: impl std::fmt::Display) -> TlsError {
    TlsError::Malformed { path: path.to_owned(), reason: reason.to_string() }
}

fn certificates(path: &Path, pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| malformed(path, error))?;
    if all.is_empty() {
        return Err(TlsError::Missing { path: path.to_owned(), what });
    }
    Ok(all)
}

fn identity(
    path: &Path,
    chain: Vec<CertificateDer<'static>>,
    key_path: &Path,
    key: &[u8],
) -> Result<CertifiedKey, TlsError> {
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            TlsError::Missing { path: key_path.to_owned(), what: "private key" }
        }
        other => malformed(key_path, other),
    })?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::Mismatch { certificate: path.to_owned(), key: key_path.to_owned() }
        }
        Error::InvalidCertificate(_) => malformed(path, error),
        other => malformed(key_path, other),
    })
}

fn trust(path: &Path, authorities: Vec<CertificateDer<'static>>) -> Result<Trust, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| malformed(path, error))?;
    }
    let roots = Arc::new(roots);
    let servers = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots, provider());
    Ok(Trust { servers: servers.build().map_err(TlsError::setup)?, clients: clients.build().map_err(TlsError::setup)? })
}

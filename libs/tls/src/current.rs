//! What a process shows and whom it trusts, at this moment.

use std::{fmt, sync::Arc};

use parking_lot::{Mutex, RwLock};
use rustls::{
    ClientConfig, ServerConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};
use types::Timestamp;

use crate::{
    Files, TlsError, Validity,
    files::{Contents, Material},
    provider,
    verify::{Verifier, Whom},
};

/// Certificate, key and authorities of a process; clones share them.
///
/// The configurations that it gives stay the same; what they use is what the files held when they were last good.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    files: Files,
    current: Arc<Current>,
    contents: Mutex<Contents>,
    server: Option<Arc<ServerConfig>>,
    client: Option<Arc<ClientConfig>>,
    outward: Arc<ClientConfig>,
    peers: Option<Peers>,
}

/// Both ends of a connection on which each shows a certificate of an authority that the other trusts.
///
/// Names are not compared: peers know each other by address, and what else they must prove is theirs to say. Sessions are
/// not resumed, so that an authority that is no longer trusted is out at the next connection.
#[derive(Debug, Clone)]
pub struct Peers {
    /// For whoever listens.
    pub server: Arc<ServerConfig>,
    /// For whoever dials.
    pub client: Arc<ClientConfig>,
}

/// What handshakes look up.
pub(crate) struct Current(RwLock<Material>);

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").field("validity", &self.0.read().validity).finish_non_exhaustive()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.0.files).finish()
    }
}

impl Current {
    pub(crate) fn material(&self) -> Material {
        self.0.read().clone()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().identity.clone()
    }
}

impl ResolvesClientCert for Current {
    /// Shown to whoever asks for any certificate, or for one that an authority of ours has signed: a server that is nobody of ours
    /// and asks its own people only would hang up on it.
    fn resolve(&self, hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let material = self.0.read();
        let wanted = hints.is_empty() || material.issuers.iter().any(|issuer| hints.contains(&issuer.as_slice()));
        material.identity.clone().filter(|_| wanted)
    }

    fn has_certs(&self) -> bool {
        self.0.read().identity.is_some()
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// Errors: whatever is wrong with one of them, in words for whoever wrote it.
    pub fn open(files: Files) -> Result<Self, TlsError> {
        if files.certificate.is_some() != files.key.is_some() {
            return Err(TlsError::setup("a certificate goes with its key: name both files, or neither"));
        }
        let contents = files.read()?;
        let current = Arc::new(Current(RwLock::new(files.parse(&contents)?)));
        let server = files.certificate.is_some().then(|| server(&current)).transpose()?;
        let named = files.ca.as_ref().map(|_| client(&files, &current, Whom::Named)).transpose()?;
        let outward = client(&files, &current, Whom::Anybody)?;
        let both = files.certificate.is_some() && files.ca.is_some();
        let peers = both.then(|| peers(&files, &current)).transpose()?;
        let contents = Mutex::new(contents);
        Ok(Self(Arc::new(Inner { files, current, contents, server, client: named, outward, peers })))
    }

    /// Looks at the files again; true if something changed, which every handshake from now on uses.
    ///
    /// Blocks on the file system. Errors: what is wrong with the new files; what was read before stays in use.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let inner = &self.0;
        let contents = inner.files.read()?;
        let mut known = inner.contents.lock();
        if *known == contents {
            return Ok(false);
        }
        let material = inner.files.parse(&contents)?;
        *inner.current.0.write() = material;
        *known = contents;
        Ok(true)
    }

    /// When the certificate, or one of its chain, ends; `None` without a certificate.
    pub fn expires(&self) -> Option<Timestamp> {
        self.validity().map(|validity| validity.ends)
    }

    /// The life of the certificate in the chain that ends first; `None` without a certificate.
    pub fn validity(&self) -> Option<Validity> {
        self.0.current.0.read().validity
    }

    /// Where it all comes from.
    pub fn files(&self) -> &Files {
        &self.0.files
    }

    /// For listeners that anybody may talk to; `None` without a certificate.
    pub fn server(&self) -> Option<Arc<ServerConfig>> {
        self.0.server.clone()
    }

    /// For connections to servers whose certificates our authorities signed; shows our certificate when asked. `None` without
    /// authorities.
    pub fn client(&self) -> Option<Arc<ClientConfig>> {
        self.0.client.clone()
    }

    /// For connections to whoever is not of the installation: believes the authorities of the system and those that are named
    /// besides; shows our certificate to servers that ask for it.
    ///
    /// The system's are read at the first handshake, and again with files that changed.
    pub fn outward(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0.outward)
    }

    /// For connections among equals; `None` without a certificate or without authorities.
    pub fn peers(&self) -> Option<Peers> {
        self.0.peers.clone()
    }
}

fn verifier(files: &Files, current: &Arc<Current>, whom: Whom) -> Arc<Verifier> {
    Arc::new(Verifier { current: Arc::clone(current), provider: provider(), ca: files.ca.clone(), whom })
}

fn server(current: &Arc<Current>) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let shown: Arc<dyn ResolvesServerCert> = Arc::clone(current) as _;
    Ok(Arc::new(builder.map_err(TlsError::setup)?.with_no_client_auth().with_cert_resolver(shown)))
}

fn client(files: &Files, current: &Arc<Current>, whom: Whom) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let shown: Arc<dyn ResolvesClientCert> = Arc::clone(current) as _;
    let mut config = builder
        .map_err(TlsError::setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier(files, current, whom))
        .with_client_cert_resolver(shown);
    // A resumed session would not look at the certificate again.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn peers(files: &Files, current: &Arc<Current>) -> Result<Peers, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let shown: Arc<dyn ResolvesServerCert> = Arc::clone(current) as _;
    let mut server = builder
        .map_err(TlsError::setup)?
        .with_client_cert_verifier(verifier(files, current, Whom::Peers))
        .with_cert_resolver(shown);
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Peers { server: Arc::new(server), client: client(files, current, Whom::Peers)? })
}

//! Whom we believe outside of the installation: the authorities of the system, and those that are named besides.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use rustls::{Error, RootCertStore, client::WebPkiServerVerifier, pki_types::CertificateDer};
use rustls_native_certs::{CertificateResult, load_native_certs};

use crate::provider;

/// Made when the first certificate is looked at: the system's list is long, and many a process never calls anybody outside.
pub(crate) struct Outward {
    named: Vec<CertificateDer<'static>>,
    verifier: Mutex<Option<Arc<WebPkiServerVerifier>>>,
}

impl fmt::Debug for Outward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outward").field("named", &self.named.len()).finish_non_exhaustive()
    }
}

impl Outward {
    pub(crate) fn new(named: Vec<CertificateDer<'static>>) -> Self {
        Self { named, verifier: Mutex::default() }
    }

    /// Blocks on the file system until the system's list could be read once. Errors: nobody is trusted, and why.
    pub(crate) fn verifier(&self) -> Result<Arc<WebPkiServerVerifier>, Error> {
        self.verifier_with(load_native_certs)
    }

    fn verifier_with(&self, load: impl FnOnce() -> CertificateResult) -> Result<Arc<WebPkiServerVerifier>, Error> {
        let mut known = self.verifier.lock();
        if let Some(verifier) = &*known {
            return Ok(Arc::clone(verifier));
        }
        let system = load();
        let reasons = system.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let was_read = reasons.is_empty() || !system.certs.is_empty();
        if !was_read {
            tracing::warn!(%reasons, "the system's authorities cannot be read, it is tried again at the next connection");
        }
        let mut roots = RootCertStore::empty();
        // A system's list may hold what no program of today reads; the others are good.
        roots.add_parsable_certificates(system.certs);
        roots.add_parsable_certificates(self.named.iter().cloned());
        let made = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        let made = made.map_err(|error| {
            Error::General(format!("the system has no authorities and the settings name none: {error}; {reasons}"))
        })?;
        if was_read {
            *known = Some(Arc::clone(&made));
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::pki_types::pem::PemObject;
    use rustls_native_certs::{Error as Unread, ErrorKind};
    use types::Timestamp;

    use super::*;
    use crate::Authority;

    fn authority() -> CertificateDer<'static> {
        let authority = Authority::generate(Timestamp::from_millis(1_800_000_000_000)).unwrap();
        CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()
    }

    fn read(certs: Vec<CertificateDer<'static>>, is_broken: bool) -> CertificateResult {
        let mut read = CertificateResult::default();
        read.certs.extend(certs);
        if is_broken {
            let kind = ErrorKind::Io { inner: io::Error::other("no file is left"), path: "/list".into() };
            read.errors.push(Unread { context: "a test", kind });
        }
        read
    }

    #[test]
    fn a_list_that_could_not_be_read_is_read_again() {
        for named in [vec![], vec![authority()]] {
            let outward = Outward::new(named.clone());
            // Those that are named are believed meanwhile.
            let first = outward.verifier_with(|| read(vec![], true));
            assert_eq!(first.is_ok(), !named.is_empty());
            if let Err(error) = first {
                assert!(error.to_string().contains("no file is left"), "{error}");
            }
            // One unreadable entry among others changes nothing.
            let second = outward.verifier_with(|| read(vec![authority()], true)).unwrap();
            let third = outward.verifier_with(|| panic!("it is known")).unwrap();
            assert!(Arc::ptr_eq(&second, &third));
        }
    }
}

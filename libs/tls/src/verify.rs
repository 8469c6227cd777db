//! Who the other side is, against the authorities of the moment, and in words when it is not trusted.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use crate::{current::Current, files::Trust};

/// Who may be at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// Whoever has the name that was dialled from a named authority.
    Named,
    /// Whoever has any name from a named authority.
    Peers,
    /// Whoever has the name that was dialled from a named authority or from one of the system's.
    Anybody,
}

/// Looks at certificates of others.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) current: Arc<Current>,
    pub(crate) provider: Arc<CryptoProvider>,
    /// Where the authorities are; told to whoever must add one.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) whom: Whom,
}

impl Verifier {
    fn trust(&self) -> Result<Trust, Error> {
        self.current.material().trust.ok_or_else(|| Error::General("no authority is trusted".to_owned()))
    }

    fn servers(&self) -> Result<Arc<WebPkiServerVerifier>, Error> {
        match self.whom {
            Whom::Named | Whom::Peers => Ok(self.trust()?.servers),
            Whom::Anybody => self.current.material().outward.verifier(),
        }
    }

    /// The authorities that are believed, in words.
    fn authorities(&self) -> String {
        let file = self.ca.as_ref().map(|path| path.display().to_string());
        match (self.whom, file) {
            (Whom::Named | Whom::Peers, file) => format!("is not in {}", file.unwrap_or_default()),
            (Whom::Anybody, Some(file)) => format!("is neither one of the system's nor in {file}"),
            (Whom::Anybody, None) => "is none of the system's".to_owned(),
        }
    }

    /// Where one more is named; a file outside may be that of another setting.
    fn remedy(&self) -> &'static str {
        match (self.whom, &self.ca) {
            (Whom::Anybody, Some(_)) => "add that authority to this file",
            (Whom::Anybody, None) => {
                "name the file of that authority in common.tls_ca, for webhooks in alerter.webhook_ca"
            }
            (Whom::Named | Whom::Peers, _) => "add that authority to the file of common.tls_ca",
        }
    }

    fn explained(&self, error: Error) -> Error {
        let Error::InvalidCertificate(reason) = &error else { return error };
        let words = match reason {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "it was signed by an authority that {}; {}, or give the other side a certificate of an authority that is believed",
                self.authorities(),
                self.remedy()
            ),
            CertificateError::NotValidForNameContext { expected, presented } => format!(
                "it is not for {name}, but for {}; use one of these names, or make a certificate for {name} \
                 (`logboom keys tls --host {name}`)",
                presented.join(", "),
                name = expected.to_str(),
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "it has expired; renew it there, which needs no restart".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "it is not valid yet; compare the clocks of both sides".to_owned()
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "it is not for this end of a connection; it needs the extended key usages serverAuth and clientAuth"
                    .to_owned()
            }
            _ => return error,
        };
        Error::Other(OtherError(Arc::new(Untrusted(words))))
    }
}

/// Why the other side is not believed, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("the certificate of the other side is not accepted: {0}")]
struct Untrusted(String);

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let servers = self.servers()?;
        match servers.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is the last thing that is looked at, so the chain is good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.whom == Whom::Peers => Ok(ServerCertVerified::assertion()),
            other => other.map_err(|error| self.explained(error)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    /// No hints: the list would have to outlive a change of the authorities.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let clients = self.trust()?.clients;
        clients.verify_client_cert(end_entity, intermediates, now).map_err(|error| self.explained(error))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

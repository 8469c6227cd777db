//! Certificates: read from files, used by both ends of a connection, replaced without a restart.
//!
//! Owns the certificate chain, key and authorities of a process ([`Tls`]): the configurations of both ends of a connection are
//! made once, and whatever the files hold at the moment is what the next connection uses. Also owns the private authority
//! of development and tests ([`Authority`]).
//! Deliberately does not know: settings, sockets, when to look at the files again, or what a connection is for.
//!
//! ```
//! use tls::{Authority, Files, Tls};
//! use types::Timestamp;
//!
//! # let dir = tempfile::tempdir()?;
//! # let now = Timestamp::from_millis(1_800_000_000_000);
//! let authority = Authority::generate(now)?;
//! let issued = authority.issue(&["localhost".into(), "127.0.0.1".into()], now, 90)?;
//! let at = |name: &str| dir.path().join(name);
//! std::fs::write(at("ca.pem"), authority.certificate())?;
//! std::fs::write(at("certificate.pem"), &issued.certificate)?;
//! std::fs::write(at("key.pem"), &issued.key)?;
//!
//! let files = Files { certificate: Some(at("certificate.pem")), key: Some(at("key.pem")), ca: Some(at("ca.pem")) };
//! let tls = Tls::open(files)?;
//! assert!(tls.server().is_some() && tls.client().is_some() && tls.peers().is_some());
//! assert!(tls.expires() > Some(now));
//! assert!(!tls.reload()?, "nothing has changed");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod authority;
mod current;
mod error;
mod files;
mod outward;
mod validity;
mod verify;

pub use authority::{Authority, Issued};
pub use current::{Peers, Tls};
pub use error::TlsError;
pub use files::{FILE_BYTES_MAX, Files};
pub use validity::Validity;

/// The one provider of the house.
fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
mod tests;

//! Why a service does not start, or ends by itself.

/// A reason to end; each says what a person can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings are wrong.
    #[error("settings are not valid:\n{0}")]
    Settings(#[from] settings::Findings),
    /// A secret cannot be read from where the settings say.
    #[error("secret {reference} cannot be read: {reason}")]
    Secret {
        /// The reference, never the secret.
        reference: String,
        /// Why.
        reason: String,
    },
    /// NATS cannot be used.
    #[error(transparent)]
    Bus(#[from] bus::BusError),
    /// A bucket of NATS cannot be used.
    #[error(transparent)]
    Bucket(#[from] bus::BucketError),
    /// A certificate, its key or an authority cannot be used.
    #[error("certificates of common.tls_certificate, tls_key and tls_ca: {0}")]
    Tls(#[from] tls::TlsError),
    /// Object storage cannot be used.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// A call that is needed to start failed.
    #[error(transparent)]
    Problem(#[from] wire::Problem),
    /// The state cannot be restored without losing something; nothing was changed.
    #[error("journal of {service}: {reason}")]
    Refused {
        /// Whose state.
        service: wire::Service,
        /// What is missing and what can be done.
        reason: String,
    },
    /// An address cannot be listened on.
    #[error("address {address:?} cannot be used: {source}")]
    Address {
        /// The address as set.
        address: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The operating system refuses something else.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The service's own reason.
    #[error("{0}")]
    Other(String),
    /// Draining took longer than allowed; what was in flight was cut off.
    #[error("drain of {service} took longer than {}s and was cut off", crate::DRAIN_MAX.as_secs())]
    DrainTimeout {
        /// Whose drain.
        service: wire::Service,
    },
}

impl StartError {
    /// The service's own reason, from any error or text.
    pub fn other(reason: impl std::fmt::Display) -> Self {
        Self::Other(reason.to_string())
    }
}

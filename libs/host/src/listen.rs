//! Where a service listens: inside TLS when the process has a certificate, in plain text with a warning when others can reach it.

use std::net::SocketAddr;

use rustls::ServerConfig;

use crate::Host;

impl Host {
    /// What an HTTP server binds with, so that it shows the certificate of the moment; `None` without a certificate.
    pub fn https(&self) -> Option<ServerConfig> {
        self.tls.server().map(|config| ServerConfig::clone(&config))
    }

    /// Tells what listens where; a listener that speaks plain text beyond this host is warned of, with the setting that helps.
    pub fn listens(&self, what: &'static str, bound: SocketAddr) {
        let tls = self.tls.server().is_some();
        tracing::info!(service = %self.service, what, address = %bound, tls, "listener is open");
        if is_exposed(tls, bound) {
            tracing::warn!(
                service = %self.service, what, address = %bound,
                "listener speaks plain text beyond this host, common.tls_certificate gives it TLS"
            );
        }
    }
}

/// Whether others can read what goes over it.
fn is_exposed(tls: bool, bound: SocketAddr) -> bool {
    !tls && !bound.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_warned_of_beyond_loopback_only() {
        for (address, exposed) in [
            ("127.0.0.1:1", false),
            ("127.3.0.1:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("10.0.0.7:1", true),
        ] {
            let bound = address.parse().unwrap();
            assert_eq!(is_exposed(false, bound), exposed, "{address}");
            assert!(!is_exposed(true, bound), "{address}");
        }
    }
}

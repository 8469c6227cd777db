//! A certificate for this host, and clients that trust it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use bus::SystemClock;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tls::{Authority, Files, Tls};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use types::Clock;

/// A server's side and its client's.
pub(crate) struct Certificates {
    pub(crate) server: Tls,
    client: Tls,
    _directory: TempDir,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemClock.now();
        let authority = Authority::generate(now).unwrap();
        let issued = authority.issue(&["localhost".to_owned()], now, 30).unwrap();
        let file = |name: &str, text: &str| -> Option<PathBuf> {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let (certificate, key) = (file("certificate", &issued.certificate), file("key", &issued.key));
        let ca = file("ca", authority.certificate());
        let server = Tls::open(Files { certificate, key, ..Files::default() }).unwrap();
        let client = Tls::open(Files { ca, ..Files::default() }).unwrap();
        Self { server, client, _directory: directory }
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let config = self.client.client().unwrap();
        self.connect_speaking(address, config.alpn_protocols.clone()).await
    }

    /// With a protocol that is asked for.
    pub(crate) async fn connect_speaking(&self, address: SocketAddr, protocols: Vec<Vec<u8>>) -> TlsStream<TcpStream> {
        let mut config = rustls::ClientConfig::clone(&self.client.client().unwrap());
        config.alpn_protocols = protocols;
        let name = ServerName::try_from("localhost").unwrap();
        let socket = TcpStream::connect(address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
    }
}

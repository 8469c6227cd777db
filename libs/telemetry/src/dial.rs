//! Connections to the collector of traces, in plain text or inside TLS.

use std::{
    fmt, io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tonic::transport::Uri;

/// What HTTP/2 is called where both ends agree on a protocol.
const HTTP_2: &[u8] = b"h2";
const HTTPS: &str = "https";

/// Gives the configuration of the moment, at each connection anew; it may look at files for that.
#[derive(Clone)]
pub struct TlsSource(Arc<dyn Fn() -> Arc<ClientConfig> + Send + Sync>);

impl TlsSource {
    /// One that calls `source`, where it may block.
    pub fn new(source: impl Fn() -> Arc<ClientConfig> + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }
}

impl fmt::Debug for TlsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsSource").finish()
    }
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Makes the connections of one exporter.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    tls: Option<TlsSource>,
    /// Whether it was told that the collector is not reached: the exporter tries again every few seconds.
    told: Arc<AtomicBool>,
}

impl Dialer {
    pub(crate) fn new(tls: Option<TlsSource>) -> Self {
        Self { tls, told: Arc::default() }
    }

    /// One connection. A first failure is logged with its reason, and again after a success.
    pub(crate) async fn dial(self, uri: Uri) -> io::Result<TokioIo<Box<dyn Stream>>> {
        let connected = self.connect(&uri).await;
        match &connected {
            Ok(_) => self.told.store(false, Ordering::Relaxed),
            Err(reason) if !self.told.swap(true, Ordering::Relaxed) => {
                tracing::warn!(collector = %uri, %reason, "collector is not reached, traces are lost meanwhile");
            }
            Err(_) => {}
        }
        connected.map(TokioIo::new)
    }

    async fn connect(&self, uri: &Uri) -> io::Result<Box<dyn Stream>> {
        let host = host_of(uri);
        let secure = uri.scheme_str() == Some(HTTPS);
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let Some(TlsSource(source)) = self.tls.clone().filter(|_| secure) else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let config = tokio::task::spawn_blocking(move || source()).await.map_err(io::Error::other)?;
        let mut config = ClientConfig::clone(&config);
        config.alpn_protocols = vec![HTTP_2.to_vec()];
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        Ok(Box::new(stream))
    }
}

/// The host without the brackets of an IPv6 address.
fn host_of(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_matches(['[', ']'])
}

/// Whether others can read what goes there.
pub(crate) fn is_exposed(uri: &Uri) -> bool {
    let host = host_of(uri);
    let here = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback());
    uri.scheme_str() != Some(HTTPS) && !here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_exposed_beyond_this_host_only() {
        for (uri, exposed) in [
            ("http://collector:4317", true),
            ("https://collector:4317", false),
            ("http://localhost:4317", false),
            ("http://127.0.0.9:4317", false),
            ("http://[::1]:4317", false),
            ("http://[::ffff:127.0.0.1]:4317", false),
            ("http://10.0.0.7:4317", true),
            ("http://localhost.example", true),
        ] {
            assert_eq!(is_exposed(&uri.parse().unwrap()), exposed, "{uri}");
        }
    }
}

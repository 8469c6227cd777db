//! The way to a peer: one TCP connection, plain or inside TLS on which both ends show a certificate; a Unix socket where
//! both are processes of one host.

use std::{io, net::SocketAddr, sync::Arc};

use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, split},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tracing::debug;

use crate::{
    Error,
    handshake::{self, HANDSHAKE_MAX, Secret},
    neighbour::{self, Socket},
};

/// What the proofs of a connection inside TLS are bound to, so that nobody in the middle can pass them on.
///
/// Source: RFC 5705, "Keying Material Exporters for TLS".
const BINDING_LABEL: &[u8] = b"EXPORTER-logboom-exchange";
const BINDING: usize = 32;

/// What both ends do when both show certificates.
#[derive(Debug, Clone)]
pub struct Secure {
    /// As the one who is dialled; demands a certificate.
    pub server: Arc<ServerConfig>,
    /// As the one who dials; shows ours.
    pub client: Arc<ClientConfig>,
}

/// Reads from a peer.
pub(crate) type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// Writes to a peer.
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection to a peer that has proved itself.
pub(crate) enum Link {
    Plain(TcpStream),
    Neighbour(Socket),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Link {
    /// Connects to a process of this host, and has both sides prove themselves; `None` if the peer is none, or cannot.
    pub(crate) async fn dial_neighbour(
        secure: bool,
        secret: &Secret,
        own: SocketAddr,
        peer: SocketAddr,
    ) -> Option<Self> {
        let mut socket = neighbour::dial(peer).await?;
        let binding = neighbour::binding(peer, secure);
        let proved = handshake::dial(&mut socket, secret, own, peer, &binding);
        let outcome = timeout(neighbour::HANDSHAKE_MAX, proved).await;
        match outcome {
            Ok(Ok(())) => return Some(Self::Neighbour(socket)),
            Ok(Err(error)) => debug!(%peer, %error, "no way but TCP"),
            Err(_) => debug!(%peer, "no way but TCP: no answer in time"),
        }
        None
    }

    /// Has a process of this host prove itself, and proves ourselves.
    pub(crate) async fn accept_neighbour(
        mut socket: Socket,
        secure: bool,
        secret: &Secret,
        own: SocketAddr,
    ) -> Result<(Self, SocketAddr), Error> {
        let peer = handshake::accept(&mut socket, secret, own, &neighbour::binding(own, secure)).await?;
        Ok((Self::Neighbour(socket), peer))
    }

    /// Connects, and has both sides prove themselves.
    pub(crate) async fn dial(
        secure: Option<&Secure>,
        secret: &Secret,
        own: SocketAddr,
        peer: SocketAddr,
    ) -> Result<Self, Error> {
        let refused = |source: io::Error| Error::Connect { peer, source: Arc::new(source) };
        let mut stream = match timeout(HANDSHAKE_MAX, TcpStream::connect(peer)).await {
            Ok(stream) => stream.map_err(refused)?,
            Err(_) => return Err(refused(io::ErrorKind::TimedOut.into())),
        };
        at_once(&stream, peer);
        let Some(secure) = secure else {
            handshake::dial(&mut stream, secret, own, peer, &[]).await?;
            return Ok(Self::Plain(stream));
        };
        let name = ServerName::IpAddress(peer.ip().into());
        let connector = TlsConnector::from(Arc::clone(&secure.client));
        let mut stream = within(connector.connect(name, stream), peer).await?;
        let binding = binding(|out| stream.get_ref().1.export_keying_material(out, BINDING_LABEL, None), peer)?;
        handshake::dial(&mut stream, secret, own, peer, &binding).await?;
        Ok(Self::Secure(Box::new(stream.into())))
    }

    /// Has whoever came in prove itself, and proves ourselves; the address is where the peer listens.
    pub(crate) async fn accept(
        mut stream: TcpStream,
        secure: Option<&Secure>,
        secret: &Secret,
        from: SocketAddr,
    ) -> Result<(Self, SocketAddr), Error> {
        at_once(&stream, from);
        let Some(secure) = secure else {
            let peer = handshake::accept(&mut stream, secret, from, &[]).await?;
            return Ok((Self::Plain(stream), peer));
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&secure.server));
        let mut stream = within(acceptor.accept(stream), from).await?;
        let binding = binding(|out| stream.get_ref().1.export_keying_material(out, BINDING_LABEL, None), from)?;
        let peer = handshake::accept(&mut stream, secret, from, &binding).await?;
        Ok((Self::Secure(Box::new(stream.into())), peer))
    }

    /// What it is, in a word.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Plain(_) => "tcp",
            Self::Neighbour(_) => "unix",
            Self::Secure(_) => "tls",
        }
    }

    pub(crate) fn split(self) -> (Reader, Writer) {
        match self {
            Self::Plain(stream) => {
                let (reader, writer) = stream.into_split();
                (Box::new(reader), Box::new(writer))
            }
            Self::Neighbour(socket) => {
                let (reader, writer) = socket.into_split();
                (Box::new(reader), Box::new(writer))
            }
            Self::Secure(stream) => {
                let (reader, writer) = split(stream);
                (Box::new(reader), Box::new(writer))
            }
        }
    }
}

/// Frames are written whole; waiting for more to send would only delay them.
fn at_once(stream: &TcpStream, peer: SocketAddr) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "nagle stays on");
    }
}

async fn within<T>(handshake: impl Future<Output = io::Result<T>>, peer: SocketAddr) -> Result<T, Error> {
    let outcome = match timeout(HANDSHAKE_MAX, handshake).await {
        Ok(outcome) => outcome.map_err(|error| match distrust(&error) {
            Some(reason) => reason,
            None if error.kind() == io::ErrorKind::UnexpectedEof => format!("the peer hung up; {BOTH_SPEAK}"),
            None => error.to_string(),
        }),
        Err(_) => Err(format!("no answer in time; {BOTH_SPEAK}")),
    };
    outcome.map_err(|problem| Error::Handshake { peer, problem })
}

fn binding(
    export: impl FnOnce([u8; BINDING]) -> Result<[u8; BINDING], rustls::Error>,
    peer: SocketAddr,
) -> Result<[u8; BINDING], Error> {
    export([0; BINDING]).map_err(|error| Error::Handshake { peer, problem: error.to_string() })
}

/// What to look at when one side speaks TLS and the other does not.
pub(crate) const BOTH_SPEAK: &str =
    "either all task workers speak TLS or none does: common.tls_certificate and common.tls_ca";

/// Why there is no trust between the two, if that is what an error is about.
pub(crate) fn distrust(error: &io::Error) -> Option<String> {
    use rustls::Error as Tls;
    Some(match error.get_ref()?.downcast_ref::<Tls>()? {
        // The words of whoever looked at the certificate.
        Tls::Other(reason) => reason.to_string(),
        Tls::NoCertificatesPresented => "the peer shows no certificate: set common.tls_certificate there".to_owned(),
        alert @ Tls::AlertReceived(_) => {
            format!("{alert}: the peer does not accept our certificate; its log says why (common.tls_certificate)")
        }
        Tls::InvalidMessage(_) => format!("the peer does not speak TLS; {BOTH_SPEAK}"),
        other => other.to_string(),
    })
}

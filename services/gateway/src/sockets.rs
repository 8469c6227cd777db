//! Listeners for what is not HTTP: connections are taken up to a bound, inside TLS where that is wanted, until the door stops.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Connections of one listener; others are closed at once.
const CONNECTIONS_MAX: usize = 1_024;
/// Those of one peer: nobody takes all places from everybody else.
const PEER_CONNECTIONS_MAX: usize = 256;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;
/// How long a handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// The pause after a connection that the system could not give.
const PAUSE: Duration = Duration::from_secs(1);

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("{source}")]
    Address { address: String, source: io::Error },
    #[error("{0} needs a certificate: set common.tls_certificate and common.tls_key")]
    NoCertificate(&'static str),
}

impl ListenError {
    /// An address that cannot be had.
    pub(crate) fn at(address: &str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Address { address: address.to_owned(), source }
    }
}

/// A connection, whether inside TLS or not.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Places for connections; clones share them.
#[derive(Clone)]
struct Connections {
    max: usize,
    peer_max: usize,
    /// As many entries as peers have connections.
    of_peer: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// The place of a connection; given back by being dropped.
struct Connected {
    connections: Connections,
    peer: IpAddr,
}

impl Connections {
    fn new(max: usize, peer_max: usize) -> Self {
        Self { max, peer_max, of_peer: Arc::default() }
    }

    /// `None` where all places are taken, or as many by this peer as one may have.
    fn take(&self, address: IpAddr) -> Option<Connected> {
        let peer = peer_of(address);
        let mut of_peer = self.of_peer.lock();
        let own = of_peer.get(&peer).copied().unwrap_or(0);
        if own >= self.peer_max || of_peer.values().sum::<usize>() >= self.max {
            return None;
        }
        of_peer.insert(peer, own + 1);
        Some(Connected { connections: self.clone(), peer })
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut of_peer = self.connections.of_peer.lock();
        if let Some(own) = of_peer.get_mut(&self.peer) {
            *own -= 1;
            if *own == 0 {
                of_peer.remove(&self.peer);
            }
        }
    }
}

/// Who counts as one: an address, and of IPv6 a network of 64 bits, because a host has all of its addresses.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// An open listener.
pub(crate) struct Listener {
    what: &'static str,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    bound: SocketAddr,
    connections: Connections,
}

impl Listener {
    /// Takes an address.
    pub(crate) async fn open(
        what: &'static str,
        address: &str,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<Self, ListenError> {
        let listener = bind(address).await.map_err(ListenError::at(address))?;
        let bound = listener.local_addr().map_err(ListenError::at(address))?;
        tracing::info!(what, address = %bound, tls = tls.is_some(), "listener is open");
        if tls.is_none() && !bound.ip().to_canonical().is_loopback() {
            tracing::warn!(what, address = %bound, "listener speaks plain text beyond this host");
        }
        let connections = Connections::new(CONNECTIONS_MAX, PEER_CONNECTIONS_MAX);
        Ok(Self { what, listener, tls: tls.map(TlsAcceptor::from), bound, connections })
    }

    /// Where it listens.
    pub(crate) fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Serves connections, each in a local task of its own, until `stop`.
    pub(crate) async fn run<F, S>(self, stop: CancellationToken, tasks: TaskTracker, serve: F)
    where
        F: Fn(Box<dyn Socket>, SocketAddr) -> S + Clone + 'static,
        S: Future<Output = ()> + 'static,
    {
        let what = self.what;
        while let Some(accepted) = stop.run_until_cancelled(self.listener.accept()).await {
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors: others must close first.
                    tracing::warn!(what, %error, "connection not accepted");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(place) = self.connections.take(peer.ip()) else {
                let (max, peer_max) = (self.connections.max, self.connections.peer_max);
                tracing::warn!(what, %peer, max, peer_max, "connection refused, there are too many");
                continue;
            };
            let (tls, serve) = (self.tls.clone(), serve.clone());
            tasks.spawn_local(async move {
                match inside(tls, socket).await {
                    Ok(socket) => serve(socket, peer).await,
                    Err(error) => tracing::info!(what, %peer, %error, "handshake failed"),
                }
                drop(place);
            });
        }
    }
}

async fn inside(tls: Option<TlsAcceptor>, socket: TcpStream) -> io::Result<Box<dyn Socket>> {
    let Some(tls) = tls else { return Ok(Box::new(socket)) };
    let socket = timeout(HANDSHAKE_WITHIN, tls.accept(socket)).await??;
    Ok(Box::new(socket))
}

/// A listener whose connections are asked from time to time whether the other end is still there: senders are silent for hours, and
/// one that is gone must not keep its place.
async fn bind(address: &str) -> io::Result<TcpListener> {
    let first = lookup_host(address).await?.next();
    let address = first.ok_or_else(|| io::Error::other("the name has no address"))?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::fake::PATIENCE;

    #[test]
    fn no_peer_takes_the_places_of_others() {
        let connections = Connections::new(3, 2);
        let take = |address: &str| connections.take(address.parse().unwrap());
        let mut held: Vec<_> = ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"].into_iter().filter_map(take).collect();
        assert_eq!(held.len(), 2, "one address in two forms");
        held.extend(take("2001:db8::1"));
        assert!(held.len() == 3 && take("192.0.2.2").is_none(), "all are taken");
        held.remove(0);
        held.extend(take("2001:db8::ffff:0:0:2"));
        assert_eq!(held.len(), 3);
        held.remove(0);
        assert!(take("2001:db8::3").is_none(), "one network is one peer");
        held.extend(take("2001:db8:0:1::1"));
        assert_eq!(held.len(), 3);
        drop(held);
        assert!(connections.of_peer.lock().is_empty(), "nobody is remembered");
    }

    #[actix_web::test]
    async fn connections_above_the_bound_of_their_peer_are_closed() {
        let mut listener = Listener::open("test", "127.0.0.1:0", None).await.unwrap();
        listener.connections = Connections::new(9, 1);
        let (bound, stop, tasks) = (listener.bound(), CancellationToken::new(), TaskTracker::new());
        let echo = |mut socket: Box<dyn Socket>, _| async move {
            let mut byte = [0];
            while matches!(socket.read(&mut byte).await, Ok(1)) {
                if socket.write_all(&byte).await.is_err() {
                    return;
                }
            }
        };
        tasks.spawn_local(listener.run(stop.clone(), tasks.clone(), echo));
        let connect = async |from: [u8; 4]| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((from, 0).into()).unwrap();
            let mut socket = socket.connect(bound).await.unwrap();
            let mut byte = [7];
            let said = socket.write_all(&byte).await.is_ok() && matches!(socket.read(&mut byte).await, Ok(1));
            (socket, said)
        };
        let all = async {
            let (first, is_served) = connect([127, 0, 0, 1]).await;
            assert!(is_served);
            assert!(!connect([127, 0, 0, 1]).await.1, "its peer has one");
            assert!(connect([127, 0, 0, 2]).await.1, "others have places");
            drop(first);
            testkit::eventually(PATIENCE, async || connect([127, 0, 0, 1]).await.1).await;
        };
        timeout(PATIENCE, all).await.unwrap();
        stop.cancel();
        tasks.close();
        timeout(PATIENCE, tasks.wait()).await.unwrap();
    }
}

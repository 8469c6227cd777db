//! The exchange of one process: listens, dials, and hands out the ends of channels.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener},
    sync::Semaphore,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use types::JobId;

use crate::{
    ChannelId, Error, Receiver, SILENCE_MAX, Secure, Sender, connection::Connection, handshake::Secret, link::Link,
    neighbour, registry::Registry, threads::Threads,
};

/// The most task workers that one process talks to.
pub const PEERS_MAX: usize = 1_024;

/// Strangers in a handshake at one time; further ones are hung up on.
const HANDSHAKES_MAX: usize = 64;

/// How long a finished connection may take to close.
const FINISH_MAX: Duration = Duration::from_secs(1);

/// What may be chosen besides address and secret.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address under which peers reach this process, where that is not the bound one (`0.0.0.0`, port mapping).
    pub advertised: Option<SocketAddr>,
    /// A connection on which nothing arrives for that long is lost; four heartbeats fit. The same at all workers.
    pub silence_max: Duration,
    /// Whether processes of this host are served over Unix sockets; TCP serves them otherwise.
    pub unix: bool,
    /// How long an opened channel waits for its receiver.
    pub parked_for: Duration,
    /// TLS on which both ends show a certificate, between hosts; `None` is plain text. All workers of an installation have it, or none.
    pub secure: Option<Secure>,
}

impl Default for Options {
    /// The bound address, [`SILENCE_MAX`], Unix sockets, 30 s of parking, plain text.
    fn default() -> Self {
        let parked_for = Duration::from_secs(30);
        Self { advertised: None, silence_max: SILENCE_MAX, unix: true, parked_for, secure: None }
    }
}

/// The exchange of one process. Clones are the same exchange; when the last one goes, all channels end with an error.
#[derive(Clone)]
pub struct Exchange(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    secret: Arc<Secret>,
    registry: Arc<Registry>,
    peers: Mutex<HashMap<SocketAddr, Arc<Peer>>>,
    options: Options,
    closed: CancellationToken,
    threads: Threads,
}

#[derive(Default)]
struct Peer {
    dialling: tokio::sync::Mutex<()>,
    connection: Mutex<Option<Arc<Connection>>>,
}

impl Peer {
    fn live(&self) -> Option<Arc<Connection>> {
        self.connection.lock().clone().filter(|connection| !connection.is_lost())
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Exchange({})", self.0.address)
    }
}

impl Exchange {
    /// Listens on an address; port 0 chooses a free one. All workers of an installation share the secret.
    ///
    /// Errors: `Bind`, `WeakSecret`, `Threads`.
    pub async fn bind(address: SocketAddr, secret: &str) -> Result<Self, Error> {
        Self::bind_with(address, secret, Options::default()).await
    }

    /// The same with options.
    pub async fn bind_with(address: SocketAddr, secret: &str, options: Options) -> Result<Self, Error> {
        let secret = Arc::new(Secret::new(secret)?);
        let fail = |source: io::Error| Error::Bind { address, source: Arc::new(source) };
        let threads = Threads::start()?;
        let doors = threads.spawn(Doors::open(address, options.advertised, options.unix)).await;
        let (doors, told) = doors.unwrap_or_else(|ended| Err(io::Error::other(ended))).map_err(fail)?;
        let inner = Arc::new(Inner {
            address: told,
            secret,
            registry: Arc::default(),
            peers: Mutex::default(),
            options,
            closed: CancellationToken::new(),
            threads,
        });
        let (weak, closed, parked_for) = (Arc::downgrade(&inner), inner.closed.clone(), inner.options.parked_for);
        inner.threads.spawn(listen(doors, weak, closed, parked_for));
        Ok(Self(inner))
    }

    /// The address that peers are to be told.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.address
    }

    /// Opens the sending end of a channel; connects if there is no connection to that worker yet.
    ///
    /// To our own address no socket is used. The receiver may register before or after.
    /// Errors: `Connect`, `Handshake`, `AlreadyOpen`, `TooMany`.
    pub async fn sender(&self, to: SocketAddr, channel: ChannelId) -> Result<Sender, Error> {
        let registry = Arc::clone(&self.0.registry);
        if to == self.0.address {
            return Sender::local(channel, registry);
        }
        let connection = self.0.connection(to).await?;
        Sender::remote(channel, registry, connection).await
    }

    /// Registers the receiving end of a channel, before or after its sender opens it.
    ///
    /// Errors: `AlreadyOpen`, `TooMany`.
    pub fn receiver(&self, channel: ChannelId) -> Result<Receiver, Error> {
        let inbox = self.0.registry.claim(&channel)?;
        Ok(Receiver::new(inbox, Arc::clone(&self.0.registry)))
    }

    /// Ends all channels of one attempt of a job here; whoever waits on one gets `Closed`, its other end `Peer`.
    pub fn close_job(&self, job: &JobId, attempt: u32) {
        self.0.registry.close_job(job, attempt);
    }

    /// Writes what was sent, closes every connection and then the exchange.
    pub async fn shutdown(self) {
        let connections: Vec<Arc<Connection>> = self.0.peers.lock().values().filter_map(|peer| peer.live()).collect();
        let mut closing = tokio::task::JoinSet::new();
        for connection in connections {
            closing.spawn(async move { connection.finish(FINISH_MAX).await });
        }
        closing.join_all().await;
        self.0.close();
    }

    #[cfg(test)]
    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    #[cfg(test)]
    pub(crate) fn live_peers(&self) -> usize {
        self.0.peers.lock().values().filter(|peer| peer.live().is_some()).count()
    }
}

impl Inner {
    fn close(&self) {
        self.closed.cancel();
        self.registry.close(|_| true);
    }

    fn known(&self) -> Known {
        let (secret, secure) = (Arc::clone(&self.secret), self.options.secure.clone());
        Known { secret, secure, own: self.address }
    }

    fn peer(&self, address: SocketAddr) -> Result<Arc<Peer>, Error> {
        let mut peers = self.peers.lock();
        if peers.len() >= PEERS_MAX && !peers.contains_key(&address) {
            peers.retain(|_, peer| peer.live().is_some());
            if peers.len() >= PEERS_MAX {
                return Err(Error::TooMany { what: "task workers are connected", limit: PEERS_MAX });
            }
        }
        Ok(Arc::clone(peers.entry(address).or_default()))
    }

    /// The connection to a peer; of many callers one dials.
    async fn connection(&self, address: SocketAddr) -> Result<Arc<Connection>, Error> {
        let peer = self.peer(address)?;
        if let Some(connection) = peer.live() {
            return Ok(connection);
        }
        let _turn = peer.dialling.lock().await;
        if let Some(connection) = peer.live() {
            return Ok(connection);
        }
        let (secure, secret, own) = (self.options.secure.clone(), Arc::clone(&self.secret), self.address);
        let unix = self.options.unix;
        let dialling = self.threads.spawn(async move {
            if unix && let Some(link) = Link::dial_neighbour(secure.is_some(), &secret, own, address).await {
                return Ok(link);
            }
            Link::dial(secure.as_ref(), &secret, own, address).await
        });
        let ended = |_| Error::ConnectionLost { peer: address, reason: "the exchange was shut down".to_owned() };
        self.adopt(dialling.await.map_err(ended)??, address)
    }

    /// Starts a connection whose peer has proved itself.
    ///
    /// Two workers may dial each other at once. Then both connections live, and each side sends on the one that it
    /// knew first: order holds per channel, and a channel never changes its connection.
    fn adopt(&self, link: Link, address: SocketAddr) -> Result<Arc<Connection>, Error> {
        let peer = self.peer(address)?;
        let (registry, closed) = (Arc::clone(&self.registry), self.closed.child_token());
        let at = self.threads.handle();
        let connection = Connection::start(&at, link, address, registry, self.options.silence_max, closed);
        debug!(peer = %address, link = connection.link(), "connection open");
        let mut slot = peer.connection.lock();
        match slot.as_ref().filter(|known| !known.is_lost()) {
            Some(known) => Ok(Arc::clone(known)),
            None => Ok(Arc::clone(slot.insert(connection))),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// Where peers come in.
struct Doors {
    tcp: TcpListener,
    unix: Option<UnixListener>,
}

/// Who came in.
enum Stranger {
    Tcp(TcpStream, SocketAddr),
    Unix(neighbour::Socket),
}

impl Doors {
    /// Listens, and says under which address.
    async fn open(address: SocketAddr, advertised: Option<SocketAddr>, unix: bool) -> io::Result<(Self, SocketAddr)> {
        let tcp = TcpListener::bind(address).await?;
        let told = advertised.unwrap_or(tcp.local_addr()?);
        let unix = if unix { neighbour::listen(told) } else { None };
        Ok((Self { tcp, unix }, told))
    }

    /// The next stranger; `None` for one that is not even asked.
    async fn accept(&self) -> io::Result<Option<Stranger>> {
        tokio::select! {
            accepted = self.tcp.accept() => accepted.map(|(stream, from)| Some(Stranger::Tcp(stream, from))),
            accepted = neighbour::accept(self.unix.as_ref()) => accepted.map(|socket| socket.map(Stranger::Unix)),
        }
    }
}

impl Stranger {
    async fn prove(self, known: Known) -> Result<(Link, SocketAddr), Error> {
        let Known { secret, secure, own } = known;
        match self {
            Self::Tcp(stream, from) => Link::accept(stream, secure.as_ref(), &secret, from).await,
            Self::Unix(socket) => Link::accept_neighbour(socket, secure.is_some(), &secret, own).await,
        }
    }
}

/// What a handshake needs.
struct Known {
    secret: Arc<Secret>,
    secure: Option<Secure>,
    own: SocketAddr,
}

/// Accepts peers and refuses channels that nobody asked for.
async fn listen(doors: Doors, inner: Weak<Inner>, closed: CancellationToken, parked_for: Duration) {
    let strangers = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut sweep = interval((parked_for / 4).clamp(Duration::from_millis(10), Duration::from_secs(1)));
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stranger = tokio::select! {
            () = closed.cancelled() => return,
            _ = sweep.tick() => {
                let Some(inner) = inner.upgrade() else { return };
                inner.registry.sweep(parked_for);
                continue;
            }
            accepted = doors.accept() => match accepted {
                Ok(Some(stranger)) => stranger,
                Ok(None) => continue,
                Err(error) => {
                    // Out of file descriptors, usually: the sweep's pace keeps this from spinning.
                    warn!(%error, "connection not accepted");
                    sweep.tick().await;
                    continue;
                }
            },
        };
        let Some(known) = inner.upgrade().map(|inner| inner.known()) else { return };
        let from = match &stranger {
            Stranger::Tcp(_, from) => *from,
            Stranger::Unix(_) => known.own,
        };
        let Ok(permit) = Arc::clone(&strangers).try_acquire_owned() else {
            warn!(%from, limit = HANDSHAKES_MAX, "connection refused, too many handshakes");
            continue;
        };
        let (inner, closed) = (Weak::clone(&inner), closed.clone());
        tokio::spawn(async move {
            let outcome = tokio::select! {
                () = closed.cancelled() => return,
                outcome = stranger.prove(known) => outcome,
            };
            drop(permit);
            let adopted =
                outcome.and_then(|(link, peer)| inner.upgrade().map_or(Ok(()), |i| i.adopt(link, peer).map(drop)));
            if let Err(error) = adopted {
                warn!(%from, %error, "connection refused");
            }
        });
    }
}

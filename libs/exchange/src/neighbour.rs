//! Processes of one host: a Unix socket costs them a fraction of what TCP does.
//!
//! Whoever listens on an address also listens under that address in the abstract namespace of Unix sockets. That is a
//! namespace of the network's: only who would reach the address on this very host finds it, there is no file to clean
//! up and nothing to configure. It is used when it is there, the peer is of the same user and both prove that they know
//! the secret and mean that address; otherwise TCP is. Nothing leaves the host, so there is no TLS on it; a proof says
//! whether its side has TLS, so that a mixture meets on TCP and is told there.

use std::{net::SocketAddr, time::Duration};

use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, warn};

/// Between two processes of this host.
pub(crate) type Socket = UnixStream;

/// How long a handshake with a process of this host may take before TCP is tried.
pub(crate) const HANDSHAKE_MAX: Duration = Duration::from_secs(1);

/// What the proofs are bound to, besides the nonces.
pub(crate) fn binding(listens: SocketAddr, secure: bool) -> Vec<u8> {
    format!("{} {}", name(listens), if secure { "tls" } else { "plain" }).into_bytes()
}

fn name(listens: SocketAddr) -> String {
    // The leading zero is what makes it a name and not a path.
    format!("\0logboom-exchange/{listens}")
}

/// Listens beside the TCP listener of that address; `None` where this system cannot, or the name is taken.
pub(crate) fn listen(address: SocketAddr) -> Option<UnixListener> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    UnixListener::bind(name(address)).inspect_err(|error| warn!(%address, %error, "no Unix socket, TCP alone")).ok()
}

/// The next process of this host that comes in; never, where nothing is listened on.
pub(crate) async fn accept(listener: Option<&UnixListener>) -> std::io::Result<Option<Socket>> {
    match listener {
        Some(listener) => listener.accept().await.map(|(socket, _)| of_our_user(socket)),
        None => std::future::pending().await,
    }
}

/// Connects to who listens on that address, if that is a process of this host.
pub(crate) async fn dial(address: SocketAddr) -> Option<Socket> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    of_our_user(UnixStream::connect(name(address)).await.ok()?)
}

/// Any user may take a name, and could pass on what both ends say.
fn of_our_user(socket: Socket) -> Option<Socket> {
    let own = UnixStream::pair().and_then(|(one, _other)| one.peer_cred());
    let (own, peer) = (own.ok()?.uid(), socket.peer_cred().ok()?.uid());
    if own != peer {
        debug!(own, peer, "Unix socket of another user");
        return None;
    }
    Some(socket)
}

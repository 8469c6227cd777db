//! One connection: its bounds, and when it ends.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::{
    body::Body,
    codegen::{BoxFuture, Service, http},
    service::Routes,
    transport::{Server, server::Connected},
};

use crate::sockets::Socket;

/// Calls of one connection at once.
const CALLS_MAX: u32 = 32;
/// Bytes of one call, and of one connection, that may be on their way.
const WINDOW_BYTES: u32 = 1 << 20;
/// The largest headers of a call.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// How long a connection may be without an open call: it holds one of few places.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(75);
/// How long a connection may take to begin, or without an open call to end, and a call to begin its message.
pub(super) const BEGIN_WITHIN: Duration = Duration::from_secs(10);

/// Answers the calls of a connection until it ends or is idle; after a stop those that were begun.
pub(super) async fn serve(services: Routes, call_within: Duration, socket: Box<dyn Socket>, stop: CancellationToken) {
    let calls = Calls(Arc::new(watch::Sender::new(0)));
    let [heard, gone, ending, cut] = [(); 4].map(|()| CancellationToken::new());
    let socket = Watched {
        socket,
        heard: heard.clone(),
        cut: Box::pin(cut.clone().cancelled_owned()),
        _gone: gone.clone().drop_guard(),
    };
    let server = Server::builder()
        .max_concurrent_streams(CALLS_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .timeout(call_within);
    // A server of one connection: it ends with it, and no other does.
    let one = stream::once(std::future::ready(Ok::<_, io::Error>(socket))).chain(stream::pending());
    let counted = Counted { services, calls: calls.clone() };
    let served = server.serve_with_incoming_shutdown(counted, one, ending.clone().cancelled_owned());
    let watched = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = gone.cancelled() => {}
            () = silent(&heard) => {}
            () = calls.idle(IDLE_MAX) => {}
        }
        // It is told that it ends. Who does nothing more is cut off.
        ending.cancel();
        calls.idle(BEGIN_WITHIN).await;
        cut.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = served => if let Err(error) = ended {
            tracing::debug!(%error, "connection of gRPC failed");
        },
        () = watched => {}
    }
}

/// Returns when a connection does not begin to speak in time.
async fn silent(heard: &CancellationToken) {
    sleep(BEGIN_WITHIN).await;
    if heard.is_cancelled() {
        std::future::pending().await
    }
}

/// How many calls of a connection are open; clones share the number.
#[derive(Clone)]
struct Calls(Arc<watch::Sender<usize>>);

/// Keeps its connection: an extension of each request, to be kept by those whose answers go on after they have begun.
#[derive(Clone)]
pub(crate) struct OpenCall {
    _open: Arc<Open>,
}

struct Open(Calls);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.send_modify(|open| *open -= 1);
    }
}

impl Calls {
    fn open(&self) -> OpenCall {
        self.0.send_modify(|open| *open += 1);
        OpenCall { _open: Arc::new(Open(self.clone())) }
    }

    /// Returns when there was no open call for so long.
    async fn idle(&self, patience: Duration) {
        let mut open = self.0.subscribe();
        loop {
            let is_idle = *open.borrow_and_update() == 0;
            let patience = if is_idle { patience } else { Duration::MAX };
            if timeout(patience, open.changed()).await.is_err() {
                return;
            }
        }
    }
}

/// Counts the calls of one connection.
#[derive(Clone)]
struct Counted {
    services: Routes,
    calls: Calls,
}

impl Service<http::Request<Body>> for Counted {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.services, context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let open = self.calls.open();
        request.extensions_mut().insert(open.clone());
        let answer = self.services.call(request);
        Box::pin(async move {
            let answer = answer.await;
            drop(open);
            answer
        })
    }
}

/// A socket that tells whether anything came, and when it is dropped; and that can be cut off.
struct Watched {
    socket: Box<dyn Socket>,
    heard: CancellationToken,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _gone: DropGuard,
}

impl Connected for Watched {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl Watched {
    /// Errors: it was cut off. To be asked wherever somebody waits for the other side: who reads nothing keeps the writing waiting.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = into.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(context, into))?;
        if into.filled().len() > before {
            self.heard.cancel();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.socket).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.socket).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

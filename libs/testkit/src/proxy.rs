//! A network link that can fail: a TCP proxy on loopback before something that listens there.

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

/// Bytes that are under way in one direction of one connection, besides what the sockets of either end hold.
const BUFFER_BYTES: usize = 64 * 1024;
/// What a socket of the proxy itself holds: little, so that whoever sends to somebody who does not read notices soon.
const SOCKET_BYTES: u32 = 64 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 64;

/// A direction, as seen by whoever connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What is sent.
    Out,
    /// What is answered.
    Back,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct State {
    /// Grows with each cut: connections of an earlier one are over.
    cuts: u64,
    refuses: bool,
    holds_out: bool,
    holds_back: bool,
    delay: Duration,
}

impl State {
    fn holds(&self, way: Way) -> bool {
        match way {
            Way::Out => self.holds_out,
            Way::Back => self.holds_back,
        }
    }
}

/// A port on loopback whose connections lead to another port there, for as long as this value lives.
///
/// Bounds: about 256 KiB in flight for each direction of a connection; whoever sends more waits, as with any slow network.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: Arc<watch::Sender<State>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Opens a port that leads to `target`, which need not listen yet. Runs on the runtime of the caller.
    pub async fn open(target: u16) -> Result<Self> {
        let socket = socket()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(BACKLOG)?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(watch::Sender::new(State::default()));
        // The task holds receivers only, so that connections end with this value.
        let seen = state.subscribe();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if seen.borrow().refuses {
                    continue;
                }
                tokio::spawn(carry(stream, target, seen.clone()));
            }
        });
        Ok(Self { port, state, accepting })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends every connection and refuses new ones; what was under way, also what was held back, is lost.
    pub fn cut(&self) {
        self.state.send_modify(|state| {
            state.cuts += 1;
            state.refuses = true;
        });
    }

    /// Holds back what comes in one direction, from this very byte on; connections stay open and nobody is told.
    ///
    /// It is not lost: a network that comes back carries what was sent again, and so does [`Proxy::mend`].
    pub fn hold(&self, way: Way) {
        self.state.send_modify(|state| match way {
            Way::Out => state.holds_out = true,
            Way::Back => state.holds_back = true,
        });
    }

    /// Lets each 64 KiB wait so long.
    pub fn slow(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }

    /// Works again.
    pub fn mend(&self) {
        self.state.send_modify(|state| *state = State { cuts: state.cuts, ..State::default() });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

fn socket() -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(SOCKET_BYTES)?;
    Ok(socket)
}

/// One connection, to its end in either direction.
async fn carry(near: TcpStream, target: u16, state: watch::Receiver<State>) {
    let cuts = state.borrow().cuts;
    let far = match socket() {
        Ok(socket) => socket.connect((Ipv4Addr::LOCALHOST, target).into()).await,
        Err(error) => Err(error),
    };
    let Ok(far) = far else { return };
    // Small messages are answered at once on the real link too.
    if near.set_nodelay(true).and(far.set_nodelay(true)).is_err() {
        return;
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let mut over = state.clone();
    tokio::select! {
        () = pump(near_in, far_out, Way::Out, cuts, state.clone()) => {}
        () = pump(far_in, near_out, Way::Back, cuts, state) => {}
        _ = over.wait_for(|state| state.cuts != cuts) => {}
    }
}

/// Carries one direction until the link is cut: from then on not one byte, whoever notices the cut first.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: Way, cuts: u64, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let Ok(count) = from.read(&mut buffer).await else { return };
        if count == 0 {
            return;
        }
        let delay = match state.wait_for(|state| state.cuts != cuts || !state.holds(way)).await {
            Ok(state) => state.delay,
            Err(_) => return,
        };
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if state.borrow().cuts != cuts {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncBufReadExt, BufStream},
        net::TcpListener,
        time::{Instant, timeout},
    };

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const NOT_YET: Duration = Duration::from_millis(100);

    /// Answers each line with itself.
    async fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut stream = BufStream::new(stream);
                    let mut line = String::new();
                    while stream.read_line(&mut line).await.unwrap_or(0) > 0 {
                        if stream.write_all(line.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                            return;
                        }
                        line.clear();
                    }
                });
            }
        });
        port
    }

    struct Caller(BufStream<TcpStream>);

    impl Caller {
        async fn of(proxy: &Proxy) -> Self {
            Self(BufStream::new(TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap()))
        }

        async fn say(&mut self, text: &str) {
            self.0.write_all(format!("{text}\n").as_bytes()).await.unwrap();
            self.0.flush().await.unwrap();
        }

        /// The next line; empty at the end of the connection.
        async fn hear(&mut self) -> String {
            let mut line = String::new();
            // A connection that was reset has ended too.
            timeout(SOON, self.0.read_line(&mut line)).await.unwrap().unwrap_or(0);
            line.trim_end().to_owned()
        }

        async fn is_silent(&mut self) -> bool {
            timeout(NOT_YET, self.0.read_u8()).await.is_err()
        }
    }

    #[tokio::test]
    async fn what_is_held_arrives_when_it_is_mended() {
        let proxy = Proxy::open(echo().await).await.unwrap();
        let mut caller = Caller::of(&proxy).await;
        caller.say("one").await;
        assert_eq!(caller.hear().await, "one");
        for way in [Way::Out, Way::Back] {
            proxy.hold(way);
            caller.say("two").await;
            assert!(caller.is_silent().await, "{way:?}");
            proxy.mend();
            assert_eq!(caller.hear().await, "two", "{way:?}");
        }
    }

    #[tokio::test]
    async fn a_cut_ends_connections_loses_what_was_held_and_refuses() {
        let proxy = Proxy::open(echo().await).await.unwrap();
        let mut caller = Caller::of(&proxy).await;
        // Often: the end of a connection and the end of what holds it back race with one another.
        for _ in 0..50 {
            proxy.hold(Way::Back);
            caller.say("lost").await;
            tokio::task::yield_now().await;
            proxy.cut();
            proxy.mend();
            assert_eq!(caller.hear().await, "", "the connection ends");
            caller = Caller::of(&proxy).await;
        }
        proxy.hold(Way::Back);
        caller.say("lost").await;
        assert!(caller.is_silent().await);
        proxy.cut();
        assert_eq!(caller.hear().await, "", "the connection ends");
        let mut refused = Caller::of(&proxy).await;
        assert_eq!(refused.hear().await, "");
        proxy.mend();
        let mut fresh = Caller::of(&proxy).await;
        fresh.say("again").await;
        assert_eq!(fresh.hear().await, "again");
    }

    #[tokio::test]
    async fn a_slow_link_is_slow_both_ways() {
        let proxy = Proxy::open(echo().await).await.unwrap();
        let mut caller = Caller::of(&proxy).await;
        proxy.slow(NOT_YET);
        let begun = Instant::now();
        caller.say("late").await;
        assert_eq!(caller.hear().await, "late");
        assert!(begun.elapsed() >= NOT_YET * 2, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn it_ends_with_its_value() {
        let proxy = Proxy::open(echo().await).await.unwrap();
        let mut caller = Caller::of(&proxy).await;
        let port = proxy.port();
        drop(proxy);
        assert_eq!(caller.hear().await, "");
        crate::eventually(SOON, async || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err()).await;
    }
}

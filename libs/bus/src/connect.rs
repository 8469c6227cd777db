//! One connection: how it begins, how it comes back, how a question is asked on it.

use std::{
    error::Error,
    fmt, io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_nats::{
    Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, HeaderMap, Message, Request, RequestErrorKind,
    ServerAddr, client::RequestError, connection::State,
};
use bytes::Bytes;
use rustls::ClientConfig;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use crate::{BusError, delegate::Delegate};

/// How long [`Bus::connect`] waits for a server.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long [`Bus::close`] and [`Bus::flush`] wait for the server to take what was sent.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// The longest pause between two attempts to reconnect.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often a silent connection is probed; two probes without an answer end it.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How to reach the bus.
#[derive(Clone, Default)]
pub struct BusOptions {
    /// One URL or several separated by commas.
    pub url: String,
    /// The text of a `.creds` file; `None` connects without credentials.
    pub creds: Option<String>,
    /// `<service>/<replica>`: the caller's name in every request and in the server's connection list.
    pub name: String,
    /// Where replies arrive; `None` is `_INBOX`.
    pub inbox_prefix: Option<String>,
    /// Whom to believe, and which certificate to show; with it nothing but TLS is spoken. `None` believes the authorities of the
    /// system where a URL begins with `tls://` or the server demands TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// Whether a server behind a `nats://` URL may speak plain text although `tls` is given.
    pub plain_allowed: bool,
}

impl fmt::Debug for BusOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusOptions")
            .field("url", &self.url)
            .field("creds", &self.creds.as_ref().map(|_| "***"))
            .field("name", &self.name)
            .field("inbox_prefix", &self.inbox_prefix)
            .field("tls", &self.tls.is_some())
            .field("plain_allowed", &self.plain_allowed)
            .finish()
    }
}

/// A connection to NATS; clones share it.
///
/// It comes back by itself for ever after the server was gone: doors, lanes and notices subscribe again, questions
/// wait for the connection within their deadline.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    client: Client,
    name: String,
    link: watch::Receiver<Link>,
    /// Where a question to nobody may be sent; `None` for users who may publish nothing of the kind.
    sync_subject: Option<String>,
    /// Set on a binding's connection.
    delegate: OnceLock<Arc<Delegate>>,
}

/// What happened to the connection so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Link {
    lost_count: u64,
    change_count: u64,
    closed: bool,
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AskError {
    /// It was never sent.
    NotSent(String),
    /// The server knows nobody who listens.
    NoResponders,
    /// No answer in time.
    TimedOut,
    /// The connection broke while waiting: an answer can no longer arrive.
    Lost,
    /// It is larger than the server takes, or its subject is malformed.
    Refused(String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(reason) => write!(f, "not sent: {reason}"),
            Self::NoResponders => f.write_str("nobody answers on this subject"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Lost => f.write_str("the connection was lost while waiting for the answer"),
            Self::Refused(reason) => f.write_str(reason),
        }
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("name", &self.0.name).field("connected", &self.is_connected()).finish()
    }
}

impl Bus {
    /// Connects; afterwards the connection renews itself for ever.
    ///
    /// Bounds: waits up to 10 s for the server. Errors: `Connect`, at once when the credentials or a certificate are refused.
    pub async fn connect(options: BusOptions) -> Result<Self, BusError> {
        let until = Instant::now() + CONNECT_WITHIN;
        let failed = |reason: String| BusError::Connect { url: options.url.clone(), reason };
        let addresses = addresses(&options.url).map_err(&failed)?;
        let mut pause = Duration::from_millis(50);
        loop {
            let (tell, link) = watch::channel(Link::default());
            match nats_options(&options, tell).map_err(&failed)?.connect(addresses.clone()).await {
                Ok(client) => {
                    debug!(url = %options.url, name = %options.name, "bus connected");
                    let sync_subject = options.inbox_prefix.is_none().then(|| format!("{}.sync", client.new_inbox()));
                    let (name, delegate) = (options.name, OnceLock::new());
                    return Ok(Self(Arc::new(Inner { client, name, link, sync_subject, delegate })));
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication
                    ) =>
                {
                    return Err(failed(format!("{error}; check the credentials and whether they were revoked")));
                }
                Err(error) => match distrust(&error) {
                    Some(reason) => return Err(failed(reason)),
                    None if Instant::now() + pause >= until => {
                        return Err(failed(format!("{error}; waited {CONNECT_WITHIN:?} for the server")));
                    }
                    None => debug!(%error, "bus not reachable yet"),
                },
            }
            sleep(pause).await;
            pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
        }
    }

    /// `<service>/<replica>`, as given.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether the connection is up at this instant.
    pub fn is_connected(&self) -> bool {
        self.0.client.connection_state() == State::Connected
    }

    /// Waits until everything sent so far is handed to the operating system, at most 5 s.
    pub async fn flush(&self) {
        if !matches!(timeout(CLOSE_WITHIN, self.0.client.flush()).await, Ok(Ok(()))) {
            debug!(name = %self.0.name, "bus not flushed");
        }
    }

    /// Ends the connection after what is under way: subscriptions end, everything sent is flushed; at most 10 s.
    ///
    /// It ends for every clone.
    pub async fn close(self) {
        self.flush().await;
        if self.0.client.drain().await.is_ok() {
            let mut link = self.0.link.clone();
            if timeout(CLOSE_WITHIN, link.wait_for(|l| l.closed)).await.is_err() {
                warn!(name = %self.0.name, "bus did not close in time");
            }
        }
    }

    /// Waits until the server has read everything sent so far, at most half a second.
    ///
    /// The client's own flush ends at the socket; a question to nobody comes back after what was sent before it.
    pub(crate) async fn round_trip(&self) {
        match &self.0.sync_subject {
            Some(subject) => {
                let until = Instant::now() + Duration::from_millis(500);
                // Whatever the answer is, what came before it was read.
                drop(self.ask(subject, None, Bytes::new(), until).await);
            }
            None => self.flush().await,
        }
    }

    /// Set on a binding's connection: its calls are made from outside the platform.
    pub(crate) fn delegate(&self) -> Option<&Arc<Delegate>> {
        self.0.delegate.get()
    }

    pub(crate) fn become_delegate(&self, delegate: Delegate) {
        // A connection is made for one binding.
        drop(self.0.delegate.set(Arc::new(delegate)));
    }

    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }

    /// Grows each time the connection is lost.
    pub(crate) fn lost_count(&self) -> u64 {
        self.0.link.borrow().lost_count
    }

    /// Returns when the connection was lost since the count was taken, or is closed for good.
    pub(crate) async fn lost_since(&self, count: u64) {
        let mut link = self.0.link.clone();
        // An error means that the connection's task is gone, which is a loss too.
        drop(link.wait_for(|l| l.lost_count != count || l.closed).await);
    }

    /// Waits for the connection; says whether it is there.
    pub(crate) async fn connected_by(&self, until: Instant) -> bool {
        let mut link = self.0.link.clone();
        while !self.is_connected() {
            if link.borrow_and_update().closed || Instant::now() >= until {
                return false;
            }
            // The tick covers an event that the client dropped because its own queue was full.
            tokio::select! {
                changed = link.changed() => if changed.is_err() { return self.is_connected() },
                () = sleep(Duration::from_millis(100)) => {}
                () = sleep_until(until) => {}
            }
        }
        true
    }

    /// Asks one question and waits for one answer.
    ///
    /// Never buffers while the connection is down, so that `NotSent` and `NoResponders` mean: it did not happen.
    pub(crate) async fn ask(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
        until: Instant,
    ) -> Result<Message, AskError> {
        if !self.connected_by(until).await {
            return Err(AskError::NotSent("the connection to NATS is down".to_owned()));
        }
        let lost_count = self.lost_count();
        let mut request = Request::new().payload(payload).timeout(None);
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        tokio::select! {
            answer = self.0.client.send_request(subject.to_owned(), request) => answer.map_err(|e| ask_error(&e)),
            () = self.lost_since(lost_count) => Err(AskError::Lost),
            () = sleep_until(until) => Err(AskError::TimedOut),
        }
    }
}

/// Why there is no trust between the two sides; waiting would not help.
fn distrust(error: &ConnectError) -> Option<String> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = inner.and_then(|e| e.downcast_ref()).or_else(|| error.downcast_ref::<rustls::Error>());
        match found {
            // The words of whoever looked at the certificate.
            Some(rustls::Error::Other(reason)) => return Some(reason.to_string()),
            Some(reason @ rustls::Error::InvalidCertificate(_)) => {
                return Some(format!("{reason}; common.tls_ca names the authorities that are trusted"));
            }
            Some(reason @ rustls::Error::AlertReceived(_)) => {
                return Some(format!(
                    "{reason}; the server demands a certificate that it trusts: common.tls_certificate"
                ));
            }
            Some(rustls::Error::InvalidMessage(_)) => {
                return Some(
                    "the server does not speak TLS, and common.tls_ca or a tls:// URL insists on it".to_owned(),
                );
            }
            Some(_) | None => cause = error.source(),
        }
    }
    None
}

fn ask_error(error: &RequestError) -> AskError {
    match error.kind() {
        RequestErrorKind::NoResponders => AskError::NoResponders,
        RequestErrorKind::TimedOut => AskError::TimedOut,
        RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
            AskError::Refused(error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")))
        }
        _ => AskError::Lost,
    }
}

fn addresses(url: &str) -> Result<Vec<ServerAddr>, String> {
    url.split(',')
        .map(str::trim)
        .filter(|u| !u.is_empty())
        .map(|u| u.parse::<ServerAddr>().map_err(|e| format!("{u:?} is not a NATS URL such as nats://host:4222: {e}")))
        .collect::<Result<Vec<_>, _>>()
        .and_then(|all| if all.is_empty() { Err("no URL was given".to_owned()) } else { Ok(all) })
}

fn nats_options(options: &BusOptions, tell: watch::Sender<Link>) -> Result<ConnectOptions, String> {
    let mut nats = match &options.creds {
        Some(creds) => ConnectOptions::with_credentials(creds).map_err(|e| format!("credentials: {e}"))?,
        None => ConnectOptions::new(),
    };
    if let Some(prefix) = &options.inbox_prefix {
        nats = nats.custom_inbox_prefix(prefix);
    }
    if let Some(tls) = &options.tls {
        nats = nats.tls_client_config(ClientConfig::clone(tls));
    }
    if (options.tls.is_some() && !options.plain_allowed) || options.url.contains("tls://") {
        // A server tells of others before anything is encrypted: whoever stands in between could name one of his own, and
        // the names of honest ones are addresses, for which there is no certificate.
        nats = nats.require_tls(true).ignore_discovered_servers();
    }
    let name = options.name.clone();
    let tell = Arc::new(tell);
    Ok(nats
        .name(&options.name)
        .ping_interval(PING_INTERVAL)
        .max_reconnects(None)
        .reconnect_delay_callback(reconnect_pause)
        .event_callback(move |event| {
            let (tell, name) = (tell.clone(), name.clone());
            async move { observe(&tell, &name, &event) }
        }))
}

/// Doubles from 10 ms to a second, with jitter so that a fleet does not return as one.
fn reconnect_pause(attempt: usize) -> Duration {
    let step = u32::try_from(attempt.min(8)).unwrap_or(8);
    let full = Duration::from_millis(5 << step).min(RECONNECT_PAUSE_MAX);
    if attempt <= 1 { Duration::ZERO } else { full.mul_f64(rand::random_range(0.5..1.0)) }
}

fn observe(tell: &watch::Sender<Link>, name: &str, event: &Event) {
    match event {
        Event::Disconnected => warn!(name, "bus connection lost"),
        Event::Connected => info!(name, "bus connection established"),
        Event::SlowConsumer(_) => warn!(name, "bus subscription full, messages were dropped"),
        Event::ServerError(error) => warn!(name, %error, "bus server complains"),
        other => debug!(name, event = %other, "bus event"),
    }
    tell.send_modify(|link| {
        link.change_count += 1;
        match event {
            Event::Disconnected => link.lost_count += 1,
            Event::Closed => link.closed = true,
            _ => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_urls_are_taken_and_nonsense_is_refused() {
        assert_eq!(addresses("nats://a:1, b:2").unwrap().len(), 2);
        assert!(addresses(" ").is_err());
        assert!(addresses("http://x y").is_err());
    }

    #[test]
    fn the_pause_grows_to_a_second_and_no_further() {
        assert_eq!(reconnect_pause(1), Duration::ZERO);
        for attempt in [2, 5, 8, 100, usize::MAX] {
            assert!(reconnect_pause(attempt) <= RECONNECT_PAUSE_MAX, "{attempt}");
        }
        assert!(reconnect_pause(100) >= RECONNECT_PAUSE_MAX / 2);
    }

    #[test]
    fn options_do_not_print_their_secret() {
        let options = BusOptions { creds: Some("SUAXX".to_owned()), ..BusOptions::default() };
        assert!(!format!("{options:?}").contains("SUAXX"));
    }
}

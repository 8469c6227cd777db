//! An account of AWS in memory: buckets with versions and configurations, users with keys and policies that are enforced.
//!
//! It is our reading of the documents and of what moto answers, not AWS. It has a signature check of its own, so that a client that
//! signs wrongly is found out, and refuses what S3 refuses: configurations without a checksum, names and rules that are none.

mod access;
mod buckets;
mod faults;
mod signature;
mod users;

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    sync::{Arc, atomic::Ordering},
};

use bus::SystemClock;
use parking_lot::Mutex;
use store::S3Options;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_rustls::TlsAcceptor;
use types::Clock;

use crate::{
    Certificates,
    bucket::{Request, nth, read, reply},
};

use self::faults::Counts;
pub use self::{
    buckets::{StoredBucket, StoredVersion},
    faults::S3Faults,
};

/// The key of the account itself.
const ADMIN_KEY: &str = "AKIAADMIN";
const ADMIN_SECRET: &str = "the-secret/of+the.account";
/// Another account, which owns what is not ours.
const STRANGER: &str = "stranger";

/// An account of AWS on a port of loopback.
pub struct S3Server {
    endpoint: String,
    region: String,
    state: Mutex<State>,
    faults: Mutex<S3Faults>,
    counts: Counts,
}

#[derive(Default)]
struct State {
    buckets: BTreeMap<String, StoredBucket>,
    users: BTreeMap<String, users::User>,
    keys: BTreeMap<String, users::Key>,
    made: u64,
}

/// A request with what was found out about it.
struct Call<'a> {
    request: &'a Request,
    /// Decoded, after the slash.
    path: String,
    query: BTreeMap<String, String>,
    /// As permissions name it, for example `s3:GetBucketTagging`.
    action: String,
    tls: bool,
}

/// An answer that is no success: status, code and text.
type Refusal = (u16, &'static str, &'static str);

/// What is answered: status, headers and body.
struct Answer(u16, String, Vec<u8>);

impl Answer {
    fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self(200, String::new(), body.into())
    }

    fn nothing() -> Self {
        Self(204, String::new(), Vec::new())
    }
}

impl S3Server {
    /// Serves over plain HTTP for as long as the runtime lives.
    pub async fn serve(region: &str) -> io::Result<Arc<Self>> {
        Self::start(region, None).await
    }

    /// The same over TLS.
    pub async fn serve_tls(region: &str, certificates: &Certificates) -> anyhow::Result<Arc<Self>> {
        let server = certificates.tls()?.server().ok_or_else(|| anyhow::anyhow!("a certificate makes a server"))?;
        Ok(Self::start(region, Some(TlsAcceptor::from(server))).await?)
    }

    async fn start(region: &str, tls: Option<TlsAcceptor>) -> io::Result<Arc<Self>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let server = Arc::new(Self {
            endpoint: format!("{scheme}://{}", listener.local_addr()?),
            region: region.to_owned(),
            state: Mutex::default(),
            faults: Mutex::default(),
            counts: Counts::default(),
        });
        let all = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, tls) = (Arc::clone(&all), tls.clone());
                // A connection that breaks is the caller's to notice.
                tokio::spawn(async move { server.greet(stream, tls).await.ok() });
            }
        });
        Ok(server)
    }

    /// Its URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Id and secret of the account's own key.
    pub fn admin(&self) -> (&'static str, &'static str) {
        (ADMIN_KEY, ADMIN_SECRET)
    }

    /// How object storage reaches it with a key.
    pub fn options(&self, key_id: &str, secret: &str) -> S3Options {
        S3Options {
            endpoint: Some(self.endpoint.clone()),
            region: self.region.clone(),
            key_id: key_id.to_owned(),
            secret: secret.to_owned(),
            allow_http: true,
            ..S3Options::default()
        }
    }

    /// From now on it fails in these ways and no others.
    pub fn set(&self, faults: S3Faults) {
        *self.faults.lock() = faults;
    }

    /// How often an action was carried out, for example `s3:PutBucketTagging`.
    pub fn count(&self, action: &str) -> u64 {
        self.counts.done(action)
    }

    /// Requests that were made to fail.
    pub fn failed(&self) -> u64 {
        self.counts.failed.load(Ordering::Relaxed)
    }

    /// A bucket as it is.
    pub fn bucket(&self, name: &str) -> Option<StoredBucket> {
        self.state.lock().buckets.get(name).cloned()
    }

    /// The names of all buckets.
    pub fn buckets(&self) -> Vec<String> {
        self.state.lock().buckets.keys().cloned().collect()
    }

    /// Changes a bucket behind everybody's back; one that is not there is made first.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut StoredBucket)) {
        change(self.state.lock().buckets.entry(name.to_owned()).or_default());
    }

    /// The same for a bucket of another account.
    pub fn give_away(&self, name: &str) {
        self.change(name, |bucket| bucket.owner = STRANGER.to_owned());
    }

    /// The names of all users with the number of their keys.
    pub fn users(&self) -> Vec<(String, usize)> {
        let state = self.state.lock();
        state.users.keys().map(|user| (user.clone(), state.keys_of(user).len())).collect()
    }

    /// Deletes a user's keys behind everybody's back.
    pub fn lose_keys(&self, user: &str) {
        let mut state = self.state.lock();
        for key in state.keys_of(user) {
            state.keys.remove(&key);
        }
    }

    async fn greet(&self, stream: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<()> {
        match tls {
            Some(tls) => self.connection(tls.accept(stream).await?, true).await,
            None => self.connection(stream, false).await,
        }
    }

    async fn connection(&self, stream: impl AsyncRead + AsyncWrite + Unpin, tls: bool) -> io::Result<()> {
        let mut stream = BufStream::new(stream);
        while let Some(request) = read(&mut stream).await? {
            let delay = self.faults.lock().delay;
            if !delay.is_zero() {
                sleep(delay).await;
            }
            let Some(mut answer) = self.answer(&request, tls) else { return Ok(()) };
            // The answer to HEAD names a length and has no body.
            if request.method == "HEAD"
                && let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n")
            {
                answer.truncate(end + 4);
            }
            stream.write_all(&answer).await?;
            stream.flush().await?;
        }
        Ok(())
    }

    /// `None` closes the connection without a word.
    fn answer(&self, request: &Request, tls: bool) -> Option<Vec<u8>> {
        let faults = self.faults.lock().clone();
        let now = SystemClock.now() + faults.ahead;
        let date = format!("Date: {}\r\n", signature::http_date(now));
        let iam = signature::service(request).is_some_and(|service| service == "iam");
        if nth(&self.counts.requests, faults.busy_every) {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            return Some(refusal(iam, &date, (503, "SlowDown", "Please reduce your request rate.")));
        }
        let call = Call::new(request, iam, tls);
        let mut state = self.state.lock();
        let key = match signature::check(request, now, |id| state.key(id)) {
            Ok(key) => key,
            Err(refused) => return Some(refusal(iam, &date, refused)),
        };
        if let Some(refused) = faults.refuse.get(call.action.as_str()) {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            return Some(refusal(iam, &date, *refused));
        }
        let done = match (state.may(&call, &key, now), iam) {
            (Err(refused), _) => Err(refused),
            (Ok(()), true) => state.iam(&call, faults.settle),
            (Ok(()), false) => state.s3(&call, &self.region, faults.page),
        };
        let done = match done {
            Ok(done) => done,
            Err(refused) => return Some(refusal(iam, &date, refused)),
        };
        self.counts.count(&call.action);
        if faults.silent.contains(call.action.as_str()) {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let Answer(status, headers, body) = done;
        Some(reply(&format!("{status} OK"), &format!("{date}{headers}"), &body))
    }
}

impl<'a> Call<'a> {
    fn new(request: &'a Request, iam: bool, tls: bool) -> Self {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let query = signature::pairs(query);
        let path = signature::decoded(path).trim_start_matches('/').to_owned();
        let action = match iam {
            true => {
                let form = signature::pairs(&String::from_utf8_lossy(&request.body));
                format!("iam:{}", form.get("Action").map_or("", String::as_str))
            }
            false => buckets::action(&request.method, &path, &query),
        };
        Self { request, path, query, action, tls }
    }

    fn bucket(&self) -> &str {
        self.path.split('/').next().unwrap_or("")
    }

    fn key(&self) -> &str {
        self.path.split_once('/').map_or("", |(_, key)| key)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.request.body).into_owned()
    }
}

fn refusal(iam: bool, date: &str, (status, code, message): Refusal) -> Vec<u8> {
    let error = format!("<Code>{code}</Code><Message>{message}</Message>");
    let body = match iam {
        true => format!("<ErrorResponse><Error><Type>Sender</Type>{error}</Error></ErrorResponse>"),
        false => format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>{error}</Error>"),
    };
    reply(&format!("{status} {code}"), date, body.as_bytes())
}

#[cfg(test)]
mod tests;

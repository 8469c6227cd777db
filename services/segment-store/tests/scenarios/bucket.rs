//! A bucket that speaks as much of the S3 protocol as object storage is asked for here, and that fails on purpose.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use store::{Objects, S3Options};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
};

/// The bucket's name; there is only one.
const BUCKET: &str = "logs";
/// Keys of one page of a listing: so few that every listing has several.
const PAGE: usize = 3;
/// Requests until one is answered with 503.
const BUSY_EVERY: u64 = 7;
/// Puts until one is stored and never answered.
const SILENT_EVERY: u64 = 5;

/// What the bucket holds and what it did to its callers.
#[derive(Default)]
pub(crate) struct Bucket {
    endpoint: String,
    /// Requests fail now and then.
    is_unreliable: bool,
    objects: Mutex<BTreeMap<String, Bytes>>,
    /// The next put below a folder is stored at once and answered after a time.
    slow: Mutex<Option<(String, Duration)>>,
    /// Keys that listings leave out.
    hidden: Mutex<BTreeSet<String>>,
    etags: AtomicU64,
    requests: AtomicU64,
    puts: AtomicU64,
    /// Requests answered with 503.
    pub(crate) busy: AtomicU64,
    /// Puts that were stored and not answered.
    pub(crate) silent: AtomicU64,
    /// Pages of listings that were not the last.
    pub(crate) cut: AtomicU64,
    /// Puts that are or were answered late.
    pub(crate) late: AtomicU64,
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Bucket {
    /// A bucket that answers 503 and keeps silent now and then, on a port of its own for as long as the test runs.
    pub(crate) async fn unreliable() -> Arc<Self> {
        Self::serve(true).await
    }

    /// A bucket that fails only where it is told to.
    pub(crate) async fn steady() -> Arc<Self> {
        Self::serve(false).await
    }

    async fn serve(is_unreliable: bool) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let bucket = Arc::new(Self { endpoint, is_unreliable, ..Self::default() });
        let all = bucket.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let bucket = all.clone();
                // A connection that breaks is the caller's to notice.
                tokio::spawn(async move { bucket.connection(stream).await.ok() });
            }
        });
        bucket
    }

    /// Its name for settings.
    pub(crate) fn url() -> String {
        format!("s3://{BUCKET}")
    }

    /// How a process finds it.
    pub(crate) fn environment(&self) -> [(&str, &str); 4] {
        [
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_ALLOW_HTTP", "true"),
        ]
    }

    /// It as the test's own clients see it.
    pub(crate) fn objects(&self) -> Objects {
        let find = |name: &str| self.environment().iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Objects::open_s3(&Self::url(), S3Options::from_names(find)).unwrap()
    }

    /// Lets the next put below a folder be stored at once and answered after a time.
    pub(crate) fn delay_put(&self, folder: &str, by: Duration) {
        *self.slow.lock() = Some((folder.to_owned(), by));
    }

    /// Leaves a key out of every listing from now on, or shows it again.
    pub(crate) fn hide(&self, key: &str, hidden: bool) {
        let mut all = self.hidden.lock();
        all.retain(|known| known != key);
        all.extend(hidden.then(|| key.to_owned()));
    }

    /// Puts what is under one key under another as well, whatever was there.
    pub(crate) fn exchange(&self, key: &str, by: &str) {
        let mut objects = self.objects.lock();
        let other = objects[by].clone();
        objects.insert(key.to_owned(), other);
    }

    /// The keys below a folder.
    pub(crate) fn keys(&self, folder: &str) -> Vec<String> {
        self.objects.lock().keys().filter(|key| key.starts_with(folder)).cloned().collect()
    }

    async fn connection(&self, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufStream::new(stream);
        while let Some(request) = read(&mut stream).await? {
            let Some(answer) = self.answer(&request) else { return Ok(()) };
            if let Some(late) = self.lateness(&request) {
                self.late.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(late).await;
            }
            stream.write_all(&answer).await?;
            stream.flush().await?;
        }
        Ok(())
    }

    fn lateness(&self, request: &Request) -> Option<Duration> {
        let below = |(folder, _): &mut (String, Duration)| {
            request.method == "PUT" && request.path.starts_with(&format!("/{BUCKET}/{folder}"))
        };
        self.slow.lock().take_if(below).map(|(_, by)| by)
    }

    /// An etag that no other answer has: whoever depends on one being the same is wrong.
    fn etag(&self) -> String {
        format!("ETag: \"e{}\"\r\n", self.etags.fetch_add(1, Ordering::Relaxed))
    }

    /// `None` closes the connection without a word.
    fn answer(&self, request: &Request) -> Option<Vec<u8>> {
        let is_unreliable = self.is_unreliable;
        if is_unreliable && self.requests.fetch_add(1, Ordering::Relaxed) % BUSY_EVERY == BUSY_EVERY - 1 {
            self.busy.fetch_add(1, Ordering::Relaxed);
            return Some(reply("503 Slow Down", "", b"<Error><Code>SlowDown</Code></Error>"));
        }
        let key = request.path.trim_start_matches(&format!("/{BUCKET}")).trim_start_matches('/').to_owned();
        let mut objects = self.objects.lock();
        match request.method.as_str() {
            "PUT" => {
                if request.headers.contains_key("if-none-match") && objects.contains_key(&key) {
                    return Some(reply(
                        "412 Precondition Failed",
                        "",
                        b"<Error><Code>PreconditionFailed</Code></Error>",
                    ));
                }
                objects.insert(key, request.body.clone().into());
                if is_unreliable && self.puts.fetch_add(1, Ordering::Relaxed) % SILENT_EVERY == SILENT_EVERY - 1 {
                    self.silent.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                Some(reply("200 OK", &self.etag(), b""))
            }
            "GET" if request.query.contains_key("list-type") => Some(self.list(&objects, &request.query)),
            "GET" | "HEAD" => Some(match objects.get(&key) {
                Some(found) => object(found, &self.etag(), request),
                None => reply("404 Not Found", "", b"<Error><Code>NoSuchKey</Code></Error>"),
            }),
            "DELETE" => {
                objects.remove(&key);
                Some(reply("204 No Content", "", b""))
            }
            "POST" if request.query.contains_key("delete") => {
                let body = String::from_utf8_lossy(&request.body).into_owned();
                let named = body.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
                let deleted: String = named
                    .inspect(|key| drop(objects.remove(*key)))
                    .map(|key| format!("<Deleted><Key>{key}</Key></Deleted>"))
                    .collect();
                Some(reply("200 OK", "", format!("<DeleteResult>{deleted}</DeleteResult>").as_bytes()))
            }
            _ => Some(reply("501 Not Implemented", "", b"<Error><Code>NotImplemented</Code></Error>")),
        }
    }

    fn list(&self, objects: &BTreeMap<String, Bytes>, query: &BTreeMap<String, String>) -> Vec<u8> {
        let prefix = query.get("prefix").cloned().unwrap_or_default();
        let after = query.get("continuation-token").or_else(|| query.get("start-after")).cloned().unwrap_or_default();
        let hidden = self.hidden.lock().clone();
        let shown = |key: &String| key.starts_with(&prefix) && *key > after && !hidden.contains(key);
        let mut found = objects.iter().filter(|(key, _)| shown(key));
        let page: Vec<_> = found.by_ref().take(PAGE).collect();
        let more = found.next().is_some();
        let mut body =
            format!("<ListBucketResult><IsTruncated>{more}</IsTruncated><KeyCount>{}</KeyCount>", page.len());
        for (key, bytes) in &page {
            body.push_str(&format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"e\"</ETag><Size>{}</Size></Contents>",
                bytes.len()
            ));
        }
        if let Some((last, _)) = page.last().filter(|_| more) {
            self.cut.fetch_add(1, Ordering::Relaxed);
            body.push_str(&format!("<NextContinuationToken>{last}</NextContinuationToken>"));
        }
        reply("200 OK", "", format!("{body}</ListBucketResult>").as_bytes())
    }
}

async fn read(stream: &mut BufStream<TcpStream>) -> io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut first = lines.first().map_or("", String::as_str).split(' ');
    let (method, target) = (first.next().unwrap_or(""), first.next().unwrap_or(""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let query = pairs.map(|(name, value)| (name.to_owned(), plain(value))).collect();
    let pairs = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
    let headers: BTreeMap<_, _> =
        pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Request { method: method.to_owned(), path: plain(path), query, headers, body }))
}

/// Percent signs resolved; keys here are ASCII.
fn plain(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(code.map_or('?', char::from));
        out.push_str(part.get(2..).unwrap_or(""));
    }
    out
}

fn object(found: &Bytes, etag: &str, request: &Request) -> Vec<u8> {
    let date = format!("Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n{etag}");
    if request.method == "HEAD" {
        return format!("HTTP/1.1 200 OK\r\n{date}Content-Length: {}\r\n\r\n", found.len()).into_bytes();
    }
    let range = request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let range = range.and_then(|(from, to)| Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()?)));
    match range {
        Some((from, to)) if from < found.len() => {
            let end = (to + 1).min(found.len());
            let place = format!("{date}Content-Range: bytes {from}-{}/{}\r\n", end - 1, found.len());
            reply("206 Partial Content", &place, &found[from..end])
        }
        Some(_) => reply("416 Range Not Satisfiable", "", b""),
        None => reply("200 OK", &date, found),
    }
}

fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    out.extend_from_slice(body);
    out
}

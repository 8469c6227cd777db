//! A bucket that speaks as much of the S3 protocol as object storage is asked for here, and that fails when it is told to.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use store::S3Options;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// The bucket's name; there is only one.
const NAME: &str = "logs";
/// Keys of one page of a listing, as S3 has it.
const PAGE: usize = 1_000;

/// In which ways a bucket fails; all of it is off by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BucketFaults {
    /// Of so many requests one is answered with 503; 1 is every one of them, 0 none.
    pub busy_every: u64,
    /// Of so many puts one is stored, and the connection closed without an answer; 0 is none.
    pub silent_every: u64,
    /// Every put is refused with 403.
    pub read_only: bool,
    /// Keys of one page of a listing; 0 is 1 000.
    pub page: usize,
    /// How long each request waits.
    pub delay: Duration,
}

/// Objects in memory behind an S3 endpoint on loopback, and what it did to its callers.
#[derive(Debug, Default)]
pub struct Bucket {
    endpoint: String,
    objects: Mutex<BTreeMap<String, Arc<[u8]>>>,
    faults: Mutex<BucketFaults>,
    requests: AtomicU64,
    puts: AtomicU64,
    /// Requests answered with 503.
    pub busy: AtomicU64,
    /// Puts that were stored and not answered.
    pub silent: AtomicU64,
    /// Pages of listings that were not the last.
    pub cut: AtomicU64,
    /// Requests that had to wait.
    pub slow: AtomicU64,
}

/// One request of HTTP.
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query as they came.
    pub(crate) target: String,
    path: String,
    query: BTreeMap<String, String>,
    /// By name in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

#[cfg(test)]
impl Request {
    /// One without headers and body.
    pub(crate) fn new(method: &str, target: &str) -> Self {
        let (headers, query) = (BTreeMap::new(), BTreeMap::new());
        Self { method: method.into(), target: target.into(), path: String::new(), query, headers, body: Vec::new() }
    }
}

impl Bucket {
    /// Serves on a port of its own for as long as the runtime lives.
    pub async fn serve() -> io::Result<Arc<Self>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let bucket = Arc::new(Self { endpoint, ..Self::default() });
        let all = Arc::clone(&bucket);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let bucket = Arc::clone(&all);
                // A connection that breaks is the caller's to notice.
                tokio::spawn(async move { bucket.connection(stream).await.ok() });
            }
        });
        Ok(bucket)
    }

    /// Its location, as settings name it.
    pub fn url(&self) -> String {
        format!("s3://{NAME}")
    }

    /// What a process must find in its environment to reach it.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }

    /// The same for a client in this process.
    pub fn options(&self) -> S3Options {
        let environment = self.environment();
        S3Options::from_names(|name| environment.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone()))
    }

    /// From now on it fails in these ways and no others.
    pub fn set(&self, faults: BucketFaults) {
        *self.faults.lock() = faults;
    }

    /// The keys below a folder.
    pub fn keys(&self, folder: &str) -> Vec<String> {
        self.objects.lock().keys().filter(|key| key.starts_with(folder)).cloned().collect()
    }

    async fn connection(&self, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufStream::new(stream);
        while let Some(request) = read(&mut stream).await? {
            let delay = self.faults.lock().delay;
            if !delay.is_zero() {
                self.slow.fetch_add(1, Ordering::Relaxed);
                sleep(delay).await;
            }
            let Some(answer) = self.answer(&request) else { return Ok(()) };
            stream.write_all(&answer).await?;
            stream.flush().await?;
        }
        Ok(())
    }

    /// `None` closes the connection without a word.
    fn answer(&self, request: &Request) -> Option<Vec<u8>> {
        let faults = *self.faults.lock();
        if nth(&self.requests, faults.busy_every) {
            self.busy.fetch_add(1, Ordering::Relaxed);
            return Some(reply("503 Slow Down", "", &problem("SlowDown")));
        }
        let key = request.path.trim_start_matches(&format!("/{NAME}")).trim_start_matches('/').to_owned();
        let mut objects = self.objects.lock();
        match request.method.as_str() {
            "PUT" if faults.read_only => Some(reply("403 Forbidden", "", &problem("AccessDenied"))),
            "PUT" if request.headers.contains_key("if-none-match") && objects.contains_key(&key) => {
                Some(reply("412 Precondition Failed", "", &problem("PreconditionFailed")))
            }
            "PUT" => {
                objects.insert(key, request.body.clone().into());
                if nth(&self.puts, faults.silent_every) {
                    self.silent.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                Some(reply("200 OK", "ETag: \"e\"\r\n", b""))
            }
            "GET" if request.query.contains_key("list-type") => {
                let page = if faults.page == 0 { PAGE } else { faults.page };
                Some(self.list(&objects, &request.query, page))
            }
            "GET" | "HEAD" => Some(match objects.get(&key) {
                Some(found) => object(found, request),
                None => reply("404 Not Found", "", &problem("NoSuchKey")),
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
            _ => Some(reply("501 Not Implemented", "", &problem("NotImplemented"))),
        }
    }

    fn list(&self, objects: &BTreeMap<String, Arc<[u8]>>, query: &BTreeMap<String, String>, page: usize) -> Vec<u8> {
        let prefix = query.get("prefix").cloned().unwrap_or_default();
        let after = query.get("continuation-token").or_else(|| query.get("start-after")).cloned().unwrap_or_default();
        let mut found = objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
        let page: Vec<_> = found.by_ref().take(page).collect();
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

/// Counts, and says whether it is this one's turn.
pub(crate) fn nth(count: &AtomicU64, every: u64) -> bool {
    let before = count.fetch_add(1, Ordering::Relaxed);
    every > 0 && before % every == every - 1
}

fn problem(code: &str) -> Vec<u8> {
    format!("<Error><Code>{code}</Code></Error>").into_bytes()
}

/// The next request of a connection; `None` when the caller has ended it.
pub(crate) async fn read(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Request>> {
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
    let (method, target, path) = (method.to_owned(), target.to_owned(), plain(path));
    Ok(Some(Request { method, target, path, query, headers, body }))
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

fn object(found: &[u8], request: &Request) -> Vec<u8> {
    let date = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nETag: \"e\"\r\n";
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
        None => reply("200 OK", date, found),
    }
}

pub(crate) fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
mod tests {
    use store::{Objects, Put};

    use super::*;

    #[tokio::test]
    async fn objects_read_as_written_whatever_the_bucket_does() {
        let bucket = Bucket::serve().await.unwrap();
        let objects = Objects::open_s3(&bucket.url(), bucket.options()).unwrap();
        bucket.set(BucketFaults { busy_every: 3, silent_every: 2, page: 2, ..BucketFaults::default() });
        for number in 0..5 {
            let put = objects.put_if_absent(&format!("a/{number}"), vec![number; 10].into()).await.unwrap();
            // After a put without an answer the client finds its own object.
            assert!(matches!(put, Put::Stored | Put::Exists));
        }
        assert_eq!(objects.put_if_absent("a/0", vec![9].into()).await.unwrap(), Put::Exists);
        for number in 0..5u8 {
            assert_eq!(&objects.get_range(&format!("a/{number}"), 2..4).await.unwrap()[..], [number; 2]);
        }
        assert_eq!(objects.list("a/", 100).await.unwrap().len(), 5);
        assert_eq!(objects.head("a/9").await.unwrap(), None);
        for (fault, times) in [("503", &bucket.busy), ("silence", &bucket.silent), ("pages", &bucket.cut)] {
            assert!(times.load(Ordering::Relaxed) > 0, "{fault} never happened");
        }
        bucket.set(BucketFaults { read_only: true, ..BucketFaults::default() });
        assert!(objects.put_if_absent("a/6", vec![6].into()).await.is_err());
        bucket.set(BucketFaults::default());
        objects.delete("a/0").await.unwrap();
        assert_eq!(bucket.keys("a/"), ["a/1", "a/2", "a/3", "a/4"]);
    }
}

//! A receiver of rows over HTTP that has bad days.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What it was given, as it tells rows apart: by writer and number.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) rows: BTreeMap<(String, u64), String>,
    /// Rows that came again.
    pub(crate) repeated: usize,
    pub(crate) requests: usize,
    pub(crate) authorized: usize,
}

/// Listens on an address of its own: refuses the first requests, and takes every seventh without a word of it.
pub(crate) async fn receive() -> (String, Arc<Mutex<Received>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let received = Arc::new(Mutex::new(Received::default()));
    let all = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&all)));
        }
    });
    (address, received)
}

async fn serve(mut stream: TcpStream, received: Arc<Mutex<Received>>) -> Option<()> {
    loop {
        let (head, body) = request(&mut stream).await?;
        let header = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let number = {
            let mut received = received.lock();
            received.requests += 1;
            received.requests
        };
        if number <= 3 {
            stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await.ok()?;
            continue;
        }
        {
            let mut received = received.lock();
            received.authorized += usize::from(header("authorization").as_deref() == Some("Bearer abc"));
            let (writer, first) = (header("lb-writer")?, header("lb-first-number")?.parse::<u64>().ok()?);
            for (number, line) in (first..).zip(body.lines()) {
                if let Some(before) = received.rows.insert((writer.clone(), number), line.to_owned()) {
                    assert_eq!(before, line, "row {number} of {writer} is another one");
                    received.repeated += 1;
                }
            }
        }
        if number % 7 == 0 {
            return None;
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.ok()?;
    }
}

async fn request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length?];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, String::from_utf8(body).ok()?))
}

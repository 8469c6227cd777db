//! One question to a server on a plain socket: for tests that ask JetStream what no service of ours asks.
//!
//! Only `bus` names the NATS client, and it has no door for such questions; a test needs neither reconnects nor headers.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

/// How long a server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long a server may take to read a flood.
const FLOODED_WITHIN: Duration = Duration::from_secs(20);
/// Where the answer arrives; the connection is for this question only.
const INBOX: &str = "_INBOX.testkit.answer";

/// Asks and reads the answer as JSON.
pub(crate) async fn ask(port: u16, creds: &str, subject: &str, body: &Value) -> Result<Value> {
    timeout(ANSWER_WITHIN, asked(port, creds, subject, body))
        .await
        .with_context(|| format!("{subject}: no answer within {ANSWER_WITHIN:?}"))?
}

/// Sends so many requests at once, and waits until the server has read them all; what it answers is thrown away.
pub(crate) async fn flood(port: u16, creds: &str, subject: &str, requests: usize) -> Result<()> {
    timeout(FLOODED_WITHIN, flooded(port, creds, subject, requests))
        .await
        .with_context(|| format!("{requests} times {subject}: not read within {FLOODED_WITHIN:?}"))?
}

async fn flooded(port: u16, creds: &str, subject: &str, requests: usize) -> Result<()> {
    let (mut lines, mut writer) = connect(port, creds).await?;
    let all = format!("PUB {subject} {INBOX} 0\r\n\r\n").repeat(requests) + "PING\r\n";
    writer.write_all(all.as_bytes()).await?;
    let mut line = String::new();
    while line.trim() != "PONG" {
        line.clear();
        ensure!(lines.read_line(&mut line).await? > 0, "{subject}: the server closed the connection");
    }
    Ok(())
}

async fn connect(port: u16, creds: &str) -> Result<(BufReader<OwnedReadHalf>, OwnedWriteHalf)> {
    let (reader, mut writer) = TcpStream::connect(("127.0.0.1", port)).await?.into_split();
    let mut lines = BufReader::new(reader);
    let mut line = String::new();
    lines.read_line(&mut line).await?;
    let info: Value = serde_json::from_str(line.strip_prefix("INFO ").context("the server does not begin with INFO")?)?;
    let nonce = info["nonce"].as_str().unwrap_or_default();
    let signature = KeyPair::from_seed(part(creds, "USER NKEY SEED")?)?.sign(nonce.as_bytes())?;
    let connect = json!({
        "verbose": false, "pedantic": false, "lang": "rust", "version": "0", "protocol": 1, "name": "testkit",
        "headers": true, "no_responders": true, "jwt": part(creds, "USER JWT")?,
        "sig": BASE64URL_NOPAD.encode(&signature),
    });
    writer.write_all(format!("CONNECT {connect}\r\n").as_bytes()).await?;
    Ok((lines, writer))
}

async fn asked(port: u16, creds: &str, subject: &str, body: &Value) -> Result<Value> {
    let (mut lines, mut writer) = connect(port, creds).await?;
    let body = body.to_string();
    let text = format!("SUB {INBOX} 1\r\nPUB {subject} {INBOX} {}\r\n{body}\r\nPING\r\n", body.len());
    writer.write_all(text.as_bytes()).await?;
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line).await? == 0 {
            bail!("{subject}: the server closed the connection");
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.first().copied() {
            Some("PING") => writer.write_all(b"PONG\r\n").await?,
            Some("MSG") => {
                let size: usize = words.last().copied().unwrap_or_default().parse()?;
                let mut payload = vec![0; size];
                lines.read_exact(&mut payload).await?;
                return serde_json::from_slice(&payload).context("the answer is not JSON");
            }
            Some("HMSG") => bail!("{subject}: nobody answers"),
            Some("-ERR") => bail!("{subject}: the server says {}", line.trim()),
            _ => {}
        }
    }
}

/// The text between the markers of a `.creds` file.
fn part<'a>(creds: &'a str, what: &str) -> Result<&'a str> {
    let mut lines = creds.lines();
    lines.find(|line| line.contains(&format!("BEGIN {what}")) || line.contains(&format!("BEGIN NATS {what}")));
    lines.next().map(str::trim).with_context(|| format!("the credentials hold no {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_apart() {
        let text = bus::keys::creds_file("the-jwt", "the-seed");
        assert_eq!(part(&text, "USER JWT").unwrap(), "the-jwt");
        assert_eq!(part(&text, "USER NKEY SEED").unwrap(), "the-seed");
        assert!(part("nothing", "USER JWT").is_err());
    }
}

//! Streams of others, read from a sequence on: for jobs.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::{
    Bus, BusError,
    jetstream::JETSTREAM_WITHIN,
    pull::{Pull, Step},
};

/// The pause before a consumer that was lost is made again.
const PAUSE: Duration = Duration::from_millis(50);

/// A message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamMessage {
    /// Its sequence in the stream.
    pub seq: u64,
    /// The subject that it was published on.
    pub subject: String,
    /// The body.
    pub payload: Bytes,
}

/// A position in a stream.
#[derive(Debug)]
pub struct StreamReader {
    pull: Pull,
    stream: String,
}

impl Bus {
    /// The sequence of the first message that a stream still has; the next one's where it has none.
    ///
    /// Errors: `Refused` where there is no such stream or this connection may not read it.
    pub async fn first_of_stream(&self, stream: &str) -> Result<u64, BusError> {
        Ok(self.ends(named(stream)?).await?.first_seq.max(1))
    }

    /// Reads the messages of a stream behind a sequence, of all subjects if none is named; a subject may hold wildcards.
    ///
    /// Bounds: 512 messages or 8 MiB are asked for at once. Errors: `Refused` for a name that none can have.
    pub fn read_stream(&self, stream: &str, subject: &str, after: u64) -> Result<StreamReader, BusError> {
        let stream = named(stream)?.to_owned();
        if subject.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(BusError::Refused {
                what: format!("subject {subject:?}"),
                reason: "it holds a space".to_owned(),
            });
        }
        Ok(StreamReader { pull: Pull::new(self, &stream, subject, after), stream })
    }
}

/// A name cannot lead into another part of JetStream's interface.
fn named(stream: &str) -> Result<&str, BusError> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '$');
    if !stream.is_empty() && stream.len() <= 255 && stream.chars().all(plain) {
        return Ok(stream);
    }
    let reason = "a stream's name has letters, digits, '-' and '_'".to_owned();
    Err(BusError::Refused { what: format!("stream {stream:?}"), reason })
}

impl StreamReader {
    /// Waits for the next message, in order. Cancel safe.
    ///
    /// Errors: `Unavailable` after 10 s without an answer; calling again goes on from the same place.
    pub async fn next(&mut self) -> Result<StreamMessage, BusError> {
        let until = Instant::now() + JETSTREAM_WITHIN;
        loop {
            match self.pull.next(true).await {
                Step::Message(s) => return Ok(StreamMessage { seq: s.seq, subject: s.subject, payload: s.payload }),
                Step::End => {}
                Step::Broken(reason) if Instant::now() >= until => {
                    return Err(BusError::Unavailable { what: format!("reading {}", self.stream), reason });
                }
                Step::Broken(_) => sleep(PAUSE).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_a_name() {
        assert!(named("ORDERS_2-b").is_ok());
        for name in ["", "a.b", "*", ">", "a b", "a/../b", "a\nb"] {
            assert!(named(name).is_err(), "{name:?}");
        }
    }
}

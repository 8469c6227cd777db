//! A stream of NATS JetStream: it is one split, and the sequence of the last message its position.
//!
//! A message is a line of JSON, or several. Whatever the stream lets go by its own limits before it was read is gone: then the job fails
//! and says so, unless the source takes one subject of several, where nobody can tell what the others' messages were.

use std::time::Duration;

use arrow::buffer::ScalarBuffer;
use bus::{Bus, BusError, StreamMessage, StreamReader};
use flow::FileFormat;
use formats::{Fault, Layout, Ndjson, Rows as Read};
use futures::future::BoxFuture;
use tracing::info;

use super::pulled::{PIECE_ROWS, Place, Reader, Split};
use crate::{error::TaskError, metrics::rows, task::Context};

/// Bytes of messages that are read together.
const PIECE_BYTES: usize = 1 << 20;
/// How long more messages are waited for when there is one.
const LINGER: Duration = Duration::from_millis(5);

/// The stream is the first subtask's; the others have nothing to read.
pub(super) async fn splits(
    context: &Context,
    (stream, subject): (&str, &str),
    format: &FileFormat,
    layout: &Layout,
    known: &[(String, Place)],
) -> Result<Vec<Split>, TaskError> {
    let bus = context.shared.jetstream(stream)?;
    if *format != FileFormat::Ndjson {
        return Err(TaskError::Plan("messages of JetStream are NDJSON; other formats are read from files".to_owned()));
    }
    if context.id.subtask != 0 {
        return Ok(Vec::new());
    }
    let place = known.iter().find(|(name, _)| name == stream).map(|(_, place)| *place).unwrap_or_default();
    let reader = Messages::open(bus, stream, subject, layout, place.position).await?;
    let (name, number) = (stream.to_owned(), types::hash64(stream.as_bytes()));
    Ok(vec![Split { name, number, place, reader: Some(Box::new(reader)) }])
}

/// Reads one stream.
#[derive(Debug)]
struct Messages {
    bus: Bus,
    stream: String,
    /// Whether sequences between two messages may be those of other subjects.
    filtered: bool,
    reader: StreamReader,
    lines: Ndjson,
    /// A message that is not looked at yet.
    came: Option<StreamMessage>,
    /// The sequence of the last message that was gathered.
    last: u64,
    gathered: Vec<u8>,
    /// Where each message begins among the gathered bytes, and its sequence.
    begins: Vec<(usize, u64)>,
    position: u64,
}

impl Messages {
    async fn open(bus: &Bus, stream: &str, subject: &str, layout: &Layout, after: u64) -> Result<Self, TaskError> {
        let wrong = |error: BusError| TaskError::source(stream, &error);
        let messages = Self {
            bus: bus.clone(),
            stream: stream.to_owned(),
            filtered: !subject.is_empty(),
            reader: bus.read_stream(stream, subject, after).map_err(wrong)?,
            lines: Ndjson::new(layout.clone(), 0),
            came: None,
            last: after,
            gathered: Vec::new(),
            begins: Vec::new(),
            position: after,
        };
        messages.complete(after.saturating_add(1)).await?;
        Ok(messages)
    }

    /// That the stream has let go nothing behind what was read, up to a sequence.
    async fn complete(&self, up_to: u64) -> Result<(), TaskError> {
        let first = loop {
            match self.bus.first_of_stream(&self.stream).await {
                Ok(first) => break first,
                Err(error @ BusError::Refused { .. }) => return Err(TaskError::source(&self.stream, &error)),
                Err(error) => info!(stream = %self.stream, %error, "stream does not answer; it is asked again"),
            }
        };
        let missing = first.saturating_sub(self.last.saturating_add(1));
        if self.last == 0 || missing == 0 {
            return Ok(());
        }
        if self.filtered {
            info!(stream = %self.stream, read = self.last, first, up_to, "stream let go messages that may not all be of others");
            return Ok(());
        }
        let problem = format!(
            "it was read up to message {} and begins at {first}: {missing} messages are gone; let the stream keep them longer, or submit the job anew",
            self.last
        );
        Err(TaskError::Source { what: self.stream.clone(), problem })
    }

    /// Waits for a message, and takes those that come with it. Cancel safe: what was taken is kept.
    async fn gather(&mut self) -> Result<(), TaskError> {
        while self.begins.len() < PIECE_ROWS && self.gathered.len() < PIECE_BYTES {
            if self.came.is_none() {
                let next = self.reader.next();
                let came = match self.begins.is_empty() {
                    true => next.await,
                    false => match tokio::time::timeout(LINGER, next).await {
                        Ok(came) => came,
                        Err(_) => return Ok(()),
                    },
                };
                match came {
                    Ok(message) => self.came = Some(message),
                    Err(_) if !self.begins.is_empty() => return Ok(()),
                    Err(error) => {
                        info!(stream = %self.stream, %error, "stream cannot be read; it is tried again");
                        self.complete(self.last).await?;
                        continue;
                    }
                }
            }
            let seq = self.came.as_ref().map_or(0, |message| message.seq);
            if seq > self.last.saturating_add(1) {
                self.complete(seq).await?;
            }
            if let Some(message) = self.came.take() {
                self.begins.push((self.gathered.len(), message.seq));
                self.gathered.extend_from_slice(&message.payload);
                self.gathered.push(b'\n');
                self.last = message.seq;
            }
        }
        Ok(())
    }

    async fn piece(&mut self) -> Result<Option<(Read, u64)>, TaskError> {
        loop {
            self.gather().await?;
            let (base, bytes) = (self.lines.position(), rows(self.gathered.len()));
            let taken = self.lines.read(&self.gathered, true, usize::MAX);
            let Read { batch, offsets, faults } = taken.map_err(|error| TaskError::source(&self.stream, &error))?.rows;
            let seq = |offset: u64| {
                let at = usize::try_from(offset.saturating_sub(base)).unwrap_or(usize::MAX);
                let place = self.begins.partition_point(|(begin, _)| *begin <= at);
                place.checked_sub(1).and_then(|place| self.begins.get(place)).map_or(0, |(_, seq)| *seq)
            };
            let signed = |offset: &i64| i64::try_from(seq(u64::try_from(*offset).unwrap_or(0))).unwrap_or(i64::MAX);
            let offsets: ScalarBuffer<i64> = offsets.iter().map(signed).collect();
            let faults: Vec<Fault> = faults.into_iter().map(|f| Fault { offset: seq(f.offset), ..f }).collect();
            self.gathered.clear();
            self.begins.clear();
            self.position = self.last;
            if batch.num_rows() > 0 || !faults.is_empty() {
                return Ok(Some((Read { batch, offsets, faults }, bytes)));
            }
        }
    }
}

impl Reader for Messages {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<(Read, u64)>, TaskError>> {
        Box::pin(self.piece())
    }

    fn position(&self) -> u64 {
        self.position
    }
}

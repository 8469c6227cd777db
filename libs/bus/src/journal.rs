//! Journals: the truth of a control service, one fenced subject each.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};
use wire::{Service, subjects};

use crate::{
    AppendError, Bus, BusError,
    append::{append_error, conditional, last_in},
    jetstream::{JETSTREAM_WITHIN, Pick, PublishError, WRONG_LAST_SEQUENCE, stream_config},
    pull::{Pull, Step},
};

/// One event of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRecord {
    /// Its place; grows by one from event to event.
    pub seq: u64,
    /// The event.
    pub payload: Bytes,
    /// The id that it was appended with.
    pub id: String,
}

/// The journal of one control service; clones share it.
#[derive(Debug, Clone)]
pub struct Journal {
    bus: Bus,
    stream: String,
    subject: String,
    /// The position of the last read, so that reading on costs no new consumer.
    reading: Arc<Mutex<Option<Pull>>>,
}

impl Bus {
    /// Opens the journal of a service, creating it where it is absent.
    pub async fn journal(&self, service: Service, replicas: u8) -> Result<Journal, BusError> {
        let (stream, subject) = (format!("JOURNAL_{service}"), subjects::journal(service));
        self.ensure_stream(&stream_config(stream.clone(), vec![subject.clone()], replicas)).await?;
        Ok(Journal { bus: self.clone(), stream, subject, reading: Arc::default() })
    }
}

impl Journal {
    /// Appends one event right behind `expected_last` and returns its sequence.
    ///
    /// Durable: stored by JetStream when it returns. Order: one append in flight is the caller's duty.
    /// `id` must be new for each event: the same append again, also after a restart of the caller, answers the same
    /// sequence.
    /// Bounds: tried for about 10 s. Errors: `Fenced`, `Refused` not applied; `Unknown` unknown.
    pub async fn append(&self, expected_last: u64, id: &str, payload: Vec<u8>) -> Result<u64, AppendError> {
        let headers = conditional(id, expected_last, None);
        match self.bus.publish_stored(&self.subject, &headers, &payload.into(), JETSTREAM_WITHIN).await {
            Ok(published) => Ok(published.seq),
            Err(PublishError::Rejected { error, repeated }) if error.err_code == WRONG_LAST_SEQUENCE => {
                // The condition is looked at before the id: a repeat of what was stored is refused by its own first
                // attempt.
                let fenced = AppendError::Fenced { last: last_in(&error.description) };
                self.find(expected_last + 1, id, fenced, repeated).await
            }
            Err(error) => Err(append_error(error)),
        }
    }

    /// Whether the event stands already: by the condition it can only be right behind the expected sequence.
    async fn find(&self, seq: u64, id: &str, fenced: AppendError, repeated: bool) -> Result<u64, AppendError> {
        match self.bus.stored(&self.stream, Pick::Seq(seq)).await {
            Ok(Some(stored)) if stored.id.as_deref() == Some(id) => Ok(seq),
            Ok(Some(_)) => Err(fenced),
            _ if !repeated => Err(fenced),
            Ok(None) => Err(AppendError::Unknown(format!("the journal was purged beyond {seq}"))),
            Err(error) => Err(AppendError::Unknown(error.to_string())),
        }
    }

    /// Reads events after a sequence, in order, up to a number of bytes but at least one; empty only at the end.
    ///
    /// The end is that of the stream's leader. Events that were purged are skipped: compare the first sequence.
    pub async fn read(&self, after: u64, bytes_max: usize) -> Result<Vec<JournalRecord>, BusError> {
        let mut reading = self.reading.lock().await;
        let mut pull = reading
            .take()
            .filter(|pull| pull.after() == after)
            .unwrap_or_else(|| Pull::new(&self.bus, &self.stream, &self.subject, after));
        let found = pull.read(bytes_max).await?;
        if !found.is_empty() {
            *reading = Some(pull);
        }
        Ok(found
            .into_iter()
            .map(|s| JournalRecord { seq: s.seq, payload: s.payload, id: s.id.unwrap_or_default() })
            .collect())
    }

    /// The sequence of the first event that is still there; `last_seq() + 1` when there is none.
    pub async fn first_seq(&self) -> Result<u64, BusError> {
        let ends = self.bus.ends(&self.stream).await?;
        Ok(ends.first_seq.max(1))
    }

    /// The sequence of the last event; 0 before the first.
    pub async fn last_seq(&self) -> Result<u64, BusError> {
        Ok(self.bus.ends(&self.stream).await?.last_seq)
    }

    /// Follows the journal from a sequence on, through reconnects, for ever.
    pub fn follow(&self, after: u64) -> Follower {
        Follower { pull: Pull::new(&self.bus, &self.stream, &self.subject, after), stream: self.stream.clone() }
    }

    /// Makes the journal begin right behind a sequence, which it has not reached; whatever it has below goes, its fence too.
    ///
    /// For a journal that takes the place of a lost one. Repeating it, also after others have gone on, removes nothing more.
    pub async fn begin_behind(&self, seq: u64) -> Result<(), BusError> {
        self.bus.purge(&self.stream, None, seq + 1).await
    }

    /// Removes the events below a sequence; the last event always stays, for it carries the fence.
    pub async fn purge_below(&self, seq: u64) -> Result<(), BusError> {
        let last = self.last_seq().await?;
        let below = seq.min(last);
        if below <= 1 {
            return Ok(());
        }
        self.bus.purge(&self.stream, Some(&self.subject), below).await
    }
}

/// The events of a journal as they come.
#[derive(Debug)]
pub struct Follower {
    pull: Pull,
    stream: String,
}

impl Follower {
    /// The next event. Cancel safe.
    ///
    /// Errors: `Unavailable` after 10 s without a server; calling again goes on from the same place.
    pub async fn next(&mut self) -> Result<JournalRecord, BusError> {
        let until = Instant::now() + JETSTREAM_WITHIN;
        loop {
            match self.pull.next(true).await {
                Step::Message(s) => {
                    return Ok(JournalRecord { seq: s.seq, payload: s.payload, id: s.id.unwrap_or_default() });
                }
                Step::End => {}
                Step::Broken(reason) if Instant::now() >= until => {
                    return Err(BusError::Unavailable { what: format!("following {}", self.stream), reason });
                }
                Step::Broken(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

//! The audit: records of who wanted what changed, which nobody can take back, and their reading.

use std::time::Duration;

use async_nats::jetstream::stream::DiscardPolicy;
use bytes::Bytes;
use wire::subjects;

use crate::{
    Bus, BusError,
    jetstream::{Pick, stream_config},
    pull::Pull,
};

/// The stream of the audit.
const STREAM: &str = "AUDIT";
/// Bytes of the audit read in one go.
const READ_BYTES_MAX: usize = 4 << 20;

/// One entry of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its place.
    pub seq: u64,
    /// The entry.
    pub payload: Bytes,
}

impl Bus {
    /// Makes sure that the audit is kept: so long or so many bytes, whichever ends first. Entries are written with
    /// [`Bus::publish_record`].
    ///
    /// Durable: no entry can be deleted, nor the stream be purged; only age and bytes let the oldest go.
    pub async fn ensure_audit(&self, replicas: u8, age_max: Duration, bytes_max: u64) -> Result<(), BusError> {
        let mut config = stream_config(STREAM.to_owned(), vec![subjects::AUDIT.to_owned()], replicas);
        config.max_age = age_max;
        config.max_bytes = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        config.discard = DiscardPolicy::Old;
        config.deny_purge = true;
        self.ensure_stream(&config).await.map(drop)
    }

    /// Reads the audit of a subject, which may hold wildcards.
    ///
    /// It begins with the first entry for which `is_before` does not hold, which is looked for on the supposition that those for which
    /// it holds come first: about twenty single reads among a million.
    /// Errors: `Refused` also where no audit was ever kept.
    pub async fn audit(&self, subject: &str, is_before: impl Fn(&[u8]) -> bool) -> Result<AuditReader, BusError> {
        let ends = self.ends(STREAM).await?;
        let (mut low, mut high) = (ends.first_seq.max(1), ends.last_seq + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.stored(STREAM, Pick::Next(middle, subject)).await? {
                Some(found) if found.seq < high && is_before(&found.payload) => low = found.seq + 1,
                _ => high = middle,
            }
        }
        Ok(AuditReader { pull: Pull::new(self, STREAM, subject, low - 1) })
    }
}

/// A position in the audit.
#[derive(Debug)]
pub struct AuditReader {
    pull: Pull,
}

impl AuditReader {
    /// The next entries in order, at least one; empty at the end.
    pub async fn read(&mut self) -> Result<Vec<AuditRecord>, BusError> {
        let found = self.pull.read(READ_BYTES_MAX).await?;
        Ok(found.into_iter().map(|stored| AuditRecord { seq: stored.seq, payload: stored.payload }).collect())
    }
}

//! The settings section `segment_store`; meaning, unit and default of each key stand in `default.toml`.

use serde::Deserialize;
use settings::{Findings, Secret, Section};
use types::{ByteSize, DurationText};

/// Settings of the segment store.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the probes and metrics; empty is off.
    pub probe_address: String,
    /// Largest frame of the durable log before compression.
    pub frame_bytes_max: ByteSize,
    /// How long a frame waits for more batches.
    pub frame_linger: DurationText,
    /// Bytes of a segment from which a chunk is written.
    pub flush_bytes: ByteSize,
    /// Age of events from which a chunk is written.
    pub flush_interval: DurationText,
    /// Bytes of a container that are not in Tier 2, from which writers are throttled.
    pub tail_bytes_max: ByteSize,
    /// Frames after which a container writes a snapshot.
    pub snapshot_frames: u64,
    /// Appends that a container holds in flight.
    pub appends_in_flight_max: u64,
    /// How often a container tells how much its segments take.
    pub load_interval: DurationText,
    /// How long an object of Tier 2 stays that nothing names any more.
    pub garbage_delay: DurationText,
    /// Memory that one fragment of a query may use.
    pub fragment_memory: ByteSize,
    /// Memory for parts of chunks that fragments have read.
    pub chunk_cache: ByteSize,
    /// For fault tests only: where this process dies.
    pub crash_point: String,
    /// Our own key to the buckets of archives.
    pub archive: ArchiveConfig,
}

/// `[segment_store.archive]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveConfig {
    /// Id of the access key.
    pub access_key_id: Secret,
    /// Its secret.
    pub access_secret: Secret,
    /// How often what is less than a chunk of a segment is copied.
    pub interval: DurationText,
}

impl Section for Config {
    const NAME: &'static str = "segment_store";

    fn validate(&self, found: &mut Findings) {
        let ms = |n| DurationText(std::time::Duration::from_millis(n));
        let span = |from, to| ms(from)..=ms(to);
        found.range("frame_bytes_max", self.frame_bytes_max, ByteSize(4 << 10)..=ByteSize(1 << 20));
        found.range("frame_linger", self.frame_linger, span(0, 100));
        found.range("flush_bytes", self.flush_bytes, ByteSize(64 << 10)..=ByteSize(1 << 30));
        found.range("flush_interval", self.flush_interval, span(100, 3_600_000));
        found.range("tail_bytes_max", self.tail_bytes_max, ByteSize(1 << 20)..=ByteSize(64 << 30));
        let fits = self.tail_bytes_max >= self.flush_bytes;
        found.require(fits, "tail_bytes_max", "must be at least flush_bytes, else no chunk ever fills");
        found.range("snapshot_frames", self.snapshot_frames, 1..=1_000_000);
        found.range("garbage_delay", self.garbage_delay, span(100, 86_400_000));
        found.range("archive.interval", self.archive.interval, span(0, 86_400_000));
        let (id, secret) = (&self.archive.access_key_id, &self.archive.access_secret);
        let both = id.reference().is_some() == secret.reference().is_some();
        found.require(both, "archive.access_secret", "must be set together with archive.access_key_id");
        let known = crate::crash::is_valid(&self.crash_point);
        found.require(known, "crash_point", "must be \"\", or a point of crash.rs as name:N");
        found.range("fragment_memory", self.fragment_memory, ByteSize(16 << 20)..=ByteSize(1 << 40));
        found.range("chunk_cache", self.chunk_cache, ByteSize(1 << 20)..=ByteSize(1 << 40));
        found.range("appends_in_flight_max", self.appends_in_flight_max, 1..=65_536);
        found.range("load_interval", self.load_interval, span(100, 600_000));
    }
}

#[cfg(test)]
mod tests {
    use settings::{Layers, Settings};

    use super::*;

    fn load(set: &[&str]) -> Result<Config, Findings> {
        let set = set.iter().map(|&s| s.into()).collect();
        Settings::load(Layers { set, ..Layers::default() }).and_then(|s| s.section::<Config>())
    }

    #[test]
    fn the_defaults_are_valid_and_complete() {
        assert_eq!(load(&[]).unwrap().frame_bytes_max, ByteSize(512 << 10));
    }

    #[test]
    fn what_cannot_work_is_found() {
        for bad in [
            "segment_store.frame_bytes_max=2MiB",
            "segment_store.frame_linger=1s",
            "segment_store.flush_bytes=1KiB",
            "segment_store.tail_bytes_max=4MiB",
            "segment_store.appends_in_flight_max=0",
            "segment_store.load_interval=1ms",
            "segment_store.garbage_delay=1ms",
            "segment_store.fragment_memory=1MiB",
            "segment_store.chunk_cache=1KiB",
            "segment_store.crash_point=nowhere:1",
            "segment_store.archive.access_secret=env:SOME_SECRET",
        ] {
            assert!(load(&[bad]).is_err(), "{bad}");
        }
    }
}

//! The durable log of a container, frame by frame.

use bus::{LogOptions, LogRecord};
use segment_store::container::{Limits, frame::Frame};
use serde_json::{Value, json};
use types::{ContainerId, Generation};
use wire::{Empty, coordinator::DescribePlacement};

use super::{
    Admin,
    findings::{self, Kind},
};

/// Bytes asked for at once: well below what a connection holds for a slow reader.
const READ_BYTES: usize = 4 << 20;

const COLUMNS: [&str; 6] = ["seq", "frame", "generation", "entries", "bytes", "state"];

/// Where the check stands. A log that was purged does not begin with the first frame, so the first one that is there is believed.
#[derive(Debug, Default)]
struct Check {
    generation: Generation,
    /// Number and link of the frame before.
    before: Option<(u64, u64)>,
    frames: u64,
    bytes: u64,
    damaged: u64,
}

/// A log that was looked at.
struct Checked {
    check: Check,
    rows: Vec<Value>,
    owner: Option<Value>,
}

/// What a record turned out to be.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Good,
    /// Of an owner that had lost the container: whoever replays passes it over.
    Stale,
    Damaged(String),
}

impl Check {
    /// Looks at the next record; the same rules as those of whoever replays it.
    fn take(&mut self, container: ContainerId, record: &LogRecord) -> (Option<Frame>, Finding) {
        self.frames += 1;
        self.bytes += record.payload.len() as u64;
        let (frame, link) = match Frame::decode(&record.payload) {
            Ok(found) => found,
            Err(error) => return (None, self.damage(error.to_string())),
        };
        if frame.container != container {
            let what = format!("it is of container {}", frame.container);
            return (Some(frame), self.damage(what));
        }
        if frame.generation < self.generation {
            return (Some(frame), Finding::Stale);
        }
        let finding = match self.before {
            Some((number, _)) if frame.number != number + 1 => {
                self.damage(format!("frame {} follows frame {number}: frames are missing or exchanged", frame.number))
            }
            Some((_, link)) if frame.previous != link => {
                self.damage(format!("frame {} does not hang on the one before it", frame.number))
            }
            _ => Finding::Good,
        };
        // Goes on from here, so that one damage is told once.
        self.generation = frame.generation;
        self.before = Some((frame.number, link));
        (Some(frame), finding)
    }

    /// Whether frames are missing before this one.
    fn is_gap(&self, record: &LogRecord) -> bool {
        let number = Frame::decode(&record.payload).map(|(frame, _)| frame.number);
        self.before.zip(number.ok()).is_some_and(|((before, _), number)| number > before + 1)
    }

    fn damage(&mut self, what: String) -> Finding {
        self.damaged += 1;
        Finding::Damaged(what)
    }
}

impl Admin {
    pub(super) async fn log(
        &self,
        container: ContainerId,
        config: &segment_store::Config,
        quiet: bool,
    ) -> anyhow::Result<()> {
        let Checked { check, rows, owner } = self.check_log(container, config, quiet).await?;
        self.show_log(container, &rows, &check, owner);
        anyhow::ensure!(
            check.damaged == 0,
            "the log of container {container} is damaged in {} places: repair it from a replica of the JetStream stream T1_{container}",
            check.damaged
        );
        Ok(())
    }

    /// What is wrong with the log of a container.
    pub(super) async fn log_findings(
        &self,
        container: ContainerId,
        config: &segment_store::Config,
    ) -> anyhow::Result<Vec<findings::Finding>> {
        let rows = self.check_log(container, config, true).await?.rows;
        let found = rows.iter().map(|row| {
            let (seq, state) = (&row["seq"], row["state"].as_str().unwrap_or_default());
            findings::Finding::new(Kind::Log, None, format!("record {seq} of the log: {state}"))
        });
        Ok(found.collect())
    }

    async fn check_log(
        &self,
        container: ContainerId,
        config: &segment_store::Config,
        quiet: bool,
    ) -> anyhow::Result<Checked> {
        // Asked for first: to open the log of a container that is none would make one.
        let count = self.call::<DescribePlacement>(&(), &Empty {}).await?.container_count;
        anyhow::ensure!(container.0 < count, "there are containers 0 to {}", count.saturating_sub(1));
        let limits = Limits::of(config, self.host.common.snapshot_interval.0);
        let options = LogOptions { replicas: self.host.common.journal_replicas, bytes_max: limits.log_bytes_max };
        let log = self.host.bus.container_log(container, options).await?;
        let end = log.last_seq().await?;
        let owner = log.owner().await?;
        let (mut check, mut after, mut rows) = (Check::default(), 0, Vec::new());
        let bar = self.bar(usize::try_from(end).unwrap_or(usize::MAX), "checking records");
        // What comes while this reads is left to the next look.
        while after < end {
            let records = log.read(after, READ_BYTES).await?;
            let Some(last) = records.last() else { break };
            after = last.seq;
            if check.is_gap(&records[0]) {
                // What was tiered meanwhile is purged: then this record is the first one that there is.
                let first = log.read(0, 1).await?;
                if first.first().is_some_and(|first| first.seq >= records[0].seq) {
                    check.before = None;
                }
            }
            for record in records.iter().filter(|record| record.seq <= end) {
                let (frame, finding) = check.take(container, record);
                if !quiet || matches!(finding, Finding::Damaged(_)) {
                    rows.push(row(record, frame.as_ref(), &finding));
                }
            }
            bar.set_position(after);
        }
        bar.finish_and_clear();
        let owner = owner.map(|(_, owner)| json!({ "replica": owner.replica, "generation": owner.generation.0 }));
        Ok(Checked { check, rows, owner })
    }

    fn show_log(&self, container: ContainerId, rows: &[Value], check: &Check, owner: Option<Value>) {
        if self.screen.is_json() {
            let (frames, bytes, damaged) = (check.frames, check.bytes, check.damaged);
            let sum = json!({ "container": container.0, "owner": owner, "frames": frames, "bytes": bytes, "damaged": damaged, "records": rows });
            return self.screen.value(&sum);
        }
        if !rows.is_empty() {
            self.screen.rows(rows, &COLUMNS);
        }
        let state = if check.damaged == 0 { "whole" } else { "damaged" };
        self.screen
            .line(format_args!("container {container}: {} frames, {} bytes, {state}", check.frames, check.bytes));
    }
}

fn row(record: &LogRecord, frame: Option<&Frame>, finding: &Finding) -> Value {
    let state = match finding {
        Finding::Good => "good",
        Finding::Stale => "stale",
        Finding::Damaged(what) => what,
    };
    json!({
        "seq": record.seq, "frame": frame.map(|f| f.number), "generation": frame.map(|f| f.generation.0),
        "entries": frame.map(|f| f.entries.len()), "bytes": record.payload.len(), "state": state,
    })
}

#[cfg(test)]
mod tests {
    use bus::RecordKind;
    use segment_store::container::frame::Entry;
    use types::SegmentId;

    use super::*;

    const HERE: ContainerId = ContainerId(3);

    fn frame(number: u64, generation: u64, previous: u64) -> (LogRecord, u64) {
        let segment = SegmentId { stream: 1, epoch: 0, number: 0 };
        let entries = vec![Entry::Seal { segment }];
        let encoded = Frame { container: HERE, generation: Generation(generation), number, previous, entries }.encode();
        (LogRecord { seq: number, kind: RecordKind::Frame, payload: encoded.bytes }, encoded.link)
    }

    #[test]
    fn a_chain_is_whole_wherever_it_begins_and_every_break_is_told_once() {
        let (seventh, link7) = frame(7, 2, 99);
        let (eighth, link8) = frame(8, 2, link7);
        let (stale, _) = frame(9, 1, link8);
        let (ninth, link9) = frame(9, 3, link8);
        let (eleventh, link11) = frame(11, 3, link9);
        let (twelfth, link12) = frame(12, 3, link11);
        let (unhinged, link13) = frame(13, 3, link12 + 1);
        let mut torn = frame(14, 3, link13).0;
        torn.payload = torn.payload.slice(..torn.payload.len() - 1);
        let mut check = Check::default();
        let mut kinds = Vec::new();
        for record in [seventh, eighth, stale, ninth, eleventh, twelfth, unhinged, torn] {
            kinds.push(match check.take(HERE, &record).1 {
                Finding::Good => "good",
                Finding::Stale => "stale",
                Finding::Damaged(_) => "damaged",
            });
        }
        assert_eq!(kinds, ["good", "good", "stale", "good", "damaged", "good", "damaged", "damaged"]);
        assert_eq!((check.frames, check.damaged), (8, 3));
        let (strange, _) = frame(15, 3, 0);
        assert!(matches!(Check::default().take(ContainerId(4), &strange).1, Finding::Damaged(_)));
    }
}

//! A task's part of a checkpoint: what it holds, and that it is what the checkpoint says.

use std::collections::BTreeMap;

use bytes::Bytes;
use flow::{OperatorState, TaskId, Uid};
use serde::{Deserialize, Serialize};
use store::Objects;
use types::SegmentId;
use wire::job_manager::PartRef;

use crate::{blocks, error::TaskError, split::Split};

/// The version of the format. Version 1 knew no blocks of state, no generations and no sources but indexes; it is read for
/// ever, and a newer one is refused.
const VERSION: u32 = 2;

/// The last event number of a writer in each of its targets.
pub(crate) type Numbers = BTreeMap<SegmentId, u64>;

/// What a task needs to go on as if nothing had happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Part {
    version: u32,
    pub(crate) task: TaskId,
    pub(crate) uid: Uid,
    pub(crate) checkpoint: u64,
    /// A source's splits.
    #[serde(default)]
    pub(crate) splits: BTreeMap<SegmentId, Split>,
    /// A window's state, as `flow` wrote it.
    #[serde(default)]
    pub(crate) window: Option<Bytes>,
    /// An index sink's writers, by the split that each writes for.
    #[serde(default)]
    pub(crate) writers: Vec<(Option<SegmentId>, Numbers)>,
    /// The targets with which an index sink's writers begin; a writer that begins behind the checkpoint needs them.
    #[serde(default)]
    pub(crate) targets: Vec<SegmentId>,
    /// The generation in whose names the writers count.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) generation: u32,
    /// The state of operators, which lies in blocks.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) state: Vec<OperatorState>,
    /// The splits of a source of anything else, each as its source writes it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) positions: BTreeMap<String, Bytes>,
    /// Whatever else a sink must know.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) sink: Option<Bytes>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Part {
    /// An empty part.
    pub(crate) fn new(task: TaskId, uid: Uid, checkpoint: u64) -> Self {
        let (splits, writers, targets) = (BTreeMap::new(), Vec::new(), Vec::new());
        let (generation, state, positions, sink) = (0, Vec::new(), BTreeMap::new(), None);
        let version = VERSION;
        Self {
            version,
            task,
            uid,
            checkpoint,
            splits,
            window: None,
            writers,
            targets,
            generation,
            state,
            positions,
            sink,
        }
    }

    /// The bytes to store, and how a checkpoint refers to them under that key.
    pub(crate) fn seal(&self, key: String) -> (Bytes, PartRef) {
        let bytes = Bytes::from(wire::encode(self));
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let crc32c = crc32c::crc32c(&bytes);
        (bytes, PartRef { key, bytes: size, crc32c })
    }

    /// The part in these bytes, if they are what `reference` says and of that vertex. It may be another subtask's: the
    /// parallelism may have been another.
    fn open(bytes: &[u8], reference: &PartRef, uid: &Uid) -> Result<Self, TaskError> {
        let wrong = |problem: String| TaskError::Part { key: reference.key.clone(), problem };
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let crc32c = crc32c::crc32c(bytes);
        if (size, crc32c) != (reference.bytes, reference.crc32c) {
            let PartRef { bytes: wanted, crc32c: sum, .. } = reference;
            return Err(wrong(format!("it has {size} bytes and checksum {crc32c:08x}, not {wanted} and {sum:08x}")));
        }
        let part: Self = wire::decode(bytes).map_err(|problem| wrong(problem.to_string()))?;
        if part.version == 0 || part.version > VERSION {
            let problem = format!("its version {} is above {VERSION}: restore it with its own release", part.version);
            return Err(wrong(problem));
        }
        if part.uid != *uid {
            return Err(wrong(format!("it belongs to task {} ({}), not to {uid}", part.task, part.uid)));
        }
        Ok(part)
    }

    /// Fetches and checks a part.
    pub(crate) async fn fetch(objects: &Objects, reference: &PartRef, uid: &Uid) -> Result<Self, TaskError> {
        Self::open(&blocks::get(objects, &reference.key).await?, reference, uid)
    }
}

#[cfg(test)]
mod tests {
    use types::Timestamp;

    use super::*;

    fn part() -> Part {
        let segment = SegmentId { stream: 3, epoch: 0, number: 1 };
        Part {
            window: Some(Bytes::from_static(b"state")),
            writers: vec![(None, Numbers::from([(segment, 9)])), (Some(segment), Numbers::new())],
            targets: vec![segment],
            generation: 2,
            state: vec![OperatorState { operator: "window".into(), watermark: Timestamp::MIN, blocks: Vec::new() }],
            positions: BTreeMap::from([("a.ndjson".to_owned(), Bytes::from_static(b"7"))]),
            ..Part::new(TaskId { vertex: 1, subtask: 2 }, Uid("u".into()), 7)
        }
    }

    #[test]
    fn a_part_reads_what_it_writes_and_nothing_else() {
        let (bytes, reference) = part().seal("k".into());
        let open = |bytes: &[u8], uid: &str| Part::open(bytes, &reference, &Uid(uid.into()));
        assert_eq!(open(&bytes, "u").unwrap(), part());
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            assert!(open(&damaged, "u").unwrap_err().to_string().contains("checksum"), "{at}");
        }
        assert!(open(&bytes[1..], "u").is_err());
        assert!(open(&bytes, "v").unwrap_err().to_string().contains("belongs"));
    }

    #[test]
    fn golden_parts_are_read_for_ever() {
        let mut golden = testkit::Golden::open("checkpoint");
        golden.check::<Part>("Part");
        golden.close();
    }

    #[test]
    fn another_version_is_refused() {
        for (version, taken) in [(0, false), (1, true), (2, true), (3, false)] {
            let (bytes, reference) = Part { version, ..part() }.seal("k".into());
            let opened = Part::open(&bytes, &reference, &part().uid);
            assert_eq!(opened.is_ok(), taken, "version {version}");
            assert!(taken || opened.unwrap_err().to_string().contains("its own release"));
        }
    }
}

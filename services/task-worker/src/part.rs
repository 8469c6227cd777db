//! A task's part of a checkpoint: what it holds, and that it is what the checkpoint says.

use std::collections::BTreeMap;

use bytes::Bytes;
use flow::{TaskId, Uid};
use serde::{Deserialize, Serialize};
use store::Objects;
use types::SegmentId;
use wire::job_manager::PartRef;

use crate::{error::TaskError, retry::Pauses, split::Split};

/// The version of the format; a reader refuses another one.
const VERSION: u32 = 1;
/// Tries to fetch a part before the attempt is given up; the next one tries again.
const FETCHES_MAX: u32 = 5;

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
}

impl Part {
    /// An empty part.
    pub(crate) fn new(task: TaskId, uid: Uid, checkpoint: u64) -> Self {
        let (splits, writers, targets) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { version: VERSION, task, uid, checkpoint, splits, window: None, writers, targets }
    }

    /// The bytes to store, and how a checkpoint refers to them under that key.
    pub(crate) fn seal(&self, key: String) -> (Bytes, PartRef) {
        let bytes = Bytes::from(wire::encode(self));
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let crc32c = crc32c::crc32c(&bytes);
        (bytes, PartRef { key, bytes: size, crc32c })
    }

    /// The part in these bytes, if they are what `reference` says and belong to that task.
    fn open(bytes: &[u8], reference: &PartRef, task: TaskId, uid: &Uid) -> Result<Self, TaskError> {
        let wrong = |problem: String| TaskError::Part { key: reference.key.clone(), problem };
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let crc32c = crc32c::crc32c(bytes);
        if (size, crc32c) != (reference.bytes, reference.crc32c) {
            let PartRef { bytes: wanted, crc32c: sum, .. } = reference;
            return Err(wrong(format!("it has {size} bytes and checksum {crc32c:08x}, not {wanted} and {sum:08x}")));
        }
        let part: Self = wire::decode(bytes).map_err(|problem| wrong(problem.to_string()))?;
        if part.version != VERSION {
            return Err(wrong(format!(
                "its version {} is not {VERSION}: restore it with its own release",
                part.version
            )));
        }
        if part.task != task || part.uid != *uid {
            return Err(wrong(format!("it belongs to task {} ({}), not to {task} ({uid})", part.task, part.uid)));
        }
        Ok(part)
    }

    /// Fetches and checks a part.
    pub(crate) async fn fetch(
        objects: &Objects,
        reference: &PartRef,
        task: TaskId,
        uid: &Uid,
    ) -> Result<Self, TaskError> {
        let mut pauses = Pauses::default();
        let mut failed = String::new();
        for _ in 0..FETCHES_MAX {
            match objects.get(&reference.key).await {
                Ok(bytes) => return Self::open(&bytes, reference, task, uid),
                Err(error) => failed = error.to_string(),
            }
            tokio::time::sleep(pauses.next()).await;
        }
        Err(TaskError::Part { key: reference.key.clone(), problem: failed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part() -> Part {
        let segment = SegmentId { stream: 3, epoch: 0, number: 1 };
        Part {
            window: Some(Bytes::from_static(b"state")),
            writers: vec![(None, Numbers::from([(segment, 9)])), (Some(segment), Numbers::new())],
            targets: vec![segment],
            ..Part::new(TaskId { vertex: 1, subtask: 2 }, Uid("u".into()), 7)
        }
    }

    #[test]
    fn a_part_reads_what_it_writes_and_nothing_else() {
        let (bytes, reference) = part().seal("k".into());
        let open = |bytes: &[u8], task, uid: &str| Part::open(bytes, &reference, task, &Uid(uid.into()));
        assert_eq!(open(&bytes, part().task, "u").unwrap(), part());
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            assert!(open(&damaged, part().task, "u").unwrap_err().to_string().contains("checksum"), "{at}");
        }
        assert!(open(&bytes[1..], part().task, "u").is_err());
        assert!(open(&bytes, TaskId { vertex: 1, subtask: 3 }, "u").unwrap_err().to_string().contains("belongs"));
        assert!(open(&bytes, part().task, "v").unwrap_err().to_string().contains("belongs"));
    }

    #[test]
    fn golden_parts_are_read_for_ever() {
        let mut golden = testkit::Golden::open("checkpoint");
        golden.check::<Part>("Part");
        golden.close();
    }

    #[test]
    fn another_version_is_refused() {
        let (bytes, reference) = Part { version: 2, ..part() }.seal("k".into());
        let refused = Part::open(&bytes, &reference, part().task, &part().uid).unwrap_err().to_string();
        assert!(refused.contains("its own release"), "{refused}");
    }
}

//! What does not fit together in a container: its state, its objects, its log. Pure.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use serde_json::{Value, json};
use store::SEALED;
use types::{Generation, SegmentId};
use wire::segment_store::{ChunkMeta, SegmentInfo};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The log is not what was written to it.
    Log,
    /// A chunk that the state names is not in object storage.
    Missing,
    /// A chunk is not what was put.
    Damaged,
    /// A chunk holds other events than the state says.
    Mismatch,
    /// Two chunks hold the same offsets.
    Overlap,
    /// No chunk holds offsets that are in Tier 2.
    Hole,
    /// The coordinator names a segment that its container does not have.
    Unknown,
    /// A container has a segment that no stream names.
    Stray,
    /// An object that nothing names.
    Orphan,
    /// An object that nothing names yet: put by the present owner, which may be about to.
    Young,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Missing => "missing",
            Self::Damaged => "damaged",
            Self::Mismatch => "mismatch",
            Self::Overlap => "overlap",
            Self::Hole => "hole",
            Self::Unknown => "unknown segment",
            Self::Stray => "stray segment",
            Self::Orphan => "orphan",
            Self::Young => "young",
        }
    }

    /// Whether it is something to repair; the rest passes by itself.
    pub(super) fn is_wrong(self) -> bool {
        self != Self::Young
    }
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    pub(super) segment: Option<SegmentId>,
    /// The chunk or object that it is about.
    pub(super) key: Option<String>,
    pub(super) detail: String,
    /// What was done about it.
    pub(super) done: Option<String>,
    /// The chunk as the state has it, where it can be put back.
    pub(super) chunk: Option<ChunkMeta>,
}

impl Finding {
    pub(super) fn new(kind: Kind, segment: Option<SegmentId>, detail: String) -> Self {
        Self { kind, segment, key: None, detail, done: None, chunk: None }
    }

    fn of(kind: Kind, segment: SegmentId, key: &str, detail: String) -> Self {
        Self { key: Some(key.to_owned()), ..Self::new(kind, Some(segment), detail) }
    }

    pub(super) fn of_chunk(kind: Kind, segment: SegmentId, chunk: &ChunkMeta, detail: String) -> Self {
        Self { chunk: Some(chunk.clone()), ..Self::of(kind, segment, &chunk.key, detail) }
    }

    pub(super) fn is_open(&self) -> bool {
        self.kind.is_wrong() && self.done.is_none()
    }

    pub(super) fn row(&self, container: u16) -> Value {
        json!({
            "container": container, "finding": self.kind.as_str(), "segment": self.segment, "key": self.key,
            "detail": self.detail, "done": self.done,
        })
    }
}

/// Whether the chunks of a segment hold `start .. tail_from` once.
pub(super) fn in_a_row(info: &SegmentInfo) -> Vec<Finding> {
    let mut found = Vec::new();
    // The first chunk may begin before the start.
    let mut end = info.chunks.first().map_or(info.start, |chunk| chunk.from.min(info.start));
    for chunk in &info.chunks {
        let from = chunk.from;
        let wrong = match from.cmp(&end) {
            Ordering::Equal => None,
            Ordering::Greater => Some((Kind::Hole, format!("offsets {end} to {from} are in no chunk"))),
            Ordering::Less => Some((Kind::Overlap, format!("offsets {from} to {end} are in two chunks"))),
        };
        found.extend(wrong.map(|(kind, detail)| Finding::of(kind, info.segment, &chunk.key, detail)));
        end = chunk.to.max(end);
    }
    if end < info.tail_from {
        let detail = format!("offsets {end} to {} are neither in a chunk nor in the tail", info.tail_from);
        found.push(Finding::new(Kind::Hole, Some(info.segment), detail));
    }
    found
}

/// Objects of a segment's folder that its state does not name: orphans, and those that may be about to be named.
pub(super) fn nameless(
    info: &SegmentInfo,
    listed: &BTreeMap<String, u64>,
    garbage: &BTreeSet<String>,
    owner: Generation,
) -> Vec<Finding> {
    let named: BTreeSet<&str> = info.chunks.iter().map(|chunk| chunk.key.as_str()).collect();
    let lost = listed.iter().filter(|(key, _)| !named.contains(key.as_str()) && !garbage.contains(*key));
    let found = lost.map(|(key, bytes)| match generation(key) {
        Some(of) if of >= owner => Finding::of(
            Kind::Young,
            info.segment,
            key,
            format!("{bytes} bytes, put by generation {}, which may name it", of.0),
        ),
        Some(of) => Finding::of(Kind::Orphan, info.segment, key, format!("{bytes} bytes, put by generation {}", of.0)),
        None => {
            Finding::of(Kind::Orphan, info.segment, key, format!("{bytes} bytes, put by a restore or by somebody else"))
        }
    });
    found.collect()
}

/// The owner that put a chunk: `<from>-G<generation>-<unique>.parquet`, sealed or not.
fn generation(key: &str) -> Option<Generation> {
    let key = key.strip_suffix(SEALED).unwrap_or(key);
    let (_, rest) = key.rsplit('/').next()?.strip_suffix(".parquet")?.split_once("-G")?;
    rest.split_once('-')?.0.parse().ok().map(Generation)
}

#[cfg(test)]
mod tests {
    use types::{Offset, Timestamp};

    use super::*;

    const SEGMENT: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };

    fn info(start: Offset, tail_from: Offset, chunks: &[(Offset, Offset)]) -> SegmentInfo {
        let chunks = chunks.iter().map(|(from, to)| ChunkMeta {
            key: format!("chunks/shop/1-0-0/{from}-G3-x.parquet"),
            from: *from,
            to: *to,
            bytes: 9,
            time_min: Timestamp::MIN,
            time_max: Timestamp::MAX,
        });
        SegmentInfo {
            segment: SEGMENT,
            index: "shop".parse().unwrap(),
            start,
            tail_from,
            end: tail_from,
            sealed: false,
            chunks: chunks.collect(),
            bytes: 0,
            truncated_bytes: 0,
            transactional: false,
        }
    }

    #[test]
    fn chunks_hold_every_offset_once() {
        let kinds = |info: SegmentInfo| in_a_row(&info).into_iter().map(|f| f.kind).collect::<Vec<_>>();
        assert_eq!(kinds(info(0, 20, &[(0, 10), (10, 20)])), []);
        assert_eq!(kinds(info(5, 20, &[(0, 10), (10, 20)])), [], "the first may begin before the start");
        assert_eq!(kinds(info(20, 20, &[])), [], "all is truncated");
        assert_eq!(kinds(info(0, 20, &[(0, 10), (12, 20)])), [Kind::Hole]);
        assert_eq!(kinds(info(0, 20, &[(0, 10), (8, 20)])), [Kind::Overlap]);
        assert_eq!(kinds(info(0, 20, &[(3, 20)])), [Kind::Hole]);
        assert_eq!(kinds(info(0, 20, &[(0, 10)])), [Kind::Hole]);
        assert_eq!(kinds(info(0, 20, &[])), [Kind::Hole]);
    }

    #[test]
    fn what_nothing_names_is_an_orphan_unless_its_owner_is_the_present_one() {
        let key = |name: &str| format!("chunks/shop/1-0-0/{name}");
        let listed: BTreeMap<String, u64> =
            ["0-G3-x.parquet", "5-G2-old.parquet", "7-G3-own.parquet", "9-R-0a.parquet", "3-G1-garbage.parquet"]
                .iter()
                .map(|name| (key(name), 1))
                .collect();
        let garbage = BTreeSet::from([key("3-G1-garbage.parquet")]);
        let found = nameless(&info(0, 10, &[(0, 10)]), &listed, &garbage, Generation(3));
        let kinds: Vec<_> = found.iter().map(|f| (f.key.clone().unwrap(), f.kind)).collect();
        assert_eq!(
            kinds,
            [
                (key("5-G2-old.parquet"), Kind::Orphan),
                (key("7-G3-own.parquet"), Kind::Young),
                (key("9-R-0a.parquet"), Kind::Orphan)
            ]
        );
    }
}

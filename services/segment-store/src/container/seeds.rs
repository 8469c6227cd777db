//! What a new segment learns from its predecessors, so that a repeat is recognised after a scale.

use std::collections::{BTreeMap, HashMap};

use bus::Bus;
use bytes::{Buf, Bytes};
use futures::{StreamExt, TryStreamExt};
use types::{Clock, SegmentId, Timestamp, WriterId};
use wire::segment_store::{DescribeWriters, SegmentName, SegmentPlace, WriterTable};

use crate::{
    container::{
        frame::Seeds,
        state::{IDS_TOLD_MAX, WRITERS_MAX},
    },
    error::Error,
};

/// Predecessors asked at the same time: each answers up to 2 MiB.
const ASKED_AT_ONCE_MAX: usize = 4;
/// Bytes of a message id in a table: `id u128 | received i64 | offset u64`.
const ID_BYTES: usize = 16 + 8 + 8;

/// How other containers are asked, whoever has them: through their doors, so that what they say is certain.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) bus: Bus,
}

/// Asks the owners of the predecessors; one that was deleted has nothing to tell.
///
/// Errors: `NotSealed` where a predecessor still takes appends, `PredecessorSilent`; nothing happened.
pub(crate) async fn learn(
    peers: &Peers,
    predecessors: &[SegmentPlace],
    clock: &dyn Clock,
    deadline: Timestamp,
) -> Result<Seeds, Error> {
    let asked = futures::stream::iter(predecessors.to_vec()).map(|place| ask(peers, place, clock, deadline));
    let tables: Vec<_> = asked.buffered(ASKED_AT_ONCE_MAX).try_collect().await?;
    merge(&tables.into_iter().flatten().collect::<Vec<_>>())
}

async fn ask(
    peers: &Peers,
    place: SegmentPlace,
    clock: &dyn Clock,
    deadline: Timestamp,
) -> Result<Option<(SegmentId, WriterTable)>, Error> {
    let SegmentPlace { segment, container } = place;
    let left = deadline.since(clock.now());
    match peers.bus.call_within::<DescribeWriters>(&container, &SegmentName { segment }, left).await {
        Ok(table) => Ok(Some((segment, table))),
        Err(problem) => match problem.kind.as_str() {
            "UnknownSegment" => Ok(None),
            "NotSealed" => Err(Error::NotSealed(segment)),
            _ => Err(Error::PredecessorSilent { segment, why: problem.to_string() }),
        },
    }
}

/// One table of several: of each writer the largest number, of each message id the latest receipt.
///
/// Bounds: [`WRITERS_MAX`] writers, those with the largest numbers, because they are the least likely to be gone; one
/// that is left out asks for its number and begins with 1. [`IDS_TOLD_MAX`] message ids, the newest.
fn merge(tables: &[(SegmentId, WriterTable)]) -> Result<Seeds, Error> {
    let mut last: BTreeMap<WriterId, u64> = BTreeMap::new();
    let mut received: HashMap<u128, Timestamp> = HashMap::new();
    for (segment, table) in tables {
        for writer in &table.writers {
            let known = last.entry(writer.writer.clone()).or_default();
            *known = (*known).max(writer.last);
        }
        for (id, at) in ids(*segment, table.ids.clone())? {
            let known = received.entry(id).or_insert(at);
            *known = (*known).max(at);
        }
    }
    let mut writers: Vec<_> = last.into_iter().collect();
    if writers.len() > WRITERS_MAX {
        writers.sort_by_key(|(_, last)| std::cmp::Reverse(*last));
        writers.truncate(WRITERS_MAX);
        writers.sort();
    }
    let mut ids: Vec<_> = received.into_iter().collect();
    ids.sort_by_key(|(id, at)| (*at, *id));
    let ids = ids.split_off(ids.len().saturating_sub(IDS_TOLD_MAX));
    Ok(Seeds { writers, ids })
}

fn ids(segment: SegmentId, mut bytes: Bytes) -> Result<Vec<(u128, Timestamp)>, Error> {
    if !bytes.len().is_multiple_of(ID_BYTES) {
        let why = format!("{} bytes are no list of message ids", bytes.len());
        return Err(Error::PredecessorSilent { segment, why });
    }
    let mut ids = Vec::with_capacity(bytes.len() / ID_BYTES);
    while bytes.has_remaining() {
        ids.push((bytes.get_u128_le(), Timestamp::from_nanos(bytes.get_i64_le())));
        bytes.advance(8);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use wire::segment_store::WriterLast;

    use super::*;
    use crate::container::frame::{Entry, RAW_BYTES_MAX};

    const SEGMENT: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };

    fn table(writers: &[(&str, u64)], ids: &[(u128, i64)]) -> (SegmentId, WriterTable) {
        let writers = writers.iter().map(|(w, last)| WriterLast { writer: w.parse().unwrap(), last: *last });
        let mut bytes = BytesMut::new();
        for (id, at) in ids {
            bytes.put_u128_le(*id);
            bytes.put_i64_le(*at);
            bytes.put_u64_le(7);
        }
        (SEGMENT, WriterTable { writers: writers.collect(), ids: bytes.freeze() })
    }

    #[test]
    fn of_each_the_latest() {
        let tables =
            [table(&[("a", 3), ("b", 9)], &[(1, 10), (2, 30)]), table(&[("a", 5), ("c", 1)], &[(3, 20), (1, 40)])];
        let seeds = merge(&tables).unwrap();
        let writers: Vec<_> = seeds.writers.iter().map(|(w, last)| (w.as_str(), *last)).collect();
        assert_eq!(writers, [("a", 5), ("b", 9), ("c", 1)]);
        let ids: Vec<_> = seeds.ids.iter().map(|(id, at)| (*id, at.nanos())).collect();
        assert_eq!(ids, [(3, 20), (2, 30), (1, 40)]);
        assert!(merge(&[]).unwrap().is_empty());
        let (_, mut broken) = table(&[], &[(1, 1)]);
        broken.ids.truncate(31);
        assert!(matches!(merge(&[(SEGMENT, broken)]), Err(Error::PredecessorSilent { .. })));
    }

    #[test]
    fn the_largest_seeds_fit_a_frame() {
        let name = |n: usize| format!("{n:0>128}");
        let names: Vec<_> = (0..2 * WRITERS_MAX).map(name).collect();
        let writers: Vec<_> = names.iter().zip(1u64..).map(|(name, last)| (name.as_str(), last)).collect();
        let many: Vec<_> = (1..=2 * IDS_TOLD_MAX).map(|n| (n as u128, n as i64)).collect();
        let seeds = merge(&[table(&writers, &many)]).unwrap();
        assert_eq!((seeds.writers.len(), seeds.ids.len()), (WRITERS_MAX, IDS_TOLD_MAX));
        assert_eq!(seeds.writers[0].1, WRITERS_MAX as u64 + 1, "the smallest numbers are left out");
        assert_eq!(seeds.ids[0].0, IDS_TOLD_MAX as u128 + 1, "the oldest are left out");
        let entry =
            Entry::CreateSegment { segment: SEGMENT, index: "shop".parse().unwrap(), seeds, transactional: false };
        assert!(entry.raw_bytes() + (1 << 20) < RAW_BYTES_MAX, "{}", entry.raw_bytes());
    }
}

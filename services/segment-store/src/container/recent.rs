//! Message ids of late: what makes a producer's repeat under a new event number a duplicate.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use types::{Offset, Timestamp};

/// Ids remembered per segment: two minutes of 500 events a second.
pub const IDS_MAX: usize = 65_536;

/// For how long an id is remembered, by time of receipt; JetStream's own default window.
pub const WINDOW: Duration = Duration::from_secs(120);

/// The newest ids are remembered however old they seem: a store whose clock jumps ahead must not make everything before
/// seem older than the window.
pub const IDS_KEPT_MIN: usize = 16_384;

const ID_BYTES: usize = 16 + 8 + 8;

/// What stands for the offset of an id that another segment has; no segment has so many events.
const ELSEWHERE: Offset = Offset::MAX;

/// The ids of the last [`WINDOW`], at least the [`IDS_KEPT_MIN`] newest, at most [`IDS_MAX`]; older ones are forgotten.
///
/// Time is that of the newest event, never a clock's, so that every replay forgets the same ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Bytes", try_from = "Bytes")]
pub struct RecentIds {
    order: VecDeque<(u128, Timestamp)>,
    offsets: HashMap<u128, Offset>,
    newest: Timestamp,
}

impl Default for RecentIds {
    fn default() -> Self {
        Self { order: VecDeque::new(), offsets: HashMap::new(), newest: Timestamp::MIN }
    }
}

impl RecentIds {
    /// The offset under which the id was stored, `Some(None)` if in a predecessor of the segment; 0 is no id.
    pub fn find(&self, id: u128) -> Option<Option<Offset>> {
        self.offsets.get(&id).map(|offset| Some(*offset).filter(|offset| *offset != ELSEWHERE))
    }

    /// The ids with their times of receipt and offsets, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u128, Timestamp, Option<Offset>)> + '_ {
        self.order.iter().map(|(id, received)| (*id, *received, self.find(*id).flatten()))
    }

    /// Remembers an id that is not known; 0 is no id. Without an offset a predecessor has it.
    ///
    /// Only events with an id move the horizon: lanes stamp those with the store's clock, the rest bears a client's.
    pub fn insert(&mut self, id: u128, received: Timestamp, offset: Option<Offset>) {
        if id == 0 {
            return;
        }
        self.newest = self.newest.max(received);
        self.order.push_back((id, received));
        self.offsets.insert(id, offset.unwrap_or(ELSEWHERE));
        let horizon = self.newest - WINDOW;
        while let Some((oldest, at)) = self.order.front().copied() {
            let count = self.order.len();
            if count <= IDS_KEPT_MIN || (count <= IDS_MAX && at >= horizon) {
                break;
            }
            self.order.pop_front();
            self.offsets.remove(&oldest);
        }
    }

    /// Forgets those whose time of receipt does not stay.
    pub(crate) fn retain(&mut self, stays: impl Fn(Timestamp) -> bool) {
        let offsets = &mut self.offsets;
        self.order.retain(|(id, at)| {
            let kept = stays(*at);
            if !kept {
                offsets.remove(id);
            }
            kept
        });
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

impl From<RecentIds> for Bytes {
    fn from(ids: RecentIds) -> Self {
        let mut out = BytesMut::with_capacity(8 + ids.order.len() * ID_BYTES);
        out.put_i64_le(ids.newest.nanos());
        for (id, received) in &ids.order {
            out.put_u128_le(*id);
            out.put_i64_le(received.nanos());
            out.put_u64_le(ids.offsets.get(id).copied().unwrap_or_default());
        }
        out.freeze()
    }
}

impl TryFrom<Bytes> for RecentIds {
    type Error = String;

    fn try_from(mut bytes: Bytes) -> Result<Self, String> {
        if bytes.len() < 8 || !(bytes.len() - 8).is_multiple_of(ID_BYTES) {
            return Err(format!("{} bytes are no list of message ids", bytes.len()));
        }
        let mut ids = Self { newest: Timestamp::from_nanos(bytes.get_i64_le()), ..Self::default() };
        while bytes.has_remaining() {
            let (id, received) = (bytes.get_u128_le(), Timestamp::from_nanos(bytes.get_i64_le()));
            ids.order.push_back((id, received));
            ids.offsets.insert(id, bytes.get_u64_le());
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn an_id_is_forgotten_after_the_window() {
        let mut ids = RecentIds::default();
        ids.insert(1, at(0), Some(10));
        let others = u128::try_from(IDS_KEPT_MIN).unwrap();
        (2..=others + 1).for_each(|id| ids.insert(id, at(120), Some(11)));
        assert_eq!(ids.find(1), Some(Some(10)), "exactly two minutes are inside");
        ids.insert(0, at(9_999), Some(12));
        assert_eq!(ids.len(), IDS_KEPT_MIN + 1, "an event without an id may bear the clock of anybody");
        ids.insert(others + 2, at(121), Some(13));
        assert_eq!((ids.find(1), ids.find(2), ids.len()), (None, Some(Some(11)), IDS_KEPT_MIN + 1));
        assert_eq!(ids.find(0), None);
    }

    #[test]
    fn a_clock_that_jumps_ahead_makes_nothing_forgotten_that_may_still_be_repeated() {
        let mut ids = RecentIds::default();
        ids.insert(1, at(0), Some(10));
        ids.insert(2, at(525), Some(11));
        ids.insert(3, at(1), Some(12));
        assert_eq!((ids.find(1), ids.find(2), ids.find(3)), (Some(Some(10)), Some(Some(11)), Some(Some(12))));
    }

    #[test]
    fn ids_are_bounded() {
        let mut ids = RecentIds::default();
        for n in 1..=IDS_MAX as u64 + 3 {
            ids.insert(n.into(), at(0), Some(n));
        }
        assert_eq!((ids.len(), ids.offsets.len()), (IDS_MAX, IDS_MAX));
        assert_eq!((ids.find(3), ids.find(4)), (None, Some(Some(4))));
    }

    #[test]
    fn they_survive_a_snapshot() {
        let mut ids = RecentIds::default();
        (1..100u32).for_each(|n| ids.insert(n.into(), at(n.into()), (n % 3 > 0).then_some(n.into())));
        assert_eq!((ids.find(3), ids.find(4)), (Some(None), Some(Some(4))));
        let bytes = rmp_serde::to_vec_named(&ids).unwrap();
        assert_eq!(rmp_serde::from_slice::<RecentIds>(&bytes).unwrap(), ids);
        assert!(RecentIds::try_from(Bytes::from_static(&[0; 9])).is_err());
    }
}

//! Segments made of chunks that are there: how a stream comes back from an export or from its chunks alone.

use types::{Offset, SegmentId};
use wire::segment_store::{Adoption, SegmentOrigin};

use super::{Effect, Segment, State};
use crate::error::Error;

impl State {
    pub(super) fn describe_as(&mut self, segment: SegmentId, origin: &SegmentOrigin) -> Result<Effect, Error> {
        self.segment_mut(segment)?.origin = Some(origin.clone());
        Ok(Effect::Created)
    }

    pub(super) fn adopt(&mut self, adoption: &Adoption) -> Result<Effect, Error> {
        // Its folder would be swept. A segment that was deleted and swept may come back: the coordinator gave its number.
        if self.deleted.contains_key(&adoption.segment) {
            return Err(Error::SegmentDeleted(adoption.segment));
        }
        match self.segments.get(&adoption.segment) {
            Some(known) if known.is_made_of(adoption) => {}
            Some(_) => return Err(Error::SegmentDiffers(adoption.segment)),
            None => drop(self.segments.insert(adoption.segment, Segment::made_of(adoption)?)),
        }
        Ok(Effect::Created)
    }
}

impl Segment {
    fn made_of(adoption: &Adoption) -> Result<Self, Error> {
        let end = end_of(adoption)?;
        let mut made = Self::new(adoption.index.clone(), false);
        (made.start, made.tail_from, made.end) = (adoption.start, end, end);
        (made.bytes, made.tiered_bytes) = (adoption.bytes, adoption.bytes);
        // How many bytes each chunk brings is not known: events count alike.
        let share = |to: Offset| {
            let (bytes, all) = (u128::from(adoption.bytes), u128::from(end - adoption.start).max(1));
            u64::try_from(bytes * u128::from(to - adoption.start) / all).unwrap_or(u64::MAX)
        };
        made.bytes_below = adoption.chunks.iter().map(|chunk| (chunk.to, share(chunk.to))).collect();
        made.chunks.clone_from(&adoption.chunks);
        (made.sealed, made.origin) = (adoption.sealed, adoption.origin.clone());
        made.adopted = Some((adoption.start, end));
        Ok(made)
    }

    /// Whether this adoption made the segment, whatever became of it since.
    pub(crate) fn is_made_of(&self, adoption: &Adoption) -> bool {
        self.index == adoption.index && end_of(adoption).is_ok_and(|end| self.adopted == Some((adoption.start, end)))
    }
}

/// The offset after the last event, if the chunks follow each other from the start on.
pub(crate) fn end_of(adoption: &Adoption) -> Result<Offset, Error> {
    adoption.chunks.iter().try_fold(adoption.start, |next, chunk| {
        if chunk.from == next && chunk.to > next {
            return Ok(chunk.to);
        }
        let (key, from, to) = (&chunk.key, chunk.from, chunk.to);
        Err(Error::BadAdoption(format!("chunk {key} holds the offsets {from} to {to}, and {next} is next")))
    })
}

#[cfg(test)]
mod tests {
    use types::{ContainerId, Generation, KeyRange, Timestamp};
    use wire::{
        block::{Block, BlockBuilder},
        segment_store::ChunkMeta,
    };

    use super::*;
    use crate::container::{
        frame::{Entry, Frame},
        state::Applied,
    };

    const SEGMENT: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };

    struct Log(State, u64);

    impl Log {
        fn write(&mut self, entry: Entry) -> Effect {
            self.1 += 1;
            let (container, generation) = (ContainerId(0), Generation(1));
            let frame =
                Frame { container, generation, number: self.1, previous: self.0.previous, entries: vec![entry] };
            match self.0.apply(self.1, &frame, frame.encode().link).unwrap() {
                Applied::Frame(effects) => effects[0].clone(),
                other => panic!("{other:?}"),
            }
        }

        fn segment(&self) -> &Segment {
            self.0.segment(SEGMENT).unwrap()
        }
    }

    fn adoption(ranges: &[(Offset, Offset)]) -> Adoption {
        let chunks = ranges.iter().map(|(from, to)| ChunkMeta {
            key: format!("chunks/shop/1-0-0/{from}"),
            from: *from,
            to: *to,
            bytes: 10,
            time_min: Timestamp::MIN,
            time_max: Timestamp::MAX,
        });
        let range = KeyRange::split_evenly(1)[0];
        Adoption {
            segment: SEGMENT,
            index: "shop".parse().unwrap(),
            origin: Some(SegmentOrigin { scope: "team".parse().unwrap(), range, encrypted: false }),
            start: ranges.first().map_or(0, |first| first.0),
            sealed: false,
            bytes: 1_000,
            chunks: chunks.collect(),
        }
    }

    fn adopt(ranges: &[(Offset, Offset)]) -> Entry {
        Entry::Adopt(Box::new(adoption(ranges)))
    }

    fn append(number: u64) -> Entry {
        let mut block = BlockBuilder::new();
        assert!(block.push(Timestamp::MIN, 0, b"12345"));
        let (writer, block) = ("w".parse().unwrap(), Block::open(block.finish()).unwrap());
        Entry::Append { segment: SEGMENT, writer, first_event_number: number, expected_end: None, block }
    }

    #[test]
    fn a_segment_made_of_chunks_goes_on_where_they_end() {
        let mut log = Log(State::new(ContainerId(0)), 0);
        assert_eq!(log.write(adopt(&[(100, 150), (150, 200)])), Effect::Created);
        let info = log.segment().info(SEGMENT);
        assert_eq!((info.start, info.tail_from, info.end, info.bytes), (100, 200, 200, 1_000));
        assert_eq!(info.chunks.len(), 2);
        let Effect::Appended { answer, .. } = log.write(append(1)) else { panic!("refused") };
        assert_eq!(answer.offsets, [Some(200)]);
        assert_eq!(log.0.tail_seq(), 2, "only what was appended is to be kept in the log");
        let before = log.segment().clone();
        assert_eq!(log.write(adopt(&[(100, 150), (150, 200)])), Effect::Created);
        assert_eq!(*log.segment(), before, "a repeat changes nothing");
    }

    #[test]
    fn truncation_counts_the_bytes_of_adopted_chunks() {
        let mut log = Log(State::new(ContainerId(0)), 0);
        log.write(adopt(&[(0, 25), (25, 100)]));
        log.write(Entry::Truncate { segment: SEGMENT, before: 30, at: Timestamp::MIN });
        assert_eq!((log.segment().truncated_bytes, log.segment().chunks.len()), (250, 1));
    }

    #[test]
    fn what_is_no_segment_or_another_one_is_refused() {
        let refused = |effect: Effect| match effect {
            Effect::Refused(why) => why,
            other => panic!("{other:?}"),
        };
        let mut log = Log(State::new(ContainerId(0)), 0);
        for holes in [&[(0, 5), (6, 9)][..], &[(0, 5), (4, 9)], &[(0, 0)]] {
            let why = refused(log.write(adopt(holes)));
            assert!(matches!(why, Error::BadAdoption(_)), "{why:?}");
        }
        log.write(Entry::create(SEGMENT, "shop".parse().unwrap()));
        assert_eq!(refused(log.write(adopt(&[(0, 5)]))), Error::SegmentDiffers(SEGMENT), "one that was created");
        log.write(Entry::Delete { segment: SEGMENT, at: Timestamp::MIN });
        assert_eq!(refused(log.write(adopt(&[(0, 5)]))), Error::SegmentDeleted(SEGMENT), "its folder is being swept");
        log.write(Entry::Swept { segment: SEGMENT });
        assert_eq!(log.write(adopt(&[(0, 5)])), Effect::Created);
        assert_eq!(refused(log.write(adopt(&[(0, 4)]))), Error::SegmentDiffers(SEGMENT));
    }
}

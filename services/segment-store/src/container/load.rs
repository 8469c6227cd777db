//! How much segments take, told now and then to whoever decides about scaling.

use std::{collections::BTreeMap, time::Duration};

use bus::Bus;
use types::SegmentId;
use wire::segment_store::{ContainerLoad, ContainerLoaded, SegmentLoad};

use crate::container::{Container, state::State};

/// Segments of one notice: about 60 KiB; more are told in several.
const LOADS_MAX: usize = 1_000;

/// What was told of each segment: events and bytes.
#[derive(Debug)]
struct Told(BTreeMap<SegmentId, (u64, u64)>);

impl Told {
    fn new(state: &State) -> Self {
        // An open transaction takes nothing until it is merged.
        let present = state.segments.iter().filter(|(_, s)| !s.transactional);
        Self(present.map(|(id, s)| (*id, (s.end, s.bytes))).collect())
    }

    /// The segments that took anything since the last time.
    fn next(&mut self, state: &State) -> Vec<SegmentLoad> {
        let now = Self::new(state);
        let changed = now.0.iter().filter(|(id, load)| load.0 > 0 && self.0.get(*id) != Some(*load));
        let loads = changed.map(|(id, load)| SegmentLoad { segment: *id, events: load.0, bytes: load.1 }).collect();
        *self = now;
        loads
    }
}

/// Tells the loads of a container at every interval in which something was appended, for ever.
pub(crate) async fn tell(container: Container, bus: Bus, every: Duration) {
    let mut told = Told::new(&container.books.read().state);
    loop {
        tokio::time::sleep(every).await;
        let loads = told.next(&container.books.read().state);
        for loads in loads.chunks(LOADS_MAX) {
            let (container, generation, at) = (&container.id, container.generation, container.clock.now());
            let load = ContainerLoad { container: *container, generation, at, segments: loads.to_vec() };
            bus.tell::<ContainerLoaded>(container, &load).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use types::{ContainerId, Generation, Timestamp};
    use wire::block::{Block, BlockBuilder};

    use super::*;
    use crate::container::frame::{Entry, Frame, Seeds};

    #[test]
    fn only_what_grew_is_told_and_all_that_it_has() {
        let segment = |number| SegmentId { stream: 1, epoch: 0, number };
        let mut state = State::new(ContainerId(0));
        let mut seq = 0;
        let mut write = |state: &mut State, entries: Vec<Entry>| {
            seq += 1;
            let (container, generation) = (ContainerId(0), Generation(1));
            let frame = Frame { container, generation, number: seq, previous: state.previous, entries };
            state.apply(seq, &frame, frame.encode().link).unwrap();
        };
        let append = |number, first| {
            let mut block = BlockBuilder::new();
            (0..2).for_each(|_| assert!(block.push(Timestamp::MIN, 0, b"12345")));
            Entry::Append {
                segment: segment(number),
                writer: "w".parse().unwrap(),
                first_event_number: first,
                expected_end: None,
                block: Block::open(block.finish()).unwrap(),
            }
        };
        let index: types::IndexName = "shop".parse().unwrap();
        let create = |number| Entry::create(segment(number), index.clone());
        let (shadow, seeds) = (segment(0x8000_0001), Seeds::default());
        let shadow = Entry::CreateSegment { segment: shadow, index: index.clone(), seeds, transactional: true };
        write(&mut state, vec![create(0), create(1), shadow, append(0, 1)]);
        let mut told = Told::new(&state);
        assert_eq!(told.next(&state), []);
        write(&mut state, vec![append(0, 3), append(0x8000_0001, 1), create(2)]);
        assert_eq!(told.next(&state), [SegmentLoad { segment: segment(0), events: 4, bytes: 20 }]);
        write(&mut state, vec![append(0, 3), append(1, 1)]);
        assert_eq!(told.next(&state), [SegmentLoad { segment: segment(1), events: 2, bytes: 10 }], "a repeat is none");
        write(&mut state, vec![Entry::Merge { segment: segment(0), source: segment(0x8000_0001) }]);
        assert_eq!(told.next(&state), [SegmentLoad { segment: segment(0), events: 6, bytes: 30 }]);
    }
}

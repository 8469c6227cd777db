//! The coordinator's truth: streams, their segments, and who owns which container. Pure.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use types::{IndexName, KeyRange, SegmentId, StreamCut, Timestamp};
use wire::{
    Service,
    coordinator::{NewStream, SegmentRange, StreamDescription},
    views::Placement,
};

use crate::{
    error::CoordinatorError,
    placement::{Changes, Placed, Store},
};

/// Streams of one installation: each costs a row here and a view.
pub const STREAMS_MAX: usize = 100_000;

/// Segments with which a stream begins.
pub const SEGMENTS_MAX: u16 = 64;

/// How far a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Its segments are being created.
    Creating,
    /// It can be used.
    Live,
    /// Its segments are being deleted.
    Deleting,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// What others see of it.
    pub description: StreamDescription,
    /// How far it is.
    pub phase: Phase,
}

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Writes down the number of containers at the first start, and checks it at every later one.
    Install {
        /// `common.container_count`.
        container_count: u16,
    },
    /// Begins a stream, or finds it.
    BeginStream(NewStream),
    /// All segments of the stream are created.
    EndStream {
        /// The stream.
        stream: u32,
        /// Its index.
        index: IndexName,
    },
    /// Begins the deletion of a stream.
    BeginDeletion {
        /// Its index.
        index: IndexName,
    },
    /// All segments of the stream are deleted.
    EndDeletion {
        /// The stream.
        stream: u32,
    },
    /// Looks at the living stores and places containers.
    Place {
        /// The living stores.
        stores: Vec<Store>,
        /// Shortest time between two moves for the sake of balance.
        rebalance_min_interval: Duration,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The installation has this many containers for ever.
    Installed {
        /// A power of two.
        container_count: u16,
    },
    /// A stream has a number; its segments are being created.
    StreamBegun {
        /// Its number, never used again.
        stream: u32,
        /// What was asked for.
        new: NewStream,
    },
    /// A stream can be used.
    StreamCreated {
        /// The stream.
        stream: u32,
    },
    /// A stream can be used no more.
    StreamDeletionBegun {
        /// The stream.
        stream: u32,
    },
    /// Nothing of the stream is left.
    StreamDeleted {
        /// The stream.
        stream: u32,
    },
    /// Containers have new owners.
    ContainersPlaced(Changes),
}

/// The coordinator's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// 0 until installed.
    container_count: u16,
    next_stream: u32,
    streams: BTreeMap<u32, Stream>,
    by_index: BTreeMap<IndexName, u32>,
    placed: Placed,
}

impl State {
    /// The stream of an index in whatever phase.
    pub fn stream(&self, index: &IndexName) -> Option<&Stream> {
        self.streams.get(self.by_index.get(index)?)
    }

    /// The description of a stream that can be used.
    pub fn describe(&self, index: &IndexName) -> Result<StreamDescription, CoordinatorError> {
        match self.stream(index) {
            Some(stream) if stream.phase == Phase::Live => Ok(stream.description.clone()),
            _ => Err(CoordinatorError::UnknownIndex(index.clone())),
        }
    }

    /// The streams that can be used, in order of creation.
    pub fn live(&self) -> impl Iterator<Item = &StreamDescription> {
        self.streams.values().filter(|s| s.phase == Phase::Live).map(|s| &s.description)
    }

    /// The streams whose creation or deletion was begun and not ended.
    pub fn pending(&self) -> impl Iterator<Item = &Stream> {
        self.streams.values().filter(|s| s.phase != Phase::Live)
    }

    /// Where every container is.
    pub fn placement(&self) -> Placement {
        self.placed.view(self.container_count)
    }

    fn begin(&self, new: NewStream) -> Result<Vec<Event>, CoordinatorError> {
        if self.container_count == 0 {
            return Err(CoordinatorError::NotInstalled);
        }
        if !(1..=SEGMENTS_MAX).contains(&new.segment_count) {
            return Err(CoordinatorError::SegmentCount(new.segment_count));
        }
        let Some(stream) = self.stream(&new.index) else {
            if self.streams.len() >= STREAMS_MAX {
                return Err(CoordinatorError::TooManyStreams(STREAMS_MAX));
            }
            return Ok(vec![Event::StreamBegun { stream: self.next_stream, new }]);
        };
        let there = &stream.description;
        if there.scope != new.scope {
            return Err(CoordinatorError::IndexNameTaken { index: new.index });
        }
        if stream.phase == Phase::Deleting {
            return Err(CoordinatorError::BeingDeleted(new.index));
        }
        // Epoch 0 has as many segments as were asked for; later epochs will be compared with what the first event asked.
        if there.segments.len() != usize::from(new.segment_count) || there.retention_days != new.retention_days {
            return Err(CoordinatorError::StreamDiffers { scope: new.scope, index: new.index });
        }
        Ok(Vec::new())
    }

    fn end(&self, stream: u32, index: IndexName) -> Result<Vec<Event>, CoordinatorError> {
        match self.streams.get(&stream).map(|s| s.phase) {
            Some(Phase::Creating) => Ok(vec![Event::StreamCreated { stream }]),
            Some(Phase::Live) => Ok(Vec::new()),
            Some(Phase::Deleting) | None => Err(CoordinatorError::Deleted(index)),
        }
    }

    fn begun(&self, stream: u32, new: &NewStream, created: Timestamp) -> Stream {
        let ranges = KeyRange::split_evenly(u32::from(new.segment_count));
        let segments = (0..).zip(ranges).map(|(number, range)| {
            let segment = SegmentId { stream, epoch: 0, number };
            SegmentRange { segment, container: segment.container(self.container_count), range }
        });
        let description = StreamDescription {
            stream,
            scope: new.scope.clone(),
            index: new.index.clone(),
            epoch: 0,
            segments: segments.collect(),
            created,
            retention_days: new.retention_days,
            scaling: new.scaling,
            retention: new.retention,
            tags: new.tags.clone(),
            sealed: false,
            head: StreamCut::default(),
        };
        Stream { description, phase: Phase::Creating }
    }

    fn set_phase(&mut self, stream: u32, phase: Phase) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.phase = phase;
        }
    }
}

impl host::ControlState for State {
    const SERVICE: Service = Service::Coordinator;
    type Command = Command;
    type Event = Event;
    type Error = CoordinatorError;

    fn decide(&self, command: Command, now: Timestamp) -> Result<Vec<Event>, CoordinatorError> {
        match command {
            Command::Install { container_count } => match self.container_count {
                0 => Ok(vec![Event::Installed { container_count }]),
                installed if installed == container_count => Ok(Vec::new()),
                installed => Err(CoordinatorError::ContainerCountChanged { installed, wanted: container_count }),
            },
            Command::BeginStream(new) => self.begin(new),
            Command::EndStream { stream, index } => self.end(stream, index),
            Command::BeginDeletion { index } => Ok(match (self.by_index.get(&index), self.stream(&index)) {
                (Some(number), Some(stream)) if stream.phase != Phase::Deleting => {
                    vec![Event::StreamDeletionBegun { stream: *number }]
                }
                _ => Vec::new(),
            }),
            Command::EndDeletion { stream } => match self.streams.get(&stream).map(|s| s.phase) {
                Some(Phase::Deleting) => Ok(vec![Event::StreamDeleted { stream }]),
                _ => Ok(Vec::new()),
            },
            Command::Place { stores, rebalance_min_interval } => {
                if self.container_count == 0 {
                    return Err(CoordinatorError::NotInstalled);
                }
                let may_rebalance =
                    self.placed.rebalanced().is_none_or(|last| now.since(last) >= rebalance_min_interval);
                let changes = self.placed.plan(self.container_count, &stores, may_rebalance);
                Ok(if changes.is_empty() { Vec::new() } else { vec![Event::ContainersPlaced(changes)] })
            }
        }
    }

    fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Installed { container_count } => self.container_count = *container_count,
            Event::StreamBegun { stream, new } => {
                let begun = self.begun(*stream, new, at);
                self.streams.insert(*stream, begun);
                self.by_index.insert(new.index.clone(), *stream);
                self.next_stream = stream + 1;
            }
            Event::StreamCreated { stream } => self.set_phase(*stream, Phase::Live),
            Event::StreamDeletionBegun { stream } => self.set_phase(*stream, Phase::Deleting),
            Event::StreamDeleted { stream } => {
                if let Some(gone) = self.streams.remove(stream) {
                    self.by_index.remove(&gone.description.index);
                }
            }
            Event::ContainersPlaced(changes) => self.placed.apply(changes, at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::ControlState;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn new(scope: &str, index: &str, segment_count: u16) -> NewStream {
        let (scope, index) = (scope.parse().unwrap(), index.parse().unwrap());
        NewStream { retention_days: Some(7), ..NewStream::fixed(scope, index, segment_count) }
    }

    fn run(state: &mut State, at: i64, command: Command) -> Result<Vec<Event>, CoordinatorError> {
        let at = Timestamp::from_millis(at);
        let events = state.decide(command, at)?;
        events.iter().for_each(|event| state.apply(event, at));
        Ok(events)
    }

    fn installed() -> State {
        let mut state = State::default();
        run(&mut state, 0, Command::Install { container_count: 8 }).unwrap();
        state
    }

    fn with_live(index: &str) -> State {
        let mut state = installed();
        run(&mut state, 1, Command::BeginStream(new("a", index, 2))).unwrap();
        run(&mut state, 2, Command::EndStream { stream: 0, index: index.parse().unwrap() }).unwrap();
        state
    }

    #[test]
    fn creation_is_begun_once_and_compared_afterwards() {
        let mut state = with_live("shop");
        for (asked, expected) in [
            (new("a", "shop", 2), Ok(vec![])),
            (new("b", "shop", 2), Err(CoordinatorError::IndexNameTaken { index: "shop".parse().unwrap() })),
            (
                new("a", "shop", 3),
                Err(CoordinatorError::StreamDiffers { scope: "a".parse().unwrap(), index: "shop".parse().unwrap() }),
            ),
            (new("a", "other", 0), Err(CoordinatorError::SegmentCount(0))),
            (new("a", "other", 65), Err(CoordinatorError::SegmentCount(65))),
        ] {
            assert_eq!(run(&mut state, 3, Command::BeginStream(asked.clone())), expected, "{asked:?}");
        }
        let fresh = State::default().decide(Command::BeginStream(new("a", "x", 1)), Timestamp::from_nanos(0));
        assert_eq!(fresh, Err(CoordinatorError::NotInstalled));
    }

    #[test]
    fn a_stream_is_seen_only_between_its_creation_and_its_deletion() {
        let shop: IndexName = "shop".parse().unwrap();
        let mut state = installed();
        run(&mut state, 1, Command::BeginStream(new("a", "shop", 4))).unwrap();
        assert_eq!((state.pending().count(), state.live().count()), (1, 0));
        assert_eq!(state.describe(&shop), Err(CoordinatorError::UnknownIndex(shop.clone())));
        run(&mut state, 2, Command::EndStream { stream: 0, index: shop.clone() }).unwrap();
        let there = state.describe(&shop).unwrap();
        assert_eq!((there.segments.len(), there.created), (4, Timestamp::from_millis(1)));
        assert!(there.segments.windows(2).all(|w| w[0].range.last + 1 == w[1].range.first));
        assert!(there.segments.iter().all(|s| s.container == s.segment.container(8)));
        run(&mut state, 3, Command::BeginDeletion { index: shop.clone() }).unwrap();
        assert_eq!((state.pending().count(), state.live().count()), (1, 0));
        let again = run(&mut state, 4, Command::BeginStream(new("a", "shop", 4)));
        assert_eq!(again, Err(CoordinatorError::BeingDeleted(shop.clone())));
        let late = run(&mut state, 4, Command::EndStream { stream: 0, index: shop.clone() });
        assert_eq!(late, Err(CoordinatorError::Deleted(shop.clone())));
        run(&mut state, 5, Command::EndDeletion { stream: 0 }).unwrap();
        assert_eq!(state.stream(&shop), None);
    }

    #[test]
    fn repeats_change_nothing_and_numbers_never_return() {
        let shop: IndexName = "shop".parse().unwrap();
        let mut state = with_live("shop");
        assert_eq!(run(&mut state, 3, Command::EndStream { stream: 0, index: shop.clone() }), Ok(vec![]));
        assert_eq!(run(&mut state, 3, Command::EndDeletion { stream: 0 }), Ok(vec![]));
        assert_eq!(run(&mut state, 3, Command::Install { container_count: 8 }), Ok(vec![]));
        run(&mut state, 4, Command::BeginDeletion { index: shop.clone() }).unwrap();
        assert_eq!(run(&mut state, 4, Command::BeginDeletion { index: shop.clone() }), Ok(vec![]));
        run(&mut state, 5, Command::EndDeletion { stream: 0 }).unwrap();
        assert_eq!(run(&mut state, 6, Command::BeginDeletion { index: shop }), Ok(vec![]));
        let again = run(&mut state, 7, Command::BeginStream(new("b", "shop", 1))).unwrap();
        assert!(matches!(again[..], [Event::StreamBegun { stream: 1, .. }]), "{again:?}");
    }

    #[test]
    fn the_number_of_containers_is_for_ever() {
        let refused = run(&mut installed(), 1, Command::Install { container_count: 16 });
        assert_eq!(refused, Err(CoordinatorError::ContainerCountChanged { installed: 8, wanted: 16 }));
    }

    #[test]
    fn balance_waits_for_its_interval_and_orphans_do_not() {
        let store = |name: &str| Store { replica: name.parse().unwrap(), started: Timestamp::from_nanos(1) };
        let place = |stores: &[Store]| Command::Place { stores: stores.to_vec(), rebalance_min_interval: INTERVAL };
        let mut state = installed();
        let (a, b, c) = (store("a"), store("b"), store("c"));
        for (at, stores, moved) in [
            (0, vec![a.clone()], 8),
            (10, vec![a.clone()], 0),
            (20, vec![a.clone(), b.clone()], 4),
            (30, vec![a.clone(), b.clone(), c.clone()], 0),
            (1_020, vec![a.clone(), b.clone(), c.clone()], 2),
            (1_030, vec![b.clone(), c.clone()], 3),
            (1_040, vec![], 8),
        ] {
            let events = run(&mut state, at, place(&stores)).unwrap();
            let changed: usize = events
                .iter()
                .map(|event| match event {
                    Event::ContainersPlaced(changes) => changes.placed.len() + changes.vacated.len(),
                    other => panic!("{other:?}"),
                })
                .sum();
            assert_eq!(changed, moved, "at {at}");
            let placed = if stores.is_empty() { 0 } else { 8 };
            assert_eq!(state.placement().assignments.len(), placed);
        }
    }

    #[test]
    fn the_state_reads_what_it_writes() {
        let mut state = with_live("shop");
        let stores = vec![Store { replica: "a".parse().unwrap(), started: Timestamp::from_nanos(1) }];
        run(&mut state, 3, Command::Place { stores, rebalance_min_interval: INTERVAL }).unwrap();
        assert_eq!(wire::decode::<State>(&wire::encode(&state)).unwrap(), state);
    }
}
